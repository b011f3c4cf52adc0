"""Relaxed samples: the law of their noise, what they equal, what they leave alone, and who reads them."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    GemmaConfig,
    GemmaForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from seqgan_hf.errors import UserError
from seqgan_hf.functional import posterior_gumbel
from seqgan_hf.generation import relaxation
from seqgan_hf.generation.relaxation import relax, sample_soft
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import realness
from seqgan_hf.generation.vocabulary import start_prompt, suppressing, token_embeddings
from seqgan_hf.samples import Samples
from tests.tools.tiny import BOS, EOS, PAD, VOCAB_SIZE, build_discriminator, build_generator


BETAS = (0.1, 1.0, 100.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(generator, rows: int = 6, length: int = 5) -> Samples:
    """Continuations of prompts of unequal length, most of which end early."""
    prompt = torch.tensor([[PAD, PAD, BOS, 5], [BOS, 5, 6, 7], [PAD, PAD, PAD, BOS]]).repeat(rows // 3, 1)
    return sample(generator, prompt, length, rng=seeded(3), prompt_mask=prompt != PAD)


def gradients(generator, value: torch.Tensor) -> list[torch.Tensor]:
    parameters = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    return list(torch.autograd.grad(value, parameters, retain_graph=True))


def close(ours, theirs) -> None:
    for one, other in zip(ours, theirs, strict=True):
        scale = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=5e-6)


# --- The noise -------------------------------------------------------------------------------------------------------


def test_noise_given_the_drawn_token_is_plain_gumbel_noise():
    """Kolmogorov and Smirnov's distance below its 1% bound for every token, and for the largest sum."""
    count, logits = 40_000, torch.tensor([2.0, 0.0, -1.0, 0.5, -4.0])
    ids = torch.multinomial(logits.softmax(-1), count, replacement=True, generator=seeded(1))
    uniforms = torch.rand(count, 5, generator=seeded(2))
    sums = posterior_gumbel(logits.expand(count, -1), ids, uniforms)
    assert torch.equal(sums.argmax(dim=1), ids)
    noise = torch.cat([sums - logits.log_softmax(-1), sums.amax(dim=1, keepdim=True)], dim=1).double()
    expected = torch.exp(-torch.exp(-noise.sort(dim=0).values))
    steps = torch.arange(count + 1, dtype=torch.float64)[:, None] / count
    distance = torch.maximum(expected - steps[:-1], steps[1:] - expected).amax(dim=0)
    assert (distance < 1.63 / count**0.5).all(), distance
    correlation = torch.corrcoef(noise[:, :5].T) - torch.eye(5)
    assert correlation.abs().max() < 4 / count**0.5


def noise_of(generator: PreTrainedModel, *sources: torch.Generator | None) -> torch.Tensor:
    """Uniform numbers of 30 rows of soft tokens that are made with each of these sources in turn, (N, 30, 30, V)."""
    ids = torch.randint(3, VOCAB_SIZE, (30, 30), generator=seeded(1))
    samples = Samples(start_prompt(generator, 30), ids, torch.ones_like(ids, dtype=torch.bool))
    softs = [relax(generator, samples, 1.0, rng=rng).soft for rng in sources]
    parts = [[soft.uniforms(slice(None), slice(start, start + 10)) for start in (0, 10, 20)] for soft in softs]
    return torch.stack([torch.cat(part, dim=1) for part in parts])


def test_the_noise_of_soft_tokens_is_uniform_and_new_everywhere(monkeypatch):
    """Kolmogorov and Smirnov's distance below its 1% bound; calls, rows, positions and tokens are uncorrelated."""
    monkeypatch.setattr(relaxation, "NOISE_NUMBERS", 10 * VOCAB_SIZE)  # stretches of ten positions
    rng = seeded(4)
    noise = noise_of(build_generator("lstm"), rng, rng).double()
    count = noise.numel()
    steps, numbers = torch.arange(count + 1, dtype=torch.float64) / count, noise.flatten().sort().values
    distance = torch.maximum(numbers - steps[:-1], steps[1:] - numbers).max()
    assert distance < 1.63 / count**0.5
    for each in (noise.flatten(0, 1), noise.transpose(0, 2), noise.transpose(0, 3)):
        table = each.flatten(1)
        correlation = torch.corrcoef(table) - torch.eye(len(table))
        assert correlation.abs().max() < 4 / table.shape[1] ** 0.5


