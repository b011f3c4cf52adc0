"""What a discriminator knows of text that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from seqgan_hf.evaluation.verdicts import HeldOutVerdicts, auc, scores, writable
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.objectives import Models, SeqGAN
from seqgan_hf.samples import Samples
from tests.tools.small_runs import build, small_corpus
from tests.tools.tiny import build_discriminator, build_generator


def test_the_area_is_that_of_the_roc_curve_ties_included():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 9, (70,), generator=generator).float() + 1
    fake = torch.randint(0, 9, (50,), generator=generator).float()
    labels = np.repeat([1, 0], [70, 50])
    assert auc(real, fake).value == pytest.approx(roc_auc_score(labels, torch.cat([real, fake])))
    assert auc(torch.ones(3), torch.ones(4)).value == 0.5
    assert auc(torch.ones(3), torch.zeros(4)) == auc(torch.ones(3), -torch.ones(4))
    assert auc(torch.ones(3), torch.zeros(4)).high == 1.0


def test_its_interval_holds_the_truth_as_often_as_it_says():
    """Scores N(1, 1) and N(0, 1): the area is Phi(1 / sqrt 2) = 0.76025."""
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(400):
        real, fake = torch.randn(60, generator=generator) + 1, torch.randn(90, generator=generator)
        interval = auc(real, fake)
        held += interval.low <= 0.76025 <= interval.high
    assert 0.91 < held / 400 < 0.975


class Table(torch.nn.Module):
    """Log-odds: the first id of a sequence, less 4."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"pad_token_id": 0, "num_labels": 1})()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    device = property(lambda self: self.anchor.device)

    def can_generate(self):
        return False

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"logits": input_ids[:, :1].float() - 4})()


def rows(first: list[int]) -> Samples:
    ids = torch.tensor([[token, 1] for token in first])
    return Samples(torch.zeros(len(first), 1, dtype=torch.long), ids, torch.ones_like(ids, dtype=torch.bool))


def test_held_out_text_and_training_text_are_told_apart():
    models = Models(build_generator("lstm"), Table())
    evaluator = HeldOutVerdicts(models, SeqGAN(), held_out=rows([3, 5, 6, 7]), train=rows([8, 9]))
    found = evaluator.evaluate(models.generator, rows([2, 3, 5, 4]), seed=3)
    # of the 16 pairs with held-out rows, 12 in order and 2 ties: 3 with 3, and 5 with 5
    assert found["discriminator_auc_test"].value == pytest.approx((1.5 + 3.5 + 4 + 4) / 16)
    assert found["discriminator_accuracy_test"].value == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert found["discriminator_auc_train"].value == 1.0
    assert found["discriminator_auc_test"].signature == "reads:ids|samples:4|held_out:4|temperature:1|seed:3|version:2"
    assert all(0 <= each.low <= each.value <= each.high <= 1 for each in found.values())


def test_text_that_the_generator_cannot_write_is_left_out_unless_nothing_else_is_left():
    generator = build_generator("lstm")
    generator.generation_config.suppress_tokens = [5, 6]
    held_out = rows([3, 5, 6, 7])
    assert writable(generator, held_out).ids[:, 0].tolist() == [3, 7]
    held_out.mask[1] = False  # what is behind its end does not count
    assert writable(generator, held_out).ids[:, 0].tolist() == [3, 5, 7]
    assert writable(generator, rows([5, 6])).ids[:, 0].tolist() == [5, 6]


def test_every_kind_of_opponent_has_scores():
    generator, samples = build_generator("lstm"), rows([3, 5, 6])
    for kind in ("cnn", "rnn", "per_token", "bert"):
        assert scores(Models(generator, build_discriminator(kind)), samples).shape == (3,)
    three = build_discriminator("cnn")
    three.config.num_labels = 3
    mediator = build_generator("gpt2", seed=1)
    ratio = scores(Models(generator, mediator), samples)
    expected = sequence_logprobs(mediator, samples) - sequence_logprobs(generator, samples)
    assert torch.equal(ratio, expected.float())


def test_of_several_classes_all_but_the_first_are_real():
    class Classes(Table):
        def forward(self, input_ids, attention_mask):
            first = input_ids[:, :1].float()
            return type("Output", (), {"logits": torch.cat([first, first + 1, first - 1], dim=1)})()

    found = scores(Models(build_generator("lstm"), Classes()), rows([3, 5]), classes=3)
    assert torch.allclose(found, torch.full((2,), float(np.log(np.e + 1 / np.e))))


def test_a_run_measures_it_on_what_it_holds_out_and_on_what_it_was_trained_on(tmp_path):
    """With a share of its own, that is what the discriminator alone is shown."""
    corpus = small_corpus()
    corpus.train.ids[:], corpus.eval.ids[:] = 3, 5
    corpus.train.ids[:, :2] = torch.cartesian_prod(torch.arange(6), torch.arange(8))  # no row is there twice
    trainer = build(corpus, tmp_path, discriminator_share=0.25)
    (found,) = [each for each in trainer.parts.evaluation.evaluators if isinstance(each, HeldOutVerdicts)]
    assert (found.held_out.ids == 5).all() and found.held_out.batch_size == 20
    shown, own = (set(map(tuple, ids.tolist())) for ids in (found.train.ids, trainer.real.samples.ids))
    assert shown == own and len(own) == 12
