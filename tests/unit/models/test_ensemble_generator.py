"""The ensemble: the mean of its members' next-token probabilities, saved and loaded with them."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModelForCausalLM, OpenAIGPTConfig

from seqgan_hf.data import integer_tokenizer
from seqgan_hf.evaluation.loading import LoadedGenerator, tempered
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import EnsembleGeneratorConfig, EnsembleGeneratorForCausalLM
from seqgan_hf.models.modeling_base import cache_of
from tests.tools.tiny import VOCAB_SIZE, build_generator


KINDS = ("lstm", "gpt2", "memory", "llama")
IDS = torch.randint(3, VOCAB_SIZE, (4, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def members():
    return [build_generator(kind, seed=seed).eval() for seed, kind in enumerate(KINDS)]


@pytest.fixture
def ensemble(members):
    return EnsembleGeneratorForCausalLM.from_members(members)


def mean_probabilities(members, ids=IDS, never=()):
    with torch.no_grad():
        logits = [member(ids).logits for member in members]
    for each in logits:
        each[..., list(never)] = -math.inf
    return torch.stack([each.softmax(dim=-1) for each in logits]).mean(dim=0)


def test_probabilities_are_the_mean_of_the_members(ensemble, members):
    torch.testing.assert_close(ensemble(IDS).logits.exp(), mean_probabilities(members))
    loss = ensemble(IDS, labels=IDS).loss
    expected = -mean_probabilities(members).log()[:, :-1].gather(2, IDS[:, 1:, None]).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_no_member_writes_is_left_out_before_the_mean(members):
    for member in members:
        member.generation_config.suppress_tokens = [3, 7]
    ensemble = EnsembleGeneratorForCausalLM.from_members(members)
    members[0].generation_config.suppress_tokens = [3]
    with pytest.raises(ValueError, match="never write other tokens .*: expected members trained on the same corpus"):
        EnsembleGeneratorForCausalLM.from_members(members)
    for member in members:
        member.generation_config.suppress_tokens = None
    torch.testing.assert_close(ensemble(IDS).logits.exp(), mean_probabilities(members, never=(3, 7)))
    drawn = sample(ensemble, start_prompt(ensemble, 200), 8, rng=torch.Generator().manual_seed(0))
    assert not torch.isin(drawn.ids, torch.tensor([3, 7])).any()
    found = sequence_logprobs(ensemble, drawn)
    assert found.isfinite().all()


def test_it_is_saved_and_loaded_with_its_members(ensemble, tmp_path):
    ensemble.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(IDS).logits, ensemble(IDS).logits)
    assert loaded.generation_config.eos_token_id == ensemble.generation_config.eos_token_id


@pytest.mark.parametrize("ways", [{"do_sample": True}, {"num_beams": 3}, {"do_sample": False}], ids=str)
def test_generate_writes_the_same_with_and_without_the_cache(ensemble, ways):
    written = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        given = {"attention_mask": torch.ones(4, 2), "max_new_tokens": 6, "use_cache": use_cache}
        written.append(ensemble.generate(IDS[:, :2], **given, **ways))
    assert written[0].equal(written[1])


def test_a_temperature_divides_the_logarithm_of_the_mean(ensemble):
    samples = sample(ensemble, start_prompt(ensemble, 6), 5, rng=torch.Generator().manual_seed(1))
    plain = ensemble(samples.sequences).logits
    with tempered(LoadedGenerator("e", ensemble, integer_tokenizer(VOCAB_SIZE)).model, 0.5):
        torch.testing.assert_close(ensemble(samples.sequences).logits, 2 * plain)


def test_every_member_learns(ensemble):
    ensemble.train()
    ensemble(IDS, labels=IDS).loss.backward()
    for member in ensemble.members:
        assert all(p.grad is not None and p.grad.isfinite().all() for p in member.parameters())
        assert any(p.grad.abs().sum() > 0 for p in member.parameters())


def test_members_of_other_tokens_are_refused(members):
    other = build_generator("lstm", vocab_size=VOCAB_SIZE + 1)
    with pytest.raises(StrictDataclassClassValidationError, match=r"vocab_size=13 with 14 in members\[1\]"):
        EnsembleGeneratorForCausalLM.from_members([members[0], other])
    with pytest.raises(StrictDataclassClassValidationError, match="eos_token_id=1 with None"):
        EnsembleGeneratorForCausalLM.from_members([members[0], build_generator("gru", eos=None)])
    with pytest.raises(ValueError, match="without members: expected at least one"):
        EnsembleGeneratorForCausalLM.from_members([])
    with pytest.raises(ValueError, match="without members: expected at least one"):
        EnsembleGeneratorForCausalLM(EnsembleGeneratorConfig())
    with pytest.raises(ValueError, match="another vocabulary for an ensemble"):
        EnsembleGeneratorForCausalLM.from_members(members).resize_token_embeddings(20)


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_the_caches_are_read_by_either_name(ensemble, name):
    caches = cache_of(ensemble(IDS[:, :4], use_cache=True))
    step = ensemble(IDS[:, 4:], attention_mask=torch.ones(4, 6), position_ids=torch.tensor([[4, 5]]), **{name: caches})
    torch.testing.assert_close(step.logits, ensemble(IDS).logits[:, 4:])


def test_a_member_without_a_cache_is_refused_where_one_is_needed():
    tokens = {"vocab_size": VOCAB_SIZE, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    member = OpenAIGPTConfig(n_embd=8, n_layer=1, n_head=1, **tokens)
    ensemble = EnsembleGeneratorForCausalLM(EnsembleGeneratorConfig(members=[member.to_dict()], **tokens)).eval()
    with pytest.raises(ValueError, match="OpenAIGPTLMHeadModel returns no cache: expected members with one"):
        ensemble.generate(IDS[:, :2], attention_mask=torch.ones(4, 2), max_new_tokens=2)
    assert ensemble(IDS, use_cache=False).logits.shape == (4, 6, VOCAB_SIZE)


def test_assisted_decoding_is_refused(ensemble, members):
    with pytest.raises(ValueError):
        ensemble.generate(IDS[:, :2], assistant_model=members[1], max_new_tokens=3, attention_mask=torch.ones(4, 2))
