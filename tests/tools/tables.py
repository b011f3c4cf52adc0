"""Enumerable toys: three tokens, three positions, 27 sequences, so that expectations are sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput

from seqgan_hf.samples import Completions, Samples
from tests.tools.tiny import BOS


V = T = 3
SEQUENCES = torch.tensor(list(product(range(V), repeat=T)))  # 27, each once: a batch mean is an exact expectation
PREFIXES = [prefix for length in range(T) for prefix in product(range(V), repeat=length)]
assert_close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)


class TableGenerator(torch.nn.Module):
    """Logits (V,) of its own for each of the 13 prefixes; the start token before them is skipped."""

    def __init__(self, logits: torch.Tensor | None = None):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(len(PREFIXES), V) if logits is None else logits)
        self.config = type("Config", (), {"vocab_size": V, "eos_token_id": None, "pad_token_id": None})
        self.device = torch.device("cpu")

    @property
    def base_model(self):
        return self

    def get_output_embeddings(self):
        return None

    def forward(self, input_ids, use_cache=False):
        rows = [[PREFIXES.index(tuple(row[1 : end + 1])) for end in range(len(row))] for row in input_ids.tolist()]
        return CausalLMOutput(logits=self.table[torch.tensor(rows)])

    def probabilities(self, ids: torch.Tensor) -> torch.Tensor:
        """Of whole sequences, shape (B,)."""
        start = torch.full((len(ids), 1), BOS)
        logprobs = self.forward(torch.cat([start, ids[:, :-1]], dim=1)).logits.log_softmax(-1)
        return logprobs.gather(2, ids[:, :, None]).squeeze(2).sum(1).exp()


class TableJudge(torch.nn.Module):
    """Log-odds of each of the 27 sequences; or, `per_token`, 0 at every token but the last."""

    def __init__(self, per_token: bool = False):
        super().__init__()
        self.log_odds = torch.log(27 * torch.arange(1, 28) / 378)  # D* of p_i = (i + 1) / 378
        self.per_token = per_token

    def forward(self, input_ids, attention_mask):
        verdict = self.log_odds[input_ids @ torch.tensor([9, 3, 1])]
        if not self.per_token:
            return SequenceClassifierOutput(logits=verdict[:, None])
        logits = torch.zeros(*input_ids.shape, 1)
        logits[:, -1, 0] = verdict
        return SequenceClassifierOutput(logits=logits)


class PrefixJudge(torch.nn.Module):
    """The odds of each token are 1 + the sum of the tokens as far as it."""

    def forward(self, input_ids, attention_mask):
        return SequenceClassifierOutput(logits=(1 + input_ids.cumsum(dim=1)).float().log()[..., None])


class FeatureJudge(torch.nn.Module):
    """Reads the sequence of number i as the point at the angle pi i / 27 of the unit circle."""

    config = type("Config", (), {"num_labels": 1, "pad_token_id": None})

    def __init__(self):
        super().__init__()
        self.score = torch.nn.Linear(2, 1)

    def forward(self, input_ids, attention_mask):
        angle = math.pi / 27 * (input_ids @ torch.tensor([9, 3, 1]))
        return SequenceClassifierOutput(logits=self.score(torch.stack([angle.cos(), angle.sin()], dim=1)))


def language_model() -> TableGenerator:
    """Token v has the probability (v + 1) / 6, whatever comes before it."""
    return TableGenerator(torch.arange(1.0, V + 1).log().repeat(len(PREFIXES), 1))


def every_completion(generator, samples: Samples, rollouts: int, max_rows: int | None = None) -> Iterator[Completions]:
    """In place of `complete`, of the uniform generator: 9 completions of each prefix, its own equally often."""
    assert rollouts == 9
    for length in (1, 2):
        same = (samples.ids[:, None, :length] == SEQUENCES[:, :length]).all(dim=2)
        row, whole = same.nonzero().repeat_interleave(9 // int(same[0].sum()), dim=0).T
        drawn = samples.select(row)._replace(ids=SEQUENCES[whole])
        yield Completions(drawn, row, torch.full_like(row, length))


def all_sequences() -> Samples:
    return Samples(torch.full((27, 1), BOS), SEQUENCES, torch.ones_like(SEQUENCES, dtype=torch.bool))


def last_ids(rows: list[list[int]]) -> list[float]:
    """A reward function on ids: the number of the last one of each sequence, counted from 1."""
    return [row[-1] + 1.0 if row else 0.0 for row in rows]


def places(rows: list[list[int]]) -> list[float]:
    """A reward function on ids: (i + 1) / 27 of the sequence of number i."""
    return [(9 * row[0] + 3 * row[1] + row[2] + 1) / 27 for row in rows]


def random_table(seed: int = 0) -> TableGenerator:
    torch.manual_seed(seed)
    return TableGenerator(torch.randn(len(PREFIXES), V))


def gradient(objective, models, fake, real=None) -> torch.Tensor:
    """Of the loss of a generator step, by the whole table."""
    models.generator.table.grad = None
    objective.generator_loss(models, fake if real is None else real, fake).value.backward()
    return models.generator.table.grad


def exact(generator: TableGenerator, function) -> torch.Tensor:
    """The gradient of a function of the 27 probabilities, by the whole table."""
    return torch.autograd.grad(function(generator.probabilities(SEQUENCES)), generator.table)[0]


def credited(objective, models, batch: Samples | None = None) -> Samples:
    batch = all_sequences() if batch is None else batch
    with torch.no_grad():
        return objective.credit(models, batch, batch).samples


class Judge(TableJudge):
    """Any log-odds for the 27 sequences."""

    def __init__(self, log_odds: torch.Tensor):
        super().__init__()
        self.log_odds = log_odds
