"""The residual model of a generator and a discriminator, against exact values; and evaluations with it."""

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from seqgan_hf.commands import main
from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.arguments import EvaluationArguments, SuiteSettings
from seqgan_hf.evaluation.likelihood import LIKELIHOODS, measure_likelihoods, nll
from seqgan_hf.evaluation.loading import LoadedGenerator, draw_samples, encode_texts
from seqgan_hf.evaluation.record import Estimate
from seqgan_hf.evaluation.residual import Residual, draw_residual
from seqgan_hf.evaluation.run import evaluate_generator, run_evaluation
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.generation.verdicts import realness
from seqgan_hf.models import CNNDiscriminatorConfig, CNNDiscriminatorForSequenceClassification
from seqgan_hf.samples import Samples
from tests.tools.small_language import REFERENCES, TRAIN


EXPONENT = 0.8


def discriminator(vocab_size: int) -> CNNDiscriminatorForSequenceClassification:
    """One that has not learnt, but whose log-odds differ by some nats."""
    torch.manual_seed(0)
    tokens = {"vocab_size": vocab_size, "pad_token_id": 0}
    config = CNNDiscriminatorConfig(embedding_size=6, filter_sizes=[1, 2], num_filters=[4, 4], **tokens)
    model = CNNDiscriminatorForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.45)
    return model


@pytest.fixture(scope="module")
def toy():
    """Generator, oracle and discriminator over the 27 sequences of 3 tokens out of 3, and these."""
    generator, oracle = (build_oracle(3, hidden_size=4, seed=seed) for seed in (1, 2))
    ids = torch.tensor(list(product(range(3), repeat=3)))
    every = Samples(torch.zeros(27, 1).long(), ids, torch.ones_like(ids).bool())
    return LoadedGenerator("toy", generator, None), oracle, discriminator(3), every


@pytest.fixture(scope="module")
def drawn(toy):
    """3,000 samples of 16 proposals each, and their density."""
    generator, _, judge, every = toy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqgan_hf.evaluation.residual.decode", lambda samples, tokenizer: [])
        samples, _, density = draw_residual(generator, judge, every, 3_000, 3, 1.0, 0, EXPONENT, 16)
    return samples, density


def exact(toy) -> tuple[torch.Tensor, float]:
    generator, _, judge, every = toy
    logs = sequence_logprobs(generator.model, every) + EXPONENT * realness(judge, every).double().detach()
    return logs - logs.logsumexp(0), float(logs.logsumexp(0))


def test_the_density_is_the_enumerated_one_but_for_the_error_of_log_z(toy, drawn):
    logs, log_z = exact(toy)
    density = drawn[1]
    expected = torch.full((27,), log_z).double() - density.log_z
    torch.testing.assert_close(density.logprobs(toy[3]) - logs, expected, atol=2e-6, rtol=0)
    assert density.log_z.shape == (1,) and abs(log_z - float(density.log_z)) < 4 * density.error < 0.05
    assert density.bounds[0] < float(density.log_z) < density.bounds[1] < density.bounds[0] + 1e-3
    assert density.setting == "|proposals:16|exponent:0.8"
    values = [
        math.log(float(density.log_weights[i::50].exp().mean())) for i in range(50)
    ]  # log Z of 50 parts: the error of all is a seventh of one's
    assert density.error == pytest.approx(np.std(values) / 50**0.5, rel=0.35)


def test_likelihoods_are_those_of_the_residual_model(toy, drawn):
    generator, oracle, _, every = toy
    logs, _ = exact(toy)
    held_out = draw(oracle, 4_000, 3, seed=9)
    samples, density = drawn
    given = {"generator": density, "oracle": oracle, "samples": samples, "held_out": held_out}
    found = measure_likelihoods(LIKELIHOODS, 0, max_new_tokens=3, **given)
    p, o = logs.exp(), sequence_logprobs(oracle, every).exp()
    m = (p + o) / 2
    expected = {
        "nll_test_sequence": -(o * logs).sum(),
        "nll_test": -(o * logs).sum() / 3,
        "nll_div": -(p * logs).sum() / 3,
        "kl_oracle_generator": (o * (o / p).log()).sum(),
        "kl_generator_oracle": (p * (p / o).log()).sum(),
        "jsd_oracle": ((p * (p / m).log()).sum() + (o * (o / m).log()).sum()) / 2,
    }
    for name, estimate in density.widened(nll(density, held_out, "test")).items():
        assert (found[name].low, found[name].high) == (estimate.low, estimate.high)
    assert found["nll_oracle"].high == nll(oracle, samples, "oracle")["nll_oracle"].high  # knows nothing of log Z
    own = measure_likelihoods(["nll_test"], 0, **(given | {"generator": generator.model}))["nll_test"]
    for name, value in expected.items():
        result = found[name]
        error = (result.high - result.low) / 2 / 1.96
        assert abs(result.value - float(value)) < 4 * error, name
        assert "|temperature:1|proposals:16|exponent:0.8|seed:0" in result.signature
    assert abs(own.value - float(expected["nll_test"])) > 10 * (own.high - own.low)  # the generator alone is elsewhere


