"""A reward for TRL's trainers that keeps learning: a discriminator of their completions and real answers."""

from __future__ import annotations

import json
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from ..data.reading import TextInputs, positions_of
from ..errors import RunFolderError, UserError
from ..evaluation.verdicts import auc
from ..generation.modes import evaluating


logger = logging.getLogger(__name__)

Kind = Literal["bradley_terry", "cross_entropy"]
FOLDER = "adversarial_reward"  # in a checkpoint of TRL
Message = str | list[dict[str, Any]]


class Pair(NamedTuple):
    """What a discriminator learns from: a prompt, what the policy answered, and a real answer."""

    prompt: str
    completion: str
    answer: str


class AdversarialReward(TrainerCallback):
    """The log-odds that a completion is real, by a discriminator that learns as the policy does.

    Give it to a `GRPOTrainer` or `RLOOTrainer` twice, as `reward_funcs` and among its `callbacks`: as a reward it
    scores every batch of completions and then learns from them, beside real answers; as a callback it knows when the
    policy trains (in evaluations it scores only), and saves and loads its state with TRL's checkpoints. As a reward
    alone, with `updates=0`, it is a fixed one: the log-odds of the discriminator as it is.

    With answers to the same prompts and `bradley_terry` this is the discriminator of GAD (Ye et al. 2025,
    https://arxiv.org/abs/2511.10643): -log sigmoid(s(answer) - s(completion)). With `cross_entropy` it is that of
    SeqGAN, and answers may be any real text.

    Args:
        discriminator: a sequence classifier with one logit, or two with label 1 = real. Where it is to learn, its
            weights become float32, however they were loaded: small steps are lost in bfloat16.
        tokenizer: its own; how texts are read is `TextInputs`'.
        answers: the column of the training data with the real answer to each prompt, `None` where there is none (such
            a prompt's completions are scored, and not learnt from); or real texts, of which some are drawn for every
            batch.
        loss: `bradley_terry` or `cross_entropy`.
        learning_rate: of AdamW on the discriminator.
        updates: gradient steps on each batch of completions.
        batch_size: pairs of a gradient step, on each process.
        warmup: batches of completions on which the discriminator only learns; all rewards are 0 meanwhile, so that the
            policy stays where it is.
        replay: as many earlier pairs are kept; half of every gradient step is drawn from them.
        held_out: real texts, or prompts with answers, that it does not learn from; they say what it knows.
        limit: rewards are cut off at +- this many log-odds.
        reads_prompt: whether it reads the prompt before the completion, as a pair of texts; by default where `answers`
            is a column. Texts that answer no prompt cannot be read with one: what fits its prompt would be a fake.
        max_grad_norm: of its gradient; 0 does not clip.
        seed: of what is drawn from `answers`, `replay` and `held_out`.

    Attributes:
        logged: what went into TRL's log last: `loss`, `margin` (mean of s(answer) - s(completion), before it learnt
            from them), `pair_accuracy` (share of pairs in the right order), and with `held_out` `auc_held_out` (the
            chance that it scores held-out real text above a completion) and `drift` (how far the mean score of that
            text has moved since the start, in log-odds). Of the held-out text four times as many as the first batch
            had completions are read, the same ones every time.

    Raises:
        UserError: a setting means nothing, or the discriminator cannot read or learn.
    """

    def __init__(
        self,
        discriminator: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        answers: str | Sequence[str] = "answer",
        loss: Kind = "bradley_terry",
        learning_rate: float = 1e-5,
        updates: int = 1,
        batch_size: int = 16,
        warmup: int = 0,
        replay: int = 0,
        held_out: Sequence[str | tuple[str, str]] = (),
        limit: float = 10.0,
        reads_prompt: bool | None = None,
        max_grad_norm: float = 1.0,
        seed: int = 0,
    ):
        if loss not in get_args(Kind):
            raise UserError(f"loss={loss!r}", f"one of {', '.join(get_args(Kind))}", "choose one")
        counts = {"updates": (updates, 0), "batch_size": (batch_size, 1), "warmup": (warmup, 0), "replay": (replay, 0)}
        _check_numbers(counts, {"learning_rate": learning_rate, "limit": limit, "max_grad_norm": max_grad_norm})
        _check_learner(discriminator, updates)
        if not answers:
            raise UserError("no real answers", "a column of the data, or real texts", "set `answers`")
        if updates:
            discriminator.float()
        self.inputs = TextInputs(tokenizer, positions_of(discriminator))
        discriminator.config.pad_token_id = tokenizer.pad_token_id
        self.discriminator, self.tokenizer, self.answers, self.loss = discriminator, tokenizer, answers, loss
        self.updates, self.batch_size, self.warmup, self.limit = updates, batch_size, warmup, limit
        self.max_grad_norm, self.seed = max_grad_norm, seed
        self.reads_prompt = isinstance(answers, str) if reads_prompt is None else reads_prompt
        self.held_out = self._pairs(held_out)
        self.shown: list[tuple[str, str]] | None = None  # of these, what is measured
        self.replay: deque[Pair] = deque(maxlen=replay)
        self.optimizer = torch.optim.AdamW(discriminator.parameters(), lr=learning_rate)
        self.random = random.Random(seed)
        self.batches = 0  # of completions that it has learnt from
        self.start: float | None = None  # mean score of held-out text then
        self.logged: dict[str, float] = {}
        self._learns = self._is_callback = self._warned = False
        self.__name__ = FOLDER  # what TRL calls it in its log
        self._check()

    def _pairs(self, held_out: Sequence[str | tuple[str, str]]) -> list[tuple[str, str]]:
        """Held-out prompts and answers; a UserError where prompts are to be read, and there are none."""
        if self.reads_prompt and not isinstance(self.answers, str):
            problem = "reads_prompt=True with texts that answer no prompt: what fits its prompt would be a fake"
            raise UserError(problem, "a column of answers", "name it in `answers`, or leave `reads_prompt` out")
        if self.reads_prompt and any(isinstance(text, str) for text in held_out):
            expected = "(prompt, answer), as the discriminator reads prompts"
            raise UserError("held-out texts without prompts", expected, "give both, or set reads_prompt=False")
        pairs = [("", text) if isinstance(text, str) else text for text in held_out]
        return [(_text(prompt, "a prompt"), _text(answer, "an answer")) for prompt, answer in pairs]

    def _check(self) -> None:
        """Raise a UserError for a model that is no classifier, or lacks tokens of its tokenizer."""
        known, name = self.discriminator.get_input_embeddings(), type(self.discriminator).__name__
        if isinstance(known, nn.Embedding) and known.num_embeddings < len(self.tokenizer):
            problem = f"a {name} of {known.num_embeddings} tokens with a tokenizer of {len(self.tokenizer)}"
            raise UserError(problem, "its own tokenizer", "load both from one place, or `resize_token_embeddings`")
        try:
            self.scores([("", "")])
        except AttributeError as error:
            fix = "load it by `AutoModelForSequenceClassification`"
            raise UserError(f"a {name}, which gives no logits ({error})", "a sequence classifier", fix) from error

    # --- The reward --------------------------------------------------------------------------------------------------

    def __call__(self, prompts: list[Message], completions: list[Message], **columns: Any) -> list[float]:
        """Score B completions; while the policy trains, then learn from them.

        Raises:
            UserError: the data have no column of the name `answers`.
        """
        both = zip(prompts, completions, strict=True)
        given = [(_text(prompt, "a prompt"), _text(completion, "a completion")) for prompt, completion in both]
        if not self._is_callback:
            self._go(PartialState().device)
        scores = self.scores(given)
        if not self._learns:
            if self.updates and "trainer_state" in columns and not (self._is_callback or self._warned):
                told = "%s scores, and learns nothing: it is not among the trainer's callbacks. Add it there, too, or "
                logger.warning(told + "set updates=0 if the reward is meant to be fixed", type(self).__name__)
                self._warned = True
            return scores.clamp(-self.limit, self.limit).tolist()
        real = self._real(len(given), columns)
        pairs = [Pair(*texts, answer) for texts, answer in zip(given, real, strict=True) if answer is not None]
        log = columns.get("log_metric") or (lambda name, value: None)
        answered = torch.tensor([answer is not None for answer in real])
        for name, value in self._measure(pairs, scores, answered).items():
            log(f"{FOLDER}/{name}", value)
        warm = self.batches >= self.warmup
        self._learn(pairs, log)
        return scores.clamp(-self.limit, self.limit).tolist() if warm else [0.0] * len(scores)

    def scores(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        """Log-odds that each (prompt, text) is real, shape (N,), without dropout and autograd."""
        with torch.no_grad(), evaluating(self.discriminator):
            parts = [self._logits(texts[i : i + 64]) for i in range(0, len(texts), 64)]
        return torch.cat(parts).float().cpu()

    def _logits(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        prompts = [prompt if self.reads_prompt else "" for prompt, _ in texts]
        rows = self.inputs.encode(prompts, [written for _, written in texts])
        read = {name: values.to(self.discriminator.device) for name, values in self.inputs.pad(rows).items()}
        logits = self.discriminator(**read).logits
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]

    def _go(self, device: Any) -> None:
        if self.discriminator.device != device:
            self.discriminator.to(device)

    def _real(self, size: int, columns: dict[str, Any]) -> list[str | None]:
        if not isinstance(self.answers, str):
            return self.random.choices(self.answers, k=size)
        if self.answers not in columns:
            kept = [name for name, value in columns.items() if isinstance(value, list)]
            expected = f"one of {', '.join(kept)}" if kept else "a column with the real answer to each prompt"
            raise UserError(f"the training data have no column {self.answers!r}", expected, "set `answers`")
        return [None if answer is None else _text(answer, "an answer") for answer in columns[self.answers]]

    def _measure(self, pairs: list[Pair], scores: Tensor, answered: Tensor) -> dict[str, float]:
        self.logged = {}
        if pairs:
            real, written = self.scores([(pair.prompt, pair.answer) for pair in pairs]), scores[answered]
            self.logged["margin"] = float((real - written).mean())
            self.logged["pair_accuracy"] = float((real > written).float().mean())
        if self.held_out:
            if self.shown is None:
                count = min(len(self.held_out), 4 * len(scores))
                self.shown = random.Random(self.seed).sample(self.held_out, count)
            unseen = self.scores(self.shown)
            self.start = float(unseen.mean()) if self.start is None else self.start
            self.logged |= {"auc_held_out": auc(unseen, scores).value, "drift": float(unseen.mean()) - self.start}
        return self.logged

    # --- The discriminator's side ------------------------------------------------------------------------------------

    def _learn(self, pairs: list[Pair], log: Callable[[str, float], Any]) -> None:
        if not pairs and PartialState().num_processes == 1:
            return
        self.batches += 1
        self.discriminator.train()
        for _ in range(self.updates):
            chosen = self.random.sample(pairs, min(len(pairs), self.batch_size))
            if old := min(len(self.replay), len(chosen) // 2):
                chosen[:old] = self.random.sample(list(self.replay), old)
            loss = self._loss(chosen)
            loss.backward()
            self._average_gradients()
            if self.max_grad_norm:
                nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.logged["loss"] = loss.item()
            log(f"{FOLDER}/loss", self.logged["loss"])
        self.replay.extend(pairs)

    def _loss(self, pairs: list[Pair]) -> Tensor:
        if not pairs:  # other processes have some, and average gradients with this one
            return sum((0.0 * parameter.sum() for parameter in self.discriminator.parameters()), torch.tensor(0.0))
        texts = [(p.prompt, p.answer) for p in pairs] + [(p.prompt, p.completion) for p in pairs]
        real, fake = self._logits(texts).float().split(len(pairs))
        if self.loss == "bradley_terry":
            return F.softplus(fake - real).mean()
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2

    def _average_gradients(self) -> None:
        """Over the processes, which learn from completions of their own; one reduction of all gradients."""
        if (state := PartialState()).num_processes == 1:
            return
        gradients = [p.grad for p in self.discriminator.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient) / state.num_processes)

    # --- What TRL's trainer tells ------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go where the policy is; take back the state of a checkpoint where the run is resumed."""
        self._is_callback = True
        self._go(args.device)
        self.random.seed(f"{self.seed} {PartialState().process_index}")
        if state.global_step:
            self.load(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FOLDER, _logged(state))
        elif PartialState().num_processes > 1:
            for parameter in self.discriminator.state_dict().values():
                torch.distributed.broadcast(parameter, src=0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._learns = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._learns = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.save(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FOLDER, _logged(state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the discriminator beside the policy: a plain classifier, usable as a fixed reward model."""
        if PartialState().is_main_process:
            self._save_model(Path(args.output_dir) / FOLDER)

    # --- Its state ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path, run: str = "") -> None:
        """The discriminator with its tokenizer, and of each process what it needs to go on as if uninterrupted.

        Args:
            run: what tells the run from others.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if PartialState().is_main_process:
            self._save_model(folder)
            torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
            (folder / "run.txt").write_text(run, encoding="utf-8")  # that of this process, as TRL's own state is
        version, words, gauss = self.random.getstate()
        own: dict[str, Any] = {"random": [version, list(words), gauss], "replay": [list(pair) for pair in self.replay]}
        own |= {"batches": self.batches, "start": self.start}
        torch.save(own, folder / f"process-{PartialState().process_index}.pt")

    def _save_model(self, folder: Path) -> None:
        self.discriminator.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path, run: str = "") -> None:
        """Take back what `save` wrote.

        Raises:
            RunFolderError: there is nothing, or not of as many processes, or of another run.
        """
        own_file = folder / f"process-{PartialState().process_index}.pt"
        if not own_file.exists():
            problem = f"no state of the adversarial reward in {str(folder)!r}"
            fix = "resume from a checkpoint in `output_dir` that was saved with it among the `callbacks`"
            raise RunFolderError(problem, "that of this process", fix)
        if (folder / "run.txt").read_text(encoding="utf-8") != run:
            problem = f"the state of the adversarial reward in {str(folder)!r} is of another run than the policy's"
            raise RunFolderError(
                problem, "one run", "resume from a checkpoint in `output_dir`, or set that to its run"
            )
        saved = type(self.discriminator).from_pretrained(folder, use_safetensors=True)
        self.discriminator.load_state_dict(saved.state_dict())
        device = self.discriminator.device
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", device, weights_only=True))
        own = torch.load(own_file, weights_only=True)
        version, words, gauss = own["random"]
        self.random.setstate((version, tuple(words), gauss))
        self.replay.clear()
        self.replay.extend(Pair(*texts) for texts in own["replay"])
        self.batches, self.start = own["batches"], own["start"]


def _check_learner(discriminator: PreTrainedModel, updates: int) -> None:
    """Raise a UserError for a model that tells other things than real from generated, or cannot learn."""
    if discriminator.config.num_labels not in (1, 2):
        problem = f"a discriminator of {discriminator.config.num_labels} labels"
        raise UserError(problem, "1 (the logit of real) or 2 (fake and real)", "set `num_labels`")
    if updates and not any(parameter.requires_grad for parameter in discriminator.parameters()):
        problem = f"a {type(discriminator).__name__} of which no weight is trained"
        raise UserError(problem, "weights that require gradients", "freeze fewer, or set updates=0")


def _check_numbers(counts: dict[str, tuple[int, int]], numbers: dict[str, float]) -> None:
    """Raise a UserError for a count (value, least) or a number that is too small, or none."""
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or value < least:
            raise UserError(f"{name}={value!r}", f"a whole number from {least} on", f"set `{name}`")
    for name, number in numbers.items():
        if not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise UserError(f"{name}={number!r}", "a number from 0 on", f"set `{name}`")


def _logged(state: Any) -> str:
    """What tells a run of TRL's trainer from others: how much it had logged by then, and the last of it."""
    return json.dumps([len(state.log_history), *state.log_history[-1:]], sort_keys=True, default=str)


def _text(message: Message, what: str) -> str:
    """A text, or what the messages of a conversation say; a UserError for anything else."""
    if isinstance(message, str):
        return message
    if not isinstance(message, list) or not all(isinstance(each, dict) for each in message):
        expected = "text, or a list of messages with `content`"
        raise UserError(f"{what} that is {message!r:.60}, a {type(message).__name__}", expected, "convert the column")
    return "\n".join(_content(each.get("content")) for each in message)


def _content(content: Any) -> str:
    """The text of a message: of a call of a tool there is none, of a message in parts that of its parts."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and "text" in part)
    return content or ""
