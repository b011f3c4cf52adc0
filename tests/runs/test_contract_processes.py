"""What the trainer promises to objectives on two processes: one gradient, one set of weights, the same resume."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from transformers import TrainerCallback

from seqgan_hf import objectives
from seqgan_hf.data.reading import read_as_text
from seqgan_hf.data.tokenization import integer_tokenizer
from seqgan_hf.objectives import FGAN, CoT, Reinforce
from seqgan_hf.samples import Samples
from seqgan_hf.training import AdversarialTrainer, AdversarialTrainingArguments, Interrupted
from tests.tools.judges import letter_tokenizer
from tests.tools.objectives import CONDITIONAL, OBJECTIVES, ROWS, build_objective, build_opponent
from tests.tools.small_runs import HALVES, StopAfter, metrics, same, text, weights
from tests.tools.tiny import BOS, build_discriminator, build_generator
from tests.tools.two_processes import on_two


# On 48 sequences: 3 optimizer steps of G, 6 of D; then rounds of one g-step and one d-step of 6. Nothing is measured.
BRIEF = {"pretrain_epochs": 1, "discriminator_pretrain_steps": 1, "eval_epochs": 0, "eval_rounds": 0}
BRIEF |= {"rounds": 2, "generator_steps": 1, "discriminator_steps": 1, "save_every": 0}


def build(folder, objective, opponent, data=None, callbacks=None, kind="lstm", **settings) -> AdversarialTrainer:
    args = AdversarialTrainingArguments(output_dir=str(folder), **(HALVES | BRIEF | settings))
    data = text(48) if data is None else data
    return AdversarialTrainer(build_generator(kind), opponent, objective, args, data, callbacks=callbacks)


# --- The same gradients ----------------------------------------------------------------------------------------------

# All whose step on given samples draws nothing: rollouts are left out. By name, and what else is tried.
WITHOUT_ROLLOUTS = {"rollouts": 0, "baseline": "leave_one_out"}
FUNCTION = {"functions": "tests.tools.tables.last_ids", "reads": "ids"}
CASES = {
    "MLE": ({}, "none"),
    "Reinforce": ({"baseline": "batch", "likelihood_weight": 0.5}, "cnn"),
    "Reinforce, leave one out": ({"baseline": "leave_one_out"}, "cnn"),
    "SeqGAN": (WITHOUT_ROLLOUTS, "rnn"),
    "ConstantReward": ({}, "none"),
    "ScratchGAN": ({}, "per_token"),
    "ScratchGAN, leave one out": ({"baseline": "leave_one_out"}, "per_token"),
    "MaliGAN": ({}, "cnn"),
    "DPG": ({}, "cnn"),
    "DPG, groups": ({"group_size": 4}, "cnn"),
    "RankGAN": ({"references": 5, "gamma": 5.0} | WITHOUT_ROLLOUTS, "cnn"),
    "PGBLEU": ({"references": 12, "max_n": 1}, "none"),
    "FunctionReward": (FUNCTION, "none"),
    "ORGAN": (FUNCTION | WITHOUT_ROLLOUTS, "cnn"),
    "StepGAN": ({"decreasing": True}, "per_token"),
    "MaskGAN": ({}, "per_token"),
    "SentiGAN": ({"rollouts": 0}, "cnn"),
    "DPGAN": ({"discount": 0.9}, "lstm"),
    "ColdGAN": ({"max_weight": 2.0, "level": "token", "memory": 0}, "cnn"),
    "TextGAIL": ({"demonstrations": 0.6, "updates": 1}, "cnn"),  # 10 rows of 16, 2 of them on the first process
    "TextGAIL, a few": ({"demonstrations": 0.2, "updates": 2}, "cnn"),  # 3 rows of 16, on the second alone
    "GRPO": ({}, "cnn"),
    "GRPO, shares": ({"scale": False, "length_normalized": True}, "cnn"),
    "RLOO": ({"kl": 0.0}, "cnn"),
    "GAD": ({"kl": 0.0}, "cnn"),
    "FGAN": ({"divergence": "squared_hellinger"} | WITHOUT_ROLLOUTS, "cnn"),
    "Distillation": (OBJECTIVES["Distillation"].settings, "none"),
    "DGSAN": ({}, "none"),
    "JSDGAN": ({"num_sequences": 48}, "none"),
    "CoT": ({}, "lstm"),
    "CoT, GPT-2": ({}, "gpt2"),
    "CoT, full": ({"credit": "full"}, "lstm"),
    "CoT, full, moving average": ({"credit": "full", "baseline": "moving_average"}, "lstm"),
}
# Others' steps draw.
ELSEWHERE = {"RandomReward", "LeakGAN", "LeakPretraining", "RelGAN", "GSGAN", "CatGAN", "TextGAN", "FMGAN"}
CASES |= {
    name: (row.settings, row.opponents[0]) for name, row in CONDITIONAL.items() if name.split(",")[0] not in ELSEWHERE
}
CASES["SentiGAN, two classes"] = ({"classes": [3, 4], "rollouts": 0}, "cnn")


class Gradients(TrainerCallback):
    """What the optimizer is about to follow; `trainer` is set once it is built."""

    def __init__(self):
        self.found, self.trainer = [], None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        for model in self.trainer.models.players().values():
            self.found.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])


def gradients(folder, share: slice) -> dict[str, list[torch.Tensor]]:
    """Of one step of each player, on a share of 16 real and 16 generated sequences."""
    found = {}
    for name, (settings, opponent) in CASES.items():
        seen, objective = Gradients(), getattr(objectives, name.split(",")[0])(**settings)
        rows = CONDITIONAL[name].data if name in CONDITIONAL else text
        players = objective, build_opponent(opponent, objective.labels)
        seen.trainer = trainer = build(folder, *players, rows(48), callbacks=[seen], generator_max_grad_norm=0.0)
        real, fake = rows(16, 1).select(share), rows(16, 2).select(share)
        if "ColdGAN" in name:
            fake = fake._replace(logprobs=-2.0 * fake.mask)
        objective.sample = lambda models, real, max_new_tokens, fake=fake: fake
        trainer.generator_step(objective, [real], trainer.parts.players["generator"])
        found[name] = seen.found[0]
        if opponent == "none":
            continue
        trainer.models.discriminator.eval()
        player = trainer.parts.players["discriminator"]
        player.backward(objective.discriminator_loss(trainer.models, real, fake))
        player.step()
        found[f"{name}, D"] = seen.found[-1]
    return found


def near(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    scale = max(float(gradient.abs().max()) for gradient in one)
    assert scale > 1e-3, "nothing to compare"
    room = max(1e-5 * scale, 1e-7)  # terms of about 1 cancel where D knows nothing yet
    return all(torch.allclose(a, b, rtol=0, atol=room) for a, b in zip(one, other, strict=True))


def _gradients_of_half(rank, folder):
    return gradients(folder, slice(8 * rank, 8 * rank + 8))


def test_two_processes_follow_the_gradient_of_one(tmp_path):
    """Sequences of unequal length, so that a mean of means is not the mean."""
    both = on_two(_gradients_of_half, tmp_path / "run")
    whole = gradients(tmp_path / "run", slice(0, 16))
    assert {name.split(",")[0] for name in whole} == OBJECTIVES.keys() - ELSEWHERE
    for name in whole:
        assert same(both[0][name], both[1][name]), f"{name}: not the same on both processes"
        assert near(whole[name], both[0][name]), f"{name}: not the gradient of the whole batch"


# --- Whole runs ------------------------------------------------------------------------------------------------------


def _every_objective(rank, folder):
    """The weights before and after a run of each."""
    games = {}
    for name, row in ROWS.items():
        objective = build_objective(name)
        games[name] = objective, build_opponent(row.opponents[0], objective.labels)
    found, letters = {}, letter_tokenizer("bert")
    reader = read_as_text(build_discriminator("bert", len(letters)), letters, integer_tokenizer(13, BOS))
    games["a judge that reads text"] = FGAN(), reader
    for name, (objective, opponent) in games.items():
        row = ROWS.get(name, OBJECTIVES["FGAN"])
        trainer = build(folder / name, objective, opponent, row.data(16), kind=row.generators[0], rounds=1)
        players = trainer.models.players().values()
        start = [parameter.detach().clone() for model in players for parameter in model.parameters()]
        trainer.train()
        found[name] = start, weights(trainer)
    return found


def test_every_objective_ends_with_the_same_weights_on_both_processes(tmp_path):
    one, other = on_two(_every_objective, tmp_path)
    for name in one:
        (start, end), (_, others) = one[name], other[name]
        assert same(end, others), name
        untrained = sum(torch.equal(old, new) for old, new in zip(start, end, strict=False))
        # the losses of RelGAN's rows know differences of scores only, and nothing of the biases of the last two layers
        assert untrained == (2 if name.split(",")[0] == "RelGAN" else 0), f"{name}: untrained"


def _cooperate(rank, folder):
    """CoT against each kind of language model, to the end; and interrupted on one process, and resumed."""

    def make(kind: str, name: str, **more) -> AdversarialTrainer:
        objective = CoT("full", "moving_average")
        return build(folder / f"{kind}-{name}", objective, build_generator(kind, seed=1), **more)

    ends = {}
    for kind, step in {"lstm": 10, "gpt2": 12}.items():  # the first round's g-step; its d-step
        whole = make(kind, "whole")
        whole.train()
        stop = StopAfter(step)
        stop.trainer = make(kind, "cut", callbacks=[stop] if rank else [])
        with pytest.raises(Interrupted):
            stop.trainer.train()
        torch.manual_seed(123)
        resumed = make(kind, "cut", resume_from_checkpoint=True)
        resumed.train()
        ends[kind] = weights(whole), weights(resumed), dict(stop.trainer.parts.units.done)
    return ends


def test_cooperative_training_on_two_processes_is_one_run_that_can_be_interrupted(tmp_path):
    one, other = on_two(_cooperate, tmp_path)
    places = {kind: (done["generator_steps"], done["discriminator_steps"]) for kind, (_, _, done) in one.items()}
    assert places == {"lstm": (1, 0), "gpt2": (1, 1)}
    for kind in one:
        assert same(one[kind][0], other[kind][0]), f"{kind}: not the same on both processes"
        assert same(one[kind][0], one[kind][1]) and same(other[kind][0], other[kind][1]), f"{kind}: resumed"
        assert metrics(tmp_path / f"{kind}-whole") == metrics(tmp_path / f"{kind}-cut")


class Paired(Reinforce):
    """Keeps what the discriminator is shown together."""

    paired = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def discriminator_loss(self, models, real, fake):
        self.seen.append((real.prompt, real.ids, fake.prompt))
        return super().discriminator_loss(models, real, fake)


def conditional() -> Samples:
    """20 sequences, each with a prompt of its own that its first two tokens repeat."""
    prompts = torch.tensor([(BOS, *pair) for pair in product(range(3, 8), range(3, 7))])
    ids = torch.cat([prompts[:, 1:], torch.full((20, 3), 3)], dim=1)
    return Samples(prompts, ids, torch.ones_like(ids, dtype=torch.bool))


def _pairs(rank, folder):
    objective = Paired()
    trainer = build(folder, objective, build_discriminator("cnn"), conditional(), discriminator_epochs=2)
    trainer.train_discriminator(0)
    return objective.seen


def test_pairs_stay_together_on_each_process(tmp_path):
    """Each process answers 10 of the 20 prompts, in batches of 4, 4 and 2."""
    shares = []
    for seen in on_two(_pairs, tmp_path / "run"):
        assert [len(real) for real, _, _ in seen] == [4, 4, 2] * 2
        for real, ids, fake in seen:
            assert torch.equal(real, fake) and torch.equal(real[:, 1:], ids[:, :2])
        epochs = [torch.cat([real for real, _, _ in part]).tolist() for part in (seen[:3], seen[3:])]
        assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]
        shares += epochs[0]
    assert sorted(shares) == conditional().prompt.tolist()
