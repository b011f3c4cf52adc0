"""Peak memory of relaxed samples against T and V, beside that of one tensor of all soft tokens.

    OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=262144 MALLOC_TRIM_THRESHOLD_=1000000 \\
        python -m tests.benchmarks.relaxed_memory

The two settings make glibc give back what is freed; as it comes it keeps much of it, another amount in every run.
Each line has the process's peaks (`measuring.peak_memory`) of a forward and a backward pass through mixtures of
64-wide embeddings, for 8 sequences of an LSTM 32/32: in blocks, as it is, and with everything kept for the backward
pass. Both hold the embeddings, their gradient and that of the generator's output layer, which grow with V alone.
"""

from __future__ import annotations

import torch

from seqgan_hf.generation import relaxation
from seqgan_hf.generation.relaxation import relax
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
from seqgan_hf.samples import Samples
from tests.benchmarks.measuring import peak_memory


ROWS = 8
SIZES = [(20, 50_000), (80, 50_000), (320, 50_000), (80, 5_000), (80, 150_000)]  # T, V


def added(length: int, vocab_size: int, kept: int) -> float:
    """MiB."""
    torch.manual_seed(0)
    generator = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=vocab_size))
    ids = torch.randint(vocab_size, (ROWS, length))
    samples = Samples(start_prompt(generator, ROWS), ids, torch.ones_like(ids, dtype=torch.bool))
    weight = torch.randn(vocab_size, 64)

    def run() -> None:
        relaxation.KEPT_NUMBERS, before = kept, relaxation.KEPT_NUMBERS
        (relax(generator, samples, 1.0).soft @ weight).square().mean().backward()
        relaxation.KEPT_NUMBERS = before

    run()
    generator.zero_grad()
    return peak_memory(run)[1]


def main() -> None:
    print("| T | V | MiB of B T V numbers | added, in blocks | added, all kept |\n|---|---|---|---|---|")
    for length, vocab_size in SIZES:
        whole = 4 * ROWS * length * vocab_size / 2**20
        blocks, kept = (added(length, vocab_size, kept) for kept in (relaxation.KEPT_NUMBERS, 2**62))
        print(f"| {length} | {vocab_size:,} | {whole:.0f} | {blocks:.0f} | {kept:.0f} |", flush=True)


if __name__ == "__main__":
    main()
