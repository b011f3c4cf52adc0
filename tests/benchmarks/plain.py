"""References of the benchmarks: the steps of a text GAN as one writes them down in torch, with no thought to speed."""

from __future__ import annotations

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel


class PlainDiscriminator(nn.Module):
    """The paper's discriminator: `nn.Conv1d`, `nn.Linear`, autograd. It takes over the weights of ours."""

    def __init__(self, ours: PreTrainedModel):
        super().__init__()
        config = ours.config
        width = sum(config.num_filters)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_size, number, size)
            for size, number in zip(config.filter_sizes, config.num_filters, strict=True)
        )
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout, self.score = nn.Dropout(config.dropout), nn.Linear(width, 2)
        with torch.no_grad():
            self._copy(ours)

    def _copy(self, ours: PreTrainedModel) -> None:
        self.embedding.weight.copy_(ours.embed_tokens.weight)
        for convolution, filters in zip(self.convolutions, ours.filters, strict=True):
            number, width, size = convolution.weight.shape
            convolution.weight.copy_(filters.weight.view(number, size, width).transpose(1, 2))
            convolution.bias.copy_(filters.bias)
        layers = ((self.transform, ours.highway_transform), (self.gate, ours.highway_gate), (self.score, ours.score))
        for mine, theirs in layers:
            mine.load_state_dict(theirs.state_dict())

    def forward(self, ids: LongTensor) -> Tensor:
        """Logits (B, 2) of sequences (B, T)."""
        return self.judge(self.embedding(ids))

    def judge(self, embedded: Tensor) -> Tensor:
        """Logits (B, 2) of embeddings (B, T, E)."""
        embedded = embedded.transpose(1, 2)
        pooled = [F.relu(convolution(embedded)).amax(dim=2) for convolution in self.convolutions]
        features = torch.cat(pooled, dim=1)
        gate = torch.sigmoid(self.gate(features))
        features = gate * F.relu(self.transform(features)) + (1 - gate) * features
        return self.score(self.dropout(features))


