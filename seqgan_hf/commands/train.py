"""`seqgan-hf train`: train from a recipe."""

from __future__ import annotations

import os

from ..errors import UserError
from .build import build_trainer
from .recipe import load_recipe


# Variables in which launchers tell a process its number.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def run(arguments: list[str]) -> None:
    """`RECIPE [--section.key value ...]`."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1" and not any(name in os.environ for name in RANKS):
        raise UserError(
            f"WORLD_SIZE={world} and no RANK in the environment",
            "both, as launchers set them",
            "start with `torchrun --nproc_per_node N -m seqgan_hf train RECIPE`, or unset WORLD_SIZE",
        )
    if not arguments:
        raise UserError(
            "no recipe", "the name or path of one", "for example text/seqgan; `seqgan-hf recipes` lists all"
        )
    build_trainer(*load_recipe(arguments)).train()
