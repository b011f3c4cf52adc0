"""The generator of LeakGAN (Guo et al., AAAI 2018, https://arxiv.org/abs/1709.08624): a Manager reads what the
discriminator makes of the text so far and sets goals in its feature space; a Worker writes towards them.

The file is copied beside the weights for `trust_remote_code=True`, with `modeling_base.py`.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .modeling_base import StateCache, StatefulConfig, StatefulForCausalLM, StatefulModel, StatefulPreTrained


# Of the discriminator's config: what its feature layers are made of. The defaults are those of `cnn_discriminator`.
FEATURES: dict[str, Any] = {
    "embedding_size": 64,
    "filter_sizes": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20],
    "num_filters": [100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160],
}


@strict
class LeakGeneratorConfig(StatefulConfig):
    """Configuration of `LeakGeneratorForCausalLM`. The defaults are those of the published code for T = 20.

    The settings are those of `StatefulConfig`, and these. The vocabulary is the discriminator's as well, which does
    not read the start token; the embeddings are the Worker's.

    Attributes:
        hidden_size: H, width of the recurrent states of Manager and Worker.
        goal_size: k, what a goal is projected to for the Worker.
        goal_steps: c, tokens that are written towards one goal.
        dropout: probability of dropping a unit of the Worker's embeddings and of its output; the paper has none.
        discriminator_config: `embedding_size`, `filter_sizes` and `num_filters` of the CNN discriminator whose
            features leak; its defaults where it is left out. F, the width of features and goals, is
            `sum(num_filters)`.
        initializer_range: every parameter is drawn from N(0, initializer_range^2), but for the second bias of a gate,
            which starts at zero.
    """

    model_type = "leak_generator"
    sizes = ("vocab_size", "embedding_size", "hidden_size", "goal_size", "goal_steps")
    positive = ("initializer_range",)

    hidden_size: int = 32
    goal_size: int = 16
    goal_steps: int = 4
    dropout: float | int = 0.0
    discriminator_config: dict[str, int | list[int]] | None = None
    initializer_range: float | int = 0.1

    def __post_init__(self, **kwargs: Any) -> None:
        self.discriminator_config = FEATURES if self.discriminator_config is None else self.discriminator_config
        super().__post_init__(**kwargs)

    def validate_discriminator(self) -> None:
        given: Any = self.discriminator_config
        fix = "Copy them from the discriminator's config."
        if given.keys() != FEATURES.keys():
            raise ValueError(f"discriminator_config with {sorted(given)}: expected {sorted(FEATURES)}. {fix}")
        sizes, numbers = given["filter_sizes"], given["num_filters"]
        lists = isinstance(sizes, list) and isinstance(numbers, list) and len(sizes) == len(numbers) > 0
        if not lists or min(given["embedding_size"], *sizes, *numbers) < 1:
            expected = "an integer of at least 1, and two lists of equally many of them"
            raise ValueError(f"discriminator_config={given}: expected {expected}. {fix}")


class Constants(nn.Module):
    """A matrix and, if asked for, a bias that are saved and moved with the model, but never trained."""

    weight: Tensor
    bias: Tensor

    def __init__(self, *shape: int, bias: bool = True):
        super().__init__()
        self.register_buffer("weight", torch.empty(shape))
        if bias:
            self.register_buffer("bias", torch.empty(shape[0]))


class Leak(nn.Module):
    """A copy of the CNN discriminator's layers below its score, with their names: the features of every prefix."""

    def __init__(self, config: LeakGeneratorConfig):
        super().__init__()
        given: Any = config.discriminator_config
        self.sizes, width = given["filter_sizes"], given["embedding_size"]
        self.width = sum(given["num_filters"])  # F
        self.embed_tokens = Constants(config.vocab_size, width, bias=False)
        self.filters = nn.ModuleList(
            Constants(number, size * width) for size, number in zip(self.sizes, given["num_filters"], strict=True)
        )
        self.highway_transform = Constants(self.width, self.width)
        self.highway_gate = Constants(self.width, self.width)

    @torch.no_grad()
    def forward(self, input_ids: Tensor, past: int = 0, state: tuple[Tensor, Tensor] | None = None):
        """Features at n further positions; at position p, p tokens behind the start token have been read.

        Args:
            input_ids: token ids (B, n) at the positions `past` to `past + n - 1`.
            past: positions before.
            state: maxima and tokens after these; `None` if there are none.

        Returns:
            Features (B, n, F), and the new state.
        """
        read = input_ids if state is not None else input_ids[:, 1:]
        tokens = read if state is None else torch.cat([state[1], read], dim=1)
        embedded, end = F.embedding(tokens, self.embed_tokens.weight), past + input_ids.shape[1]
        first = end - 1 - tokens.shape[1]  # tokens that are out of reach
        columns, column = [], 0
        for size, filters in zip(self.sizes, self.filters, strict=True):
            columns.append(self._maxima(embedded, filters.weight, size, range(past, end), first))  # type: ignore
            number = columns[-1].shape[2]
            if past > size and state is not None:  # a whole window has been read before
                columns[-1] = torch.maximum(columns[-1], state[0][:, None, column : column + number])
            column += number
        maxima = torch.cat(columns, dim=2)
        features = F.relu(maxima + torch.cat([filters.bias for filters in self.filters]))  # type: ignore
        gate = torch.sigmoid(F.linear(features, self.highway_gate.weight, self.highway_gate.bias))
        transformed = F.relu(F.linear(features, self.highway_transform.weight, self.highway_transform.bias))
        kept = tokens[:, max(tokens.shape[1] - max(self.sizes) + 1, 0) :]
        return torch.lerp(features, transformed, gate), (maxima[:, -1], kept)

    @staticmethod
    def _maxima(embedded: Tensor, weight: Tensor, size: int, positions: range, first: int) -> Tensor:
        """Maxima over the windows of one width that end at these positions or between them, (B, n, C).

        Before the first whole window there is one at the beginning, with zero vectors after the last token.
        """
        short = min(max(size - positions.start, 0), len(positions))  # positions without a whole window
        columns = []
        if short:
            reach = positions.start + short - 1
            kernel = weight.view(len(weight), size, -1)[:, :reach]
            parts = torch.einsum("bte,cte->btc", embedded[:, :reach], kernel).cumsum(dim=1)
            columns.append(F.pad(parts, (0, 0, 1, 0))[:, positions.start :])
        if short < len(positions):
            windows = embedded[:, positions.start + short - size - first :].unfold(1, size, 1).transpose(2, 3)
            columns.append(F.linear(windows.flatten(2), weight).cummax(dim=1).values)
        return torch.cat(columns, dim=1)


