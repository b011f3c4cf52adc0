"""Every step of the paper's schedule at every size: ours, the plain reference, and the work that cannot be avoided.

`SIZES` times `OPERATIONS` is the table of cases. Whole steps are those of the paper's schedule: a batch of 64
sequences, 16 rollouts, 10,000 training sequences, as many fakes. Where that takes minutes, a part of it is measured
and scaled; the sizes say how much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from seqgan_hf.evaluation.likelihood import nll
from seqgan_hf.evaluation.metrics.bleu import bleu
from seqgan_hf.evaluation.metrics.self_bleu import self_bleu
from seqgan_hf.generation.relaxation import relax
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import rewards
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    LeakGeneratorConfig,
    LeakGeneratorForCausalLM,
    RelationalMemoryConfig,
    RelationalMemoryForCausalLM,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)
from seqgan_hf.objectives import MLE, ConstantReward, LeakGAN, Models, Reinforce, RelGAN, SeqGAN
from seqgan_hf.objectives.base import frozen
from seqgan_hf.samples import Samples
from seqgan_hf.training.arguments import AdversarialTrainingArguments
from seqgan_hf.training.compiling import sharing
from seqgan_hf.training.trainer import AdversarialTrainer
from tests.benchmarks import plain
from tests.benchmarks.measuring import Case, Part, Work


BATCH, ROLLOUTS, SEQUENCES, METRIC_TEXTS = 64, 16, 10_000, 10_000  # of whole steps
D_STEPS, D_EPOCHS = 5, 3  # of a round
ADAM_BYTES = 7 * 4  # a parameter: it, its gradient and both moments are read, all but the gradient written


@dataclass(frozen=True)
class Size:
    """A generator, and how much of each whole step is measured with it.

    Attributes:
        vocab_size, length: V and T.
        hidden_size: of an LSTM of one layer, or of a GPT-2 of `layers` layers.
        layers: 0 for the LSTM.
        batch_size, rollouts: B and R of the generator step.
        prefix_lengths: those that the plain rollouts complete, once each; their mean is that of all.
        sampled, scored: sequences that are drawn, and whose likelihood is taken.
        mle_batches, d_batches: batches of 64 of an epoch.
        fakes: sequences drawn for a d-step of the trainer.
        texts: texts of the metrics, and of the plain ones.
        discriminator: settings other than the paper's.
        rounds: how often everything is measured.
    """

    name: str
    vocab_size: int
    length: int
    prefix_lengths: Sequence[int]
    hidden_size: int = 32
    layers: int = 0
    batch_size: int = BATCH
    rollouts: int = ROLLOUTS
    sampled: int = SEQUENCES
    scored: int = SEQUENCES
    mle_batches: int = 20
    d_batches: int = 10
    fakes: int = 640
    texts: tuple[int, int] = (METRIC_TEXTS, 500)
    discriminator: dict = field(default_factory=dict)
    rounds: int = 5

    def generator(self) -> PreTrainedModel:
        torch.manual_seed(0)
        tokens = {"vocab_size": self.vocab_size, "bos_token_id": 0, "eos_token_id": None}
        if not self.layers:
            sizes = {"embedding_size": self.hidden_size, "hidden_size": self.hidden_size}
            return RNNGeneratorForCausalLM(RNNGeneratorConfig(initializer_range=0.5, **sizes, **tokens)).eval()
        sizes = {"n_embd": self.hidden_size, "n_layer": self.layers, "n_head": self.hidden_size // 64}
        return GPT2LMHeadModel(GPT2Config(n_positions=self.length + 1, **sizes, **tokens)).eval()

    def judge(self) -> CNNDiscriminatorForSequenceClassification:
        torch.manual_seed(0)
        config = CNNDiscriminatorConfig(vocab_size=self.vocab_size, **self.discriminator)
        return CNNDiscriminatorForSequenceClassification(config).eval()

    def sequences(self, count: int) -> Samples:
        ids = torch.randint(self.vocab_size, (count, self.length), generator=torch.Generator().manual_seed(1))
        return Samples(torch.zeros(count, 1, dtype=torch.long), ids, torch.ones_like(ids, dtype=torch.bool))

    # Work, forward only

    def generator_work(self, tokens: float) -> Work:
        width = self.hidden_size
        # an LSTM multiplies (x, h) by four gates; a GPT-2 layer has 12 width^2 weights, and attends to T / 2 tokens
        cell = 2 * 4 * 2 * width**2
        trunk = self.layers * (2 * 12 * width**2 + 2 * width * self.length) if self.layers else cell
        return Work(tokens * (trunk + 2 * width * self.vocab_size), tokens * self.vocab_size)

    def judge_work(self, sequences: float, known: int = 0) -> Work:
        """Of all windows, or of those that do not lie within the first `known` tokens."""
        config = CNNDiscriminatorConfig(**self.discriminator)
        flops = 2 * 2 * sum(config.num_filters) ** 2
        for size, number in zip(config.filter_sizes, config.num_filters, strict=True):
            windows, reach = max(self.length - size, 0) + 1, min(size, self.length)
            windows -= max(known - size + 1, 0)
            flops += 2 * windows * number * reach * config.embedding_size
        return Work(sequences * flops)

    def reward_work(self) -> Work:
        """Windows within a prefix count once a sequence, since its rollouts share them."""
        rollouts, lengths = BATCH * ROLLOUTS, range(1, self.length)
        drawn = self.generator_work(rollouts * len(lengths) * self.length / 2)
        return drawn + self.score_work(rollouts, lengths) + self.judge_work(BATCH)

    def score_work(self, rollouts: int, lengths: Sequence[int]) -> Work:
        """Of so many completions of prefixes of each of these lengths, without the windows that they share."""
        return sum((self.judge_work(rollouts, known) for known in lengths), start=Work())


SIZES = [
    Size("paper", vocab_size=5000, length=20, prefix_lengths=range(1, 20)),
    Size(
        "coco",
        vocab_size=4700,
        length=37,
        prefix_lengths=range(2, 37, 3),  # 12 of 36
        rollouts=4,
        mle_batches=10,
        d_batches=5,
        fakes=192,
        rounds=3,
    ),
    Size(
        "gpt2",
        vocab_size=5000,
        length=64,
        prefix_lengths=range(5, 64, 9),  # 7 of 63
        hidden_size=256,
        layers=6,
        batch_size=8,
        rollouts=1,
        sampled=256,
        scored=256,
        mle_batches=2,
        d_batches=4,
        fakes=64,
        texts=(METRIC_TEXTS, 200),
        rounds=3,
    ),
]
# Not measured; the suite runs every case with it, so that none falls into disrepair.
SMALL = Size(
    "small",
    vocab_size=30,
    length=6,
    prefix_lengths=range(1, 6),
    batch_size=8,
    rollouts=2,
    sampled=20,
    scored=20,
    mle_batches=1,
    d_batches=1,
    fakes=64,
    texts=(40, 20),
    discriminator={"filter_sizes": (1, 2, 5), "num_filters": (4, 4, 4)},
    rounds=1,
)


def training_work(forward: Work, model: torch.nn.Module, steps: float) -> Work:
    """Forward, backward (twice its products) and Adam."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Work(3 * forward.flops, forward.exponentials, forward.bytes + steps * ADAM_BYTES * parameters)


