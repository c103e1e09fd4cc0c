"""Small decoders with random weights, and plain computations to compare the search with."""

from __future__ import annotations

import torch
from torch import Tensor

from imgcap.model.decoder import DecoderConfig, LSTMDecoder
from imgcap.model.search import Hypothesis
from imgcap.text.vocabulary import END, SPECIAL_WORDS, START

WORDS, LONGEST, IMAGES = 8, 4, 7
ORDINARY = range(len(SPECIAL_WORDS), WORDS)
PENALTIES = [0.0, 0.7, 2.5]


def make_decoder(end_bias: float, seed: int = 0) -> LSTMDecoder:
    """A decoder with strong opinions; `end_bias` makes its captions shorter."""
    torch.manual_seed(seed)
    decoder = LSTMDecoder(DecoderConfig(WORDS, embedding_size=8, hidden_size=12))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3)
        decoder.output.bias[END] += end_bias
    return decoder.eval().requires_grad_(False)


def step_log_probabilities(decoder: LSTMDecoder, feature: Tensor, ids: tuple[int, ...]) -> list[float]:
    """Log-probabilities of `ids` and `<end>`."""
    state = decoder.start(feature[None])
    steps, read = [], START
    for word in (*ids, END):
        log_probabilities, state = decoder.step(torch.tensor([read]), state)
        steps.append(log_probabilities[0, word].item())
        read = word
    return steps


def ids_of(found: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[hypothesis.ids for hypothesis in hypotheses] for hypotheses in found]