class PlainMemory(nn.Module):
    """RelGAN's relational memory (one slot, one block, joint moments) with all of a step in the step, over the weights
    of ours."""

    def __init__(self, ours: nn.Module):
        super().__init__()
        self.config, self.scale = ours.config, (3 * ours.config.head_size) ** -0.5
        self.w = nn.ParameterDict({name: value.detach().clone() for name, value in ours.named_parameters()})

    def norm(self, name: str, rows: Tensor) -> Tensor:
        mean = rows.mean(dim=(1, 2), keepdim=True)
        variance = rows.var(dim=(1, 2), correction=0, keepdim=True)
        scale, shift = self.w[f"{name}_norm_weight"][0], self.w[f"{name}_norm_bias"][0]
        return (rows - mean) / torch.sqrt(variance + 1e-12) * scale + shift

    def step(self, memory: Tensor, embedded: Tensor) -> Tensor:
        """The memory (B, 1, D) after embeddings (B, E)."""
        w = self.w
        x = F.linear(embedded, w["input_weight"], w["input_bias"])[:, None]
        rows = torch.cat([memory, x], dim=1)
        qkv = self.norm("qkv", F.linear(rows, w["qkv_weight"][0]))
        query, key, value = qkv.unflatten(2, (self.config.num_heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        attended = torch.softmax(self.scale * query @ key.transpose(2, 3), dim=-1) @ value
        rows = self.norm("attention", rows + attended.transpose(1, 2).flatten(2))
        hidden = F.relu(F.linear(rows, w["mlp_weight"][0, 0], w["mlp_bias"][0, 0]))
        rows = self.norm("mlp", rows + F.linear(hidden, w["mlp_weight"][0, 1], w["mlp_bias"][0, 1]))
        gates = F.linear(torch.tanh(memory), w["memory_gate_weight"]) + F.linear(x, w["input_gate_weight"])
        i, f = gates.chunk(2, dim=-1)
        return torch.sigmoid(i) * torch.tanh(rows[:, :1]) + torch.sigmoid(f + 1.0) * memory

    def forward(self, embedded: Tensor) -> Tensor:
        """Memories (B, T, D) after each of the embeddings (B, T, E)."""
        memory = torch.eye(1, self.config.memory_size).expand(len(embedded), 1, -1)
        memories = []
        for position in range(embedded.shape[1]):
            memory = self.step(memory, embedded[:, position])
            memories.append(memory[:, 0])
        return torch.stack(memories, dim=1)


class PlainMemoryGenerator(nn.Module):
    """`PlainMemory` between the embeddings and the output layer of ours: all logits in memory, a token at a time."""

    def __init__(self, ours: PreTrainedModel):
        super().__init__()
        self.memory = PlainMemory(ours.model.memory)
        self.embedding, self.head = copy.deepcopy(ours.get_input_embeddings()), copy.deepcopy(ours.lm_head)

    @torch.no_grad()
    def continued(self, rows: int, length: int) -> LongTensor:
        """Sequences (B, T), by softmax and `torch.multinomial`."""
        token, ids = torch.zeros(rows, 1, dtype=torch.long), []
        memory = torch.eye(1, self.memory.config.memory_size).expand(rows, 1, -1)
        for _ in range(length):
            memory = self.memory.step(memory, self.embedding(token[:, 0]))
            token = torch.multinomial(self.head(memory[:, 0]).softmax(-1), 1)
            ids.append(token)
        return torch.cat(ids, dim=1)

    def nll(self, ids: LongTensor) -> Tensor:
        """-log G of every token, (B, T)."""
        read = torch.cat([torch.zeros(len(ids), 1, dtype=torch.long), ids[:, :-1]], dim=1)
        logits = self.head(self.memory(self.embedding(read)))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)


@torch.no_grad()
def continued(generator: PreTrainedModel, ids: LongTensor, length: int) -> LongTensor:
    """Sequences (B, t) continued to (B, T), one token after another, by softmax and `torch.multinomial`."""
    start = torch.zeros(len(ids), 1, dtype=torch.long)
    output = generator(input_ids=torch.cat([start, ids], dim=1), use_cache=True)
    while True:
        token = torch.multinomial(output.logits[:, -1].softmax(-1), 1)
        ids = torch.cat([ids, token], dim=1)
        if ids.shape[1] == length:
            return ids
        output = generator(input_ids=token, past_key_values=output.past_key_values, use_cache=True)


def relaxed(generator: PreTrainedModel, rows: int, length: int, beta: float) -> Tensor:
    """Soft tokens (B, T, V) of sequences that are written with Gumbel noise, hard tokens fed back, under autograd."""
    token, cache, softs = torch.zeros(rows, 1, dtype=torch.long), None, []
    for _ in range(length):
        output = generator(input_ids=token, past_key_values=cache, use_cache=True)
        softs.append(F.gumbel_softmax(output.logits[:, -1], tau=1 / beta))
        token, cache = softs[-1].argmax(dim=1, keepdim=True), output.past_key_values
    return torch.stack(softs, dim=1)


@torch.no_grad()
def completion_rewards(
    generator: PreTrainedModel, discriminator: nn.Module, ids: LongTensor, prefix_lengths: Sequence[int]
) -> Tensor:
    """D of one completion of each prefix, (B, len(prefix_lengths)): the loop that every peer writes."""
    whole = [continued(generator, ids[:, :t], ids.shape[1]) for t in prefix_lengths]
    return torch.stack([discriminator(sequences).softmax(-1)[:, 1] for sequences in whole], dim=1)


def nll(generator: PreTrainedModel, ids: LongTensor) -> Tensor:
    """-log G of every token, (B, T), with all logits in memory."""
    read = torch.cat([torch.zeros(len(ids), 1, dtype=torch.long), ids[:, :-1]], dim=1)
    logits = generator(input_ids=read, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of the optimizer."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# --- BLEU in dictionaries --------------------------------------------------------------------------------------------


def _counts(texts: Sequence[Sequence[str]], orders: Sequence[int]) -> list[list[Counter]]:
    """For each text the counts of its n-grams of 1, 2, ... tokens."""
    sizes = range(1, max(orders) + 1)
    return [[Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for n in sizes] for t in texts]


def _mean_scores(counts: list[list[Counter]], allowed, orders: Sequence[int], name: str) -> dict[str, float]:
    """Mean sentence BLEU where no brevity penalty is due; `allowed(row, order, gram)` clips the counts."""
    totals = dict.fromkeys(orders, 0.0)
    for row, counters in enumerate(counts):
        logs = []
        for order, counter in enumerate(counters):
            matched = sum(min(count, allowed(row, order, gram)) for gram, count in counter.items())
            logs.append(math.log((matched or 0.1) / max(1, sum(counter.values()))))
        for n in orders:
            totals[n] += math.exp(sum(logs[:n]) / n)
    return {f"{name}_{n}": total / len(counts) for n, total in totals.items()}


def bleu(samples, references, orders: Sequence[int] = (2, 3, 4, 5)) -> dict[str, float]:
    """BLEU of texts that are as long as a reference."""
    largest: list[dict] = [{} for _ in range(max(orders))]
    for counters in _counts(references, orders):
        for table, counter in zip(largest, counters, strict=True):
            for gram, count in counter.items():
                table[gram] = max(count, table.get(gram, 0))
    return _mean_scores(_counts(samples, orders), lambda row, order, gram: largest[order].get(gram, 0), orders, "bleu")


def self_bleu(samples, orders: Sequence[int] = (2, 3, 4, 5)) -> dict[str, float]:
    """Self-BLEU of texts as long as others: the two largest counts of each n-gram, and who holds the first."""
    best = [defaultdict(lambda: (0, -1, 0)) for _ in range(max(orders))]
    counts = _counts(samples, orders)
    for row, counters in enumerate(counts):
        for table, counter in zip(best, counters, strict=True):
            for gram, count in counter.items():
                first, owner, second = table[gram]
                table[gram] = (count, row, first) if count > first else (first, owner, max(second, count))

    def among_others(row: int, order: int, gram: tuple) -> int:
        first, owner, second = best[order][gram]
        return second if owner == row else first

    lengths = Counter(map(len, samples))
    assert all(lengths[len(text)] > 1 for text in samples), "a brevity penalty would be due"
    return _mean_scores(counts, among_others, orders, "self_bleu")