def adam(model: torch.nn.Module, **options) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-4, **options)


def as_trained(*models: PreTrainedModel) -> AbstractContextManager[None]:
    """How the trainer computes a step of these models."""
    return sharing(_arguments(), models)


@cache
def _arguments() -> AdversarialTrainingArguments:
    return AdversarialTrainingArguments(output_dir=tempfile.gettempdir(), report_to=[], use_cpu=True)


# --- The steps of the generator --------------------------------------------------------------------------------------


def sampling(size: Size) -> Case:
    """10,000 sequences; plain ones in batches of 64."""
    generator = size.generator()
    prompt, nothing = start_prompt(generator, size.sampled), torch.empty(BATCH, 0, dtype=torch.long)
    return Case(
        ours=[Part(lambda: sample(generator, prompt, size.length), SEQUENCES / size.sampled)],
        plain=[Part(lambda: plain.continued(generator, nothing, size.length), SEQUENCES / BATCH)],
        work=size.generator_work(SEQUENCES * size.length),
    )


def rollout_rewards(size: Size, bfloat16: bool = False) -> Case:
    """Action values of one batch. In bfloat16 autocast ours, never the plain ones."""
    generator, judge = size.generator(), size.judge()
    plain_judge = plain.PlainDiscriminator(judge).eval()
    samples = sample(generator, start_prompt(generator, size.batch_size), size.length)
    objective = SeqGAN(rollouts=size.rollouts)

    def ours() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return objective.action_values(Models(generator, judge), samples, samples)

    def reference() -> torch.Tensor:
        return plain.completion_rewards(generator, plain_judge, samples.ids, size.prefix_lengths)

    def check() -> None:
        values = ours()
        tolerance = {"atol": 2e-2, "rtol": 0} if bfloat16 else {"atol": 1e-5, "rtol": 1e-4}
        torch.testing.assert_close(values[:, -1], rewards(judge, samples), **tolerance)
        difference = values[:, [t - 1 for t in size.prefix_lengths]] - reference()
        # Rewards lie in [0, 1]: this bounds the standard error of a mean over sentences of the difference.
        bound = 0.5 * (1 / size.rollouts + 1) ** 0.5 / size.batch_size**0.5
        assert (difference.mean(0).abs() < 4 * bound).all(), "action values differ by more than chance"

    whole = BATCH / size.batch_size
    prefixes = (size.length - 1) / len(size.prefix_lengths)
    return Case(
        ours=[Part(ours, whole * ROLLOUTS / size.rollouts)],
        plain=[Part(reference, whole * ROLLOUTS * prefixes)],
        work=size.reward_work(),
        low_precision=bfloat16,
        check=check,
    )


