"""The settings of an adversarial run, with the field names of `transformers.TrainingArguments` where they apply."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from ..errors import UserError


Scheduler = Literal["constant", "linear", "cosine"]

# Fields of `TrainingArguments` that mean here what they mean there. All others raise when they are set.
SUPPORTED_FIELDS = frozenset(
    """output_dir per_device_train_batch_size gradient_accumulation_steps optim optim_args weight_decay adam_beta1
    adam_beta2 adam_epsilon activation_checkpointing torch_compile torch_compile_backend torch_compile_mode bf16 fp16
    tf32 disable_tqdm report_to run_name project
    trackio_space_id seed use_cpu save_total_limit load_best_model_at_end metric_for_best_model greater_is_better
    resume_from_checkpoint push_to_hub hub_model_id hub_token hub_private_repo ddp_timeout ddp_backend
    local_rank""".split()
)

# What to use instead of the fields that people will try first.
REMEDIES = {
    "learning_rate": "set pretrain_learning_rate, generator_learning_rate or discriminator_learning_rate",
    "max_grad_norm": "set pretrain_max_grad_norm, generator_max_grad_norm or discriminator_max_grad_norm",
    "num_train_epochs": "set pretrain_epochs, discriminator_pretrain_steps and rounds",
    "lr_scheduler_type": "set pretrain_lr_scheduler, generator_lr_scheduler or discriminator_lr_scheduler",
    "gradient_checkpointing": "set activation_checkpointing",
    "max_steps": "set pretrain_epochs, discriminator_pretrain_steps and rounds",
    "eval_steps": "set eval_epochs and eval_rounds",
    "eval_strategy": "set eval_epochs and eval_rounds",
    "save_steps": "set save_every",
    "save_strategy": "set save_every",
}


@dataclass
class AdversarialTrainingArguments(TrainingArguments):
    """Settings of `AdversarialTrainer`. Defaults are those of SeqGAN's synthetic experiment, from its code.

    Args:
        output_dir: the run's folder.
        per_device_train_batch_size: B, sequences in a generator step (of each process).
        pretrain_batch_size: sequences in a step of the generator's pretraining (of each process); by default as many.
        discriminator_batch_size: sequences in a discriminator step (of each process): half real, half generated.
        max_new_tokens: T, tokens to generate; by default the length of the longest training sequence.
        pretrain_epochs: passes over the data that pretrain the generator by maximum likelihood.
        discriminator_pretrain_steps: discriminator steps before adversarial training.
        rounds: rounds of adversarial training: generator steps, then discriminator steps.
        max_seconds: end adversarial training after so many seconds of work, the discriminator's pretraining included;
            the generator's pretraining, evaluations and checkpoints do not count. On a CPU it is processor time, of
            all threads, which does not depend on what else the machine does. Learning rates that fall reach 0 then,
            if not before. By default `rounds` alone decide.
        generator_steps: g-steps of a round; each makes the `updates` of the objective from one batch of samples.
        discriminator_steps: d-steps of a round; one is fresh samples, and `discriminator_epochs` passes over them.
        discriminator_epochs: passes over real and generated sequences in a d-step.
        num_fakes: sequences generated for a d-step; by default as many as there are training sequences.
        pretrain_learning_rate: of the generator under maximum likelihood.
        generator_learning_rate: of the generator in adversarial training; its optimizer is a separate one.
        discriminator_learning_rate: of the discriminator.
        discriminator_trunk_learning_rate: of what is below the discriminator's head (a pretrained encoder); by default
            the same as of the head.
        pretrain_lr_scheduler: how that of maximum likelihood changes over its epochs: `constant`, or `linear` or
            `cosine` down to 0.
        generator_lr_scheduler: the generator's over the rounds, likewise.
        discriminator_lr_scheduler: the discriminator's over its d-steps, those of its pretraining included.
        discriminator_share: this share of the training sequences is shown to the discriminator only, and the
            generator learns from the others only. A discriminator that shares its text with a generator that knows it
            by heart takes what is likely for real.
        pretrain_max_grad_norm: clips the generator's gradient under maximum likelihood; 0 does not clip.
        generator_max_grad_norm: clips it in adversarial training; 0 does not clip. The paper's code clips the sum over
            its 64 sequences at 5, which is 5/64 for the mean over sequences that is used here.
        discriminator_max_grad_norm: clips the discriminator's gradient; 0 does not clip.
        eval_epochs: evaluate every so many epochs of pretraining, and after the last one; 0 never does.
        eval_rounds: evaluate every so many rounds, and after the last one; 0 never does.
        eval_samples: N, sequences drawn for an evaluation.
        save_every: keep a checkpoint every so many epochs, d-steps of pretraining and rounds; 0 keeps one at the end
            of each phase only.
        save_total_limit: how many checkpoints to keep, besides the best.
        overwrite_run: replace a run that `output_dir` holds.
        seed: of weights, data order and samples; the same seed gives the same run, bit for bit on a CPU.
        report_to: experiment trackers that are installed, for example `tensorboard`; `none` or null for none of them.
        metric_for_best_model: keep the checkpoint in which this metric was best; `greater_is_better` says which way.
        greater_is_better: whether larger values of that metric are better; by default not for likelihoods and
            divergences (`nll...`, `kl...`, `jsd...`).
        load_best_model_at_end: save the best checkpoint's models as the result, not the last ones.
        resume_from_checkpoint: `true` goes on from the newest checkpoint in `output_dir`, a path from that one.
        activation_checkpointing: keep the inputs of layers only and compute other activations again when gradients
            are, of all players that are transformers.
        torch_compile: compile what training steps compute of the players (`torch.compile`); samples, rollouts and
            rewards are left as they are. `torch_compile_backend` and `torch_compile_mode` are those of torch.
        bf16: mixed precision in bfloat16.
        fp16: mixed precision in float16, on a GPU.
        use_cpu: stay on the CPU even if there is a GPU.
        optim: the optimizer's name, as in transformers; for `adamw_*` and no weight decay it is plain Adam.
        weight_decay: decoupled weight decay.
        gradient_accumulation_steps: batches whose gradients make one step, of either model.
        estimate_time: try a batch of each phase on copies of the models before a run begins, to tell how long it will
            take; nothing of the run changes, but functions of your own are called for these batches, too.
        disable_tqdm: no progress bars, as where standard error is no terminal.
        push_to_hub: upload the generator and its card when training ends.
        hub_model_id: the repository to upload to, `user/name`; by default named after `output_dir`.
        hub_private_repo: make that repository private.
        hub_token: the token to upload with; by default the one that `hf auth login` stored.
        hub_discriminator: upload the discriminator into the `subfolder` `discriminator` of that repository, into a
            `repository` of its own, or not at all (`none`).
        hub_license: of the generator, as the Hub names it (`apache-2.0`, ...); it goes into the card.
    """

    output_dir: str | None = "runs/seqgan"
    per_device_train_batch_size: int = 64
    pretrain_batch_size: int | None = None
    discriminator_batch_size: int = 64
    max_new_tokens: int | None = None
    pretrain_epochs: int = 120
    discriminator_pretrain_steps: int = 50
    rounds: int = 200
    max_seconds: float | None = None
    generator_steps: int = 1
    discriminator_steps: int = 5
    discriminator_epochs: int = 3
    num_fakes: int | None = None
    pretrain_learning_rate: float = 0.01
    generator_learning_rate: float = 0.01
    discriminator_learning_rate: float = 1e-4
    discriminator_trunk_learning_rate: float | None = None
    pretrain_lr_scheduler: Scheduler = "constant"
    generator_lr_scheduler: Scheduler = "constant"
    discriminator_lr_scheduler: Scheduler = "constant"
    discriminator_share: float = 0.0
    pretrain_max_grad_norm: float = 5.0
    generator_max_grad_norm: float = 5.0 / 64
    discriminator_max_grad_norm: float = 0.0
    eval_epochs: int = 5
    eval_rounds: int = 5
    eval_samples: int = 2_000
    save_every: int = 0
    save_total_limit: int | None = 2
    # no choice: callbacks such as EarlyStoppingCallback expect it; eval_epochs, eval_rounds and save_every say when
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    overwrite_run: bool = False
    resume_from_checkpoint: str | bool | None = None  # type: ignore[assignment]
    estimate_time: bool = True
    activation_checkpointing: bool = False  # a field of newer transformers
    hub_token: str | None = field(default=None, repr=False)
    hub_discriminator: Literal["subfolder", "repository", "none"] = "subfolder"
    hub_license: str | None = None

    def __post_init__(self):
        self._refuse_unsupported()
        self._check_ranges()
        self.pretrain_batch_size = self.pretrain_batch_size or self.per_device_train_batch_size
        for name in ("pretrain_lr_scheduler", "generator_lr_scheduler", "discriminator_lr_scheduler"):
            if getattr(self, name) not in get_args(Scheduler):
                raise UserError(f"{name}={getattr(self, name)!r}", f"one of {', '.join(get_args(Scheduler))}")
        if not self.output_dir:
            raise UserError(f"output_dir={self.output_dir!r}", "a folder for the run", "set `training.output_dir`")
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            problem, expected = "load_best_model_at_end=true", "a metric that says which is the best"
            raise UserError(problem, expected, "set `training.metric_for_best_model`, for example to nll_test")
        if not all("=" in part for part in filter(None, (self.optim_args or "").split(","))):
            expected = "settings of the optimizer, name=value, with commas between them"
            raise UserError(f"optim_args={self.optim_args!r}", expected, "set `training.optim_args` accordingly")
        if self.optim not in list(OptimizerNames):
            raise UserError(f"optim={self.optim!r}", f"one of {', '.join(OptimizerNames)}", "check the spelling")
        if self.report_to is None:
            self.report_to = "none"
        if not torch.accelerator.is_available():
            self.use_cpu = True  # lets bf16 through: transformers expects a GPU for it unless told otherwise
        if self.greater_is_better is None and (self.metric_for_best_model or "").startswith(("nll", "kl", "jsd")):
            self.greater_is_better = False
        try:
            super().__post_init__()
            Trainer.get_optimizer_cls_and_kwargs(self)
        except (ValueError, ImportError) as error:
            problem = f"these settings of `training` cannot be used ({' '.join(str(error).split())})"
            raise UserError(problem, None, "correct or install what it names") from error
        self._check_trackers()

    def _check_trackers(self) -> None:
        installed = get_available_reporting_integrations()
        for name in self.report_to:
            if name not in installed:
                known = name in INTEGRATION_TO_CALLBACK
                fix = f"install it (`pip install {name}`)" if known else "check the spelling"
                raise UserError(f"report_to={name!r}", f"one of {', '.join(['none', 'all', *installed])}", fix)

    def _refuse_unsupported(self) -> None:
        inherited = {base.name for base in dataclasses.fields(TrainingArguments)}
        for own in dataclasses.fields(self):
            value, made = getattr(self, own.name), own.default_factory
            default = own.default if made is dataclasses.MISSING else made()
            if own.name in inherited - SUPPORTED_FIELDS and value != default:
                problem = f"{own.name}={value!r}: it has no meaning in adversarial training"
                raise UserError(problem, fix=REMEDIES.get(own.name, "leave it out"))

    def _check_ranges(self) -> None:
        at_least_one = "per_device_train_batch_size gradient_accumulation_steps generator_steps discriminator_epochs "
        at_least_one += "eval_samples"
        not_negative = "pretrain_epochs discriminator_pretrain_steps rounds discriminator_steps save_every eval_epochs"
        not_negative += " eval_rounds pretrain_max_grad_norm generator_max_grad_norm discriminator_max_grad_norm"
        not_negative += " weight_decay adam_epsilon"
        one_or_none = "pretrain_batch_size max_new_tokens num_fakes save_total_limit"
        positive = "pretrain_learning_rate generator_learning_rate discriminator_learning_rate"
        for names, holds, expected in (
            (at_least_one, lambda n: n >= 1, "at least 1"),
            (not_negative, lambda n: n >= 0, "0 or more"),
            (positive, lambda n: n > 0, "a positive number"),
            (one_or_none, lambda n: n is None or n >= 1, "at least 1, or nothing"),
            ("discriminator_batch_size", lambda n: n > 0 and n % 2 == 0, "an even number of at least 2"),
            ("discriminator_trunk_learning_rate max_seconds", lambda n: n is None or n > 0, "a positive number"),
            ("discriminator_share", lambda n: 0 <= n < 1, "a share, from 0 to below 1"),
            ("adam_beta1 adam_beta2", lambda n: 0 <= n < 1, "a number from 0 to below 1"),
            ("seed", lambda n: 0 <= n < 2**32, "a number from 0 to 2**32 - 1"),
        ):
            for name in names.split():
                if not holds(value := getattr(self, name)):
                    raise UserError(f"{name}={value}", expected, f"set `training.{name}` accordingly")
