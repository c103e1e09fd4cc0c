"""Self-critical training: what is sampled, how it is rewarded, and where the gradient goes."""

from __future__ import annotations

import pytest
import torch

from imgcap.model.decoder import DecoderConfig, LSTMDecoder
from imgcap.model.inception import FEATURE_SIZE
from imgcap.scoring.metrics.cider import CiderD
from imgcap.text.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary
from imgcap.training.self_critical import Reward, sample, self_critical_loss

VOCABULARY = Vocabulary((*SPECIAL_WORDS, "a", "dog", "cat", "runs"))
A, DOG, CAT, RUNS = range(4, 8)
REFERENCES = [[["a", "dog", "runs"], ["a", "dog"]], [["a", "cat", "runs"]], [["cat"]]]


@pytest.fixture
def decoder() -> LSTMDecoder:
    torch.manual_seed(0)
    return LSTMDecoder(DecoderConfig(len(VOCABULARY), 8, 8, 0.0)).eval()


def test_samples_end_once_and_hold_no_word_that_cannot_be_said(decoder: LSTMDecoder) -> None:
    ids = sample(decoder.train(), torch.randn(64, FEATURE_SIZE), 6)
    assert decoder.training
    assert len(ids) == 64
    assert ids.shape[1] <= 7
    for row in ids.tolist():
        length = row.index(END) + 1 if END in row else len(row)
        assert not {PAD, START, UNKNOWN} & set(row[:length])
        assert set(row[length:]) <= {PAD}


def test_words_are_drawn_as_often_as_the_decoder_says(decoder: LSTMDecoder) -> None:
    features = torch.randn(1, FEATURE_SIZE)
    ids = sample(decoder, features.expand(20_000, -1), 1)

    def shares(drawn: torch.Tensor) -> torch.Tensor:
        return torch.bincount(drawn, minlength=len(VOCABULARY)) / len(drawn)

    def wanted(scores: torch.Tensor) -> torch.Tensor:
        allowed = scores[0].exp()
        allowed[[PAD, START, UNKNOWN]] = 0
        return allowed / allowed.sum()

    scores, state = decoder.step(torch.tensor([START]), decoder.start(features))
    torch.testing.assert_close(shares(ids[:, 0]), wanted(scores), atol=0.02, rtol=0)
    scores, _ = decoder.step(torch.tensor([DOG]), state)
    torch.testing.assert_close(shares(ids[ids[:, 0] == DOG, 1]), wanted(scores), atol=0.05, rtol=0)


def test_the_reward_is_cider_d_with_the_end_as_a_word() -> None:
    reward = Reward(REFERENCES, VOCABULARY)
    ids = torch.tensor([[A, DOG, RUNS, END], [A, CAT, END, PAD], [A, DOG, RUNS, A], [CAT, END, PAD, PAD]])
    images = [0, 1, 0, 2]
    cider = CiderD([[[*tokens, "<end>"] for tokens in captions] for captions in REFERENCES])
    captions = [["a", "dog", "runs", "<end>"], ["a", "cat", "<end>"], ["a", "dog", "runs", "a"], ["cat", "<end>"]]
    rewards = reward(ids, images)
    torch.testing.assert_close(rewards.double(), torch.from_numpy(cider.score(captions, images)), atol=1e-6, rtol=0)
    assert rewards[0] > rewards[2], "a caption that does not end must score less"


def log_probability(decoder: LSTMDecoder, features: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Of one caption among all that can be sampled, word by word."""
    read = torch.tensor([[START, *ids[:-1]]])
    logits = decoder(features, read, torch.tensor([len(ids)]))
    allowed = logits.exp().index_fill(1, torch.tensor([PAD, START, UNKNOWN]), 0)
    probability: torch.Tensor = (allowed[torch.arange(len(ids)), ids] / allowed.sum(1)).log().sum()
    return probability


def test_the_loss_weighs_samples_by_their_lead_over_the_others(decoder: LSTMDecoder) -> None:
    features = torch.randn(2, FEATURE_SIZE).repeat_interleave(3, 0)
    ids = [[A, DOG, END], [DOG, END], [CAT, RUNS, RUNS, A], [A, END], [CAT, END], [END]]
    rewards = torch.tensor([3.0, 0.0, 0.0, 1.0, 0.5, 0.0])
    leads = [3.0, -1.5, -1.5, 0.75, 0.0, -0.75]
    padded = torch.tensor([[*row, *[PAD] * (4 - len(row))] for row in ids])
    loss = self_critical_loss(decoder, features, padded, rewards, samples=3)
    parts = [lead * log_probability(decoder, f[None], row) for lead, f, row in zip(leads, features, ids, strict=True)]
    expected = -sum(parts[1:], parts[0]) / sum(map(len, ids))
    torch.testing.assert_close(loss, expected)
    weights = list(decoder.parameters())
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-3)


def test_equal_rewards_teach_nothing(decoder: LSTMDecoder) -> None:
    ids = torch.tensor([[A, END], [DOG, END]])
    loss = self_critical_loss(decoder, torch.randn(2, FEATURE_SIZE), ids, torch.tensor([2.0, 2.0]), samples=2)
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, list(decoder.parameters())))