@pytest.mark.parametrize("given", [True, False])
def test_the_noise_of_soft_tokens_follows_from_the_state_of_its_source(given):
    """Of the random numbers that are given, or else of torch's global ones; each call has new noise."""
    generator, found = build_generator("lstm"), []
    for seed in (4, 4, 5):
        torch.manual_seed(len(found) if given else seed)
        rng = seeded(seed) if given else None
        found.append(noise_of(generator, rng, rng))
    first, again, other = found
    assert torch.equal(first, again)
    for one, another in (first, (first[0], other[0])):
        assert not (one == another).flatten(1).all(dim=1).any(), "a row has the same noise again"


def test_a_random_number_of_zero_does_no_harm():
    sums = posterior_gumbel(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]))
    assert sums[0].isfinite().all() and sums[1, 0] == -torch.inf


@pytest.mark.parametrize("beta", BETAS)
def test_the_largest_entry_of_a_soft_token_is_the_token(generator, beta):
    samples = drawn(generator)
    soft = relax(generator, samples, beta, rng=seeded()).soft.dense()
    own = soft.gather(2, samples.ids[..., None]).squeeze(2)
    assert torch.equal(own[samples.mask], soft.amax(dim=2)[samples.mask])
    torch.testing.assert_close(soft.sum(dim=2), samples.mask.float())


@pytest.mark.parametrize("beta", BETAS)
def test_the_law_of_the_tokens_is_the_generators_at_any_beta(beta):
    """Chi squared over 27 sequences, below the bound of 0.1% for 26 degrees of freedom."""
    generator, count = build_generator("lstm", eos=None, vocab_size=3), 20_000
    samples = sample(generator, start_prompt(generator, count), 3, rng=seeded(5))
    ids = relax(generator, samples, beta, rng=seeded(6)).soft.dense().argmax(dim=2)
    every = torch.tensor(list(product(range(3), repeat=3)))
    with torch.no_grad():
        read = torch.cat([torch.full((27, 1), BOS), every[:, :-1]], dim=1)
        logprobs = generator(input_ids=read).logits.log_softmax(-1).gather(2, every[..., None])
    expected = count * logprobs.squeeze(2).sum(dim=1).exp()
    found = torch.bincount(ids @ torch.tensor([9, 3, 1]), minlength=27)
    assert ((found - expected).square() / expected).sum() < 54.1


# --- The same as a loop ----------------------------------------------------------------------------------------------


def loop(generator, samples: Samples, uniforms: torch.Tensor, beta: float) -> torch.Tensor:
    """RelGAN's loop: draw a token with noise, keep the soft one, read the hard one; no cache, (B, T, V)."""
    prompt, mask, softs = samples.prompt, samples.prompt_mask.long(), []
    for t in range(samples.ids.shape[1]):
        positions = {} if generator.config.model_type == "rnn_generator" else {"position_ids": mask.cumsum(1) - 1}
        if positions:
            positions["position_ids"] = positions["position_ids"].clamp(min=0)
        logits = generator(input_ids=prompt, attention_mask=mask, use_cache=False, **positions).logits[:, -1]
        logprobs = logits.log_softmax(-1)
        noise = (posterior_gumbel(logits, samples.ids[:, t], uniforms[:, t]) - logprobs).detach()
        tokens = (logprobs + noise).argmax(dim=1)
        assert torch.equal(tokens, samples.ids[:, t]) or not samples.mask[:, t].all()
        softs.append((beta * (logprobs + noise)).softmax(-1))
        prompt, mask = torch.cat([prompt, samples.ids[:, t : t + 1]], 1), F.pad(mask, (0, 1), value=1)
    return torch.stack(softs, dim=1).masked_fill(~samples.mask[..., None], 0.0)


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_values_and_gradients_are_those_of_a_loop_with_the_same_noise(generator, beta):
    generator.eval()
    samples = drawn(generator)
    soft = relax(generator, samples, beta, rng=seeded()).soft
    slow = loop(generator, samples, soft.uniforms(slice(None), slice(0, 5)), beta)
    close([soft.dense()], [slow])
    weight = torch.randn(VOCAB_SIZE, 4, generator=seeded(1))
    close([soft @ weight], [slow @ weight])
    ours, theirs = ((tokens @ weight).square().sum() for tokens in (soft, slow))
    close(gradients(generator, ours), gradients(generator, theirs))


