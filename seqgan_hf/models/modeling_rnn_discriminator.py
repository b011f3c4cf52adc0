"""A recurrent sequence classifier: a score for the sequence, or one for every token.

The file is copied beside the weights for `trust_remote_code=True`, with `modeling_base.py`.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .modeling_base import Classifier, ClassifierConfig, classification_loss, compact


CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


@strict
class RNNDiscriminatorConfig(ClassifierConfig):
    """Configuration of `RNNDiscriminatorForSequenceClassification`.

    The settings are those of `ClassifierConfig`, and these. Units are dropped from the embeddings and from the output
    of every layer.

    Attributes:
        hidden_size: H, width of the recurrent state of one direction.
        num_hidden_layers: number of recurrent layers.
        cell_type: `"lstm"` or `"gru"`.
        bidirectional: read the sequence from both ends; not with `per_token`.
        per_token: score every token given the tokens before it, instead of the sequence as a whole; by a single
            logit, that of "real".
        initializer_range: embeddings and output layer start from N(0, initializer_range^2); recurrent layers from
            U(-1/sqrt(H), 1/sqrt(H)).
    """

    model_type = "rnn_discriminator"
    sizes = ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers")
    positive = ("initializer_range",)
    choices = {"cell_type": CELLS}

    hidden_size: int = 64
    num_hidden_layers: int = 1
    cell_type: str = "gru"
    bidirectional: bool = False
    per_token: bool = False
    initializer_range: float | int = 0.1

    @property
    def takes_names(self) -> bool:
        return not self.per_token

    def validate_direction(self) -> None:
        if self.per_token and self.bidirectional:
            why = "because a bidirectional state has seen the tokens after the one it scores"
            fix = "Set bidirectional=False, or per_token=False for one score a sequence."
            problem = "per_token=True with bidirectional=True"
            raise ValueError(f"{problem}: expected a unidirectional network, {why}. {fix}")


class RNNDiscriminatorForSequenceClassification(Classifier):
    """An LSTM or GRU over the sequence and a linear score of its final states, or of every state.

    Each direction of each layer is a plain one-layer `torch.nn.LSTM` or `torch.nn.GRU`: what is
    `forward_layers.1.weight_ih_l0` and `backward_layers.1.weight_ih_l0` here is `weight_ih_l1` and
    `weight_ih_l1_reverse` in one of several layers.
    """

    config_class = RNNDiscriminatorConfig
    _no_split_modules = ["LSTM", "GRU"]

    def __init__(self, config: RNNDiscriminatorConfig):
        super().__init__(config)
        width, cell = config.hidden_size * (2 if config.bidirectional else 1), CELLS[config.cell_type]
        sizes = [config.embedding_size] + [width] * (config.num_hidden_layers - 1)

        def layers() -> nn.ModuleList:
            return nn.ModuleList(cell(size, config.hidden_size, batch_first=True) for size in sizes)

        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.forward_layers = layers()
        self.backward_layers = layers() if config.bidirectional else None
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(width, 1 if config.per_token else config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
            bound = module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        else:
            super()._init_weights(module)

    def judge(self, embedded: Tensor, mask: Tensor | None, labels: Tensor | None) -> SequenceClassifierOutput:
        """With `per_token`, logits are (B, T, 1), where those at padding have no meaning, and labels may be (B, T),
        where -100 does not count."""
        if mask is None:
            mask = torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        else:
            embedded = compact(embedded, mask)
        forward, backward = self._run_layers(self.dropout(embedded), mask.sum(dim=1))
        if self.config.per_token:
            last_token = (mask.cumsum(dim=1) - 1).clamp(min=0)
            logits = self.score(self.dropout(_take(forward, last_token)))
            loss = None if labels is None else _token_loss(logits[..., 0], labels, mask)
        else:
            logits = self.score(self.dropout(_final_states(forward, backward, mask.sum(dim=1))))
            loss = None if labels is None else classification_loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _run_layers(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Outputs (B, T, H) of the last layer in both directions, for sequences padded on the right.

        The backward direction reads each sequence from its own last token. So there is no need to pack the batch,
        which costs a wait for the device and the fast kernels.
        """
        position = torch.arange(hidden.shape[1], device=hidden.device)
        reverse = lengths[:, None] - 1 - position
        reverse = torch.where(reverse >= 0, reverse, position)  # padding stays behind
        forward = backward = None
        for index, layer in enumerate(self.forward_layers):
            if index > 0:
                hidden = self.dropout(forward if backward is None else torch.cat([forward, backward], dim=-1))
            forward, _ = layer(hidden)
            if self.backward_layers is not None:
                backward, _ = self.backward_layers[index](_take(hidden, reverse))
                backward = _take(backward, reverse)
        return forward, backward


def _take(values: Tensor, positions: Tensor) -> Tensor:
    """`values` (B, T, E) at `positions` (B, K) of the same row, shape (B, K, E)."""
    return values.gather(1, positions[..., None].expand(-1, -1, values.shape[-1]))


def _final_states(forward: Tensor, backward: Tensor | None, lengths: Tensor) -> Tensor:
    """The state after the last token read in each direction, side by side; zero for an empty sequence."""
    final = _take(forward, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    final = final if backward is None else torch.cat([final, backward[:, 0]], dim=-1)
    return torch.where((lengths > 0)[:, None], final, 0.0)


def _token_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of real against fake, mean over real tokens whose label is not -100; all shapes (B, T)."""
    labels = labels[:, None].expand_as(logits) if labels.dim() == 1 else labels
    counts = mask & (labels != -100)
    losses = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits.dtype), reduction="none")
    return losses.masked_fill(~counts, 0.0).sum() / counts.sum().clamp(min=1)
