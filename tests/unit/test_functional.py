"""Pure functions: distributions by chi-square, losses and gradients against plain torch."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import OPTConfig, OPTForCausalLM

from seqgan_hf import functional
from seqgan_hf.functional import (
    SoftmaxLayer,
    discounted,
    filter_logits,
    layer_memory,
    linear_kl,
    linear_nll,
    masked_mean,
    sample_categorical,
)
from seqgan_hf.generation.modes import evaluating, train_without_dropout
from seqgan_hf.models import modeling_products
from tests.tools.plain_paths import ONEDNN, fast_paths
from tests.tools.tiny import build_generator


@pytest.fixture
def as_shipped():
    """For what holds of the fast paths only, whatever the suite runs with."""
    with fast_paths("auto"):
        yield


@pytest.mark.parametrize("vocab_size", [1, 2, 63, 64, 65, 1000])
def test_categorical_samples_follow_softmax(vocab_size):
    rng = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(vocab_size, generator=rng) * 2
    draws = 200_000
    weights = (logits.softmax(0) * 7).expand(draws, -1)  # which need not sum to one
    tokens = sample_categorical(weights, torch.rand(draws, 2, generator=rng))
    expected = logits.double().softmax(0) * draws
    observed = torch.bincount(tokens, minlength=vocab_size).double()
    rare = expected < 5  # chi-square needs cells that are expected a few times: the rare ones are pooled
    cells = [(observed[~rare], expected[~rare])]
    if rare.any():
        cells.append((observed[rare].sum()[None], expected[rare].sum()[None]))
    observed, expected = (torch.cat(part) for part in zip(*cells, strict=True))
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert vocab_size == 1 or stats.chi2.sf(statistic, len(expected) - 1) > 1e-3


def test_categorical_is_exact_for_a_large_vocabulary():
    """Evenly spread numbers reach every part of 150,000 entries as often as its share says, to the last one."""
    vocab_size, draws = 150_000, 1_000
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(vocab_size, generator=rng)
    spread = (torch.arange(draws) + 0.5) / draws
    uniforms = torch.stack([spread, torch.rand(draws, generator=rng)], dim=1)
    tokens = sample_categorical(logits.exp().expand(draws, -1), uniforms)
    expected = logits.double().softmax(0).view(50, 3000).sum(1).cumsum(0) * draws
    observed = torch.bincount(tokens // 3000, minlength=50).cumsum(0)
    assert (observed - expected).abs().max() <= 1


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.0 - 2**-24]))
@settings(max_examples=60, deadline=None)
def test_categorical_never_draws_an_impossible_token(seed, extreme):
    rng = torch.Generator().manual_seed(seed)
    vocab_size = int(torch.randint(1, 300, (), generator=rng))
    logits = torch.randn(50, vocab_size, generator=rng) * 30
    logits[torch.rand(50, vocab_size, generator=rng) < 0.7] = -math.inf
    keep = torch.randint(vocab_size, (50,), generator=rng)
    logits[torch.arange(50), keep] = 0.0
    uniforms = torch.rand(50, 2, generator=rng)
    uniforms[::2] = extreme
    tokens = sample_categorical(logits.softmax(-1), uniforms)
    assert (tokens < vocab_size).all()
    assert (logits.softmax(-1)[torch.arange(50), tokens] > 0).all()


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize(
    ("vocab_size", "uniforms", "token"),
    [
        (1024, (0.5, 0.5), 4 * 128 + 64),  # 8 blocks of 128 tokens
        (990, (0.5, 0.5), 4 * 110 + 55),  # 9 of 110, the largest size up to 128 that divides 990
        (1009, (0.5, 0.5), 15 * 32 + 16),  # a prime: 31 of 32, and a rest
        (1009, (0.999, 0.999), 1008),
        (31, (0.5, 0.5), 15),
    ],
)
def test_a_seed_draws_the_tokens_that_it_always_drew(vocab_size, uniforms, token):
    """Which token two numbers stand for is part of what makes a run repeatable."""
    assert sample_categorical(torch.ones(1, vocab_size), torch.tensor([uniforms])).tolist() == [token]


def test_filter_logits_keeps_what_generate_keeps():
    """Order and borders are those of transformers' own logits warpers."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)) * 3
    ours = filter_logits(logits, temperature=0.7, top_k=20, top_p=0.8)
    theirs = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.8)):
        theirs = warper(None, theirs)
    torch.testing.assert_close(ours, theirs)
    assert filter_logits(logits) is logits


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 1}, [2]),
        ({"top_k": 3}, [0, 1, 2]),
        ({"top_k": 4}, [0, 1, 2, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),  # more than there are: all
        ({"top_p": 0.5}, [2]),  # reached exactly by the first
        ({"top_p": 0.51}, [0, 2]),
        ({"top_p": 0.75}, [0, 2]),
        ({"top_p": 0.76}, [0, 1, 2]),
        ({"top_p": 1e-9}, [2]),
        ({"top_k": 2, "top_p": 0.6}, [2]),  # two thirds of what top-k has left
    ],
)
def test_filter_logits_keeps_no_token_more_and_none_less(options, kept):
    """Probabilities 1/4, 1/8 + 1/1024, 1/2, 1/8 - 1/1024, and another row in the opposite order."""
    row = torch.tensor([0.25, 0.125 + 2**-10, 0.5, 0.125 - 2**-10]).log()
    found = filter_logits(torch.stack([row, row.flip(0)]), **options)
    assert found[0].isfinite().nonzero().squeeze(1).tolist() == kept
    assert torch.equal(found[1], found[0].flip(0))
    assert torch.equal(found[0, kept], row[kept])