# --- What changes nothing --------------------------------------------------------------------------------------------


def test_blocks_stretches_and_recomputation_change_nothing(generator, monkeypatch):
    generator.eval()
    samples, weight = drawn(generator), torch.randn(VOCAB_SIZE, 4, generator=seeded(1))
    found = []
    monkeypatch.setattr(relaxation, "NOISE_NUMBERS", 2 * VOCAB_SIZE)  # stretches of two positions
    for rows, kept in ((1000, 2**24), (1, 2**24), (4, 0)):
        monkeypatch.setattr(relaxation, "block_rows", lambda vocab_size, device, rows=rows: rows)
        monkeypatch.setattr(relaxation, "KEPT_NUMBERS", kept)
        soft = relax(generator, samples, 2.0, rng=seeded()).soft
        mixed = soft @ weight
        found.append([mixed, *gradients(generator, mixed.square().sum())])
    for other in found[1:]:
        close(other, found[0])
    stretches = [soft.uniforms(slice(None), slice(start, start + 2)) for start in (0, 2)]
    assert not torch.equal(*stretches)


def test_nothing_as_large_as_all_soft_tokens_is_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(relaxation, "KEPT_NUMBERS", 0)
    monkeypatch.setattr(relaxation, "block_rows", lambda vocab_size, device: 8)
    generator, weight, kept = build_generator("lstm", vocab_size=500), torch.randn(500, 4), []
    soft = relax(generator, drawn(generator, rows=12), 1.0).soft

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mixed = soft @ weight
    assert max(kept) <= 8 * 500 < soft.shape.numel()
    mixed.sum().backward()


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="there, logits are kept")
@pytest.mark.parametrize("numbers_more", [0, -1])
def test_soft_tokens_are_kept_up_to_as_many_numbers_as_that(numbers_more, monkeypatch):
    monkeypatch.setattr(relaxation, "KEPT_NUMBERS", 6 * 5 * VOCAB_SIZE + numbers_more)
    generator, read = build_generator("lstm").eval(), []
    soft = relax(generator, drawn(generator), 1.0).soft
    generator.lm_head.register_forward_hook(lambda *_: read.append(None))
    mixed, forward = (soft @ torch.randn(VOCAB_SIZE, 4)).sum(), len(read)
    mixed.backward()
    assert forward > 0 and (len(read) > forward) == (numbers_more < 0), "logits are made again in the backward pass"


def test_rows_can_be_selected(generator):
    samples, weight = drawn(generator), torch.randn(VOCAB_SIZE, 4)
    relaxed = relax(generator, samples, 2.0)
    whole = relaxed.soft @ weight
    for rows in (torch.tensor([4, 0, 3]), slice(1, 4), torch.arange(6) % 2 == 0):
        torch.testing.assert_close(relaxed.select(rows).soft @ weight, whole[rows])
    moved = relaxed.to("meta").soft
    assert {getattr(moved, name).device.type for name in ("features", "ids", "mask")} == {"meta"}
    assert moved.shape == (6, 5, VOCAB_SIZE) and moved.seeds.device.type == "cpu"