def generator_step(size: Size) -> Case:
    """A batch is drawn, valued by rollouts, and the generator updated."""
    generator, values = size.generator(), rollout_rewards(size)
    start = start_prompt(generator, size.batch_size)
    fake = sample(generator, start, size.length)
    reference, whole = size.generator(), BATCH / size.batch_size
    optimizer, plain_optimizer = adam(generator, fused=True), adam(reference)

    def update() -> None:
        objective, models = ConstantReward(), Models(generator)
        credited = objective.credit(models, fake, fake).samples
        with as_trained(generator):
            plain.descend(objective.generator_loss(models, fake, credited).value, optimizer)

    def plain_update() -> None:
        plain.descend(plain.nll(reference, fake.ids).sum() / len(fake.ids), plain_optimizer)

    draw = size.generator_work(BATCH * size.length)
    return Case(
        ours=[Part(lambda: sample(generator, start, size.length), whole), *values.ours, Part(update, whole)],
        plain=[
            Part(lambda: plain.continued(reference, start[:, :0], size.length), whole),
            *values.plain,
            Part(plain_update, whole),
        ],
        work=draw + values.work + training_work(draw, generator, steps=1),
    )


def mle_epoch(size: Size) -> Case:
    """An epoch over 10,000 sequences in batches of 64."""
    real, ours, reference = size.sequences(BATCH), size.generator().train(), size.generator().eval()
    optimizer, plain_optimizer = adam(ours, fused=True), adam(reference)

    def run() -> None:
        with as_trained(ours):
            for _ in range(size.mle_batches):
                plain.descend(MLE().generator_loss(Models(ours), real, None).value, optimizer)

    def run_plain() -> None:
        for _ in range(size.mle_batches):
            plain.descend(plain.nll(reference, real.ids).mean(), plain_optimizer)

    def check() -> None:
        loss = MLE().generator_loss(Models(ours.eval()), real, None).value
        torch.testing.assert_close(loss, plain.nll(reference, real.ids).mean(), rtol=1e-4, atol=1e-5)
        ours.train()

    steps = SEQUENCES / BATCH
    return Case(
        ours=[Part(run, steps / size.mle_batches)],
        plain=[Part(run_plain, steps / size.mle_batches)],
        work=training_work(size.generator_work(SEQUENCES * size.length), ours, steps),
        check=check,
    )


# --- Soft samples ----------------------------------------------------------------------------------------------------


