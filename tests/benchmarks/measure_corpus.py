"""Time and peak memory of reading and tokenizing a corpus of random words, and of one epoch of padded batches.

    python -m tests.benchmarks.measure_corpus word:1000000 word:5000000 bpe:1000000 unigram:1000000 char:1000000
    python -m tests.benchmarks.measure_corpus word:200000 word:200000:stream

Every size runs in a process of its own, without a cache. Memory is what the process itself holds (`RssAnon`); pages of
memory-mapped files, which the system takes back when it needs them, are not counted.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch


WORDS_A_LINE, DIFFERENT_WORDS = 10, 20_000
MAX_LENGTH, BATCH_SIZE = 24, 64


def write_corpus(path: Path, lines: int) -> None:
    """Random words whose frequencies fall as 1 / rank."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number:x}" for number in range(DIFFERENT_WORDS)])
    cumulative = np.cumsum(1.0 / np.arange(1, DIFFERENT_WORDS + 1))
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, lines, 100_000):
            count = min(100_000, lines - start)
            drawn = words[np.searchsorted(cumulative, rng.random((count, WORDS_A_LINE)) * cumulative[-1])]
            file.writelines(" ".join(row) + "\n" for row in drawn)


def own_memory() -> float:
    """MiB that this process holds, without mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no RssAnon")


def measure(lines: int, level: str, kind: str = "memory") -> None:
    """Load once and go through it once; print times, and the memory before and at the peak."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        from seqgan_hf.data import TextData, TokenizerConfig
        from seqgan_hf.training.batches import training_data

        path = Path(folder) / "corpus.txt"
        write_corpus(path, lines)
        before = own_memory()
        peak, done = [before], threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                peak[0] = max(peak[0], own_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        times = [(time.perf_counter(), time.process_time())]
        source = {"train_file": str(path), "tokenizer": TokenizerConfig(level=level)}
        corpus = TextData(**source, streaming=kind == "stream", max_length=MAX_LENGTH).load()
        times.append((time.perf_counter(), time.process_time()))
        tokens = (corpus.bos_token_id, corpus.pad_token_id, MAX_LENGTH)
        data, _ = training_data(corpus.train, *tokens, torch.device("cpu"))
        read = sum(batch.batch_size for batch in data.epoch((0,), BATCH_SIZE))
        times.append((time.perf_counter(), time.process_time()))
        done.set()
        watcher.join()
        (load, load_cpu), (epoch, epoch_cpu) = np.diff(times, axis=0)
        print(
            f"{lines} lines, level {level}, {kind}: load {load:.1f} s ({load_cpu:.1f} s of CPU time), "
            f"an epoch of {read} lines {epoch:.1f} s ({epoch_cpu:.1f} s), {before:.0f} MiB before, "
            f"{peak[0]:.0f} MiB at the peak",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        measure(int(sys.argv[2]), *sys.argv[3:])
    else:
        for case in sys.argv[1:]:
            level, size, *kind = case.split(":")
            subprocess.run([sys.executable, __file__, "--one", size, level, *kind], check=True)