@pytest.mark.usefixtures("as_shipped")
def test_a_block_of_logits_stays_in_the_cache_of_a_cpu_and_takes_256_mib_elsewhere():
    for device, vocab_size, rows in (
        ("cpu", 2**14, 2**7),
        ("cpu", 2**20, 16),  # too short a block would be slower than the cache is worth
        ("cuda", 2**15, 2**11),
        ("cuda", 2**24, 16),
    ):
        assert functional.block_rows(vocab_size, torch.device(device)) == rows, (device, vocab_size)


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("scale", [0.1, 4.0, 30.0, 1e4])
@pytest.mark.parametrize("bias", [None, "small", "suppressed", "large"])
def test_exponentials_that_are_taken_to_be_safe_are(scale, bias):
    """Whatever the layer: probabilities from unshifted exponentials are those of the softmax, in float64."""
    rng = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 8, generator=rng), torch.randn(300, 8, generator=rng) * scale / 8
    added = {None: None, "small": torch.randn(300, generator=rng), "large": torch.full((300,), -70.0)}
    added["suppressed"] = torch.where(torch.arange(300) % 3 > 0, added["small"], -torch.inf)
    layer = SoftmaxLayer(weight, added[bias])
    assert layer.is_safe(hidden) == (scale < 30 and bias != "large")
    logits = layer.logits(layer.reads(hidden, safe=False), torch.full((50, 300), torch.nan))
    expected = torch.nn.functional.linear(
        hidden.double(), weight.double(), None if added[bias] is None else added[bias].double()
    )
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-6 * (10 + scale))
    if layer.is_safe(hidden):
        weights = layer.logits(layer.reads(hidden, safe=True)).exp2()
        assert weights.isfinite().all()
        probabilities = expected.softmax(dim=-1)
        torch.testing.assert_close(
            weights.double() / weights.double().sum(-1, keepdim=True), probabilities, rtol=1e-4, atol=0
        )


