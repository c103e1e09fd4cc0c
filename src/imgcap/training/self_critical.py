"""Self-critical sequence training: the model samples captions, and those that score above its mean are reinforced.

The gradient is that of REINFORCE (Rennie et al. 2017, "Self-Critical Sequence Training for Image Captioning"). The
baseline of a caption is the mean reward of the image's other samples, which needs no search (Luo 2020, "A Better
Variant of Self-Critical Sequence Training"). The reward is CIDEr-D with `<end>` as a word: without it, a model learns
to stop in the middle of a phrase.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgcap.model.decoder import LSTMDecoder, Steps, pack
from imgcap.scoring.metrics.cider import CiderD
from imgcap.scoring.metrics.ngrams import Tokens
from imgcap.text.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary

_END_WORD = SPECIAL_WORDS[END]


class Reward:
    """CIDEr-D of sampled captions against the captions of the training images."""

    def __init__(self, references: Sequence[Sequence[Tokens]], vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.cider = CiderD([[[*tokens, _END_WORD] for tokens in captions] for captions in references])

    def __call__(self, ids: Tensor, images: Sequence[int]) -> Tensor:
        """Rewards, float32 (B,), of captions `ids`, int64 (B, T) as from `sample`; `images` numbers their images."""
        captions = []
        for row in ids.tolist():
            tokens = self.vocabulary.decode(row)
            captions.append([*tokens, _END_WORD] if END in row else tokens)
        return torch.from_numpy(self.cider.score(captions, images).astype(np.float32))


@torch.inference_mode()
def sample(decoder: LSTMDecoder, features: Tensor, max_length: int) -> Tensor:
    """Sample one caption for each image of features (B, 2048), without dropout.

    Returns int64 (B, T), T at most `max_length` + 1: words, `<end>` unless the caption is cut off, and padding.
    """
    training = decoder.training
    decoder.eval()
    state, read = decoder.start(features), Steps(decoder, len(features))
    never = torch.tensor([PAD, START, UNKNOWN], device=features.device)
    alive = torch.arange(len(features), device=features.device)  # rows without <end> so far
    words = torch.full_like(alive, START)
    ids = []
    for _ in range(max_length + 1):
        log_probabilities, state = read(words, state)
        words = torch.multinomial(log_probabilities.exp().index_fill(1, never, 0), 1)[:, 0]
        ids.append(words.new_full((len(features),), PAD).index_copy(0, alive, words))
        on = (words != END).nonzero()[:, 0]
        if not len(on):
            break
        alive, words, state = alive[on], words[on], (state[0][:, on], state[1][:, on])
    decoder.train(training)
    return torch.stack(ids, 1)


def self_critical_loss(decoder: nn.Module, features: Tensor, ids: Tensor, rewards: Tensor, samples: int) -> Tensor:
    """The loss of B sampled captions, `samples` of each image in a row: a scalar, the mean over all sampled words.

    `decoder` has the interface of `LSTMDecoder`; `features` is (B, 2048), `ids` int64 (B, T) as from `sample`, and
    `rewards` (B,).
    """
    by_image = rewards.view(-1, samples)
    others = (by_image.sum(1, keepdim=True) - by_image) / (samples - 1)
    advantages = (by_image - others).flatten()
    lengths = (ids != PAD).sum(1)
    read = torch.cat([ids.new_full((len(ids), 1), START), ids[:, :-1]], 1)
    logits = decoder(features, read, lengths.cpu()).index_fill(1, ids.new_tensor([PAD, START, UNKNOWN]), -torch.inf)
    surprise = F.cross_entropy(logits, pack(ids, lengths.cpu()), reduction="none")
    return (pack(advantages[:, None].expand(ids.shape), lengths.cpu()) * surprise).mean()