@pytest.mark.parametrize("percentile", [100.0, 60.0])
def test_rejection_draws_from_the_density_that_it_is_given(toy, monkeypatch, percentile):
    """Chi squared over 27 sequences, below the bound of 0.1% for 26 degrees of freedom; log Z by enumeration."""
    generator, _, judge, every = toy
    monkeypatch.setattr("seqgan_hf.evaluation.residual.decode", lambda samples, tokenizer: [])
    count = 4_000
    samples, _, density = draw_residual(generator, judge, every, count, 3, 1.0, 0, EXPONENT, 16, percentile)
    bound = density.accepted.bound
    log_odds = realness(judge, every).double().detach()
    assert (log_odds > bound).any() == (percentile < 100)
    logs = sequence_logprobs(generator.model, every) + EXPONENT * log_odds.clamp(max=bound)
    log_z = float(logs.logsumexp(0))
    assert abs(log_z - float(density.log_z)) < 4 * density.error < 0.05
    torch.testing.assert_close(density.logprobs(every), logs - density.log_z, rtol=1e-5, atol=1e-5)
    expected = count * (logs - log_z).exp()
    found = torch.bincount(samples.ids @ torch.tensor([9, 3, 1]), minlength=27)
    assert ((found - expected).square() / expected).sum() < 54.1
    assert density.setting == f"|proposals:16|exponent:0.8|method:reject|percentile:{percentile:g}"
    assert f"rejection accepted {density.accepted.rate:.2%} of its proposals" in density.note
    assert 1 <= density.results(every, "")["effective_sample_size"].value <= 16


def test_intervals_hold_what_is_not_known_of_log_z(drawn):
    density = replace(drawn[1])
    density.error, density.bounds = 0.3, (1.0, 1.2)
    plain = {
        "nll_test": Estimate(2.0, 1.9, 2.1),
        "nll_test_sequence": Estimate(10.0, 9.5, 10.5),
        "jsd_oracle": Estimate(0.5, 0.4, 0.6),
        "other": Estimate(1.0),
    }
    found = density.widened(plain)
    for name, half, share in (("nll_test", 0.1, 0.2), ("nll_test_sequence", 0.5, 1.0), ("jsd_oracle", 0.1, 0.5)):
        expected = math.hypot(half, 1.959964 * 0.3 * share) + 0.1 * share
        assert found[name].high - plain[name].value == pytest.approx(expected)
        assert plain[name].value - found[name].low == pytest.approx(expected)
    assert found["other"] == plain["other"]


@pytest.mark.parametrize("level", [0.0, 0.1, -7.3])
def test_a_discriminator_that_says_nothing_changes_nothing(toy, level):
    generator, _, judge, every = toy
    for size in (3, 7, 10, 49):  # roundings differ
        density = Residual(generator.model, judge, 1.0, torch.full((size, 3), level).double())
        assert density.error == pytest.approx(0, abs=1e-6) and float(density.log_z) == pytest.approx(level)
        assert density.results(every, "")["effective_sample_size"].value == pytest.approx(3.0)


def test_the_effective_sample_size_is_a_mean_over_the_samples(toy):
    """Of the weights 3 and 1 it is (3 + 1)^2 / (9 + 1) = 1.6, of equal ones 2: 1.8, and the standard error is 0.2."""
    generator, _, judge, every = toy
    log_weights = torch.tensor([[3.0, 1.0], [0.5, 0.5]]).double().log()
    size = Residual(generator.model, judge, 1.0, log_weights).results(every, "")["effective_sample_size"]
    assert [size.low, size.value, size.high] == pytest.approx([1.8 - 1.959964 * 0.2, 1.8, 1.8 + 1.959964 * 0.2])