def test_padding_changes_nothing(generator):
    generator.eval()
    samples, weight = drawn(generator), torch.randn(VOCAB_SIZE, 4)
    ids, mask = F.pad(samples.ids, (0, 3), value=PAD), F.pad(samples.mask, (0, 3), value=False)
    wider = samples._replace(ids=ids, mask=mask)
    plain, padded = (relax(generator, some, 2.0, rng=seeded()).soft @ weight for some in (samples, wider))
    torch.testing.assert_close(padded[:, :5], plain)
    assert not padded[:, 5:].any() and not plain[~samples.mask].any()


def test_suppressed_tokens_have_no_share(generator):
    with suppressing(generator, [3, 4]):
        soft = relax(generator, drawn(generator), 0.1).soft
        fed_back = sample_soft(generator, start_prompt(generator, 4), 4, 0.1).soft
    for tokens in (soft.dense(), fed_back):
        assert not tokens[..., 3:5].any() and tokens[:, 0, 5].all()
        assert all(gradient.isfinite().all() for gradient in gradients(generator, tokens.square().sum()))


def test_without_autograd_no_gradient_goes_to_the_generator(generator):
    samples, weight = drawn(generator), torch.randn(VOCAB_SIZE, 4, requires_grad=True)
    with torch.no_grad():
        soft = relax(generator, samples, 1.0).soft
    (soft @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, soft.dense().sum(dim=(0, 1))[:, None].expand(-1, 4))
    assert all(parameter.grad is None for parameter in generator.parameters())


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_beta_is_positive(beta):
    generator = build_generator("lstm")
    with pytest.raises(UserError, match=f"beta={beta}: expected a positive number"):
        relax(generator, drawn(generator), beta)
    with pytest.raises(UserError, match=f"beta={beta}: expected a positive number"):
        sample_soft(generator, start_prompt(generator, 1), 2, beta)


# --- Who reads them --------------------------------------------------------------------------------------------------


def test_straight_through_reads_the_tokens_and_passes_the_gradient_of_soft_ones(generator, discriminator):
    generator.eval()
    discriminator.eval()
    samples = drawn(generator)
    hard, soft = (relax(generator, samples, 2.0, through, rng=seeded()) for through in (True, False))
    scores = realness(discriminator, hard)
    assert torch.equal(scores, realness(discriminator, samples))
    weight = token_embeddings(discriminator)
    slope = torch.randn(6, 5, weight.shape[1], generator=seeded(1))
    ours, theirs = ((relaxed.soft @ weight * slope).sum() for relaxed in (hard, soft))
    close(gradients(generator, ours), gradients(generator, theirs))
    # the embeddings learn from the tokens alone (BERT's of the padding token never do)
    ours, theirs = (torch.autograd.grad(read.sum(), weight)[0] for read in (scores, realness(discriminator, samples)))
    torch.testing.assert_close(ours[PAD + 1 :], theirs[PAD + 1 :], rtol=1e-4, atol=1e-5)


def test_discriminators_read_one_hot_tokens_behind_conditions_as_ids(discriminator):
    discriminator.eval()
    samples = drawn(build_generator("lstm"))
    one_hot = F.one_hot(samples.ids, VOCAB_SIZE).float()
    torch.testing.assert_close(
        realness(discriminator, samples._replace(soft=one_hot)), realness(discriminator, samples)
    )


@pytest.mark.parametrize("straight_through", [False, True])
def test_a_discriminator_that_knows_more_ids_reads_mixtures_of_the_generators(straight_through):
    generator, judge = build_generator("lstm"), build_discriminator("cnn", vocab_size=VOCAB_SIZE + 2).eval()
    relaxed = relax(generator, drawn(generator), 2.0, straight_through, rng=seeded())
    scores = realness(judge, relaxed)
    known = nn.Embedding.from_pretrained(judge.get_input_embeddings().weight[:VOCAB_SIZE].detach())
    judge.set_input_embeddings(known)
    torch.testing.assert_close(scores, realness(judge, relaxed))