def relaxed_samples(size: Size, beta: float = 1.0) -> Case:
    """A batch is drawn and read softly by embeddings (V, 64), and a gradient goes back to the generator."""
    generator, rows = size.generator(), size.batch_size
    start, weight = start_prompt(generator, rows), torch.randn(size.vocab_size, 64)

    def ours() -> torch.Tensor:
        soft = relax(generator, sample(generator, start, size.length), beta).soft
        (soft @ weight).square().mean().backward()
        return soft

    def reference() -> torch.Tensor:
        soft = plain.relaxed(generator, rows, size.length, beta)
        (soft @ weight).square().mean().backward()
        return soft

    def check() -> None:
        """The mean soft token at each position, within chance."""
        found, expected = ours().dense().detach(), reference().detach()
        error = (found.var(dim=0) + expected.var(dim=0)).div(rows).sqrt()
        assert ((found.mean(dim=0) - expected.mean(dim=0)).abs() < 6 * error + 1e-3).all(), "soft tokens differ"

    whole, tokens = BATCH / rows, BATCH * size.length
    product = Work(3 * 2 * tokens * size.vocab_size * 64, tokens * size.vocab_size)  # and the exp of soft tokens
    forward = size.generator_work(tokens)
    return Case(
        ours=[Part(ours, whole)],
        plain=[Part(reference, whole)],
        work=forward + training_work(forward, generator, steps=0) + product,
        check=check,
    )


def relgan_step(size: Size, beta: float = 1.0) -> Case:
    """A generator step, and a discriminator step on fresh samples."""
    models, rows = Models(size.generator(), size.judge()), size.batch_size
    generator, judge = size.generator(), plain.PlainDiscriminator(size.judge()).train()
    start, real, objective = start_prompt(generator, rows), size.sequences(rows), RelGAN(beta_max=beta, adapt="no")
    optimizers = [adam(model, fused=True) for model in (models.generator, models.discriminator)]
    plain_optimizers = adam(generator), adam(judge)

    def ours() -> None:
        for loss, opponent, optimizer in zip(
            (objective.generator_loss, objective.discriminator_loss),
            (models.discriminator, models.generator),
            optimizers,
            strict=True,
        ):
            fake = sample(models.generator, start, size.length)
            with frozen(opponent), as_trained(*models.players().values()):
                plain.descend(loss(models, real, fake).value, optimizer)

    def score(embedded: torch.Tensor) -> torch.Tensor:
        logits = judge.judge(embedded)
        return logits[:, 1] - logits[:, 0]

    def reference() -> None:
        for sign, optimizer in zip((1, -1), plain_optimizers, strict=True):
            with torch.set_grad_enabled(sign == 1):
                soft = plain.relaxed(generator, rows, size.length, beta)
            margin = score(judge.embedding(real.ids)) - score(soft @ judge.embedding.weight)
            plain.descend(torch.nn.functional.softplus(sign * margin).mean(), optimizer)

    samples, whole = relaxed_samples(size, beta), BATCH / rows
    return Case(
        ours=[Part(ours, whole)],
        plain=[Part(reference, whole)],
        work=samples.work * 2 + training_work(size.judge_work(4 * BATCH), models.discriminator, steps=1),
        check=samples.check,
    )


# --- Relational memory and LeakGAN -----------------------------------------------------------------------------------


def memory_step(size: Size) -> Case:
    """A batch is drawn by RelGAN's generator, as it comes, and the generator updated.

    The floor counts each weight once a token, though some are applied to the memory and to the input.
    """
    tokens = {"vocab_size": size.vocab_size, "bos_token_id": 0, "eos_token_id": None}
    torch.manual_seed(0)
    generator, rows = RelationalMemoryForCausalLM(RelationalMemoryConfig(**tokens)).eval(), size.batch_size
    reference = plain.PlainMemoryGenerator(generator)
    optimizer, plain_optimizer = adam(generator, fused=True), adam(reference)
    start = start_prompt(generator, rows)

    def ours() -> None:
        fake, models = sample(generator, start, size.length), Models(generator)
        with as_trained(generator):
            plain.descend(MLE().generator_loss(models, fake, None).value, optimizer)

    def run_plain() -> None:
        ids = reference.continued(rows, size.length)
        plain.descend(reference.nll(ids).mean(), plain_optimizer)

    def check() -> None:
        real = size.sequences(rows)
        loss, expected = MLE().generator_loss(Models(generator), real, None).value, reference.nll(real.ids).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)

    embeddings, tokens_written = generator.get_input_embeddings().weight.numel(), BATCH * size.length
    weights = sum(parameter.numel() for parameter in generator.parameters()) - embeddings
    forward = Work(tokens_written * 2 * weights, tokens_written * size.vocab_size)
    return Case(
        ours=[Part(ours, BATCH / rows)],
        plain=[Part(run_plain, BATCH / rows)],
        work=forward + training_work(forward, generator, steps=1),
        check=check,
    )