def test_every_prompt_has_a_log_z_of_its_own(toy):
    """Two prompts in turn, three rows each: log Z of a prompt is that of its own rows."""
    generator, _, judge, every = toy
    weights = torch.tensor([[0.0, 1.0], [5.0, 6.0]]).repeat(3, 1).double()
    density = Residual(generator.model, judge, 1.0, weights, prompts=2)
    mean = math.log((1 + math.e) / 2)
    low = torch.tensor([mean, 5 + mean]).double()
    assert density.bounds[0] == pytest.approx(float(low.mean()), abs=1e-6) and density.error == 0
    assert float(density.log_z[1] - density.log_z[0]) == pytest.approx(5.0)
    rows = every.select(torch.tensor([4, 4, 4]))
    first, second, third = density.logprobs(rows).tolist()
    assert first == third and first - second == pytest.approx(5.0)
    # what is left over of a turn is not used
    again = Residual(generator.model, judge, 1.0, torch.cat([weights, weights[:1] + 9]), prompts=2)
    assert torch.equal(again.log_z, density.log_z)


def test_the_auc_is_the_share_of_pairs(toy, drawn):
    generator, _, judge, every = toy
    found = drawn[1].results(every, "signature")
    real = EXPONENT * realness(judge, every).double().detach()
    pairs = real[:, None] - drawn[1].log_weights.flatten()
    share = ((pairs > 1e-5).double() + (pairs.abs() <= 1e-5).double() / 2).mean()  # equal sequences are a tie
    auc = found["discriminator_auc_test"]
    assert auc.value == pytest.approx(float(share), abs=1e-6)
    assert auc.signature == "signature" and 0 < auc.low < auc.value < auc.high < 1
    # DeLong's error, the few real sequences being what is uncertain
    assert (auc.high - auc.low) / 2 / 1.959964 == pytest.approx(
        float(pairs.sign().mean(1).std() / 2 / 27**0.5), rel=0.1
    )
    size = found["effective_sample_size"]
    assert 1 < size.low < size.value < size.high < 16 and size.better == auc.better == "higher"


# --- Evaluations -----------------------------------------------------------------------------------------------------


def test_evaluation_with_a_discriminator_at_several_exponents(generator):
    judge = discriminator(generator.model.config.vocab_size)
    settings = SuiteSettings(num_samples=60, max_new_tokens=8, metrics=["bleu"], exponents=[0.0, 1.0], proposals=4)
    alone, judged = evaluate_generator(generator, settings, REFERENCES, TRAIN, discriminator=judge)
    plain = replace(settings, exponents=[1.0], proposals=SuiteSettings.proposals)
    [expected] = evaluate_generator(generator, plain, REFERENCES, TRAIN)
    assert alone.model == "tiny" and alone.evaluation.to_dict() == expected.evaluation.to_dict()  # exponent 0
    assert judged.model == "tiny exponent 1"
    results = judged.evaluation.results
    added = {"discriminator_auc_test", "effective_sample_size"}
    of_temperature = {"calibration_temperature", "calibration_gain"}  # which a discriminator does not set
    assert results.keys() == expected.evaluation.results.keys() - of_temperature | added
    drawn = draw_residual(generator, judge, encode_texts(generator, REFERENCES), 60, 8, 1.0, 0, 1.0, 4)
    assert judged.evaluation.texts.texts == tuple(drawn[1]) or list(judged.evaluation.texts.texts) == drawn[1]
    assert "temperature:1|proposals:4|exponent:1|max_new_tokens:8" in results["bleu_2"].signature
    assert "|temperature:1|proposals:4|exponent:1|seed:0" in results["nll_test"].signature
    assert results["nll_test"].value != expected.evaluation.results["nll_test"].value
    [note] = [note for note in judged.evaluation.notes if "log Z" in note]
    low, high = drawn[2].bounds
    assert f"{low:.4f} by the mean weight, {high:.4f} by the second-order jackknife" in note


def test_the_temperature_is_that_of_proposals_and_of_likelihoods(generator):
    judge = discriminator(generator.model.config.vocab_size)
    settings = SuiteSettings(num_samples=40, max_new_tokens=8, metrics=["distinct"], temperatures=[0.5], proposals=4)
    [point] = evaluate_generator(generator, settings, REFERENCES, discriminator=judge)
    held_out = encode_texts(generator, REFERENCES)
    log_z = draw_residual(generator, judge, held_out, 40, 8, 0.5, 0, 1.0, 4)[2].log_z
    with torch.no_grad():
        logits = generator.model(input_ids=held_out.sequences[:, :-1]).logits / 0.5
        own = (logits.log_softmax(-1).gather(2, held_out.ids[..., None])[..., 0] * held_out.mask).sum(1).double()
        expected = -(own + realness(judge, held_out).double() - log_z).mean()
    assert point.evaluation.results["nll_test_sequence"].value == pytest.approx(float(expected), rel=1e-5)


