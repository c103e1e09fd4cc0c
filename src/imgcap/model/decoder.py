"""The decoder: an LSTM language model conditioned on the image (Vinyals et al. 2015, "Show and Tell")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from imgcap.errors import ImgcapError
from imgcap.model import one_dnn
from imgcap.model.inception import FEATURE_SIZE

State = tuple[Tensor, Tensor]
"""Hidden and cell state of the LSTM, each (1, B, hidden)."""

MIN_STD = 1e-3
"""Minimum deviation that `LSTMDecoder.standardize_features` divides by."""
MAX_DEVIATIONS = 5
"""Standardised features are clamped to this many standard deviations."""


def standardize(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Features (B, D) as a decoder sees them: in standard deviations (D,) from the mean (D,), clamped."""
    return ((features - mean) / std).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of an `LSTMDecoder`. Raises `ImgcapError` if a value is out of range."""

    vocabulary_size: int
    embedding_size: int = 512
    hidden_size: int = 512
    dropout: float = 0.5

    def __post_init__(self) -> None:
        sizes = (self.vocabulary_size, self.embedding_size, self.hidden_size)
        if not all(type(size) is int and size > 0 for size in sizes) or not 0 <= self.dropout < 1:
            raise ImgcapError(f"There is no decoder with the sizes {sizes} and the dropout {self.dropout!r}.")


class LSTMDecoder(nn.Module):
    """An LSTM whose first input is the image; then it reads a word at a time and predicts the next one.

        step     0          1         2      ...  n + 1
        input    image    <start>   w1          wn
        output   -          w1        w2          <end>

    Shapes: B images or captions, T tokens, V words.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("feature_mean", torch.zeros(FEATURE_SIZE))
        self.register_buffer("feature_std", torch.ones(FEATURE_SIZE))
        self.image = nn.Linear(FEATURE_SIZE, config.embedding_size)
        sizes = (config.vocabulary_size, config.embedding_size)
        self.embedding = nn.Embedding(*sizes, _weight=torch.empty(sizes))
        if not self.embedding.weight.is_meta:  # initialising a meta tensor would import a second's worth of torch
            nn.init.normal_(self.embedding.weight)
        self.lstm = nn.LSTM(config.embedding_size, config.hidden_size, batch_first=True)
        self.output = nn.Linear(config.hidden_size, config.vocabulary_size)
        self.register_load_state_dict_pre_hook(_rename_weights)  # type: ignore[no-untyped-call]

    def standardize_features(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation of the training features, (2048,) each, to scale all features alike."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std.clamp(min=MIN_STD))

    def embed_images(self, features: Tensor) -> Tensor:
        """Features (B, 2048) -> LSTM inputs (B, embedding)."""
        standardized = standardize(features, self.feature_mean, self.feature_std)
        return self.image(self._drop(standardized))  # type: ignore[no-any-return]

    def forward(self, features: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Teacher forcing: logits for the word after each of `ids`.

        `features`, float32 (B, 2048), belong to the captions' images. `ids`, int64 (B, T), begin with `<start>`.
        `lengths`, int64 (B,) on the CPU, count the ids before the padding. Returns float32 (sum of lengths, V) in the
        order of `pack(ids, lengths)`.
        """
        image = self.embed_images(features)[:, None]  # (B, 1, embedding)
        inputs = torch.cat([image, self._drop(self.embedding(ids))], 1)  # (B, 1 + T, embedding)
        packed = pack_padded_sequence(inputs, lengths + 1, batch_first=True, enforce_sorted=False)
        hidden, _ = self.lstm(packed)  # data: (sum of lengths + B, hidden), step by step
        words = hidden.data[len(ids) :]  # without the first step, which read the image
        return self.output(self._drop(words))  # type: ignore[no-any-return]

    def start(self, features: Tensor) -> State:
        """The state after the LSTM has read the images (B, 2048); `<start>` comes next."""
        _, state = self.lstm(self.embed_images(features)[:, None])
        return state  # type: ignore[no-any-return]

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one word per caption; see `Steps`."""
        return Steps(self, len(ids))(ids, state)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


def _rename_weights(_decoder: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give the weights of an earlier version their present names."""
    for parameter in ("weight", "bias"):
        if (old := f"{prefix}picture.{parameter}") in weights:
            weights[f"{prefix}image.{parameter}"] = weights.pop(old)


class Steps:
    """Reads captions word by word, without dropout and gradients. The decoder's weights must not change meanwhile.

    `steps(ids, state)` reads one word per caption, int64 (B,). It returns the log-probabilities of the next word,
    float32 (B, V), and the new state. A word's contribution to the LSTM's gates is computed when the word is first
    read and then reused: a search reads the same few words over and over.
    """

    @torch.no_grad()
    def __init__(self, decoder: LSTMDecoder, rows: int) -> None:
        """`rows` is about the number of words read at a time; oneDNN packs the weights for it."""
        weight, hidden_weight, input_bias, hidden_bias = decoder.lstm.all_weights[0]
        self._embedding = decoder.embedding
        self._input_gates = partial(F.linear, weight=weight, bias=input_bias + hidden_bias)
        self._hidden_gates = _linear(hidden_weight, None, rows)
        self._output = _linear(decoder.output.weight, decoder.output.bias, rows)
        words, gates = decoder.config.vocabulary_size, len(weight)
        self._is_cached = torch.zeros(words, dtype=torch.bool, device=weight.device)
        self._cached = torch.empty(words, gates, device=weight.device)  # gate inputs of each word

    @torch.no_grad()
    def __call__(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        gates = self._hidden_gates(state[0][0]).add_(self._gates_of(ids))
        input_gate, forget_gate, candidate, output_gate = gates.chunk(4, 1)
        cell = forget_gate.sigmoid() * state[1][0] + input_gate.sigmoid() * candidate.tanh()
        hidden = output_gate.sigmoid() * cell.tanh()
        return self._output(hidden).log_softmax(-1), (hidden[None], cell[None])

    def _gates_of(self, ids: Tensor) -> Tensor:
        new = torch.unique(ids[~self._is_cached[ids]])
        if len(new):
            self._cached[new] = self._input_gates(self._embedding(new))
            self._is_cached[new] = True
        return self._cached[ids]


def _linear(weight: Tensor, bias: Tensor | None, rows: int) -> Callable[[Tensor], Tensor]:
    """x -> x weight^T + bias. On a CPU with oneDNN, the weights are packed for inputs of `rows` rows."""
    if weight.device.type != "cpu" or not one_dnn.has("mkldnn", "_reorder_linear_weight", "_linear_pointwise"):
        return partial(F.linear, weight=weight, bias=bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def pack(values: Tensor, lengths: Tensor) -> Tensor:
    """Drop the padding: (B, T) -> (sum of lengths,), in the order of the logits of `LSTMDecoder.forward`."""
    return pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False).data