def leakgan_step(size: Size, rollouts: int = 4) -> Case:
    """A batch is drawn, valued by rollouts, and Manager and Worker are updated.

    Prefixes are those at the ends of the blocks of a goal. The plain code calls the same generator a token and a
    rollout at a time, whose features of prefixes are not the plain part: published code computes those of every
    prefix from its beginning.
    """
    config, judge, rows = CNNDiscriminatorConfig(**size.discriminator), size.judge(), size.batch_size
    layers = {name: list(getattr(config, name)) for name in ("filter_sizes", "num_filters")}
    layers["embedding_size"] = config.embedding_size
    tokens = {"vocab_size": size.vocab_size, "bos_token_id": 0, "eos_token_id": None}
    torch.manual_seed(0)
    ours, reference = (
        LeakGeneratorForCausalLM(LeakGeneratorConfig(discriminator_config=layers, **tokens)).eval() for _ in range(2)
    )
    objective = LeakGAN(rollouts=rollouts)
    models, optimizers = Models(ours, judge, objective.copies()), (adam(ours, fused=True), adam(reference))
    plain_judge, start = plain.PlainDiscriminator(judge).eval(), start_prompt(ours, rows)
    models.begin()
    ends = range(ours.config.goal_steps, size.length, ours.config.goal_steps)

    def run() -> None:
        with torch.no_grad():
            fake = objective.credit(models, None, sample(ours, start, size.length)).samples
        with as_trained(*models.players().values()):
            plain.descend(objective.generator_loss(models, None, fake).value, optimizers[0])

    def draw() -> None:
        plain.continued(reference, start[:, :0], size.length)

    ids = size.sequences(rows).ids

    def value() -> None:
        plain.completion_rewards(reference, plain_judge, ids, ends)

    def update() -> None:
        plain.descend(plain.nll(reference, ids).sum() / len(ids), optimizers[1])

    whole = BATCH / rows
    windows = sum(n * w for n, w in zip(layers["num_filters"], layers["filter_sizes"], strict=True))
    leak = (
        2 * windows * config.embedding_size + 2 * 2 * sum(layers["num_filters"]) ** 2
    )  # a token, read by the Manager
    written = BATCH * (size.length + rollouts * sum(size.length - end for end in ends))
    work = size.generator_work(written) + Work(written * leak) + size.score_work(BATCH * rollouts, ends)
    return Case(
        ours=[Part(run, whole)],
        plain=[Part(draw, whole), Part(value, whole * rollouts), Part(update, whole)],
        work=work + training_work(size.generator_work(BATCH * size.length), ours, steps=1),
    )


# --- The discriminator, and a whole round ----------------------------------------------------------------------------


