"""The decoder: teacher forcing and stepping are the same computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from imgcap.errors import ImgcapError
from imgcap.model.decoder import DecoderConfig, LSTMDecoder, State, Steps, pack
from imgcap.model.inception import FEATURE_SIZE
from imgcap.text.vocabulary import PAD, START

WORDS = 11


@pytest.fixture(scope="module")
def decoder() -> LSTMDecoder:
    torch.manual_seed(0)
    made = LSTMDecoder(DecoderConfig(WORDS, embedding_size=6, hidden_size=9, dropout=0.5)).eval()
    made.standardize_features(torch.randn(FEATURE_SIZE), torch.rand(FEATURE_SIZE) + 0.5)
    return made.requires_grad_(False)


def batch(lengths: list[int], padding: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random features (B, 2048), ids (B, max + padding) and lengths (B,)."""
    generator = torch.Generator().manual_seed(len(lengths))
    ids = torch.full((len(lengths), max(lengths) + padding), PAD)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(4, WORDS, (length,), generator=generator)
        ids[row, 0] = START
    return torch.randn(len(lengths), FEATURE_SIZE, generator=generator), ids, torch.tensor(lengths)


def logits_by_caption(decoder: LSTMDecoder, features: Tensor, ids: Tensor, lengths: Tensor) -> list[Tensor]:
    """The logits of `forward`, unpacked: (length, V) for each caption."""
    logits = decoder(features, ids, lengths)
    places = torch.arange(ids.numel()).view(ids.shape)
    row_and_step = pack(places, lengths).tolist()
    table = torch.full((ids.numel(), WORDS), torch.nan)
    table[row_and_step] = logits
    return [table.view(*ids.shape, WORDS)[row, :length] for row, length in enumerate(lengths.tolist())]