def test_with_prompts_held_out_text_is_cut_to_those_with_a_log_z(generator):
    judge = discriminator(generator.model.config.vocab_size)
    references, prompts = REFERENCES[:30], ["the man", "a boy", "two dogs"] * 10
    settings = SuiteSettings(num_samples=20, max_new_tokens=8, metrics=["distinct"], proposals=4)
    [point] = evaluate_generator(generator, settings, references, prompts=prompts, discriminator=judge)
    results, notes = point.evaluation.results, " ".join(point.evaluation.notes)
    assert "held_out:20|" in results["nll_test"].signature and "prompts:20|" in results["nll_test"].signature
    assert "nll_test is that of the first 20 references" in notes and "means over 20 prompts" in notes
    samples, _, density = draw_residual(
        generator, judge, encode_texts(generator, references, prompts), 20, 8, 1.0, 0, 1.0, 4
    )
    held_out = encode_texts(generator, references, prompts).select(slice(20))
    expected = -float(density.logprobs(held_out).mean())
    assert results["nll_test_sequence"].value == pytest.approx(expected)
    assert torch.equal(samples.prompt, held_out.prompt)


def test_samples_without_a_discriminator_are_as_they_were(generator):
    start = encode_texts(generator, ["a"])
    judge = discriminator(generator.model.config.vocab_size)
    samples, texts, _ = draw_residual(generator, judge, start, 30, 12, 0.8, 3, 0.0, 2)
    assert len(texts) == samples.batch_size == 30
    assert len(draw_samples(generator, start, 30, 12, 0.8, 3)[1]) == 30


@pytest.mark.parametrize("named", ["own", "discriminator", "run"])
def test_the_discriminator_of_a_run(generator, model_path, files, named):
    judge = discriminator(generator.model.config.vocab_size)
    judge.save_pretrained(model_path / "discriminator")
    place = {"own": "own", "discriminator": str(model_path / "discriminator"), "run": str(model_path)}[named]
    given = {"model": [str(model_path)], "references": str(files / "references.txt"), "output": str(files / "out")}
    more = {"metrics": ["distinct"], "num_samples": 40, "max_new_tokens": 8, "exponents": [0.5, 1.0], "proposals": 2}
    found = run_evaluation(EvaluationArguments(**given, **more, discriminator=place))
    assert [point["model"] for point in found["points"]] == ["tiny exponent 0.5", "tiny exponent 1"]
    assert json.loads((files / "out" / "metrics.json").read_text()) == found
    page = (files / "out" / "tiny_exponent_0.5_temperature_1" / "report.md").read_text()
    assert "| discriminator_auc_test |" in page and "log Z of the residual model (exponent 0.5)" in page
    assert "tiny exponent 1," in (files / "out" / "sweep.csv").read_text()


def test_an_evaluation_of_what_rejection_draws(generator, model_path, files):
    discriminator(generator.model.config.vocab_size).save_pretrained(model_path / "discriminator")
    output = str(files / "out")
    given = ["--model", str(model_path), "--references", str(files / "references.txt"), "--output", output]
    given += ["--discriminator", "--method", "reject", "--percentile", "90", "--proposals", "2"]
    assert main(["evaluate", *given, "--metrics", "distinct", "--num_samples", "40", "--max_new_tokens", "8"]) == 0
    page = (files / "out" / "report.md").read_text()
    assert "| effective_sample_size |" in page and "rejection accepted" in page
    found = json.loads((files / "out" / "metrics.json").read_text())
    assert "method:reject|percentile:90" in json.dumps(found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exponents": [0.5]}, "exponents, proposals or method without a discriminator"),
        ({"proposals": 3}, "exponents, proposals or method without a discriminator"),
        ({"method": "reject"}, "exponents, proposals or method without a discriminator"),
        ({"discriminator": "own", "method": "accept"}, "method='accept': expected resample or reject"),
        ({"discriminator": "own", "method": "reject", "percentile": 0.0}, "percentile=0: expected a number above 0"),
        ({"discriminator": "own", "percentile": 99.0}, "percentile=99 with method=resample. Set `method` to `reject`"),
        ({"discriminator": "own", "proposals": 1}, "proposals=1: expected at least 2"),
        ({"discriminator": "own", "exponents": [1.0, 1.0]}, "exponents=.* expected different finite numbers"),
        (
            {"discriminator": "own", "exponents": [-1.0]},
            "exponents=.* expected different finite numbers of at least 0",
        ),
        ({"discriminator": "own", "exponents": []}, "exponents="),
        ({"discriminator": "own", "model": [], "samples": "a"}, "samples from a file with a discriminator"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        EvaluationArguments(**({"model": ["a"], "references": "b"} | settings))


def test_a_generator_in_memory_is_refused_exponents_without_a_discriminator(generator):
    with pytest.raises(UserError, match="exponents, proposals or method without a discriminator"):
        evaluate_generator(generator, SuiteSettings(proposals=3), REFERENCES)
