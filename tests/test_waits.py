"""Where the host waits for the device: counted on a CPU, by the operations that would make a GPU wait.

`docs/performance.md` lists them. One too many inside a loop over tokens would cost more than the work between two.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from conftest import build_discriminator, build_generator
from plain_paths import fast_paths
from torch.utils._python_dispatch import TorchDispatchMode

from seqgan_hf import sampling
from seqgan_hf.objectives import MLE, SeqGAN
from seqgan_hf.sampling import complete, sample, start_prompt
from seqgan_hf.scoring import rewards


LENGTH = 6


@pytest.fixture(autouse=True)
def as_shipped():
    """The waits are those of the fast paths, whatever the suite runs with."""
    with fast_paths("auto"):
        yield


# A number is read on the host; or a result's shape depends on values, which the host has to know.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "repeat_interleave"}


class Waits(TorchDispatchMode):
    """Counts by name the operations after which the host cannot go on before the device has finished."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in WAITING:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def waits(run) -> Counter:
    run()  # what is found out once a model has been found out
    with Waits() as counted:
        run()
    return counted.counts


def fixed_length(kind: str):
    """Without a padding token, which GPT-2 in transformers looks for in every input, with a wait each time."""
    generator = build_generator(kind, eos=None)
    generator.config.pad_token_id = None
    return generator


def drawn(generator, count: int = 5):
    return sample(generator, start_prompt(generator, count), LENGTH, rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "allowed"), [("lstm", 0), ("gpt2", 1)])
def test_sequences_of_fixed_length_are_drawn_and_learned_without_a_wait(kind, allowed, monkeypatch):
    """Attention models of transformers may look once a pass whether sequences are packed."""
    monkeypatch.setattr(sampling, "LEAVE_PADDING_OUT", set())  # as on an accelerator
    generator = fixed_length(kind)
    samples = drawn(generator)
    assert waits(lambda: drawn(generator)) == {}
    counts = waits(lambda: MLE().generator_loss(generator, None, samples, None).value.backward())
    assert counts.total() <= allowed


def test_sequences_that_end_are_waited_for_once_a_token():
    """The rows that go on are counted, so that no step is spent on the others."""
    generator = build_generator("lstm")
    counts = waits(lambda: drawn(generator))
    assert set(counts) <= {"nonzero"} and counts["nonzero"] <= LENGTH - 1


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_rollouts_wait_once_a_prefix_length_before_they_begin(kind):
    """Whatever their number: the tokens of a completion need no wait."""
    generator = fixed_length(kind)
    samples = drawn(generator)
    for rollouts in (1, 4):
        assert waits(lambda n=rollouts: list(complete(generator, samples, n))) == {"nonzero": LENGTH - 1}


@pytest.mark.parametrize("kind", ["rnn", "per_token"])
def test_recurrent_discriminators_score_without_a_wait(kind):
    discriminator, samples = build_discriminator(kind), drawn(build_generator("lstm"))
    assert waits(lambda: rewards(discriminator, samples)) == {}


def test_the_convolutional_discriminator_waits_to_know_whether_there_is_padding():
    """Once a batch, and once more for the longest sequence where there is."""
    discriminator = build_discriminator("cnn")
    whole, padded = drawn(build_generator("lstm", eos=None)), drawn(build_generator("lstm"), 50)
    assert waits(lambda: rewards(discriminator, whole)) == {"_local_scalar_dense": 1}
    assert waits(lambda: rewards(discriminator, padded)) == {"_local_scalar_dense": 2}


def test_a_generator_step_waits_for_nothing_but_these():
    generator, discriminator = build_generator("lstm", eos=None), build_discriminator("cnn")
    samples, objective = drawn(generator), SeqGAN(rollouts=2)
    counts = waits(lambda: objective.generator_loss(generator, discriminator, samples, samples).value.backward())
    assert counts["_local_scalar_dense"] == 2  # rollouts and whole sequences are scored
    assert set(counts) == {"nonzero", "_local_scalar_dense"}