LENGTHS = [[4], [1], [3, 3, 3], [1, 2, 3, 4, 5], [5, 1, 4, 1, 2, 5, 3], [2, 9, 9, 1]]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_teacher_forcing_equals_stepping(decoder: LSTMDecoder, lengths: list[int]) -> None:
    features, ids, _ = batch(lengths)
    forced = logits_by_caption(decoder, features, ids, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        state = decoder.start(features[row : row + 1])
        for place in range(length):
            stepped, state = decoder.step(ids[row, place : place + 1], state)
            torch.testing.assert_close(forced[row][place].log_softmax(-1), stepped[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(stepped.exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("one_dnn", [True, False])
def test_cached_words_and_other_kernels_do_not_change_the_result(
    decoder: LSTMDecoder, monkeypatch: pytest.MonkeyPatch, one_dnn: bool
) -> None:
    features, ids, _ = batch([6, 6, 6])
    ids[:, 3:] = ids[:, :3]
    expected = [step[0] for step in walk(decoder.step, decoder.start(features), ids)]
    if not one_dnn:
        monkeypatch.setattr("imgcap.model.one_dnn.has", lambda *_names: False)
    for rows in (1, 3, 64):
        found = walk(Steps(decoder, rows), decoder.start(features), ids)
        for (log_probabilities, _), theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(log_probabilities, theirs, atol=1e-5, rtol=0)


def walk(
    read: Callable[[Tensor, State], tuple[Tensor, State]], state: State, ids: Tensor
) -> Iterator[tuple[Tensor, State]]:
    """Log-probabilities of every step through ids (B, T)."""
    for column in ids.T:
        found, state = read(column, state)
        yield found, state


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_stepping_a_batch_equals_stepping_one_by_one(decoder: LSTMDecoder, lengths: list[int]) -> None:
    features, ids, _ = batch(lengths)
    together = decoder.start(features)
    alone = [decoder.start(row[None]) for row in features]
    for place in range(min(lengths)):
        found, together = decoder.step(ids[:, place], together)
        for row in range(len(lengths)):
            one, alone[row] = decoder.step(ids[row, place][None], alone[row])
            torch.testing.assert_close(found[row], one[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_padding_does_not_change_the_logits(decoder: LSTMDecoder, lengths: list[int]) -> None:
    features, ids, counts = batch(lengths)
    expected = decoder(features, ids, counts)
    wider = torch.cat([ids, torch.full((len(lengths), 5), PAD)], 1)
    assert torch.equal(decoder(features, wider, counts), expected)
    for row, length in enumerate(lengths):
        wider[row, length:] = 7
    assert torch.equal(decoder(features, wider, counts), expected)
    assert torch.equal(pack(wider, counts), pack(ids, counts))


def test_captions_of_a_batch_do_not_affect_each_other(decoder: LSTMDecoder) -> None:
    features, ids, lengths = batch([5, 1, 4, 1, 2, 5, 3])
    together = logits_by_caption(decoder, features, ids, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = decoder(features[row : row + 1], ids[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [2, 17, 300])
def test_the_order_of_the_logits_is_that_of_pack(decoder: LSTMDecoder, count: int) -> None:
    """With many captions of the same length, whose order a sort may change."""
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, 7, (count,), generator=generator)
    features, ids, _ = batch(lengths.tolist())
    logits = decoder(features, ids, lengths)
    targets = torch.arange(ids.numel()).view(ids.shape)
    order = pack(targets, lengths)
    assert len(order) == len(logits) == lengths.sum()
    assert sorted(order.tolist()) == [r * ids.shape[1] + t for r, n in enumerate(lengths.tolist()) for t in range(n)]
    for place in range(0, len(order), max(1, len(order) // 60)):
        row, step = divmod(int(order[place]), ids.shape[1])
        alone = decoder(features[row : row + 1], ids[row : row + 1, : step + 1], torch.tensor([step + 1]))
        torch.testing.assert_close(logits[place], alone[-1], atol=1e-5, rtol=0)


def test_features_are_standardized_and_clamped(decoder: LSTMDecoder) -> None:
    mean, std = decoder.feature_mean, decoder.feature_std
    neutral = decoder.embed_images(mean[None])
    torch.testing.assert_close(neutral[0], decoder.image.bias)
    at, beyond = decoder.embed_images(torch.stack([mean + 5.001 * std, mean + 1e6 * std]))
    torch.testing.assert_close(at, beyond, atol=1e-4, rtol=0)


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    made = LSTMDecoder(DecoderConfig(WORDS, embedding_size=2, hidden_size=2))
    made.standardize_features(torch.zeros(FEATURE_SIZE), torch.zeros(FEATURE_SIZE))
    assert made.feature_std.min() > 0
    assert made.embed_images(torch.zeros(1, FEATURE_SIZE)).isfinite().all()


def test_dropout_is_only_active_in_training(decoder: LSTMDecoder) -> None:
    features, ids, lengths = batch([3, 2])
    assert torch.equal(decoder(features, ids, lengths), decoder(features, ids, lengths))
    decoder.train()
    try:
        assert not torch.equal(decoder(features, ids, lengths), decoder(features, ids, lengths))
    finally:
        decoder.eval()


def test_feature_statistics_are_saved_with_the_weights(decoder: LSTMDecoder) -> None:
    other = LSTMDecoder(decoder.config).eval()
    other.load_state_dict(decoder.state_dict())
    features, ids, lengths = batch([3, 2])
    assert torch.equal(other(features, ids, lengths), decoder(features, ids, lengths))


@pytest.mark.parametrize(
    "wrong",
    [
        {"vocabulary_size": 0},
        {"embedding_size": -1},
        {"hidden_size": 2.0},
        {"hidden_size": True},
        {"vocabulary_size": "9"},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": float("nan")},
    ],
    ids=str,
)
def test_invalid_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ImgcapError, match="no decoder with the sizes"):
        DecoderConfig(**{"vocabulary_size": 9, **wrong})  # type: ignore[arg-type]
