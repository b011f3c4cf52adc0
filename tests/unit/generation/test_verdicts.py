"""Realness and rewards: one matrix over all kinds of discriminators."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from seqgan_hf.generation import verdicts
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.verdicts import judge, judged_tokens, realness, rewards
from seqgan_hf.models import modeling_cnn_discriminator, modeling_sums
from seqgan_hf.samples import Samples
from tests.tools.tiny import BOS, PAD, VOCAB_SIZE, build_discriminator, build_generator


def batch(prompted: bool = False) -> Samples:
    ids = torch.tensor([[5, 6, 7, 1], [8, 1, PAD, PAD], [3, 4, 1, PAD]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    if not prompted:
        return Samples(torch.full((3, 1), BOS), ids, mask)
    prompt = torch.tensor([[PAD, BOS, 9], [BOS, 10, 11], [PAD, PAD, BOS]])
    return Samples(prompt, ids, mask, torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1]]).bool())


def test_a_discriminator_reads_condition_and_continuation_but_not_the_start_token():
    ids, mask, begin = judged_tokens(batch(prompted=True), PAD)
    read = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
    assert read == [[9, 5, 6, 7, 1], [10, 11, 8, 1], [3, 4, 1]]
    assert begin.tolist() == [1, 2, 0]
    assert (ids[~mask] == PAD).all() and ids.shape == mask.shape == (3, 6)
    ids, mask, begin = judged_tokens(batch(), PAD)
    assert torch.equal(ids, batch().ids) and begin.tolist() == [0, 0, 0]


def test_a_condition_of_a_single_token_is_read_as_one():
    samples = batch()._replace(prompt=torch.tensor([[BOS, 9]] * 3))
    ids, mask, begin = judged_tokens(samples, PAD)
    assert [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)] == [
        [9, 5, 6, 7, 1],
        [9, 8, 1],
        [9, 3, 4, 1],
    ]
    assert begin.tolist() == [1, 1, 1]


@pytest.mark.parametrize("prompted", [False, True])
def test_scores_are_those_of_each_sequence_alone(discriminator, prompted):
    """Neither padding nor neighbours count."""
    samples = batch(prompted)
    together = rewards(discriminator, samples)
    ids, mask, begin = judged_tokens(samples, PAD)
    for row in range(3):
        alone = Samples(torch.full((1, 1), BOS), ids[row][mask[row]][None], mask[row][mask[row]][None])
        score = rewards(discriminator, alone)[0]
        if together.dim() == 2:
            score = score[begin[row] :]
            assert (together[row][~samples.mask[row]] == 0).all()
            torch.testing.assert_close(together[row][samples.mask[row]], score, rtol=1e-4, atol=1e-6)
        else:
            torch.testing.assert_close(together[row], score, rtol=1e-4, atol=1e-6)


def test_padding_has_no_influence(discriminator):
    samples = batch()
    wider = samples._replace(
        ids=torch.cat([torch.where(samples.mask, samples.ids, 9), torch.full((3, 4), 11)], dim=1),
        mask=torch.cat([samples.mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1),
    )
    ours = rewards(discriminator, wider)
    torch.testing.assert_close(ours[:, :4] if ours.dim() == 2 else ours, rewards(discriminator, samples))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_classifiers_that_look_for_the_last_token_are_not_misled_by_padding(kind):
    """Prompts of unequal length leave start tokens and left padding behind, wherever the row is put."""
    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2} if kind == "gpt2" else {"hidden_size": 8, "intermediate_size": 8}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=VOCAB_SIZE, pad_token_id=PAD, num_labels=2, **sizes)
    discriminator = AutoModelForSequenceClassification.from_config(config)
    for weight in discriminator.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    rows = batch(prompted=True)
    alone = torch.cat([rewards(discriminator, rows.select(slice(row, row + 1))) for row in range(3)])
    shortest = Samples(torch.tensor([[BOS]]), torch.tensor([[3, 4, 1]]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(alone[2:], rewards(discriminator, shortest))
    longer = Samples(torch.arange(10)[None], torch.full((1, 9), 4), torch.ones(1, 9, dtype=torch.bool))
    for content in (PAD, BOS, 11):
        padded = Samples.concatenate([rows, longer], pad_token_id=content)
        torch.testing.assert_close(rewards(discriminator, padded)[:3], alone)
        unprompted = batch()._replace(ids=torch.where(batch().mask, batch().ids, content))
        torch.testing.assert_close(rewards(discriminator, unprompted), rewards(discriminator, batch()))


def test_rewards_are_probabilities_without_dropout_or_gradient(discriminator):
    for module in discriminator.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    discriminator.train()
    first, second = rewards(discriminator, batch()), rewards(discriminator, batch())
    assert torch.equal(first, second), "dropout was on"
    assert not first.requires_grad and ((first >= 0) & (first <= 1)).all()
    assert all(module.training for module in discriminator.modules())
    with torch.no_grad():
        discriminator.eval()
        scores = realness(discriminator, batch()).sigmoid()
    torch.testing.assert_close(first, scores if scores.dim() == 1 else scores * batch().mask)


@pytest.mark.parametrize("prompted", [False, True])
def test_verdicts_on_tokens_are_zero_at_padding_and_there_only(prompted):
    samples = batch(prompted)
    assert torch.equal(realness(build_discriminator("per_token").eval(), samples) != 0, samples.mask)


@pytest.mark.parametrize("max_rows", [1, 2])
def test_the_row_limit_changes_no_reward(discriminator, max_rows):
    torch.testing.assert_close(rewards(discriminator, batch(), max_rows), rewards(discriminator, batch()))


def test_no_more_tokens_are_judged_at_once_than_memory_is_planned_for(monkeypatch):
    """Rows of a condition of two tokens (the start token is not read) and a continuation of four; at least one row."""
    scorer, samples = ShortOfMemory(room=100), Samples.concatenate([batch(prompted=True)] * 5)
    for tokens, sizes in ((6 * 6, [6, 6, 3]), (6 * 6 - 1, [5, 5, 5]), (3, [1] * 15)):
        monkeypatch.setattr(verdicts, "SCORE_TOKENS", tokens)
        scorer.sizes.clear()
        rewards(scorer, samples)
        assert scorer.sizes == sizes


def test_label_one_is_real():
    discriminator = build_discriminator("cnn").eval()
    logits = discriminator(input_ids=batch().ids, attention_mask=batch().mask.long()).logits
    torch.testing.assert_close(rewards(discriminator, batch()), logits.softmax(-1)[:, 1])


def test_one_logit_is_the_log_odds():
    class OneLogit(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return SequenceClassifierOutput(logits=input_ids[:, :1].float())

    torch.testing.assert_close(realness(OneLogit(), batch()), torch.tensor([5.0, 8.0, 3.0]))


@pytest.mark.parametrize("prompted", [False, True])
def test_verdicts_are_columns_of_log_odds_and_which_of_them_count(discriminator, prompted):
    discriminator.eval()
    samples = batch(prompted)
    values, counted = verdicts.verdicts(discriminator, samples)
    expected = realness(discriminator, samples)
    if expected.dim() == 2:
        assert torch.equal(values, expected) and torch.equal(counted, samples.mask)
        return
    assert values.shape == counted.shape and len(values) == 3 and counted.all()
    torch.testing.assert_close(values.mean(dim=1), expected)  # of one, or of all representations


def test_representations_are_judged_one_by_one():
    class Two(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            each = torch.stack([input_ids[:, 0], -2 * input_ids[:, 0]], dim=1).float()
            outputs = SequenceClassifierOutput(logits=each.mean(dim=1, keepdim=True))
            outputs.representation_logits = each
            return outputs

    values, counted = verdicts.verdicts(Two(), batch())
    assert values.tolist() == [[5.0, -10.0], [8.0, -16.0], [3.0, -6.0]] and counted.shape == (3, 2)
    assert realness(Two(), batch()).tolist() == [-2.5, -4.0, -1.5]


@pytest.mark.parametrize("prompted", [False, True])
def test_a_classifier_without_a_padding_token_finds_token_0_at_padding(prompted):
    """An id that every vocabulary has; the mask says that it is not to be read."""
    read = []

    class Reader(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            read.append(input_ids[attention_mask == 0])
            return SequenceClassifierOutput(logits=torch.zeros(len(input_ids), 2))

    realness(Reader(), batch(prompted))
    assert len(read[0]) > 0 and (read[0] == 0).all()


def test_other_shapes_are_refused():
    class ThreeClasses(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return SequenceClassifierOutput(logits=torch.zeros(len(input_ids), 3))

    with pytest.raises(ValueError, match=r"logits of shape \(3, 3\) from ThreeClasses: expected \(B, 2\)"):
        realness(ThreeClasses(), batch())


def test_soft_samples_that_are_one_hot_score_like_their_ids(discriminator):
    discriminator.eval()
    samples = batch()
    soft = torch.nn.functional.one_hot(samples.ids, 13).float().requires_grad_()
    scores = realness(discriminator, samples._replace(soft=soft))
    torch.testing.assert_close(scores, realness(discriminator, samples), rtol=1e-4, atol=1e-6)
    scores.sum().backward()
    assert soft.grad.abs().sum() > 0


class ShortOfMemory(torch.nn.Module):
    """Judges no more than `room` sequences at once."""

    def __init__(self, room: int):
        super().__init__()
        self.room, self.sizes = room, []
        self.judge = build_discriminator("cnn")

    def forward(self, input_ids, attention_mask):
        self.sizes.append(len(input_ids))
        if len(input_ids) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return self.judge(input_ids=input_ids, attention_mask=attention_mask)


def test_out_of_memory_halves_the_rows_for_good_and_changes_no_reward(caplog):
    samples = Samples.concatenate([batch()] * 5)
    scorer = ShortOfMemory(room=4)
    limited = rewards(scorer, samples)
    assert "scoring ran out of memory; going on with 7 rows at a time" in caplog.text
    assert scorer.sizes == [15, 7, 3, 3, 3, 3, 3]
    torch.testing.assert_close(limited, rewards(scorer.judge, samples), rtol=0, atol=1e-7)
    scorer.sizes.clear()
    caplog.clear()
    assert torch.equal(rewards(scorer, samples), limited) and not caplog.text
    assert scorer.sizes == [3, 3, 3, 3, 3]


def test_a_single_sequence_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        rewards(ShortOfMemory(room=0), batch())


def test_other_errors_are_not_taken_for_memory():
    class Broken(torch.nn.Module):
        calls = 0

        def forward(self, input_ids, attention_mask):
            self.calls += 1
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    broken = Broken()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        rewards(broken, batch())
    assert broken.calls == 1


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="there, nothing is shared")
@pytest.mark.parametrize("function", [realness, verdicts.features])
@pytest.mark.parametrize("prompted", [False, True])
def test_completions_get_the_verdicts_of_whole_sequences(prompted, function, monkeypatch):
    """What they share is read once, whatever the condition, the ends and the cut into parts."""
    monkeypatch.setattr(modeling_cnn_discriminator, "SHARED_ROWS", 1)
    monkeypatch.setattr(modeling_sums, "LOOK_UP", set())  # which shares nothing
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    samples = batch(prompted)
    parts = list(complete(generator, samples, 5, rng=torch.Generator().manual_seed(0)))
    completed = Samples.concatenate([part.samples for part in parts])
    owners = [torch.stack([part.row, part.prefix_length], dim=1) for part in parts]
    assert torch.equal(completed.origin, torch.cat(owners))
    for max_rows in (None, 7):
        plain = judge(discriminator, completed._replace(origin=None), function, max_rows)
        torch.testing.assert_close(judge(discriminator, completed, function, max_rows), plain)
    monkeypatch.setattr(torch, "equal", lambda *_: True)  # found out by the answer: prefixes are taken for shared
    wrong = completed._replace(ids=completed.ids.flip(0), mask=torch.ones_like(completed.mask))
    assert not torch.allclose(
        judge(discriminator, wrong, function), judge(discriminator, wrong._replace(origin=None), function)
    )
