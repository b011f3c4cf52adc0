"""Where the host waits for the device: counted on a CPU, by the operations that would make a GPU wait.

`docs/contributing.md` lists them. One too many inside a loop over tokens would cost more than the work between two.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from seqgan_hf import functional
from seqgan_hf.generation import likelihood, rollouts, sampling, verdicts
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import rewards
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import modeling_cnn_discriminator, modeling_sums
from seqgan_hf.objectives import MLE, Models, Reinforce, SeqGAN
from tests.tools.plain_paths import fast_paths
from tests.tools.small_runs import build, small_corpus
from tests.tools.tiny import build_discriminator, build_generator


LENGTH = 6


@pytest.fixture(autouse=True)
def as_shipped(monkeypatch):
    """The waits are those of the fast paths, whatever the suite runs with."""
    monkeypatch.setattr(functional, "BOUND_LOGITS", set())  # as on an accelerator
    with fast_paths("auto"):
        yield


# A number is read on the host; or a result's shape depends on values, which the host has to know.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "repeat_interleave"}
# Indexing with a mask asks for its `nonzero`, below where operations can be counted.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# Copies to the host: no operation at all where the device is the host.
COPYING = {"cpu", "numpy", "tolist", "__array__"}


class _Copies(TorchFunctionMode):
    def __init__(self, counts: Counter):
        super().__init__()
        self.counts = counts

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        # by name: a device that is taken from another tensor is not meant to be the host, even if it is here
        values = [*args[1:], *(kwargs or {}).values()]
        to_host = name == "to" and any(isinstance(value, str) and value == "cpu" for value in values)
        if name in COPYING or to_host:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """Counts by name the operations after which the host cannot go on before the device has finished."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()
        self.copies = _Copies(self.counts)

    def __enter__(self):
        self.copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.copies.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = [index for index in args[1] if index is not None] if name in INDEXING else []
        if name in WAITING or any(mask.dtype in (torch.bool, torch.uint8) for mask in masks):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def waits(run) -> Counter:
    run()  # what is found out once a model has been found out
    with Waits() as counted:
        run()
    return counted.counts


@pytest.mark.parametrize(
    "run",
    [
        lambda values: values.max().item(),
        lambda values: bool(values.any()),
        lambda values: values[values > 1],
        lambda values: values.clone().__setitem__(values > 1, values[:1]),
        lambda values: values.nonzero(),
        lambda values: values.masked_select(values > 1),
        lambda values: values.cpu(),
        lambda values: values.to("cpu"),
        lambda values: values.to(device="cpu"),
        lambda values: values.tolist(),
        lambda values: values.numpy(),
        lambda values: torch.repeat_interleave(values),
    ],
)
def test_a_wait_is_seen(run):
    assert waits(lambda: run(torch.tensor([1, 2, 3]))).total() == 1


def test_what_stays_on_the_device_is_no_wait():
    values, rows = torch.tensor([1, 2, 3]), torch.tensor([0, 2])
    assert waits(lambda: (values[rows], values.masked_fill(values > 1, 0), values.to(torch.float32).sum())) == {}


def fixed_length(kind: str):
    """Without a padding token, which GPT-2 in transformers looks for in every input, with a wait each time."""
    generator = build_generator(kind, eos=None)
    generator.config.pad_token_id = None
    return generator


def drawn(generator, count: int = 5):
    return sample(generator, start_prompt(generator, count), LENGTH, rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "allowed"), [("lstm", 0), ("memory", 0), ("gpt2", 1)])
def test_sequences_of_fixed_length_are_drawn_and_learned_without_a_wait(kind, allowed, monkeypatch):
    """Attention models of transformers may look once a pass whether sequences are packed."""
    monkeypatch.setattr(likelihood, "LEAVE_PADDING_OUT", set())  # as on an accelerator
    generator = fixed_length(kind)
    samples = drawn(generator)
    assert waits(lambda: drawn(generator)) == {}
    counts = waits(lambda: MLE().generator_loss(Models(generator), samples, None).value.backward())
    assert counts.total() <= allowed


