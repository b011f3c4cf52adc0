"""Distillation: one generator learns from another, or from an ensemble, on as much text as the teacher writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ..errors import UserError
from ..generation.likelihood import full_kl
from ..generation.sampling import sample
from ..generation.vocabulary import vocabulary_size
from ..models import EnsembleGeneratorForCausalLM
from ..samples import Samples
from .base import Loss, Models, Objective


EXPECTED = "folders of runs or saved generators, or ids on the Hub"


class Distillation(Objective):
    """Minimise KL(M || G) for a fixed teacher M, on fresh samples of M, over the whole vocabulary at every prefix.

    Training text is not read, only its prompts. Several teachers make one: the mean of their next-token probabilities
    (`EnsembleGeneratorForCausalLM`), which usually generalises better than each. No discriminator.

    Args:
        teacher: a run's folder, a saved generator, or an id on the Hub; or a list of these. They write the tokens of
            the data.

    References:
        Kim and Rush, Sequence-Level Knowledge Distillation, EMNLP 2016, https://arxiv.org/abs/1606.07947.
    """

    citation = """@inproceedings{kim2016sequence,
  title = {Sequence-Level Knowledge Distillation},
  author = {Kim, Yoon and Rush, Alexander M.},
  booktitle = {Proceedings of the 2016 Conference on Empirical Methods in Natural Language Processing},
  pages = {1317--1327},
  year = {2016}
}"""
    adversary = None

    def __init__(self, teacher: str | list[str]):
        self.names = [teacher] if isinstance(teacher, str) else list(teacher)
        if not self.names:
            raise UserError("teacher=[]", EXPECTED, "name at least one")
        self._teacher: PreTrainedModel | None = None

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        super().check(models, batch_size, conditional)
        theirs, ours = vocabulary_size(self.teacher_of(models)), vocabulary_size(models.generator)
        if theirs != ours:
            problem = f"a teacher of {theirs} tokens for a generator of {ours}"
            raise UserError(problem, "one vocabulary", "name teachers that were trained on this corpus")
        for name in self.names if models.tokenizer is not None else ():
            try:
                tokenizer = AutoTokenizer.from_pretrained(_place(name), trust_remote_code=False)
            except (OSError, ValueError):  # it was saved without one
                continue
            if tokenizer.get_vocab() != models.tokenizer.get_vocab():
                problem = f"the teacher {name!r} gives the tokens of the data other ids"
                raise UserError(problem, "one vocabulary", "name teachers that were trained on this corpus")

    def teacher_of(self, models: Models) -> PreTrainedModel:
        """The teacher, on the generator's device, in eval mode; loaded when first asked for.

        Raises:
            UserError: there is none of that name, or the teachers write different tokens.
        """
        if self._teacher is None:
            with torch.random.fork_rng(devices=[]):  # models draw their weights before those that were saved are read
                teacher: Any = self._together([_load(name) for name in self.names])
            self._teacher = teacher.to(models.generator.device).requires_grad_(False).eval()
        return self._teacher

    def _together(self, loaded: list[PreTrainedModel]) -> PreTrainedModel:
        if len(loaded) == 1:
            return loaded[0]
        try:
            return EnsembleGeneratorForCausalLM.from_members(loaded)
        except (ValueError, StrictDataclassError) as error:
            problem = f"the teachers {self.names} make no ensemble ({' '.join(str(error).split())})"
            raise UserError(problem, "generators trained on one corpus", "name others") from error

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        """What the teacher writes to the prompts of a real batch."""
        return sample(self.teacher_of(models), real.prompt, max_new_tokens, prompt_mask=real.prompt_mask)

    def generator_loss(self, models: Models, real: Samples, fake: Samples | None) -> Loss:
        """sum_t KL(M_t || G_t): a sum over tokens, a mean over B."""
        assert fake is not None  # `draws` is set
        weights = fake.mask / fake.batch_size
        loss, divergences = full_kl(models.generator, self.teacher_of(models), fake, weights, forward=True)
        return Loss(loss, {"kl_teacher": divergences.sum(dim=1).mean()})


def _place(name: str) -> str:
    """Where a generator lies: in a run's folder it is `generator/`."""
    inner = Path(name) / "generator"
    return str(inner) if inner.is_dir() else name


def _load(name: str) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(_place(name), use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        problem = f"teacher {name!r} cannot be loaded ({' '.join(str(error).split())[:200]})"
        raise UserError(problem, EXPECTED, "check the name") from error
