"""One wrong formula for every objective, and the test that notices it: `python -m tests.tools.mutations` shows all.

A mutation is made in memory: the functions of a file are given the code of its changed text while a test runs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from _pytest.monkeypatch import MonkeyPatch
from _pytest.outcomes import Failed


UNIT = "tests.unit.objectives."
GRADIENTS = UNIT + "test_expected_gradients."
EXACT = GRADIENTS + "test_the_expected_gradient_is_the_papers"
POLICY, BASE = UNIT + "test_policy_gradients.", UNIT + "test_objectives."


class Mutation(NamedTuple):
    """A change to a formula.

    Attributes:
        objective: its name in `seqgan_hf.objectives`.
        what: the mistake, in words.
        file: of `seqgan_hf`, without its ending.
        old, new: a part of the file's text, which stands there once, and what takes its place.
        test: dotted path of a test that passes, and fails with the mutation.
        arguments: of the test.
    """

    objective: str
    what: str
    file: str
    old: str
    new: str
    test: str
    arguments: tuple[Any, ...] = ()


MUTATIONS = [
    Mutation(
        "MLE",
        "a mean over sequences, not tokens",
        "objectives/mle",
        "tokens = real.mask.sum()",
        "tokens = real.mask.any(dim=1).sum()",
        GRADIENTS + "test_maximum_likelihood_at_the_uniform_generator",
    ),
    Mutation(
        "Reinforce",
        "the sign of the baseline",
        "objectives/reinforce",
        "return values - self._baseline(values, samples)",
        "return values + self._baseline(values, samples)",
        BASE + "test_policy_gradient_is_that_of_the_formula",
        ("batch",),
    ),
    Mutation(
        "SeqGAN",
        "completions value the token after theirs",
        "objectives/seqgan",
        "completions.prefix_length - 1)",
        "completions.prefix_length % totals.shape[1])",
        EXACT,
        ("SeqGAN",),
    ),
    Mutation(
        "ConstantReward",
        "a reward that grows along the batch",
        "objectives/controls",
        "torch.full_like(samples.ids, self.constant, dtype=torch.float32)",
        "torch.arange(samples.batch_size)[:, None].expand_as(samples.ids) / 9",
        EXACT,
        ("ConstantReward",),
    ),
    Mutation(
        "RandomReward",
        "a number for each token, not each sequence",
        "objectives/controls",
        "samples.batch_size, 1, device",
        "*samples.ids.shape, device",
        BASE + "test_controls_know_nothing_of_the_discriminator",
    ),
    Mutation(
        "ScratchGAN",
        "D in place of 2 D - 1",
        "objectives/scratchgan",
        "(2 * rewards(models.discriminator, samples) - 1)",
        "(rewards(models.discriminator, samples))",
        EXACT,
        ("ScratchGAN",),
    ),
    Mutation(
        "CoT",
        "a token is credited with its own divergence, too",
        "objectives/cot",
        ".flip(1).cumsum(dim=1).flip(1) - divergences",
        ".flip(1).cumsum(dim=1).flip(1)",
        UNIT + "test_cot.test_a_last_token_is_credited_with_nothing_but_its_own_divergence",
    ),
    Mutation(
        "Distillation",
        "KL(G || M) in place of KL(M || G)",
        "objectives/distillation",
        "fake, weights, forward=True)",
        "fake, weights, forward=False)",
        UNIT + "test_distillation.test_the_student_covers_what_its_teacher_writes",
    ),
    Mutation(
        "MaliGAN",
        "D in place of the ratio D / (1 - D)",
        "objectives/maligan",
        ".clamp(max=self.max_log_odds)",
        ".clamp(max=self.max_log_odds).sigmoid().log()",
        EXACT,
        ("MaliGAN",),
    ),
    Mutation(
        "DPG",
        "weights on samples of the generator as it is now",
        "objectives/dpg",
        'models["reference"], prompts',
        "models.generator, prompts",
        UNIT + "test_policy_gradients.test_dpg_draws_from_the_generator_as_the_objective_began",
        (None,),
    ),
    Mutation(
        "RankGAN",
        "one softmax over summed references",
        "objectives/rankgan",
        "return own - rest",
        "return (own.sum(dim=1) - rest.sum())[:, None]",
        EXACT,
        ("RankGAN",),
    ),
    Mutation(
        "PGBLEU",
        "matches are not clipped",
        "objectives/pgbleu",
        "sum(min(count, highest[ngram])",
        "sum(count * (highest[ngram] > 0)",
        EXACT,
        ("PGBLEU",),
    ),
    Mutation(
        "FunctionReward",
        "weights are left out",
        "objectives/functions",
        "total += weight * _numbers",
        "total += _numbers",
        EXACT,
        ("FunctionReward",),
    ),
    Mutation(
        "ORGAN",
        "lambda weighs the function",
        "objectives/organ",
        "1 - self.discriminator_weight)",
        "self.discriminator_weight)",
        EXACT,
        ("ORGAN",),
    ),
    Mutation(
        "StepGAN",
        "1 - D in place of D",
        "objectives/stepgan",
        "return rewards(models.discriminator, samples)",
        "return 1 - rewards(models.discriminator, samples)",
        EXACT,
        ("StepGAN",),
    ),
    Mutation(
        "MaskGAN",
        "D in place of log D",
        "objectives/maskgan",
        "torch.log(verdicts + 1e-7)",
        "verdicts",
        EXACT,
        ("MaskGAN",),
    ),
    Mutation(
        "SentiGAN",
        "the log-probability in place of the probability",
        "objectives/sentigan",
        "values * token_logprobs(models.generator, samples).exp()",
        "values",
        GRADIENTS + "test_sentigan_penalises_the_probability_even_by_a_constant",
    ),
    Mutation(
        "DPGAN",
        "the sum of a sequence's surprise in place of its mean",
        "objectives/dpgan",
        "means = rewards.sum(dim=1, keepdim=True) / samples.lengths[:, None]",
        "means = rewards.sum(dim=1, keepdim=True)",
        EXACT,
        ("DPGAN",),
    ),
    Mutation(
        "ColdGAN",
        "no importance weights",
        "objectives/coldgan",
        "return ratios.exp().clamp(max=self.max_weight) * advantages",
        "return advantages",
        GRADIENTS + "test_coldgans_weights_give_the_generators_own_gradient",
    ),
    Mutation(
        "TextGAIL",
        "compared with no real row",
        "objectives/textgail",
        "return (of_fake - of_real).sigmoid()",
        "return of_fake.sigmoid()",
        EXACT,
        ("TextGAIL",),
    ),
    Mutation(
        "GRPO",
        "the other direction of the divergence",
        "objectives/grpo",
        "torch.expm1(ratio)",
        "-ratio",
        GRADIENTS + "test_the_two_places_of_the_kl_follow_two_divergences",
        ("loss", (-1 / 6, 1 / 30, 2 / 15)),
    ),
    Mutation(
        "RLOO",
        "compared with a mean that holds the sample",
        "objectives/rloo",
        "(size / max(1, size - 1))",
        "(size / size)",
        EXACT,
        ("RLOO",),
    ),
    Mutation(
        "GAD",
        "the verdict in place of the score",
        "objectives/gad",
        "judge(models.discriminator, samples), samples)",
        "judge(models.discriminator, samples).sigmoid(), samples)",
        EXACT,
        ("GAD",),
    ),
    Mutation(
        "FGAN",
        "log-odds are cut off at one end only",
        "objectives/fgan",
        ".clamp(-self.clip, self.clip)",
        ".clamp(max=self.clip)",
        POLICY + "test_fgan_cuts_log_odds_off_at_both_ends",
    ),
    Mutation(
        "RelGAN",
        "the generator minimises the discriminator's loss of pairs",
        "objectives/relgan",
        "return shared_mean(F.softplus(margins), counted)",
        "return shared_mean(F.softplus(-margins), counted)",
        UNIT + "test_relgan.test_pairs_know_differences_only_and_both_players_play_the_same_game",
    ),
    Mutation(
        "GSGAN",
        "the temperature rises",
        "objectives/gsgan",
        "gone * (self.tau_end - self.tau_start)",
        "gone * (self.tau_start - self.tau_end)",
        UNIT + "test_relgan.test_the_temperature_of_soft_feedback_falls_in_a_straight_line",
    ),
    Mutation(
        "CatGAN",
        "real scores are compared with their own mean",
        "objectives/catgan",
        "real - mean_fake[real_labels]",
        "real - mean_real[real_labels]",
        UNIT + "test_relgan.test_one_class_is_the_relativistic_average_game",
    ),
    Mutation(
        "DGSAN",
        "ratios of tokens, not of sequences",
        "objectives/dgsan",
        "- old).sum(dim=1)",
        "- old).mean(dim=1)",
        UNIT + "test_dgsan.test_a_real_sequence_then_counts_by_the_doubt_of_the_discriminator",
    ),
    Mutation(
        "JSDGAN",
        "the number of training sequences with the wrong sign",
        "objectives/jsdgan",
        "-math.log(self._number)",
        "math.log(self._number)",
        UNIT + "test_jsdgan.test_the_gradient_is_that_of_the_divergence_from_the_training_set",
    ),
    Mutation(
        "TextGAN",
        "the discriminator brings the features together",
        "objectives/textgan",
        "loss.value - self.weight_mmd",
        "loss.value + self.weight_mmd",
        UNIT + "test_feature_matching.test_the_discriminator_of_textgan_tells_apart_and_keeps_features_apart",
        ("cnn",),
    ),
    Mutation(
        "FMGAN",
        "the transport plan without its transpose",
        "functional",
        "(plan + of_rows[:, None]).logsumexp(dim=0)",
        "(plan + of_rows).logsumexp(dim=1)",
        "tests.unit.test_distances.test_the_plan_of_six_is_the_best_assignment",
        (0,),
    ),
    Mutation(
        "LeakGAN",
        "the verdict does not reach the manager",
        "objectives/leakgan",
        "manager = -(fake.advantages * cosines)",
        "manager = -cosines",
        UNIT + "test_leakgan.test_losses_of_manager_and_worker_are_the_papers",
        (2,),
    ),
    Mutation(
        "LeakPretraining",
        "the manager flees where real text goes",
        "objectives/leakgan",
        "manager = -cosines.masked_fill(~ends, 0.0).sum() / tokens",
        "manager = cosines.masked_fill(~ends, 0.0).sum() / tokens",
        UNIT + "test_leakgan.test_each_parameter_has_a_gradient_from_its_own_loss_only",
        (True,),
    ),
]


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Within it the functions of the file have the changed code; closures and classes stay what they are."""
    module = importlib.import_module(f"seqgan_hf.{mutation.file.replace('/', '.')}")
    path = Path(module.__file__)
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.old!r} stands {text.count(mutation.old)} times in {path.name}")
    codes = dict(_codes(compile(text.replace(mutation.old, mutation.new), str(path), "exec", dont_inherit=True)))
    before = [(function, function.__code__) for function in _functions(module)]
    try:
        for function, code in before:
            function.__code__ = codes[code.co_qualname]
        yield
    finally:
        for function, code in before:
            function.__code__ = code


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner.co_qualname, inner
            yield from _codes(inner)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Functions, methods and properties that are written in a module, without their decorators."""
    for holder in (module, *(value for value in vars(module).values() if isinstance(value, type))):
        for value in vars(holder).values():
            function = inspect.unwrap(value.fget if isinstance(value, property) else value)
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function


def run(mutation: Mutation) -> None:
    """Call the test, with what `monkeypatch` is where it takes one."""
    path, _, name = mutation.test.rpartition(".")
    test = getattr(importlib.import_module(path), name)
    with MonkeyPatch.context() as monkeypatch:
        more = {"monkeypatch": monkeypatch} if "monkeypatch" in test.__code__.co_varnames else {}
        test(*mutation.arguments, **more)


def is_noticed(mutation: Mutation) -> bool:
    """Whether the test fails, by an assertion and nothing else."""
    with mutated(mutation):
        try:
            run(mutation)
        except (AssertionError, Failed):
            return True
    return False


if __name__ == "__main__":
    print("| objective | mutation | noticed by | |\n|---|---|---|---|")
    for each in MUTATIONS:
        run(each)
        outcome = "fails" if is_noticed(each) else "PASSES"
        print(f"| `{each.objective}` | {each.what} | `{each.test.rpartition('.')[2]}` | {outcome} |")
