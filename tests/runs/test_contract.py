"""What the trainer promises to objectives: samples, pairs, schedules, hooks and opponents, kept through a resume."""

from __future__ import annotations

import json
from itertools import product

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from seqgan_hf.errors import UserError
from seqgan_hf.objectives import (
    GAD,
    MLE,
    CatGAN,
    ConstantReward,
    Copy,
    CoT,
    Loss,
    Reinforce,
    RelGAN,
    ScratchGAN,
    TextGAIL,
    Turn,
)
from seqgan_hf.samples import Samples
from seqgan_hf.training import AdversarialTrainer, AdversarialTrainingArguments
from seqgan_hf.training.checkpoint import checkpoints
from tests.tools.small_runs import (
    BRIEF,
    SHORT,
    build,
    cut_and_resumed,
    finished,
    metrics,
    parameters,
    same,
    small_corpus,
    weights,
)
from tests.tools.tiny import BOS, build_discriminator, build_generator


@pytest.fixture(scope="module")
def corpus():
    return small_corpus()


def numbered(count: int, start: int = 0) -> Samples:
    """Sequences of 5 tokens, each another: the digits of its number."""
    digits = torch.tensor([[3 + number // 10, 3 + number % 10, 3, 3, 3] for number in range(start, start + count)])
    return Samples(torch.full((count, 1), BOS), digits, torch.ones_like(digits, dtype=torch.bool))


# --- Samples and updates ---------------------------------------------------------------------------------------------


class Thrice(Reinforce):
    """Three updates on one batch, weighted by the ratio of the generator to what it was when it drew the batch."""

    updates = 3

    def __init__(self):
        super().__init__()
        self.events, self.ratios = [], []

    def sample(self, models, real, max_new_tokens):
        self.events.append("sample")
        return super().sample(models, real, max_new_tokens)

    def credit(self, models, real, fake):
        self.events.append("credit")
        return super().credit(models, real, fake)

    def token_weights(self, models, advantages, logprobs, samples):
        ratio = (logprobs - samples.logprobs).exp()
        self.ratios.append(float((ratio - 1).abs().max()))
        return ratio * advantages

    def generator_loss(self, models, real, fake):
        self.events.append(fake.ids)
        return super().generator_loss(models, real, fake)

    def after_step(self, player, models):
        self.events.append("step")


@pytest.mark.parametrize("accumulated", [1, 2])
def test_several_updates_are_steps_on_one_batch_that_is_drawn_and_credited_once(corpus, tmp_path, accumulated):
    objective = Thrice()
    trainer = build(corpus, tmp_path / "run", objective, gradient_accumulation_steps=accumulated)
    trainer.train_generator(0, 1)
    words = [event if isinstance(event, str) else "loss" for event in objective.events]
    assert words == ["sample", "credit"] * accumulated + (["loss"] * accumulated + ["step"]) * 3
    ids = [event for event in objective.events if not isinstance(event, str)]
    for index, batch in enumerate(ids):
        assert torch.equal(batch, ids[index % accumulated])
    assert not torch.equal(ids[0], ids[-1]) or accumulated == 1
    assert trainer.session.state.global_step == 3
    first, later = objective.ratios[:accumulated], objective.ratios[accumulated:]
    assert max(first) < 1e-5 < 1e-3 < min(later), "ratios are to the policy that drew the batch"


class Ears(TrainerCallback):
    """Writes down what it hears of steps."""

    def __init__(self):
        self.heard = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.heard.append("begin")

    def on_step_end(self, args, state, control, **kwargs):
        self.heard.append("end")


def test_callbacks_hear_of_the_begin_and_the_end_of_every_step(corpus, tmp_path):
    """Steps of pretraining, of the discriminator, and all updates on a batch."""
    ears = Ears()
    trainer = build(corpus, tmp_path / "run", Thrice(), [ears], gradient_accumulation_steps=2, **BRIEF)
    trainer.train()
    assert ears.heard == ["begin", "end"] * trainer.session.state.global_step


def test_a_step_begins_before_its_samples_are_drawn(corpus, tmp_path):
    ears, objective = Ears(), Thrice()
    ears.heard = objective.events
    build(corpus, tmp_path / "run", objective, [ears]).train_generator(0, 1)
    events = [event if isinstance(event, str) else "loss" for event in objective.events]
    update = ["loss", "end", "step", "begin"]
    assert events == ["begin", "sample", "credit", *update, *update, *update[:-1]]


class GivenFakes(Reinforce):
    """The discriminator is shown these sequences; the generator learns from its own."""

    def __init__(self, given: Samples):
        super().__init__()
        self.given, self.shown, self.asked = given, [], None

    def fakes(self, models, prompts, max_new_tokens):
        self.asked = prompts
        return self.given

    def discriminator_loss(self, models, real, fake):
        self.shown.append(fake.ids)
        return super().discriminator_loss(models, real, fake)


class GivenSamples(GivenFakes):
    """Both learn from these."""

    def fakes(self, models, prompts, max_new_tokens):
        return super(GivenFakes, self).fakes(models, prompts, max_new_tokens)

    def sample(self, models, real, max_new_tokens):
        self.asked = real
        return self.given


@pytest.mark.parametrize("kind", [GivenFakes, GivenSamples])
def test_the_discriminator_is_shown_what_the_objective_draws_and_nothing_else(corpus, tmp_path, kind):
    objective = kind(numbered(20))
    trainer = build(corpus, tmp_path / "run", objective, num_fakes=20, discriminator_epochs=2)
    trainer.train_discriminator(0)
    assert objective.asked.batch_size == 20
    assert [len(ids) for ids in objective.shown] == [8, 8, 4] * 2
    for epoch in (objective.shown[:3], objective.shown[3:]):
        assert sorted(torch.cat(epoch).tolist()) == objective.given.ids.tolist()
    assert not torch.equal(objective.shown[0], objective.shown[3]), "another order in every epoch"


class Orders(Reinforce):
    """Keeps the training sequences in the order in which they come: of d-steps and of g-steps."""

    def __init__(self):
        super().__init__()
        self.orders = []

    def fakes(self, models, prompts, max_new_tokens):
        self.orders.append(prompts.ids)
        return super().fakes(models, prompts, max_new_tokens)

    def generator_loss(self, models, real, fake):
        self.orders.append(real.ids)
        return super().generator_loss(models, real, fake)


class PretrainingOrders(MLE):
    """The same of pretraining."""

    def __init__(self):
        super().__init__()
        self.orders = []

    def generator_loss(self, models, real, fake):
        self.orders.append(real.ids)
        return super().generator_loss(models, real, fake)


def test_no_unit_repeats_the_order_of_another(corpus, tmp_path):
    settings = BRIEF | {"pretrain_epochs": 2, "discriminator_pretrain_steps": 2, "rounds": 2, "discriminator_steps": 2}
    args = AdversarialTrainingArguments(output_dir=str(tmp_path / "run"), **(SHORT | settings))
    objective, pretraining = Orders(), PretrainingOrders()
    models = (build_generator("lstm", eos=None), build_discriminator("cnn"))
    AdversarialTrainer(*models, objective, args, corpus.train, pretraining=pretraining).train()
    orders = objective.orders + [torch.cat(pretraining.orders[epoch : epoch + 3]) for epoch in (0, 3)]
    assert sorted(map(len, orders)) == [16] * 2 + [48] * 8
    assert len({str(order[:16].tolist()) for order in orders}) == 10


# --- Pairs -----------------------------------------------------------------------------------------------------------


class Pairs(Reinforce):
    """Keeps what the discriminator is shown together."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def discriminator_loss(self, models, real, fake):
        self.seen.append((real, fake))
        return super().discriminator_loss(models, real, fake)


class Paired(Pairs):
    paired = True


def conditional(objective, folder, **settings) -> tuple[AdversarialTrainer, Samples]:
    """A trainer on 20 sequences, each with a prompt of its own."""
    prompts = torch.tensor([(BOS, *pair) for pair in product(range(3, 8), range(3, 7))])
    data = numbered(20)._replace(prompt=prompts)
    args = AdversarialTrainingArguments(output_dir=str(folder), **(SHORT | settings))
    models = (build_generator("lstm", eos=None), build_discriminator("cnn"))
    return AdversarialTrainer(*models, objective, args, data), data


def test_pairs_answer_the_same_prompt_in_every_epoch_and_in_the_last_batch(tmp_path):
    objective = Paired()
    trainer, data = conditional(objective, tmp_path / "run", discriminator_epochs=3)
    trainer.train_discriminator(0)
    assert [(real.batch_size, fake.batch_size) for real, fake in objective.seen] == [(8, 8), (8, 8), (4, 4)] * 3
    answers = {tuple(prompt): ids for prompt, ids in zip(data.prompt.tolist(), data.ids.tolist(), strict=True)}
    for real, fake in objective.seen:
        assert torch.equal(real.prompt, fake.prompt)
        assert real.ids.tolist() == [answers[tuple(prompt)] for prompt in real.prompt.tolist()]
    orders = [torch.cat([real.prompt for real, _ in objective.seen[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert orders[0] != orders[1] != orders[2]
    assert all(sorted(order) == sorted(data.prompt.tolist()) for order in orders)


@pytest.mark.parametrize(
    "objective", [GAD(group_size=4), TextGAIL(), RelGAN("wgan-gp"), CatGAN()], ids=lambda each: type(each).__name__
)
def test_a_discriminator_of_pairs_compares_answers_to_one_prompt(tmp_path, objective):
    """Of GAD, too, whose generator steps repeat each prompt."""
    trainer, data = conditional(objective, tmp_path / "run")
    seen, loss = [], objective.discriminator_loss
    objective.discriminator_loss = lambda models, real, fake: seen.append((real, fake)) or loss(models, real, fake)
    trainer.train_discriminator(0)
    for real, fake in seen:
        assert torch.equal(real.prompt, fake.prompt) and not torch.equal(real.ids, fake.ids)
    assert sorted(row for real, _ in seen for row in real.prompt.tolist()) == sorted(data.prompt.tolist())


def test_without_pairs_real_sequences_are_drawn_from_all_there_are(tmp_path):
    objective = Pairs()
    trainer, data = conditional(objective, tmp_path / "run", num_fakes=8, discriminator_epochs=8)
    trainer.train_discriminator(0)
    real = {tuple(row) for batch, _ in objective.seen for row in batch.prompt.tolist()}
    fake = {tuple(row) for _, batch in objective.seen for row in batch.prompt.tolist()}
    assert len(fake) == 8 < len(real)


def test_sequences_that_an_objective_cannot_learn_from_are_refused_before_the_run(tmp_path):
    with pytest.raises(UserError, match="class 11 is in no prompt of the training data"):
        conditional(CatGAN([3, 11]), tmp_path / "run")


# --- Objectives without an opponent ----------------------------------------------------------------------------------


def test_without_an_adversary_there_is_no_discriminator_anywhere(corpus, tmp_path):
    args = AdversarialTrainingArguments(output_dir=str(tmp_path / "run"), **(SHORT | BRIEF))
    generator = build_generator("lstm", eos=None)
    trainer = AdversarialTrainer(generator, None, ConstantReward(), args, corpus.train, None, corpus.tokenizer)
    trainer.train()
    assert list(trainer.models.named()) == ["generator"] and "discriminator" not in trainer.parts.players
    record = metrics(tmp_path / "run")
    assert [(line["phase"], line["global_step"]) for line in record] == [("pretrain_generator", 3), ("adversarial", 4)]
    assert not any("discriminator" in name for line in record for name in line)
    assert not (tmp_path / "run" / "discriminator").exists()
    for path in checkpoints(tmp_path / "run" / "checkpoints"):
        assert json.loads((path / "complete.json").read_text())["models"] == ["generator"]
        assert not (path / "discriminator").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["discriminator"] is None


def test_a_discriminator_that_nobody_asks_is_left_alone(corpus, tmp_path):
    given = build_discriminator("cnn").eval()
    before = parameters(given)
    trainer = build(corpus, tmp_path / "run", ConstantReward(), discriminator=given, **BRIEF)
    trainer.train()
    assert trainer.models.discriminator is None and same(before, parameters(given)) and not given.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in given.parameters())
    assert not (tmp_path / "run" / "discriminator").exists()


def test_an_opponent_that_is_missing_or_of_another_kind_is_refused(corpus, tmp_path):
    args = AdversarialTrainingArguments(output_dir=str(tmp_path / "run"), **SHORT)
    with pytest.raises(UserError, match="no discriminator for the objective Reinforce: expected a sequence class"):
        AdversarialTrainer(build_generator("lstm", eos=None), None, Reinforce(), args, corpus.train)
    with pytest.raises(UserError, match="CNN.* for the objective CoT: expected a causal language model"):
        build(corpus, tmp_path / "run", CoT())
    with pytest.raises(UserError, match="GPT2LMHeadModel for the objective Reinforce: expected a sequence classifier"):
        build(corpus, tmp_path / "run", Reinforce(), discriminator=build_generator("gpt2", eos=None))


def test_an_objective_refuses_its_opponent_before_anything_is_trained(corpus, tmp_path):
    with pytest.raises(UserError, match="ScratchGAN with a discriminator that judges whole sequences"):
        build(corpus, tmp_path / "run", ScratchGAN())
    trainer = build(corpus, tmp_path / "run", ScratchGAN(), discriminator=build_discriminator("per_token"))
    assert trainer.session.state.global_step == 0


class Picky(MLE):
    """Says which models it was asked to check."""

    def check(self, models, batch_size, conditional):
        super().check(models, batch_size, conditional)
        raise UserError(f"{len(models.players())} players")


def test_the_objective_of_the_pretraining_is_asked_as_well(corpus, tmp_path):
    args = AdversarialTrainingArguments(output_dir=str(tmp_path / "run"), **SHORT)
    models = (build_generator("lstm", eos=None), build_discriminator("cnn"))
    for objective, pretraining, players in ((Reinforce(), Picky(), 2), (Picky(), MLE(), 1)):
        with pytest.raises(UserError, match=f"{players} players"):
            AdversarialTrainer(*models, objective, args, corpus.train, pretraining=pretraining)


class NeedsCopies(MLE):
    def copies(self):
        return {"reference": Copy()}


@pytest.mark.parametrize("pretraining", [Reinforce(), NeedsCopies()])
def test_pretraining_that_needs_other_models_is_refused(corpus, tmp_path, pretraining):
    args = AdversarialTrainingArguments(output_dir=str(tmp_path / "run"), **SHORT)
    models = (build_generator("lstm", eos=None), build_discriminator("cnn"))
    with pytest.raises(UserError, match=f"retraining={type(pretraining).__name__} needs more models") as error:
        AdversarialTrainer(*models, Reinforce(), args, corpus.train, pretraining=pretraining)
    assert len(str(error.value).splitlines()) == 1


# --- The schedule ----------------------------------------------------------------------------------------------------


class Alternating(Reinforce):
    """Pretrains both players in turns."""

    def schedule(self, turns):
        return [Turn("pretrain_discriminator", 1), Turn("pretrain_generator", 1)] * 2 + [turns[-1]]


def test_an_objective_states_its_schedule_which_is_resumed_from_inside(corpus, tmp_path):
    def make():
        return {"objective": Alternating()}

    settings = BRIEF | {"rounds": 2, "discriminator_steps": 1}
    whole = finished(make, corpus, tmp_path / "whole", **settings)
    record = metrics(tmp_path / "whole")
    assert [(line["phase"], line.get("step") or line.get("epoch") or line.get("round")) for line in record] == [
        ("pretrain_discriminator", 1),
        ("pretrain_generator", 1),
        ("pretrain_discriminator", 2),
        ("pretrain_generator", 2),
        ("adversarial", 1),
        ("adversarial", 2),
    ]
    # d-steps have 6 optimizer steps, epochs 3: the turns end after step 6, 9, 15 and 18
    for step, place in {8: (1, 1, 0), 11: (1, 2, 0), 17: (2, 2, 0), 26: (2, 2, 1)}.items():
        cut, resumed = cut_and_resumed(make, corpus, tmp_path / f"cut-{step}", step, **settings)
        done = cut.parts.units.done
        assert (done["pretrain_generator"], done["pretrain_discriminator"], done["adversarial"]) == place
        assert same(weights(whole), weights(resumed)) and metrics(tmp_path / f"cut-{step}") == record, f"cut at {step}"


# --- Hooks and gradients ---------------------------------------------------------------------------------------------


class Watching(Reinforce):
    """Which parameters want gradients in each loss, where dropout is on, and when hooks are called; NaN if told."""

    def __init__(self, bad: tuple[str, ...] = ()):
        super().__init__()
        self.bad, self.calls, self.seen, self.stepped = bad, [], [], []

    def look(self, player, models, loss):
        self.calls.append(player)
        flags = [{p.requires_grad for p in model.parameters()} for model in (models.generator, models.discriminator)]
        drops = any(m.training for m in models.discriminator.modules() if isinstance(m, torch.nn.Dropout))
        self.seen.append((player, *flags, drops))
        bad = f"{player} {self.calls.count(player)}" in self.bad
        return Loss(loss.value * float("nan"), loss.metrics) if bad else loss

    def generator_loss(self, models, real, fake):
        return self.look("generator", models, super().generator_loss(models, real, fake))

    def discriminator_loss(self, models, real, fake):
        return self.look("discriminator", models, super().discriminator_loss(models, real, fake))

    def after_step(self, player, models):
        self.stepped.append(f"{player} {self.calls.count(player)}")


def test_after_step_follows_every_step_of_a_player_but_none_that_was_skipped(corpus, tmp_path):
    objective = Watching(bad=("generator 2", "discriminator 1", "discriminator 3"))
    trainer = build(corpus, tmp_path / "run", objective)
    trainer.train_generator(0, 3)
    assert objective.stepped == ["generator 1", "generator 3"]
    trainer.train_discriminator(0)
    assert objective.stepped[2:] == [f"discriminator {number}" for number in (2, 4, 5, 6)]
    assert trainer.session.state.global_step == 9, "skipped steps count"


def test_after_step_is_told_of_pretraining_only_if_it_is_that_of_the_objective(corpus, tmp_path):
    objective, pretraining = Watching(), MLE()
    args = AdversarialTrainingArguments(output_dir=str(tmp_path / "run"), **SHORT)
    models = (build_generator("lstm", eos=None), build_discriminator("cnn"))
    trainer = AdversarialTrainer(*models, objective, args, corpus.train, pretraining=pretraining)
    trainer.pretrain_generator(0)
    assert objective.stepped == [] and pretraining.steps == 3


def test_only_the_player_whose_step_it_is_has_gradients(corpus, tmp_path):
    objective = Watching()
    trainer = build(corpus, tmp_path / "run", objective)
    frozen = trainer.models.generator.get_input_embeddings().weight.requires_grad_(False)  # by the user
    trainer.train_generator(0, 2)
    assert objective.seen == [("generator", {True, False}, {False}, False)] * 2
    objective.seen.clear()
    trainer.train_discriminator(0)
    assert objective.seen == [("discriminator", {False}, {True}, True)] * 6
    assert not frozen.requires_grad, "what the user froze stays frozen"
    players = (trainer.models.generator, trainer.models.discriminator)
    assert all(p.requires_grad for model in players for p in model.parameters() if p is not frozen)


# --- A language model as the opponent --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_a_language_model_as_opponent_is_trained_resumed_and_saved_as_one(corpus, tmp_path, kind):
    def make():
        opponent = build_generator(kind, eos=None, seed=1)
        return {"objective": CoT("full", "moving_average"), "discriminator": opponent}

    start = parameters(make()["discriminator"])
    # 3 + 6 steps of pretraining; a round has one g-step and 2 d-steps of 6
    settings = BRIEF | {"rounds": 2, "discriminator_steps": 2}
    whole = finished(make, corpus, tmp_path / "whole", **settings)
    cut, resumed = cut_and_resumed(make, corpus, tmp_path / "cut", 13, **settings)
    assert cut.parts.units.done["discriminator_steps"] == 1
    assert same(weights(whole), weights(resumed)) and metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    end = parameters(whole.models.discriminator)
    assert not any(torch.equal(old, new) for old, new in zip(start, end, strict=True))
    folder = tmp_path / "whole" / "discriminator"
    assert same(end, parameters(AutoModelForCausalLM.from_pretrained(folder)))
    saved = AutoTokenizer.from_pretrained(folder)
    generators = AutoTokenizer.from_pretrained(tmp_path / "whole" / "generator")
    assert saved.get_vocab() == generators.get_vocab() and saved("3 4 5").input_ids == generators("3 4 5").input_ids
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["discriminator"]["kind"] == "language_model" and summary["objective"]["name"] == "CoT"


# --- Parts and callbacks ---------------------------------------------------------------------------------------------


class Count:
    """A part of the user's own."""

    def __init__(self, value: int = 0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.mark.parametrize("place", ["shared", "own"])
def test_a_new_part_is_named_once_to_be_in_every_checkpoint(corpus, tmp_path, place):
    settings = {"pretrain_epochs": 1, "rounds": 0, "eval_epochs": 0}
    first = build(corpus, tmp_path / "run", ConstantReward(), **settings)
    getattr(first.parts.checkpoints, place)["mine"] = Count(7)
    first.train()
    again = build(corpus, tmp_path / "run", ConstantReward(), resume_from_checkpoint=True, **settings)
    getattr(again.parts.checkpoints, place)["mine"] = part = Count()
    again.parts.checkpoints.open_run()
    assert part.value == 7


def test_warnings_of_collapse_go_on_counting_after_a_resume(corpus, tmp_path, caplog):
    """Rewards without spread are reported after 5 rounds in a row, once."""
    settings = {"pretrain_epochs": 0, "eval_rounds": 0}
    said = []
    for rounds in (3, 7):
        caplog.clear()
        build(
            corpus, tmp_path / "run", ConstantReward(), rounds=rounds, resume_from_checkpoint=rounds > 3, **settings
        ).train()
        said.append([line for line in caplog.messages if "for 5 rounds: every sample gets nearly the same" in line])
    assert [len(lines) for lines in said] == [0, 1]


def test_intervals_of_an_evaluation_stand_beside_its_values(corpus, tmp_path):
    build(corpus, tmp_path / "run", ConstantReward(), **(BRIEF | {"eval_epochs": 1})).train()
    measured, unmeasured = metrics(tmp_path / "run")
    assert "intervals" not in unmeasured and set(measured["intervals"]) >= {"nll_test", "nll_oracle"}
    for name, (low, high) in measured["intervals"].items():
        assert low < measured[name] < high
    assert not any(name.endswith(("_se", "_low", "_high")) for name in measured)