@pytest.mark.usefixtures("as_shipped")
def test_each_thread_keeps_its_memory_for_logits():
    device = torch.device("cpu")

    def work() -> int:
        with torch.inference_mode():
            memory = layer_memory(4, 6, device)
        memory.zero_()  # it is no tensor of the inference mode, which could be written to there only
        assert memory.shape == (4, 6)
        assert layer_memory(3, 5, device).data_ptr() == memory.data_ptr()
        assert layer_memory(3, 5, device).shape == (3, 5)
        assert layer_memory(5, 50, device).shape == (5, 50)  # more, where more is needed
        return layer_memory(4, 6, device).data_ptr()

    with ThreadPoolExecutor(1) as pool:
        with torch.device("meta"):  # of the caller, and not kept
            assert pool.submit(work).result() != work()
    assert layer_memory(4, 6, torch.device("meta")) is None


@pytest.mark.usefixtures("as_shipped")
def test_what_cannot_be_bounded_is_not_taken_to_be_safe():
    hidden, weight = torch.ones(3, 4), torch.zeros(5, 4)
    assert SoftmaxLayer(weight, None).is_safe(hidden)
    for other in (torch.nan, torch.inf):
        assert not SoftmaxLayer(weight, None).is_safe(hidden * other)
        assert not SoftmaxLayer(weight, torch.full((5,), other)).is_safe(hidden)
        assert not SoftmaxLayer(weight + other, None).is_safe(hidden)
    assert not SoftmaxLayer(weight, torch.full((5,), -torch.inf)).is_safe(hidden)
    assert not SoftmaxLayer(weight.bfloat16(), None).is_safe(hidden.bfloat16())
    assert not SoftmaxLayer(torch.zeros(5, 129), None).is_safe(torch.ones(3, 129))
    assert not SoftmaxLayer(weight, None).is_safe(hidden[:0])


class Products(TorchDispatchMode):
    """Which products are computed."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.skipif(ONEDNN is None, reason="needs a torch with oneDNN")
@pytest.mark.parametrize("bias", [True, False])
def test_products_in_single_precision_take_the_fast_path_and_no_others_do(bias, monkeypatch):
    monkeypatch.setattr(modeling_products, "ONEDNN_LINEAR", ONEDNN)
    for dtype, rows, fast in (
        (torch.float32, 4, True),
        (torch.float32, 0, False),
        (torch.float64, 4, False),
        (torch.bfloat16, 4, False),
    ):
        a, b = torch.randn(3, rows).to(dtype).T, torch.randn(5, 3).to(dtype)
        shift = torch.randn(5).to(dtype) if bias else None
        with torch.no_grad(), Products() as products:
            found = functional.multiply(a, b, shift)
        assert ("_linear_pointwise" in products.names) == fast, (dtype, rows)
        torch.testing.assert_close(found, F.linear(a, b, shift))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert functional.multiply(a, b, shift).dtype == F.linear(a, b, shift).dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # logits of the latter are powers of two
@pytest.mark.parametrize("bias", [True, False])
def test_linear_nll_equals_cross_entropy_and_its_gradients(bias, dtype, monkeypatch):
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 7)  # several blocks, the last one short
    torch.manual_seed(0)
    head = nn.Linear(5, 11, bias=bias).to(dtype)
    hidden = torch.randn(30, 5, dtype=dtype, requires_grad=True)
    targets, weights = torch.randint(11, (30,)), torch.randn(30, dtype=dtype)
    parameters = [hidden, *head.parameters()]

    loss, logprobs = linear_nll(hidden, head.weight, head.bias, targets, weights)
    gradients = torch.autograd.grad(loss * 3, parameters)
    plain = F.cross_entropy(head(hidden), targets, reduction="none")
    expected = torch.autograd.grad((plain * weights).sum() * 3, parameters)

    torch.testing.assert_close(loss, (plain * weights).sum(), rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(logprobs, -plain, rtol=1e-5, atol=1e-5, check_dtype=False)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_of_half_precision_are_summed_in_single(monkeypatch):
    """600 blocks, whose sum in bfloat16 would stop growing at 256."""
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 1)
    weight, bias = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True), None
    hidden, targets = torch.ones(600, 1, dtype=torch.bfloat16, requires_grad=True), torch.zeros(600, dtype=torch.long)
    loss, logprobs = linear_nll(hidden, weight, bias, targets, torch.ones(600, dtype=torch.bfloat16) * 2)
    loss.backward()
    assert loss.dtype == logprobs.dtype == torch.float32
    assert weight.grad.dtype == hidden.grad.dtype == torch.bfloat16
    assert weight.grad.tolist() == [[-600.0], [600.0]]  # 600 * 2 * (1/2 - 1) and 600 * 2 * 1/2


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("scale", [0.01, 1.5])
def test_float16_keeps_gradients_of_many_tokens(scale, bounded, monkeypatch):
    """Shares of a token as small as 1/V, and powers as large as e^20, which float16 holds neither of."""
    if not bounded:
        monkeypatch.setattr(functional, "BOUND_LOGITS", set())
    torch.manual_seed(0)
    hidden, weight = torch.randn(1000, 8, requires_grad=True), (torch.randn(4000, 8) * scale).requires_grad_()
    targets, weights = torch.randint(4000, (1000,)), torch.full((1000,), 1 / 1000)
    expected = torch.autograd.grad(F.cross_entropy(F.linear(hidden, weight), targets), [hidden, weight])
    with torch.autocast("cpu", torch.float16):
        loss, _ = linear_nll(hidden, weight, None, targets, weights)
    for found, right in zip(torch.autograd.grad(loss, [hidden, weight]), expected, strict=True):
        assert (found - right).norm() < 0.01 * right.norm()


def half_precision_head(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, weight and bias of a linear layer over two tokens, in bfloat16."""
    values = ([[1.0]] * rows, [[1.0], [-0.5]], [0.5, 0.0])
    return tuple(torch.tensor(value, dtype=torch.bfloat16, requires_grad=True) for value in values)