class LeakGeneratorPreTrainedModel(StatefulPreTrained):
    config_class = LeakGeneratorConfig
    _no_split_modules = ["LSTM"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if name.startswith("bias_hh"):
                init.zeros_(tensor)
            else:
                init.normal_(tensor, mean=0.0, std=self.config.initializer_range)


class LeakGeneratorModel(LeakGeneratorPreTrainedModel, StatefulModel):
    """Manager and Worker: everything up to the output layer.

    At position p the Manager reads f_p, what the discriminator makes of the first p tokens behind the start token, and
    sets the goal g_p of length 1. Block n are the positions from nc to (n+1)c - 1, c = `goal_steps`; the goal in force
    there, Gamma_n, is the sum of the goals of the block before (Gamma_0 is learnt). The logits of the paper, O_p w_p
    with the Worker's O_p = affine(h_p) (V, k) and w_p = psi Gamma_n / |psi Gamma_n| (k,), are a linear layer without
    bias on [w_p x h_p, w_p], which is the last hidden state here.

    The state has four layers: the Worker's h and c (B, H); the Manager's h and c (B, H); the goal in force and the sum
    of the goals since it was set (B, F); the maxima over windows so far (B, F) and the last tokens that a window can
    still reach (B, m).
    """

    state_layers = 4

    def __init__(self, config: LeakGeneratorConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        self.worker = nn.LSTM(config.embedding_size, config.hidden_size, batch_first=True)
        self.leak = Leak(config)
        self.manager = nn.LSTM(self.leak.width, config.hidden_size, batch_first=True)
        self.goal = nn.Linear(config.hidden_size, self.leak.width)
        self.first_goal = nn.Parameter(torch.empty(self.leak.width))
        self.projection = nn.Linear(self.leak.width, config.goal_size, bias=False)
        self.post_init()

    def goals(self, input_ids: Tensor, past_key_values: StateCache | None = None) -> tuple[Tensor, Tensor]:
        """What the discriminator makes of every prefix, and the goals in force; gradients reach the Manager only.

        Args:
            input_ids: token ids (B, T), the first of which is the start token.
            past_key_values: the state to go on from, whose Manager is brought up to date.

        Returns:
            f (B, T, F), without gradient, and Gamma (B, T, F) at every position.
        """
        cache = StateCache(self.state_layers) if past_key_values is None else past_key_values
        past, length, steps = cache.get_seq_length(1), input_ids.shape[1], self.config.goal_steps
        features, leaked = self.leak(input_ids, past, cache.read(3))
        outputs, state = self.manager(features, None if (known := cache.read(1)) is None else _batched(known))
        goals = F.normalize(self.goal(outputs), dim=2)
        in_force, pending = cache.read(2) or (self.first_goal.expand(len(goals), -1), torch.zeros_like(goals[:, 0]))
        blocks = torch.arange(past, past + length, device=goals.device) // steps - past // steps
        sums = goals.new_zeros(len(goals), (past + length - 1) // steps - past // steps + 1, goals.shape[2])
        sums = sums.index_add(1, blocks, goals) + F.pad(pending[:, None], (0, 0, 0, sums.shape[1] - 1))
        of_blocks = torch.cat([in_force[:, None], sums[:, :-1]], dim=1)
        whole = (past + length) % steps == 0  # the next position begins a block
        ahead = (sums[:, -1], torch.zeros_like(pending)) if whole else (of_blocks[:, -1], sums[:, -1])
        for index, new in ((1, (state[0][0], state[1][0])), (2, ahead), (3, leaked)):
            cache.update(*new, index, seq_length=length)
        return features, of_blocks.index_select(1, blocks)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: StateCache | None = None,
        use_cache: bool | None = None,
        cache: StateCache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run Manager and Worker; the Manager without gradient, so that a loss on the logits trains the Worker only.

        The arguments are those of `StatefulModel`. The first token of a sequence is the start token; padding stands
        behind real tokens only.

        Returns:
            `last_hidden_state` (B, T, k(H+1)), without meaning at padding, and the state.

        Raises:
            ValueError: padding before a real token; a cache of another kind.
        """
        if attention_mask is not None and bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()):
            problem = "padding before a real token: expected prompts of one length, as goals change in fixed steps"
            raise ValueError(f"{problem}. Give prompts of unequal length one by one.")
        given, use_cache = self.find_cache(past_key_values if cache is None else cache, use_cache)
        cache = StateCache(self.state_layers) if given is None else given
        known = cache.read(0)
        with torch.no_grad():
            _, goals = self.goals(input_ids, cache)
        embedded = self.dropout(self.embed_tokens(input_ids))
        hidden, state = self.worker(embedded, None if known is None else _batched(known))
        cache.update(state[0][0], state[1][0], 0, seq_length=input_ids.shape[1])
        weights = F.normalize(self.projection(goals), dim=2)
        products = (weights[..., None] * self.dropout(hidden)[..., None, :]).flatten(2)
        return BaseModelOutputWithPast(torch.cat([products, weights], dim=2), cache if use_cache else None)


def _batched(state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A state of rows as that of a `torch.nn.LSTM` of one layer."""
    return state[0][None].contiguous(), state[1][None].contiguous()


class LeakGeneratorForCausalLM(LeakGeneratorPreTrainedModel, StatefulForCausalLM):
    """Manager and Worker with their output layer. It writes without its discriminator, whose features it holds."""

    def __init__(self, config: LeakGeneratorConfig):
        super().__init__(config)
        self.model = LeakGeneratorModel(config)
        self.lm_head = nn.Linear(config.goal_size * (config.hidden_size + 1), config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def take_features(self, discriminator: PreTrainedModel) -> None:
        """Copy the layers below the score of a CNN discriminator.

        Raises:
            ValueError: it has others than `config.discriminator_config` says.
        """
        given = discriminator.state_dict()
        for name, tensor in self.model.leak.state_dict().items():
            if name not in given or given[name].shape != tensor.shape:
                found = f"of shape {tuple(given[name].shape)}" if name in given else "missing"
                problem = f"{name} of the discriminator {type(discriminator).__name__} is {found}"
                fix = "Give it the sizes of the generator's discriminator_config, and the same vocabulary."
                raise ValueError(f"{problem}: expected a tensor of shape {tuple(tensor.shape)}. {fix}")
            tensor.copy_(given[name])

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Always a ValueError: the discriminator's features know no other tokens."""
        problem = "another vocabulary for a leak generator: expected that of the discriminator whose features it holds"
        raise ValueError(f"{problem}. Build both anew with another vocab_size.")

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: StateCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cache: StateCache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As of other generators, but that embeddings are not read; the loss with `labels` trains the Worker only."""
        given = past_key_values if cache is None else cache
        return super().forward(input_ids, attention_mask, given, None, labels, use_cache, logits_to_keep, **kwargs)
