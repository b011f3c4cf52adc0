"""What holds of the settings of every objective: defaults as on its page, bounds, and nothing lost on the way."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seqgan_hf import objectives
from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.objectives import (
    DGSAN,
    DPG,
    DPGAN,
    FGAN,
    FMGAN,
    GRPO,
    GSGAN,
    JSDGAN,
    MLE,
    ORGAN,
    PGBLEU,
    RLOO,
    ColdGAN,
    CoT,
    FunctionReward,
    LeakGAN,
    LeakPretraining,
    MaliGAN,
    MaskGAN,
    Models,
    RankGAN,
    Reinforce,
    RelGAN,
    ScratchGAN,
    SentiGAN,
    SeqGAN,
    TextGAIL,
    TextGAN,
)
from tests.tools.documents import method_page, section
from tests.tools.objectives import LAST_ID, OBJECTIVES, build_opponent
from tests.tools.small_runs import ROOT, text
from tests.tools.tiny import BOS, PAD, build_discriminator, build_generator


NEEDED = {"FunctionReward": {"functions": LAST_ID}, "ORGAN": {"functions": LAST_ID}}
WORDS = {"none": None, "yes": True, "true": True, "no": False, "false": False}


def test_every_objective_has_a_page_that_the_choice_by_need_links():
    exported = [name for name in objectives.__all__ if issubclass(getattr(objectives, name), objectives.Objective)]
    pages = {name: method_page(name) for name in exported if name != "Objective"}
    index = ROOT / "docs" / "methods" / "index.md"
    assert {*pages.values()} == {*index.parent.glob("*.md")} - {index}
    assert all(f"`{name}`" in page.read_text() for name, page in pages.items() if page.stem != name.lower())
    assert set(re.findall(r"\]\((\w+)\.md\)", index.read_text())) == {page.stem for page in pages.values()}


def value(word: str):
    if word in WORDS:
        return WORDS[word]
    return float(word.replace(",", "")) if word[0].isdigit() else word


def defaults() -> list[tuple[str, str, object]]:
    """Objective, setting and default of every row in the tables of settings that names as many of both."""
    found = []
    for name in OBJECTIVES:
        known = inspect.signature(getattr(objectives, name)).parameters
        settings = section(method_page(name), "settings")
        for row in re.findall(r"^\| (`.+?) \|[^|]*\| ([^|]*) \|", settings, re.MULTILINE):
            names = re.findall(r"`([a-z_]+)`", row[0])
            here = re.sub(r"\(.*\)", "", row[1]).replace("`", "").strip()
            words = re.findall(r"\d[\d,]*\.?\d*(?:e-\d+)?(?=,|$)|[A-Za-z_]\w*", here)
            if len(names) == len(words) and names[0] in known and ", ".join(words) == here:
                found += zip([name] * len(names), names, map(value, words), strict=True)
    elsewhere = {
        ("JSDGAN", "num_sequences"),
        ("CoT", "credit"),
        ("CoT", "baseline"),
        ("ORGAN", "reads"),
        ("GSGAN", "tau_steps"),
        ("ConstantReward", "reward"),
    }
    return [row for row in found if row[:2] not in elsewhere and row[1] != "kl_in"]


def test_pages_name_defaults():
    assert len(defaults()) > 60


@pytest.mark.parametrize(("name", "setting", "expected"), defaults())
def test_a_default_is_that_of_the_page(name, setting, expected):
    found = getattr(getattr(objectives, name)(**NEEDED.get(name, {})), setting)
    assert (None if found == "none" else found) == expected


SHARED = {
    "baseline": "batch",
    "baseline_momentum": 0.25,
    "likelihood_weight": 0.3,
    "kl": 0.2,
    "rollouts": 3,
    "rollout_lag": 0.5,
    "max_rows": 7,
    "updates": 2,
    "clip": 0.3,
    "clip_high": 0.4,
    "level": "token",
    "beta_max": 7.0,
    "adapt": "lin",
    "beta_steps": 9,
    "straight_through": True,
}
POLICY_GRADIENTS = [name for name in OBJECTIVES if issubclass(getattr(objectives, name), Reinforce)]


@pytest.mark.parametrize("setting", SHARED)
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "CoT"])  # whose baseline is another's
def test_a_setting_of_several_objectives_arrives(name, setting):
    try:
        objective = getattr(objectives, name)(**NEEDED.get(name, {}), **{setting: SHARED[setting]})
    except TypeError:  # not one of its own
        assert setting not in inspect.signature(getattr(objectives, name)).parameters
        return
    assert getattr(objective, setting) == SHARED[setting]


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_a_batch_of_one_has_nothing_to_compare(name):
    row, objective = OBJECTIVES[name], getattr(objectives, name)(**NEEDED.get(name, {}))
    models = Models(build_generator(row.generators[0]), build_opponent(row.opponents[0]))
    if objective.baseline == "leave_one_out":
        with pytest.raises(UserError, match="baseline=leave_one_out with batches of one sequence"):
            objective.check(models, 1, False)
    objective.check(models, 8, False)


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.opponents != ("none",)])
def test_an_opponent_is_asked_for(name):
    objective, generator = getattr(objectives, name)(**NEEDED.get(name, {})), build_generator("lstm")
    with pytest.raises(UserError, match=f"no discriminator for the objective {name}"):
        objective.check(Models(generator), 8, False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaliGAN(baseline_weight=0.0),
        lambda: MaliGAN(baseline_weight=1.0),
        lambda: MaliGAN(max_log_odds=0.5),
        lambda: MaliGAN(max_log_odds=80.0),
        lambda: MaliGAN(likelihood_prefix=0, likelihood_prefix_decay=0.0),
        lambda: MaliGAN(completions=2),
        lambda: MaliGAN(likelihood_prefix=0, kl=0.1),
        lambda: DPG(exponent=0.1, max_log_odds=80.0, group_size=2),
        lambda: RankGAN(references=1, gamma=0.0),
        lambda: PGBLEU(max_n=1, references=1),
        lambda: ORGAN(LAST_ID, discriminator_weight=0.0),
        lambda: ORGAN(LAST_ID, discriminator_weight=1.0),
        lambda: MaskGAN(discount=0.0, max_advantage=0.1),
        lambda: MaskGAN(discount=1.0),
        lambda: ScratchGAN(discount=0.0),
        lambda: ScratchGAN(discount=1.0),
        lambda: DPGAN(real_weight=0.0, max_reward=0.1, discount=0.0),
        lambda: DPGAN(discount=1.0),
        lambda: ColdGAN(mixture=0.0, max_weight=0.1, memory=0),
        lambda: GRPO(group_size=2, clip_high=0.1),
        lambda: GRPO(clip=0.99, clip_high=3.0),
        lambda: RLOO(group_size=2),
        lambda: TextGAIL(demonstrations=0.0, demonstration_steps=1, updates=1),
        lambda: TextGAIL(demonstrations=1.0),
        lambda: FGAN(clip=40.0),
        lambda: FGAN(clip=0.5),
        lambda: SeqGAN(rollouts=0, rollout_lag=0.0, max_rows=1),
        lambda: JSDGAN(num_sequences=1),
        lambda: DGSAN(snapshot_every=1),
        lambda: FMGAN(outer=1, inner=1, ipot_beta=0.5, beta=0.5),
        lambda: TextGAN(kernel_widths=[0.5], weight_mmd=0.0, beta=0.5),
        lambda: RelGAN(beta_max=0.5, beta_steps=1, gradient_penalty=0.0),
        lambda: GSGAN(tau_start=0.5, tau_end=0.5),
        lambda: LeakGAN(rank_delta=0.0, pretrain_cycles=1),
        lambda: MLE(scheduled_sampling=1.0, scheduled_sampling_steps=1),
        lambda: Reinforce(baseline_momentum=0.0),
    ],
)
def test_settings_at_their_bounds_are_taken(make):
    assert make().updates >= 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MaliGAN(max_log_odds=80.5), "max_log_odds=80.5"),
        (lambda: MaliGAN(baseline_weight=1.5), "baseline_weight=1.5"),
        (lambda: MaliGAN(likelihood_prefix_decay=-0.5), "likelihood_prefix_decay=-0.5"),
        (lambda: DPG(exponent=0.0), "exponent=0.0"),
        (lambda: DPG(exponent=float("inf")), "exponent=inf"),
        (lambda: DPG(max_log_odds=0.0), "max_log_odds=0.0"),
        (lambda: DPG(max_log_odds=80.5), "max_log_odds=80.5"),
        (lambda: DPG(group_size=1), "group_size=1"),
        (lambda: DPGAN(discount=1.5), "discount=1.5"),
        (lambda: MaskGAN(discount=1.5), "discount=1.5"),
        (lambda: ScratchGAN(discount=1.5), "discount=1.5"),
        (lambda: FGAN(clip=40.5), "clip=40.5"),
        (lambda: FMGAN(beta=0.0), "beta=0.0"),
        (lambda: FMGAN(beta=float("inf")), "beta=inf"),
        (lambda: FMGAN(ipot_beta=0.0), "ipot_beta=0.0"),
        (lambda: FMGAN(ipot_beta=float("inf")), "ipot_beta=inf"),
        (lambda: DPGAN(real_weight=float("inf")), "real_weight=inf"),
        (lambda: RankGAN(gamma=float("inf")), "gamma=inf"),
        (lambda: MaliGAN(likelihood_prefix_decay=float("inf")), "likelihood_prefix_decay=inf"),
        (lambda: TextGAN(beta=float("inf")), "beta=inf"),
        (lambda: TextGAN(weight_mmd=float("inf")), "weight_mmd=inf"),
        (lambda: TextGAN(kernel_widths=[float("inf")]), r"kernel_widths=\[inf\]"),
        (lambda: GSGAN(tau_start=0.0), "tau_start=0.0"),
        (lambda: ColdGAN(memory=-1), "memory=-1"),
        (lambda: TextGAIL(clip_high=-0.5), "clip_high=-0.5"),
        (lambda: GRPO(clip=1.0), "clip=1.0"),
        (lambda: GRPO(clip_high=-0.5), "clip_high=-0.5"),
        (lambda: PGBLEU(references=0), "references=0"),
        (lambda: SeqGAN(rollouts=-1), "rollouts=-1"),
        (lambda: SeqGAN(rollout_lag=1.0), "rollout_lag=1.0"),
        (lambda: SeqGAN(max_rows=0), "max_rows=0"),
        (lambda: Reinforce(baseline_momentum=1.0), "baseline_momentum=1.0"),
    ],
)
def test_settings_beyond_their_bounds_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


NO_NUMBERS = [
    (RankGAN, "gamma"),
    (MaskGAN, "discount"),
    (MaskGAN, "max_advantage"),
    (DPGAN, "real_weight"),
    (DPGAN, "max_reward"),
    (DPGAN, "discount"),
    (ColdGAN, "temperature"),
    (ColdGAN, "mixture"),
    (ColdGAN, "max_weight"),
    (GRPO, "clip"),
    (GRPO, "clip_high"),
    (TextGAIL, "clip_high"),
    (TextGAIL, "demonstrations"),
    (TextGAIL, "demonstration_advantage"),
    (MaliGAN, "baseline_weight"),
    (MaliGAN, "max_log_odds"),
    (MaliGAN, "likelihood_prefix_decay"),
    (DPG, "exponent"),
    (DPG, "max_log_odds"),
    (ScratchGAN, "discount"),
    (FGAN, "clip"),
]


@pytest.mark.parametrize(("kind", "setting"), NO_NUMBERS)
def test_what_is_no_number_is_refused(kind, setting):
    with pytest.raises(UserError, match=f"{setting}=nan"):
        kind(**{setting: float("nan")})


def test_two_sequences_are_enough_for_an_unbiased_discrepancy():
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    TextGAN(unbiased=True).check(models, 2, False)
    TextGAN(unbiased=False).check(models, 1, False)
    with pytest.raises(UserError, match="unbiased"):
        TextGAN(unbiased=True).check(models, 1, False)


DRAWING = [
    name
    for name, row in OBJECTIVES.items()
    if getattr(objectives, name).draws and row.generators != ("leak",) and name != "MaliGAN"
]


@pytest.mark.parametrize("name", DRAWING)
def test_a_padded_prompt_is_continued_as_one(name):
    objective = getattr(objectives, name)(**OBJECTIVES[name].settings)
    models = Models(build_generator("lstm"), None, objective.copies())
    models.begin()
    prompt = torch.tensor([[PAD, PAD, BOS, 3], [PAD, BOS, 4, 5], [BOS, 6, 7, 8], [PAD, PAD, BOS, 9]] * 2)
    real = sample(models.generator, prompt, 4, prompt_mask=prompt != PAD)
    fake = objective.sample(models, real, 4)
    assert torch.equal(fake.prompt_mask, fake.prompt != PAD) and not fake.prompt_mask.all()


class OnSequences(nn.Module):
    """One verdict on each sequence: that of another discriminator on its last token."""

    def __init__(self, judge: nn.Module):
        super().__init__()
        self.judge, self.config, self.device = judge, judge.config, judge.device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        of_tokens = self.judge(input_ids, attention_mask=attention_mask).logits[..., 0]
        return SimpleNamespace(logits=of_tokens.gather(1, attention_mask.long().sum(dim=1, keepdim=True) - 1))


@pytest.mark.parametrize("name", ["MaliGAN", "DPG", "FGAN", "GAD", "TextGAIL"])
def test_of_verdicts_on_every_token_the_one_on_the_last_counts(name):
    objective, judge = getattr(objectives, name)(), build_discriminator("per_token").eval()
    fake, real = text(8, 1), text(8, 2)
    assert fake.lengths.unique().numel() > 1
    expected = objective.reward(Models(None, OnSequences(judge)), fake, real)
    assert expected.shape == (8,) and expected.unique().numel() > 1
    torch.testing.assert_close(objective.reward(Models(None, judge), fake, real), expected)


@pytest.mark.parametrize("rollouts", [0, 2])
def test_completions_are_judged_by_the_verdict_on_their_last_token(rollouts):
    generator, judge, fake, found = (
        build_generator("lstm").eval(),
        build_discriminator("per_token").eval(),
        text(8, 1),
        [],
    )
    for discriminator in (judge, OnSequences(judge)):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(SeqGAN(rollouts).action_values(Models(generator, discriminator), fake, fake))
    torch.testing.assert_close(*found)
    assert found[0].shape == fake.ids.shape and found[0].unique().numel() > 4


def test_an_objective_of_its_own_kind_of_generator_is_refused_another():
    models = Models(build_generator("lstm"), build_discriminator("cnn"))
    for name in ("LeakGAN", "LeakPretraining"):
        with pytest.raises(UserError, match=f"{name} with the generator RNNGeneratorForCausalLM"):
            getattr(objectives, name)().check(models, 8, False)
    LeakPretraining().check(Models(build_generator("leak")), 8, False)


def test_a_snapshot_is_taken_anew_after_as_many_steps_as_before_an_interruption():
    objective, generator = DGSAN(snapshot_every=3), build_generator("lstm")
    models = Models(generator, None, objective.copies())
    models.begin()
    objective.load_state_dict({"steps": 2})
    with torch.no_grad():
        generator.lm_head.weight.add_(1.0)
    assert not torch.equal(models["snapshot"].lm_head.weight, generator.lm_head.weight)
    objective.after_step("generator", models)
    assert torch.equal(models["snapshot"].lm_head.weight, generator.lm_head.weight)
    assert objective.state_dict() == {"steps": 3}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_an_objective_keeps_in_a_checkpoint_is_taken_back(name):
    objective = getattr(objectives, name)(**OBJECTIVES[name].settings)
    state = {
        key: 3 + place if isinstance(value, int | float) else value
        for place, (key, value) in enumerate(objective.state_dict().items())
    }
    objective.load_state_dict(state)
    assert objective.state_dict() == state


# --- What is logged --------------------------------------------------------------------------------------------------


def logged(name: str, **more) -> tuple[dict, Models]:
    """Of one step of both players."""
    objective = getattr(objectives, name)(**OBJECTIVES[name].settings | more)
    generator = build_generator(OBJECTIVES[name].generators[0])
    models = Models(generator, build_opponent(OBJECTIVES[name].opponents[0]), objective.copies())
    models.begin()
    torch.manual_seed(0)
    real, found, fake = text(8), {}, None
    if objective.draws:
        with torch.no_grad():
            fake, metrics = objective.credit(models, real, objective.sample(models, real, 5))
        found |= metrics
    found |= objective.generator_loss(models, real, fake).metrics
    if models.discriminator is not None:
        found |= objective.discriminator_loss(models, real, objective.fakes(models, real, 5)).metrics
    return {key: float(value) for key, value in found.items()}, models


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("MaliGAN", {"likelihood_prefix": None}),
        ("SentiGAN", {}),
        ("DPGAN", {}),
        ("GRPO", {"kl_in": "reward"}),
        ("GRPO", {"kl_in": "loss"}),
        ("GAD", {}),
        ("TextGAIL", {}),
        ("ORGAN", {}),
    ],
)
def test_the_weights_of_likelihood_and_kl_are_logged(name, more):
    found, _ = logged(name, likelihood_weight=0.5, kl=0.1, **more)
    assert {"nll_train", "kl_reference"} <= found.keys() and found["nll_train"] > 0


@pytest.mark.parametrize("updates", [1, 2])
def test_the_kl_that_is_logged_is_the_same_wherever_it_is_paid(updates):
    """And from the passes that pay it: the reference is run once, the generator once more if the reward needs it."""
    generator, batch, found, passes = build_generator("lstm").eval(), text(8), [], []
    generator.base_model.register_forward_hook(lambda model, *_: passes.append(model is generator.base_model))
    for kl_in in ("reward", "loss"):
        objective = GRPO(kl=0.1, kl_in=kl_in, updates=updates)
        models = Models(generator, build_opponent("cnn"), objective.copies())
        models.begin()
        with torch.no_grad():
            models["reference"].lm_head.bias += torch.arange(13.0) / 13
            for model in (generator, models["reference"]):
                token_logprobs(model, batch)  # a model is tried at its first pass
            passes.clear()
            samples, metrics = objective.credit(models, batch, batch)
        found.append((metrics | objective.generator_loss(models, batch, samples).metrics)["kl_reference"])
        in_credit = updates > 1 or kl_in == "reward"
        assert (passes.count(True), passes.count(False)) == (in_credit + 2, 1)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)
    assert found[0].abs() > 0.1


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.opponents != ("none",)])
def test_what_a_discriminator_adds_to_its_loss_is_added(name):
    """`regularization`, of any classifier; `discriminator_loss` is logged without it."""
    objective, row = getattr(objectives, name)(**OBJECTIVES[name].settings), OBJECTIVES[name]
    if objective.adversary != "classifier":
        return
    generator, opponent = build_generator(row.generators[0]), build_opponent(row.opponents[-1]).eval()
    models, losses, real = Models(generator, opponent, objective.copies()), [], text(8, 1)
    fake = objective.fakes(models, real, 5)
    for added in (0.0, 3.0):
        opponent.regularization = lambda added=added: torch.tensor(added)
        torch.manual_seed(0)
        losses.append(objective.discriminator_loss(models, real, fake))
    torch.testing.assert_close(losses[1].value - losses[0].value, torch.tensor(3.0))
    torch.testing.assert_close(losses[1].metrics["discriminator_loss"], losses[0].metrics["discriminator_loss"])


def test_an_opponents_likelihoods_are_logged_in_nats_a_token():
    _, models = logged("DPGAN")
    real, fake = text(8, 1), text(8, 2)
    found = DPGAN(real_weight=0.5).discriminator_loss(models, real, fake)
    for name, part in (("nll_opponent_real", real), ("nll_opponent_fake", fake)):
        expected = -token_logprobs(models.discriminator, part)[part.mask].mean()
        torch.testing.assert_close(found.metrics[name], expected)
    torch.testing.assert_close(found.metrics["discriminator_loss"], found.value.detach())


def test_a_reference_is_kept_where_one_is_asked_for():
    asked = [GRPO(kl=0.1), GRPO(kl=0.1, kl_in="loss"), Reinforce(kl=0.1), RLOO()]
    assert all(objective.copies().keys() == {"reference"} for objective in asked)
    assert not any(objective.copies() for objective in (GRPO(), RLOO(kl=0.0), Reinforce()))


def test_other_defaults():
    assert not CoT().full and CoT().score.baseline == "leave_one_out" and not GRPO().kl_loss
    assert GSGAN().beta_steps == 5000 and FunctionReward(LAST_ID).rollouts == 0
    assert FunctionReward(LAST_ID).functions.reads == ORGAN(LAST_ID).functions.reads == "texts"
    assert SentiGAN().labels == ("FAKE", "REAL")