@pytest.mark.parametrize("forward", [False, True])
def test_gradients_of_a_divergence_in_half_precision_are_summed_in_single(forward, monkeypatch):
    """The same 600 blocks."""
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 1)
    head = half_precision_head(600)
    other = tuple(torch.tensor(values, dtype=torch.bfloat16) for values in ([[1.0]] * 600, [[2.0], [0.5]], [0.0, 0.0]))
    loss, values = linear_kl(head, other, torch.ones(600), forward)
    loss.backward()
    single = [tensor.detach().float().requires_grad_() for tensor in head]
    expected, _ = linear_kl(tuple(single), tuple(tensor.float() for tensor in other), torch.ones(600), forward)
    expected.backward()
    assert loss.dtype == values.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    for half, exact in zip(head, single, strict=True):
        assert half.grad.dtype == torch.bfloat16
        torch.testing.assert_close(half.grad.float(), exact.grad, rtol=0.02, atol=0)


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("loss", ["nll", "kl"])
def test_what_waits_for_the_backward_pass_takes_no_more_memory_than_the_gradients(loss):
    head, kept = half_precision_head(5), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda _: None):
        if loss == "nll":
            linear_nll(*head, torch.zeros(5, dtype=torch.long), torch.ones(5))
        else:
            linear_kl(head, head, torch.ones(5), forward=False)
    assert [(tensor.shape, tensor.dtype) for tensor in kept] == [(tensor.shape, tensor.dtype) for tensor in head]


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_precision_of_losses_does_not_depend_on_torchs_default(default):
    """Which other libraries change, for instance while they load a model."""
    head, targets, weights = half_precision_head(5), torch.zeros(5, dtype=torch.long), torch.ones(5)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        found = [*linear_nll(*head, targets, weights), *linear_kl(head, head, weights, forward=False)]
    finally:
        torch.set_default_dtype(before)
    assert {tensor.dtype for tensor in found} == {torch.float32}


