"""Distillation: KL(M || G) on what the teacher writes, from one teacher or from an ensemble."""

from __future__ import annotations

import json

import pytest
import torch

from seqgan_hf.data import integer_tokenizer
from seqgan_hf.errors import UserError
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import EnsembleGeneratorForCausalLM
from seqgan_hf.objectives import Distillation, Models
from seqgan_hf.samples import Samples
from tests.tools.tables import TableGenerator, all_sequences
from tests.tools.tiny import BOS, PAD, VOCAB_SIZE, build_generator


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved generator, and a run with one of another architecture."""
    root = tmp_path_factory.mktemp("teachers")
    build_generator("lstm", seed=1).save_pretrained(root / "saved")
    build_generator("gpt2", seed=2).save_pretrained(root / "run" / "generator")
    return [str(root / "saved"), str(root / "run")]


def test_the_loss_is_the_divergence_of_whole_sequences(folders):
    """sum_t KL(M_t || G_t) at all prefixes; its mean over samples of M is KL(M || G)."""
    models, objective = Models(build_generator("lstm", seed=5).eval()), Distillation(folders)
    real = sample(models.generator, start_prompt(models.generator, 6), 5)
    members = [build_generator("lstm", seed=1), build_generator("gpt2", seed=2)]
    teacher = EnsembleGeneratorForCausalLM.from_members(members)
    torch.manual_seed(3)
    expected = sample(teacher, real.prompt, 5)
    torch.manual_seed(3)
    fake = objective.sample(models, real, 5)
    assert fake.ids.equal(expected.ids)
    loss = objective.generator_loss(models, real, fake)
    with torch.no_grad():
        m, g = (model(fake.sequences[:, :-1]).logits.log_softmax(-1)[:, -5:] for model in (teacher, models.generator))
    by_token = (m.exp() * (m - g)).sum(dim=-1).masked_fill(~fake.mask, 0.0)
    assert loss.value.item() == pytest.approx(by_token.sum(dim=1).mean().item(), rel=1e-4)
    assert loss.metrics["kl_teacher"] == pytest.approx(loss.value.item())


def test_the_student_covers_what_its_teacher_writes():
    """At the uniform generator the gradient of KL(M || G) by the logits of the first token is G - M."""
    teacher = TableGenerator()
    with torch.no_grad():
        teacher.table[0] = torch.tensor([0.7, 0.2, 0.1]).log()
    objective, generator, batch = Distillation("a teacher"), TableGenerator(), all_sequences()
    objective.teacher_of = lambda models: teacher
    objective.generator_loss(Models(generator), batch, batch).value.backward()
    expected = 1 / 3 - torch.tensor([0.7, 0.2, 0.1])
    torch.testing.assert_close(generator.table.grad[0], expected, rtol=0, atol=1e-6)


def test_a_generator_that_is_its_teacher_has_nothing_to_learn(folders):
    models, objective = Models(build_generator("lstm", seed=1).eval()), Distillation(folders[0])
    real = sample(models.generator, start_prompt(models.generator, 6), 5)
    objective.generator_loss(models, real, objective.sample(models, real, 5)).value.backward()
    assert max(float(p.grad.abs().max()) for p in models.generator.parameters()) < 1e-6
    assert all(p.grad is None for p in objective.teacher_of(models).parameters())


def test_a_teacher_reads_no_padding_of_a_prompt(tmp_path):
    build_generator("gpt2", eos=None).save_pretrained(tmp_path)
    models, objective, drawn = Models(build_generator("lstm")), Distillation(str(tmp_path)), []
    nothing = torch.zeros(1, 0).long()
    for prompt in ([PAD, PAD, PAD, BOS, 5], [BOS, 5]):
        given = torch.tensor([prompt])
        torch.manual_seed(0)
        drawn.append(objective.sample(models, Samples(given, nothing, nothing.bool(), given != PAD), 20).ids)
    assert torch.equal(*drawn)


def test_teachers_of_other_tokens_or_none_are_refused(folders, tmp_path):
    generator = build_generator("lstm", vocab_size=VOCAB_SIZE + 1)
    with pytest.raises(UserError, match="a teacher of 13 tokens for a generator of 14: expected one vocabulary"):
        Distillation(folders[0]).check(Models(generator), 4, False)
    generator.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="make no ensemble .*vocab_size=13 with 14"):
        Distillation([folders[0], str(tmp_path / "other")]).check(Models(build_generator("lstm")), 4, False)
    with pytest.raises(UserError, match="teacher '.*nothing' cannot be loaded"):
        Distillation(str(tmp_path / "nothing")).check(Models(generator), 4, False)
    with pytest.raises(UserError, match=r"teacher=\[\]: expected folders of runs"):
        Distillation([])


def test_a_teacher_that_gives_tokens_other_ids_is_refused(tmp_path):
    teacher, tokenizer = build_generator("lstm", vocab_size=5), integer_tokenizer(5)
    teacher.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    objective = Distillation(str(tmp_path))
    objective.check(Models(build_generator("lstm", vocab_size=5), tokenizer=tokenizer), 4, False)
    swapped = integer_tokenizer(6)
    generator = build_generator("lstm", vocab_size=5)
    with pytest.raises(UserError, match="gives the tokens of the data other ids"):
        objective.check(Models(generator, tokenizer=swapped), 4, False)


def test_every_teacher_of_several_is_asked_for_its_ids(folders, tmp_path):
    """The first has no tokenizer, which is no mistake; where the data have none, nothing is compared."""
    build_generator("lstm", seed=3).save_pretrained(tmp_path)
    integer_tokenizer(13).save_pretrained(tmp_path)
    objective, generator = Distillation([folders[0], str(tmp_path)]), build_generator("lstm")
    objective.check(Models(generator), 4, False)
    with pytest.raises(UserError, match=f"the teacher '{tmp_path}' gives the tokens of the data other ids"):
        objective.check(Models(generator, tokenizer=integer_tokenizer(12)), 4, False)
    assert not any(parameter.requires_grad for parameter in objective.teacher_of(Models(generator)).parameters())


def test_a_teacher_that_is_a_pickle_or_brings_code_is_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(True) or "n")
    model = build_generator("gpt2", seed=3)
    model.save_pretrained(tmp_path / "pickle")
    (tmp_path / "pickle" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    model.save_pretrained(tmp_path / "code")
    settings = json.loads((tmp_path / "code" / "config.json").read_text())
    settings |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "code" / "config.json").write_text(json.dumps(settings))
    (tmp_path / "code" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name, reason in {"pickle": "no file named model.safetensors", "code": "contains custom code"}.items():
        with pytest.raises(UserError, match=f"teacher '.*{name}' cannot be loaded .*{reason}"):
            Distillation(str(tmp_path / name)).check(Models(build_generator("lstm")), 4, False)
    assert not (tmp_path / "ran").exists() and not asked


def test_a_teacher_whose_tokenizer_brings_code_runs_none_and_asks_nobody(tmp_path, monkeypatch):
    """It counts as one without a tokenizer."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(True) or "y")
    build_generator("lstm", seed=1).save_pretrained(tmp_path)
    settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    objective, models = Distillation(str(tmp_path)), Models(build_generator("lstm"), tokenizer=integer_tokenizer(13))
    objective.check(models, 4, False)
    assert not (tmp_path / "ran").exists() and not asked