def discriminator_epoch(size: Size, bfloat16: bool = False) -> Case:
    """An epoch over 10,000 real and 10,000 generated sequences, 64 at a time; bfloat16 is for ours only."""
    model, objective = size.judge(), Reinforce()
    models = Models(size.generator(), model)
    reference, both = plain.PlainDiscriminator(model).train(), size.sequences(BATCH)
    real, fake = both.split(BATCH // 2)
    labels = (torch.arange(BATCH) < BATCH // 2).long()
    optimizer, plain_optimizer = adam(model.train(), fused=True), adam(reference)

    def run() -> None:
        with as_trained(*models.players().values()):
            for _ in range(size.d_batches):
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    loss = objective.discriminator_loss(models, real, fake).value
                plain.descend(loss, optimizer)

    def run_plain() -> None:
        for _ in range(size.d_batches):
            plain.descend(torch.nn.functional.cross_entropy(reference(both.ids), labels), plain_optimizer)

    def check() -> None:
        model.eval()
        ours = objective.discriminator_loss(models, real, fake).metrics["discriminator_loss"]
        expected = torch.nn.functional.cross_entropy(reference.eval()(both.ids), labels)
        torch.testing.assert_close(ours, expected.detach(), rtol=1e-4, atol=1e-5)
        model.train(), reference.train()

    steps = 2 * SEQUENCES / BATCH
    return Case(
        ours=[Part(run, steps / size.d_batches)],
        plain=[Part(run_plain, steps / size.d_batches)],
        work=training_work(size.judge_work(2 * SEQUENCES), model, steps),
        low_precision=bfloat16,
        check=check,
    )


def adversarial_round(size: Size) -> Case:
    """One generator step, then five times fresh fakes and three D epochs; ours of these by the trainer itself."""
    step, fakes, epoch = generator_step(size), sampling(size), discriminator_epoch(size)
    folder = tempfile.mkdtemp()
    arguments = AdversarialTrainingArguments(output_dir=folder, num_fakes=size.fakes, report_to=[], use_cpu=True)
    trainer = AdversarialTrainer(
        size.generator(), size.judge(), SeqGAN(), arguments, train_dataset=size.sequences(size.fakes)
    )
    return Case(
        ours=[*step.ours, Part(lambda: trainer.train_discriminator(0), D_STEPS * SEQUENCES / size.fakes)],
        plain=[
            *step.plain,
            *(Part(part.run, part.times * D_STEPS) for part in fakes.plain),
            *(Part(part.run, part.times * D_STEPS * D_EPOCHS) for part in epoch.plain),
        ],
        work=step.work + fakes.work * D_STEPS + epoch.work * (D_STEPS * D_EPOCHS),
    )


# --- Evaluation ------------------------------------------------------------------------------------------------------


def oracle_nll(size: Size) -> Case:
    """NLL of 10,000 given sequences; plain ones in batches of 64."""
    oracle, samples = size.generator(), size.sequences(size.scored)
    few = samples.select(slice(0, BATCH))

    @torch.no_grad()
    def reference() -> torch.Tensor:
        return plain.nll(oracle, few.ids)

    def check() -> None:
        assert abs(nll(oracle, few, "oracle")["nll_oracle"].value - float(reference().mean())) < 1e-4

    return Case(
        ours=[Part(lambda: nll(oracle, samples, "oracle"), SEQUENCES / size.scored)],
        plain=[Part(reference, SEQUENCES / len(few.ids))],
        work=size.generator_work(SEQUENCES * size.length),
        check=check,
    )


def metrics(size: Size) -> Case:
    """BLEU-2..5 of 10,000 texts against as many, and their Self-BLEU-2..5; plain ones count in dictionaries."""
    generator = size.generator()
    many, few = size.texts
    drawn = sample(generator, start_prompt(generator, min(2 * many, 2 * size.sampled)), size.length).ids
    words = [[str(token) for token in row] for row in drawn.tolist()]
    words = (words * -(-2 * many // len(words)))[: 2 * many]
    texts, references = words[:many], words[many:]

    def check() -> None:
        small = words[:few]
        expected = plain.bleu(small, references[:few]) | plain.self_bleu(small)
        found = bleu(small, references[:few]) | self_bleu(small)
        assert all(abs(getattr(found[name], "value", found[name]) - value) < 1e-9 for name, value in expected.items())

    def reference() -> None:
        plain.bleu(words[:few], references[:few])
        plain.self_bleu(words[:few])

    ngrams = 5 * size.length * 3 * METRIC_TEXTS  # of texts twice and of references
    return Case(
        ours=[Part(lambda: (bleu(texts, references), self_bleu(texts)), METRIC_TEXTS / many)],
        plain=[Part(reference, METRIC_TEXTS / few)],
        work=Work(bytes=ngrams * 2 * 8),  # each written and read once, as a key of eight bytes
        check=check,
    )


OPERATIONS: dict[str, Callable[[Size], Case]] = {
    "sampling 10,000": sampling,
    "rollout rewards": rollout_rewards,
    "rollout rewards, bfloat16": lambda size: rollout_rewards(size, bfloat16=True),
    "G step": generator_step,
    "MLE epoch": mle_epoch,
    "D epoch": discriminator_epoch,
    "D epoch, bfloat16": lambda size: discriminator_epoch(size, bfloat16=True),
    "adversarial round": adversarial_round,
    "relaxed samples": relaxed_samples,
    "RelGAN step": relgan_step,
    "relational memory step": memory_step,
    "LeakGAN step": leakgan_step,
    "oracle NLL of 10,000": oracle_nll,
    "BLEU and Self-BLEU of 10,000": metrics,
}
