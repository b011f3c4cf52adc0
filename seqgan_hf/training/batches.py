"""Batches of training sequences, for one process of several, in an order that depends on the seed only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain, count

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node

from ..data import materialize, stream_samples
from ..data.sources import reading_stream
from ..errors import DataError
from ..samples import Samples
from .processes import fingerprint


# A corpus of more bytes than this stays in main memory; its batches are copied to the device one by one.
DEVICE_BYTES = 2**30
# Rows that a streamed corpus is shuffled within.
SHUFFLE_BUFFER = 10_000
# Rows of a stream by which it is known again.
FINGERPRINTED_ROWS = 1_000


class TrainingData(ABC):
    """Real sequences in batches. Every process sees its own share of each global batch."""

    @abstractmethod
    def epoch(self, seed: tuple[int, ...], batch_size: int) -> Iterator[Samples]:
        """One pass over this process's share in an order drawn from `seed`; the last batch may be smaller."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of training sequences, over all processes."""

    @property
    @abstractmethod
    def conditional(self) -> bool:
        """Whether sequences continue prompts of their own."""

    @abstractmethod
    def fingerprint(self) -> int:
        """A number that changes with the sequences and their order, the same on all processes."""

    def endless(self, seed: tuple[int, ...], batch_size: int) -> Iterator[Samples]:
        """Epoch after epoch, each in an order of its own."""
        return chain.from_iterable(self.epoch((*seed, epoch), batch_size) for epoch in count())

    def take(self, seed: tuple[int, ...], size: int) -> Samples:
        """`size` sequences of this process's share; all of them again once they are used up."""
        batches, parts = self.endless(seed, size), list[Samples]()
        while sum(part.batch_size for part in parts) < size:
            parts.append(next(batches))
        return Samples.concatenate(parts).select(slice(0, size))


def seeded(seed: tuple[int, ...]) -> int:
    """One well-mixed number from several, for a generator of random numbers."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) >> 1


class InMemoryData(TrainingData):
    """A corpus as one padded record, which is indexed instead of iterated: row access would cost more than training.

    Args:
        samples: all sequences, on the device or on the CPU.
        device: where batches go.
        process_index, num_processes: whose share of each batch to give.
    """

    def __init__(self, samples: Samples, device: torch.device, process_index: int = 0, num_processes: int = 1):
        size = sum(field.numel() * field.element_size() for field in samples if field is not None)
        self.samples = samples.to(device) if size <= DEVICE_BYTES else samples
        self.device, self.process_index, self.num_processes = device, process_index, num_processes

    def __len__(self) -> int:
        return self.samples.batch_size

    def parted(self, seed: tuple[int, ...], share: float) -> tuple[InMemoryData, InMemoryData]:
        """Two corpora that have no row in common: at random without, and with, this share of the rows."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seeded(seed)))
        parts = order.split([len(self) - (size := round(share * len(self))), size])
        place = (self.device, self.process_index, self.num_processes)
        first, second = (InMemoryData(self.samples.select(r.to(self.samples.ids.device)), *place) for r in parts)
        return first, second

    @property
    def conditional(self) -> bool:
        prompt = self.samples.prompt
        return prompt.shape[1] > 1 or bool((prompt != prompt[:1]).any())

    def fingerprint(self) -> int:
        parts = [fingerprint(field).cpu() for field in self.samples if field is not None]
        return int(fingerprint(torch.stack(parts)))

    def epoch(self, seed: tuple[int, ...], batch_size: int) -> Iterator[Samples]:
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seeded(seed)))
        for rows in order.split(batch_size * self.num_processes):
            if self.num_processes > 1:
                # the last batch is filled up from the first rows, so that no process waits for one that has none
                rows = torch.cat([rows, order[: -len(rows) % self.num_processes]])
                rows = rows.chunk(self.num_processes)[self.process_index]
            yield self.samples.select(rows.to(self.samples.ids.device)).to(self.device)


class StreamedData(TrainingData):
    """A corpus that does not fit into memory, read as it goes and shuffled within a buffer.

    Args:
        dataset: rows with `input_ids` and, optionally, `prompt_ids`.
        max_length: T, the width of every batch.
        bos_token_id, pad_token_id: as in `Corpus`; device, process_index, num_processes: as in `InMemoryData`.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        bos_token_id: int,
        pad_token_id: int | None,
        max_length: int,
        device: torch.device,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        self.whole, self.max_length, self.device = dataset, max_length, device
        self.dataset = split_dataset_by_node(dataset, process_index, num_processes) if num_processes > 1 else dataset
        self.bos_token_id, self.pad_token_id = bos_token_id, pad_token_id

    def __len__(self) -> int:
        raise DataError("streamed data have no length", fix="set `training.num_fakes`")

    @property
    def conditional(self) -> bool:
        with reading_stream():
            return "prompt_ids" in next(iter(self.whole), {})

    def fingerprint(self) -> int:
        """Of the first rows only: reading all would take as long as an epoch."""
        rows = next(stream_samples(self.whole, self, FINGERPRINTED_ROWS, self.max_length))
        return int(fingerprint(torch.cat([rows.ids.flatten(), rows.prompt.flatten()])))

    def epoch(self, seed: tuple[int, ...], batch_size: int) -> Iterator[Samples]:
        shuffled = self.dataset.shuffle(seed=seeded(seed) % 2**32, buffer_size=SHUFFLE_BUFFER)
        for batch in stream_samples(shuffled, self, batch_size, self.max_length):
            yield batch.to(self.device)


def as_samples(dataset: Dataset | Samples, bos_token_id: int, pad_token_id: int | None) -> Samples:
    """All rows of a corpus that fits into memory, as one padded record."""
    return dataset if isinstance(dataset, Samples) else materialize(dataset, bos_token_id, pad_token_id)


def training_data(
    dataset: Dataset | IterableDataset | Samples,
    bos_token_id: int,
    pad_token_id: int | None,
    max_length: int | None,
    device: torch.device,
    process_index: int,
    num_processes: int,
) -> tuple[TrainingData, int]:
    """Batches from any kind of corpus, and T, the longest sequence (`max_length`, where that is given)."""
    place = (device, process_index, num_processes)
    if isinstance(dataset, IterableDataset):
        if max_length is None:
            raise DataError("streamed data have no longest sequence", fix="set `training.max_new_tokens`")
        return StreamedData(dataset, bos_token_id, pad_token_id, max_length, *place), max_length
    samples = as_samples(dataset, bos_token_id, pad_token_id)
    return InMemoryData(samples, *place), samples.ids.shape[1] if max_length is None else max_length