@pytest.mark.usefixtures("as_shipped")
def test_linear_nll_computes_no_gradient_of_a_frozen_head():
    """Its size is that of the vocabulary."""
    head, kept = nn.Linear(4, 6).requires_grad_(False), []
    hidden = torch.randn(3, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.shape) or tensor, lambda held: held
    ):
        loss, _ = linear_nll(hidden, head.weight, head.bias, torch.tensor([0, 5, 2]), torch.ones(3))
    loss.backward()
    assert hidden.grad.abs().sum() > 0 and head.weight.grad is None
    assert kept == [hidden.shape]


def test_masked_mean_ignores_what_is_masked_even_nan():
    values, mask = torch.tensor([[1.0, 3.0, float("nan")]]), torch.tensor([[True, True, False]])
    assert masked_mean(values, mask) == 2.0
    assert masked_mean(values[:, :1], mask[:, :1]) == 1.0
    assert masked_mean(values, torch.zeros_like(mask)) == 0.0


def test_the_return_of_a_single_token_is_its_reward():
    rewards, mask = torch.tensor([[2.0], [3.0]]), torch.tensor([[True], [False]])
    assert discounted(rewards, mask, 0.5).tolist() == [[2.0], [0.0]]


def test_evaluating_restores_every_flag_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with pytest.raises(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert model.training and model[0].training and not model[1].training


def test_training_without_dropout_keeps_what_else_depends_on_the_flag():
    """Recurrent layers stay in training for cuDNN; checkpointed layers go on saving memory, with the same gradient."""
    generator = build_generator("lstm")
    train_without_dropout(generator)
    assert {module.training for module in generator.modules() if isinstance(module, torch.nn.LSTM)} == {True}
    assert {module.training for module in generator.modules() if isinstance(module, torch.nn.Dropout)} == {False}

    gradients, calls = [], []
    for checkpointing in (False, True):
        model = build_generator("gpt2")
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        train_without_dropout(model)
        ids = torch.arange(10).view(2, 5)
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        assert len(calls) == (3 if checkpointing else 1)  # computed again in the backward pass
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, other)


def test_layers_that_drop_by_themselves_do_not_train():
    """OPT's layers read their own flag for dropout; a checkpointed one may not keep it."""
    config = OPTConfig(
        vocab_size=13, hidden_size=8, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2, dropout=0.5,
        layerdrop=0.5, max_position_embeddings=16, word_embed_proj_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = OPTForCausalLM(config)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    stacked = nn.LSTM(4, 8, num_layers=2, dropout=0.5, batch_first=True)
    train_without_dropout(model), train_without_dropout(stacked)
    ids, inputs = torch.arange(10).view(2, 5), torch.randn(2, 5, 4)
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert torch.equal(stacked(inputs)[0], stacked(inputs)[0])


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_kl_is_the_divergence_of_two_softmaxes(forward, biased, monkeypatch):
    """Value and gradients against autograd over all logits, in blocks of two rows; M of another width."""
    monkeypatch.setattr(functional, "block_rows", lambda vocab_size, device: 2)
    rng = torch.Generator().manual_seed(0)
    head = [torch.randn(5, 3, generator=rng), torch.randn(7, 3, generator=rng), torch.randn(7, generator=rng)]
    head = [tensor.requires_grad_() for tensor in head] if biased else [*(t.requires_grad_() for t in head[:2]), None]
    other = (torch.randn(5, 4, generator=rng), torch.randn(7, 4, generator=rng), torch.randn(7, generator=rng))
    weights = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    loss, values = linear_kl(tuple(head), other, weights, forward)
    ours, theirs = F.linear(*head).log_softmax(-1), F.linear(*other).log_softmax(-1)
    expected = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    if not forward:
        expected = F.kl_div(theirs, ours, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(loss, (weights * expected).sum())
    inputs = [tensor for tensor in head if tensor is not None]
    for one, plain in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * (weights * expected).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(one, plain, rtol=1e-4, atol=1e-5)
    assert values.grad_fn is None or not values.requires_grad
