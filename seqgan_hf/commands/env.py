"""`seqgan-hf env`: versions and devices, for a bug report."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch
from torch import distributed

from .. import __version__
from .command_parser import CommandParser


# What a bug report names: what must be installed, then what may be.
PACKAGES = (
    "torch transformers datasets tokenizers accelerate evaluate jsonargparse huggingface_hub safetensors numpy "
    "matplotlib tensorboard wandb trackio peft sentence-transformers mauve-text nltk"
).split()
# Variables that change a run. None of them can hold a secret.
VARIABLES = (
    "OMP_NUM_THREADS GOMP_SPINCOUNT OMP_WAIT_POLICY CUDA_VISIBLE_DEVICES WORLD_SIZE RANK LOCAL_RANK MASTER_PORT "
    "ACCELERATE_USE_CPU ACCELERATE_MIXED_PRECISION HF_HUB_OFFLINE TOKENIZERS_PARALLELISM PYTORCH_ALLOC_CONF"
).split()


def run(arguments: list[str]) -> None:
    """No arguments."""
    CommandParser(prog="seqgan-hf env", description="Print versions and devices.").parse_args(arguments)
    print(f"seqgan-hf {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # the last ones are options
            continue
    names = ("gloo", "nccl", "mpi") if distributed.is_available() else ()
    backends = [name for name in names if getattr(distributed, f"is_{name}_available")()]
    print(f"CUDA of torch: {torch.version.cuda or 'none'}; distributed: {', '.join(backends) or 'none'}")
    chosen = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    print(f"environment: {', '.join(chosen) or 'nothing of note'}")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(f"GPUs: {', '.join(devices) or 'none'}; CPU cores: {os.cpu_count()}; threads: {torch.get_num_threads()}")
