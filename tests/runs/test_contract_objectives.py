"""Every objective resumes bit for bit; the hooks of `Reinforce`; what credit logs; copies without dropout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.verdicts import rewards
from seqgan_hf.objectives import Copy, CoT, Models, Objective, Reinforce, SeqGAN
from seqgan_hf.training import AdversarialTrainer, Interrupted
from seqgan_hf.training.callbacks.collapse import CollapseWarnings
from seqgan_hf.training.checkpoint import checkpoints
from tests.tools.documents import metrics_explained
from tests.tools.objectives import ROWS, build_objective
from tests.tools.small_runs import StopAfter, build, metrics, same, small_corpus, text, weights
from tests.tools.tiny import EOS, build_discriminator, build_generator


# 3 optimizer steps of G, 2 of D; then rounds of 2 g-steps and one d-step of 2. Nothing is measured.
BRIEF = {"pretrain_epochs": 1, "discriminator_pretrain_steps": 1, "eval_epochs": 0, "eval_rounds": 0}
BRIEF |= {"rounds": 2, "generator_steps": 2, "discriminator_steps": 1, "discriminator_batch_size": 48}


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


class Watched(CollapseWarnings):
    """Finds every number unhealthy, at once, and keeps what is said."""

    def __init__(self):
        super().__init__(spread_bound=float("inf"), accuracy_margin=2.0, patience=1)
        self.said = []

    def update(self, metrics):
        self.said += super().update(metrics)
        return self.said


class Runs:
    """Of one objective in a folder, of three rounds."""

    def __init__(self, name: str, corpus, folder: Path):
        self.name, self.corpus, self.folder, self.watched = name, corpus, folder, Watched()
        self.whole = self.make("whole", callbacks=[self.watched])
        self.whole.train()

    def make(self, folder: str, **more) -> AdversarialTrainer:
        row, objective, corpus = ROWS[self.name], build_objective(self.name), self.corpus
        kind, eos = row.opponents[0], None
        if row.conditional:
            corpus, eos = replace(corpus, train=row.data(48), eval=row.data(20, 1)), EOS
        opponent = build_generator(kind, eos, seed=1) if objective.adversary == "language_model" else None
        opponent = opponent or build_discriminator("cnn" if kind == "none" else kind, labels=objective.labels)
        players = {"generator": build_generator(row.generators[0], eos), "discriminator": opponent}
        return build(corpus, self.folder / folder, objective, **players, **(BRIEF | {"rounds": 3} | more))


@pytest.fixture(scope="module", params=ROWS)
def runs(request, corpus, tmp_path_factory):
    return Runs(request.param, corpus, tmp_path_factory.mktemp(request.param))


# Their discriminators rank, or keep features apart, and do not decide.
WITHOUT_DECISIONS = {"RankGAN", "FMGAN"}


def test_warnings_of_collapse_watch_every_objective(runs):
    """The spread of rewards wherever there are some, and the accuracy of whatever tells real from generated."""
    kind = type(runs.whole.objective)
    decides = kind.adversary == "classifier" and runs.name.split(",")[0] not in WITHOUT_DECISIONS
    expected = {"nearly the same reward": issubclass(kind, Reinforce), "guesses": decides, "always wins": decides}
    said = {words: sum(words in warning for warning in runs.watched.said) for words in expected}
    assert said == expected  # once in three rounds


# Explained on the page, and logged only with settings that the rows of the tests leave at their defaults.
SOMETIMES = {"kl", "kl_reference", "likelihood_weight", "nll_train", "unbiased", "kl_in", "gradient_penalty"}


def test_every_number_that_a_run_records_is_explained_on_the_page(runs):
    """Or in a section that the page links; and nothing is explained that there is not."""
    lines = (runs.folder / "whole" / "metrics.jsonl").read_text().splitlines()
    found = {name for line in lines for name in json.loads(line)}
    own, linked = metrics_explained(runs.name.split(",")[0])
    assert found <= own | linked
    if runs.name != "LeakPretraining":  # which shares LeakGAN's page
        assert own - found <= SOMETIMES


def test_every_objective_resumes_bit_for_bit_from_inside_a_round(runs):
    whole, make = runs.whole, runs.make
    steps = 10 if whole.objective.adversary else 6  # with the first g-step of the second round of three
    stop = StopAfter(steps + 3 * (whole.objective.updates - 1))
    stop.trainer = make("cut", callbacks=[stop])
    with pytest.raises(Interrupted):
        stop.trainer.train()
    assert (stop.trainer.parts.units.done["adversarial"], stop.trainer.parts.units.done["generator_steps"]) == (1, 1)
    torch.manual_seed(123)  # resuming must not depend on what happened since
    resumed = make("cut", resume_from_checkpoint=True)
    resumed.train()
    assert same(weights(whole), weights(resumed)) and not same(weights(whole), weights(stop.trainer))
    assert metrics(runs.folder / "whole") == metrics(runs.folder / "cut")


def test_a_language_model_of_a_smaller_vocabulary_is_refused_as_opponent(corpus, tmp_path):
    with pytest.raises(UserError, match="the discriminator knows 7 token ids: expected 13") as error:
        build(corpus, tmp_path / "run", CoT(), discriminator=build_generator("lstm", None, 7))
    assert len(str(error.value).splitlines()) == 1


# --- Copies ----------------------------------------------------------------------------------------------------------


class Reference(Reinforce):
    def copies(self):
        return {"reference": Copy()}


def test_copies_begin_as_the_generator_that_pretraining_left(corpus, tmp_path):
    build(corpus, tmp_path / "run", Reference(), save_every=1, save_total_limit=9, **BRIEF).train()
    kept = checkpoints(tmp_path / "run" / "checkpoints")
    models = [json.loads((folder / "complete.json").read_text())["models"] for folder in kept]
    players = ["generator", "discriminator"]
    assert models == [players, players, [*players, "reference"], [*players, "reference"]]
    generator = AutoModelForCausalLM.from_pretrained(kept[1] / "generator")
    for folder in kept[2:]:
        reference = AutoModelForCausalLM.from_pretrained(folder / "reference")
        assert same(list(generator.parameters()), list(reference.parameters()))


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_copies_have_no_dropout(corpus, tmp_path, kind):
    """Though they begin as copies of a generator that maximum likelihood has left in train mode."""
    generator = build_generator(kind, eos=None)
    for module in generator.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    trainer = build(corpus, tmp_path / "run", Reference(), generator=generator, **BRIEF)
    trainer.pretrain_generator(0)
    assert any(module.training for module in generator.modules() if isinstance(module, torch.nn.Dropout))
    trainer.models.begin()
    reference = trainer.models["reference"]
    with torch.no_grad():
        first, second = (token_logprobs(reference, corpus.train) for _ in range(2))
    assert torch.equal(first, second)
    assert all(module.training for module in reference.modules() if isinstance(module, torch.nn.RNNBase)), "for cuDNN"


# --- The hooks of Reinforce ------------------------------------------------------------------------------------------


class Hooks(Reinforce):
    """Notes every hook when it is done, with the shapes of what it was given and of what it gave."""

    updates = 2

    def __init__(self):
        super().__init__("leave_one_out")
        self.done, self.generator, self.passed = [], None, []

    def reward(self, models, samples, real):
        self.generator = models.generator
        found = super().reward(models, samples, real)
        self.done.append(("reward", samples.ids.shape, real.ids.shape, found.shape))
        return found

    def action_values(self, models, samples, real):
        found = super().action_values(models, samples, real)
        self.done.append(("action_values", samples.ids.shape, real.ids.shape, found.shape))
        return found

    def advantages(self, models, values, samples):
        found = super().advantages(models, values, samples)
        self.done.append(("advantages", values.shape, samples.ids.shape, found.shape))
        return found

    def token_weights(self, models, advantages, logprobs, samples):
        self.done.append(("token_weights", advantages.shape, logprobs.shape, samples.ids.shape))
        assert not (advantages.requires_grad or logprobs.requires_grad or samples.logprobs.requires_grad)
        assert torch.equal(advantages, samples.advantages)
        torch.testing.assert_close(logprobs, token_logprobs(self.generator, samples).detach())
        self.passed.append((samples.logprobs.clone(), logprobs))
        return super().token_weights(models, advantages, logprobs, samples)


def test_hooks_are_called_in_their_order_with_their_shapes(corpus, tmp_path):
    trainer = build(corpus, tmp_path / "run", Hooks(), **BRIEF)
    trainer.train_generator(0, 1)
    batch, row = (16, 5), (16,)
    assert trainer.objective.done == [
        ("reward", batch, batch, row),
        ("action_values", batch, batch, batch),
        ("advantages", batch, batch, batch),
        ("token_weights", batch, batch, batch),
        ("token_weights", batch, batch, batch),
    ]
    (drawn, first), (still, second) = trainer.objective.passed
    assert torch.equal(drawn, still), "log-probabilities of the draw are filled once"
    torch.testing.assert_close(drawn, first)
    assert (first - second).abs().max() > 1e-4, "the current ones are those after the first update"


def test_logprobs_are_filled_for_several_updates_only_and_those_of_the_sample_are_kept():
    generator, samples = build_generator("lstm").eval(), text(6)
    models = Models(generator, build_discriminator("cnn"))
    objective = Reinforce()
    assert objective.credit(models, samples, samples).samples.logprobs is None
    objective.updates = 2
    with torch.no_grad():
        filled = objective.credit(models, samples, samples).samples.logprobs
        torch.testing.assert_close(filled, token_logprobs(generator, samples))
        own = samples._replace(logprobs=filled - 1)
        assert torch.equal(objective.credit(models, samples, own).samples.logprobs, own.logprobs)


class RewardOfRows(Reinforce):
    def reward(self, models, samples, real):
        return samples.lengths * 2.0

    def expected(self, models, samples, verdicts, logprobs):
        return (samples.lengths * 2.0)[:, None].expand_as(logprobs)


class RewardOfTokens(Reinforce):
    def reward(self, models, samples, real):
        return samples.ids * 0.1

    def expected(self, models, samples, verdicts, logprobs):
        return samples.ids * 0.1


class ActionValues(Reinforce):
    def action_values(self, models, samples, real):
        return torch.arange(5.0).expand_as(samples.ids)

    def expected(self, models, samples, verdicts, logprobs):
        return torch.arange(5.0).expand_as(logprobs)


class Advantages(Reinforce):
    def advantages(self, models, values, samples):
        return values**2

    def expected(self, models, samples, verdicts, logprobs):
        return (verdicts**2)[:, None].expand_as(logprobs)


class TokenWeights(Reinforce):
    def token_weights(self, models, advantages, logprobs, samples):
        return advantages * logprobs.exp()

    def expected(self, models, samples, verdicts, logprobs):
        return verdicts[:, None] * logprobs.exp()


class TokenWeightsOfDraw(Reinforce):
    """The ratio to a policy that found every token half as likely: 2."""

    def sample(self, models, real, max_new_tokens):
        return real._replace(logprobs=token_logprobs(models.generator, real) - torch.tensor(2.0).log())

    def token_weights(self, models, advantages, logprobs, samples):
        return advantages * (logprobs - samples.logprobs).exp()

    def expected(self, models, samples, verdicts, logprobs):
        return 2 * verdicts[:, None].expand_as(logprobs)


class RewardInRollouts(SeqGAN):
    """Rollouts ask the same hook: where every sequence earns 3, every token is worth 3."""

    def reward(self, models, samples, real):
        return torch.full((samples.batch_size,), 3.0)

    def expected(self, models, samples, verdicts, logprobs):
        return torch.full_like(logprobs, 3.0)


@pytest.mark.parametrize(
    "kind",
    [RewardOfRows, RewardOfTokens, ActionValues, Advantages, TokenWeights, TokenWeightsOfDraw, RewardInRollouts],
)
def test_each_hook_alone_changes_the_weights_of_the_loss(kind):
    """-mean_b sum_t w_t log G(y_t), and its gradient, with weights by hand that no gradient passes through."""
    generator, objective = build_generator("lstm").eval(), kind()
    models = Models(generator, build_discriminator("cnn").eval())
    real = text(6)
    with torch.no_grad():
        fake = objective.credit(
            models, real, objective.sample(models, real, 5) if kind is TokenWeightsOfDraw else real
        ).samples
        verdicts = rewards(models.discriminator, real)
        by_hand = objective.expected(models, real, verdicts, token_logprobs(generator, real))
    loss = objective.generator_loss(models, real, fake).value
    expected = -(by_hand * token_logprobs(generator, real)).sum() / 6
    torch.testing.assert_close(loss, expected)
    parameters = list(generator.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(one, parameters) for one in (loss, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    plain = Reinforce()
    with torch.no_grad():
        without = plain.generator_loss(models, real, plain.credit(models, real, real).samples).value
    assert abs(float(loss.detach() - without)) > 1e-2, "it makes a difference"


# --- What is logged --------------------------------------------------------------------------------------------------


class Thrice(Reinforce):
    """Credit logs 0 and the loss 1 under one name, so that their mean tells how often each was logged."""

    updates = 3

    def credit(self, models, real, fake):
        credit = super().credit(models, real, fake)
        return credit._replace(metrics={**credit.metrics, "mixed": 0.0})

    def generator_loss(self, models, real, fake):
        loss = super().generator_loss(models, real, fake)
        return loss._replace(metrics={**loss.metrics, "mixed": 1.0})


@pytest.mark.parametrize("accumulated", [1, 2])
def test_what_credit_logs_counts_once_a_batch_and_what_the_loss_logs_once_an_update(corpus, tmp_path, accumulated):
    settings = BRIEF | {"pretrain_epochs": 0, "discriminator_pretrain_steps": 0, "rounds": 1}
    trainer = build(corpus, tmp_path / "run", Thrice(), gradient_accumulation_steps=accumulated, **settings)
    trainer.train_generator(0, 2)
    logged = {name: len(values) for name, values in trainer.parts.progress.state_dict().items()}
    batches = 2 * accumulated
    assert (logged["reward"], logged["reward_std"], logged["action_value"]) == (batches,) * 3
    assert (logged["nll_policy"], logged["generator_grad_norm"]) == (3 * batches, 6)
    trainer = build(corpus, tmp_path / "run", Thrice(), gradient_accumulation_steps=accumulated, **settings)
    trainer.train()
    (line,) = metrics(tmp_path / "run")
    assert line["mixed"] == pytest.approx(3 / 4)


def test_the_default_credit_and_state_of_an_objective_are_empty():
    class Plain(Objective):
        def generator_loss(self, models, real, fake):
            raise NotImplementedError

    samples = text(3)
    credit = Plain().credit(Models(build_generator("lstm")), samples, samples)
    assert credit.samples is samples and credit.metrics == {}
    assert Plain().state_dict() == {} and Plain().copies() == {}