@pytest.fixture
def accelerator(monkeypatch):
    """The policy of a device that should not be waited for."""
    for module in (likelihood, sampling, rollouts):
        monkeypatch.setattr(module, "LEAVE_PADDING_OUT", set())
    monkeypatch.setattr(verdicts, "READ_PREFIXES_ONCE", set())
    for policy in ("GATHER_WINDOWS", "SPLIT_BY_WIDTH"):
        monkeypatch.setattr(modeling_cnn_discriminator, policy, set())
    monkeypatch.setattr(modeling_sums, "LOOK_UP", set())


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_sequences_that_end_are_waited_for_once_a_token_on_a_cpu_only(kind, request):
    """There the rows that go on are counted, so that no step is spent on the others; the results are the same."""
    generator = build_generator(kind)
    generator.config.pad_token_id = None
    counts = waits(lambda: drawn(generator))
    assert set(counts) <= {"nonzero"} and counts["nonzero"] <= LENGTH - 1
    samples = drawn(generator, 30)
    parts = list(complete(generator, samples, 2, rng=torch.Generator().manual_seed(1)))
    request.getfixturevalue("accelerator")
    assert waits(lambda: drawn(generator)) == {}
    assert waits(lambda: list(complete(generator, samples, 2))) == {"tolist": 1}
    assert not samples.mask.all() and all(map(torch.equal, drawn(generator, 30)[:3], samples[:3]))
    for part, same in zip(complete(generator, samples, 2, rng=torch.Generator().manual_seed(1)), parts, strict=True):
        assert all(map(torch.equal, (*part.samples[:3], part.row), (*same.samples[:3], same.row)))


@pytest.mark.parametrize("kind", ["lstm", "memory", "gpt2"])
def test_rollouts_wait_once_before_they_begin(kind):
    """Whatever their number: the tokens of a completion need no wait."""
    generator = fixed_length(kind)
    samples = drawn(generator)
    for number in (1, 4):
        assert waits(lambda n=number: list(complete(generator, samples, n))) == {"tolist": 1}


@pytest.mark.parametrize("kind", ["rnn", "per_token", "relgan"])
def test_these_discriminators_score_without_a_wait(kind):
    discriminator, samples = build_discriminator(kind), drawn(build_generator("lstm"))
    assert waits(lambda: rewards(discriminator, samples)) == {}


def test_the_convolutional_discriminator_waits_to_know_whether_there_is_padding(monkeypatch):
    """Once a batch, and once more for the longest sequence where there is. (It looks up on a CPU only.)"""
    monkeypatch.setattr(modeling_sums, "LOOK_UP", set())
    discriminator = build_discriminator("cnn")
    whole, padded = drawn(build_generator("lstm", eos=None)), drawn(build_generator("lstm"), 50)
    assert waits(lambda: rewards(discriminator, whole)) == {"_local_scalar_dense": 1}
    assert waits(lambda: rewards(discriminator, padded)) == {"_local_scalar_dense": 2}


@pytest.mark.usefixtures("accelerator")
def test_a_generator_step_waits_for_nothing_but_these(monkeypatch):
    """Its rewards are large batches, for which a discriminator asks whether there is padding."""
    monkeypatch.setattr(modeling_cnn_discriminator, "ONE_PRODUCT", 0)
    generator, discriminator = build_generator("lstm", eos=None), build_discriminator("cnn")
    samples, objective = drawn(generator), SeqGAN(rollouts=2)
    models = Models(generator, discriminator)

    def step() -> None:
        fake = objective.credit(models, samples, samples).samples
        objective.generator_loss(models, samples, fake).value.backward()

    counts = waits(step)
    assert counts["_local_scalar_dense"] == 2  # rollouts and whole sequences are scored
    assert set(counts) == {"tolist", "_local_scalar_dense"}


@pytest.mark.usefixtures("accelerator")
def test_a_discriminator_step_waits_for_nothing():
    models = Models(build_generator("lstm", eos=None), build_discriminator("cnn"))
    real, fake = drawn(models.generator).split(3)
    models.discriminator.train()
    assert waits(lambda: Reinforce().discriminator_loss(models, real, fake).value.backward()) == {}


def test_an_update_waits_once_to_know_whether_the_gradient_is_finite(tmp_path):
    trainer = build(small_corpus(), tmp_path, Reinforce())
    for player in trainer.parts.players.values():
        loss = Reinforce().discriminator_loss(trainer.models, *drawn(trainer.models.generator, 6).split(3))
        weight = next(p for p in player.model.parameters() if p.requires_grad)

        def update(player=player, weight=weight, loss=loss) -> None:
            player.backward(loss._replace(value=weight.sum(), metrics={}))
            player.step()

        assert waits(update) == {"_local_scalar_dense": 1}