class Scaled(nn.Module):
    """Reads its embeddings times two, and takes `inputs_embeds` as they are."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCAB_SIZE, 4), nn.Linear(4, 1)
        self.config, self.device = SimpleNamespace(pad_token_id=None), torch.device("cpu")

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None):
        embedded = 2 * self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        return SimpleNamespace(logits=self.head(embedded.sum(dim=1)))


class Deaf(Scaled):
    def forward(self, input_ids, attention_mask=None):
        return super().forward(input_ids)


@pytest.mark.parametrize("kind", [Scaled, Deaf])
def test_models_that_do_not_look_up_their_embeddings_are_refused(kind):
    with pytest.raises(
        UserError, match=f"{kind.__name__} cannot read soft tokens: its embeddings are no plain lookup"
    ):
        token_embeddings(kind())


class Half(Scaled):
    """Names `inputs_embeds`, but takes none."""

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None):
        if inputs_embeds is not None:
            raise NotImplementedError("Embeddings are not\nsupported.")
        return super().forward(input_ids)


def classifier(kind: str, pad: int) -> PreTrainedModel:
    """A tiny one of transformers, whose first id may be padding."""
    torch.manual_seed(0)
    tokens = {"vocab_size": VOCAB_SIZE, "bos_token_id": 3, "eos_token_id": EOS, "pad_token_id": pad, "num_labels": 2}
    if kind == "gpt2":
        config = GPT2Config(n_positions=32, n_embd=8, n_layer=1, n_head=2, initializer_range=0.5, **tokens)
        return GPT2ForSequenceClassification(config).eval()
    if kind == "bart":
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        return BartForSequenceClassification(
            BartConfig(d_model=8, encoder_layers=1, decoder_layers=1, **heads, **tokens)
        )
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "initializer_range": 0.5}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
    of_llama = LlamaConfig, LlamaForSequenceClassification
    config, model = of_llama if kind == "llama" else (GemmaConfig, GemmaForSequenceClassification)
    return model(config(**sizes, **heads, **tokens)).eval()


@pytest.mark.parametrize("pad", [0, PAD, VOCAB_SIZE - 1])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_classifier_that_finds_the_end_by_its_id_reads_unpadded_soft_samples_only(kind, pad):
    judge, generator = classifier(kind, pad), build_generator("lstm")
    judge.config.eos_token_id = [EOS, VOCAB_SIZE - 2]
    padded = drawn(generator)
    whole = Samples(start_prompt(generator, 6), torch.full((6, 5), 4), torch.ones(6, 5, dtype=torch.bool))
    relaxed = relax(generator, whole, 1.0, straight_through=True)
    torch.testing.assert_close(realness(judge, relaxed), realness(judge, whole))
    with pytest.raises(UserError, match="with padding: it finds a sequence's end by its ids"):
        realness(judge, relax(generator, padded, 1.0))


@pytest.mark.parametrize("pad", [0, PAD])
def test_a_model_that_scales_its_embeddings_is_refused_whatever_its_padding(pad):
    with pytest.raises(UserError, match="GemmaForSequenceClassification .* embeddings are no plain lookup"):
        token_embeddings(classifier("gemma", pad))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: classifier("bart", PAD), "BartForSequenceClassification .*at least one <eos> token"),
        (Half, "Half cannot read soft tokens .Embeddings are not supported"),
    ],
)
def test_what_a_model_says_when_it_reads_no_embeddings_is_the_reason(make, reason):
    with pytest.raises(UserError, match=rf"{reason}\): expected a model that reads `inputs_embeds`"):
        token_embeddings(make())


# --- Fed back --------------------------------------------------------------------------------------------------------


def chain(generator, samples: Samples, length: int, beta: float, rng: torch.Generator) -> torch.Tensor:
    """Soft tokens fed back, all embeddings read again at every step, (B, T, V)."""
    weight = generator.get_input_embeddings().weight
    embedded, mask, softs = weight[samples.prompt], samples.prompt_mask.long(), []
    for _ in range(length):
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        arguments = {} if generator.config.model_type == "rnn_generator" else {"position_ids": positions}
        output = generator(inputs_embeds=embedded, attention_mask=mask, use_cache=False, **arguments)
        logprobs = output.logits[:, -1].log_softmax(-1)
        noise = -torch.log(-torch.log(torch.rand(logprobs.shape, generator=rng)))
        softs.append((beta * (logprobs + noise)).softmax(-1))
        embedded = torch.cat([embedded, (softs[-1] @ weight)[:, None]], dim=1)
        mask = F.pad(mask, (0, 1), value=1)
    return torch.stack(softs, dim=1)


def test_soft_samples_are_those_of_a_loop_without_a_cache(generator):
    generator.eval()
    samples = drawn(generator)
    found = sample_soft(generator, samples.prompt, 4, 1.5, rng=seeded(4), prompt_mask=samples.prompt_mask)
    slow = chain(generator, samples, 4, 1.5, seeded(4))
    slow = slow.masked_fill(~found.mask[..., None], 0.0)
    close([found.soft], [slow])
    slope = torch.randn(slow.shape, generator=seeded(1))
    close(gradients(generator, (found.soft * slope).sum()), gradients(generator, (slow * slope).sum()))
    assert torch.equal(found.soft.argmax(2)[found.mask], found.ids[found.mask])
    ended = (found.ids == EOS).cumsum(dim=1) - (found.ids == EOS).long()
    assert torch.equal(found.mask, ended == 0) and (found.ids[~found.mask] == PAD).all()


def test_the_last_soft_token_is_not_read(generator):
    """A pass for the prompt, and one for every soft token but the last."""
    sample_soft(generator, start_prompt(generator, 2), 1, 1.0)  # tries how the model reads
    passes = []
    generator.base_model.register_forward_hook(lambda *_: passes.append(None))
    sample_soft(generator, start_prompt(generator, 2), 4, 1.0)
    assert len(passes) == 4


def test_at_temperature_zero_the_chain_is_hard(generator):
    """With noise: the sequences of Gumbel-max sampling; without: the greedy ones."""
    generator.eval()
    prompt = start_prompt(generator, 8)
    greedy = sample(generator, prompt, 4, top_k=1)
    found = sample_soft(generator, prompt, 4, 1e4, gumbel=False)
    assert torch.equal(found.ids, greedy.ids) and torch.equal(found.mask, greedy.mask)
    found, rng, ids = sample_soft(generator, prompt, 4, 1e4, rng=seeded(7)), seeded(7), prompt
    for _ in range(4):
        logits = generator(input_ids=ids, use_cache=False).logits[:, -1]
        noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=rng)))
        ids = torch.cat([ids, (logits + noise).argmax(dim=1, keepdim=True)], dim=1)
    assert torch.equal(found.ids[found.mask], ids[:, 1:][found.mask])
    assert len({tuple(row) for row in ids.tolist()}) > 1


def test_only_fed_back_tokens_pass_gradient_to_the_step_before():
    """From the second soft token to the first step's logits."""
    generator, seen = build_generator("lstm"), []
    generator.lm_head.register_forward_hook(lambda head, inputs, logits: seen.append(logits))
    generator.eval()
    prompt = start_prompt(generator, 5)
    sample_soft(generator, prompt, 1, 1.0)  # tries how the model reads
    seen.clear()
    soft = sample_soft(generator, prompt, 2, 1.0).soft
    (slope,) = torch.autograd.grad(soft[:, 1].square().sum(), seen[0])
    assert slope.abs().sum() > 1e-3
    samples = sample(generator, prompt, 2)
    samples = samples._replace(mask=torch.ones_like(samples.mask))
    seen.clear()
    soft = relax(generator, samples, 1.0).soft.dense()
    slopes = torch.autograd.grad(soft[:, 1].square().sum(), seen)
    slope = torch.cat([slope.reshape(-1, VOCAB_SIZE) for slope in slopes]).view(5, 2, VOCAB_SIZE)
    assert not slope[:, 0].any() and slope[:, 1].abs().sum() > 1e-3


def test_at_least_one_token_is_written():
    generator = build_generator("lstm")
    with pytest.raises(UserError, match="max_new_tokens=0: expected at least 1 token"):
        sample_soft(generator, start_prompt(generator, 1), 0, 1.0)
