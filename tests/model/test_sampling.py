"""Sampling against the exact distribution of captions."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from helpers.decoders import IMAGES, ORDINARY, ids_of, make_decoder, step_log_probabilities
from imgcap.model.decoder import LSTMDecoder
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.search import SearchOptions, search
from imgcap.text.vocabulary import END, START


@pytest.fixture(params=[(-1.0, 0), (0.0, 0), (1.0, 4)], ids=["long", "mixed", "short"])
def decoder(request: pytest.FixtureRequest) -> LSTMDecoder:
    return make_decoder(*request.param)


@pytest.fixture(scope="module")
def features() -> Tensor:
    return torch.randn(IMAGES, FEATURE_SIZE, generator=torch.Generator().manual_seed(1))


def distribution(
    decoder: LSTMDecoder, feature: Tensor, options: SearchOptions, banned: tuple[int, ...] = ()
) -> dict[tuple[int, ...], float]:
    """The probability of each caption in sampling."""
    found: dict[tuple[int, ...], float] = {}

    def grow(ids: tuple[int, ...], probability: float, read: int, state: tuple[Tensor, Tensor]) -> None:
        log_probabilities, state = decoder.step(torch.tensor([read]), state)
        words = [END] if len(ids) >= options.min_length else []
        words += [word for word in ORDINARY if word not in banned] if len(ids) < options.max_length else []
        weights = {word: (log_probabilities[0, word] / options.temperature).exp().item() for word in words}
        total, kept, reached = sum(weights.values()), {}, 0.0
        for word in sorted(words, key=lambda word: -weights[word]):
            if reached < options.top_p * total:
                kept[word] = weights[word]
                reached += weights[word]
        for word, weight in kept.items():
            if word == END:
                found[ids] = probability * weight / reached
            else:
                grow((*ids, word), probability * weight / reached, word, state)

    grow((), 1.0, START, decoder.start(feature[None]))
    return found


def difference(a: dict[tuple[int, ...], float], b: dict[tuple[int, ...], float]) -> float:
    """Total variation distance."""
    return sum(abs(a.get(ids, 0) - b.get(ids, 0)) for ids in a.keys() | b.keys()) / 2


@pytest.mark.parametrize(
    ("changes", "banned"),
    [
        ({}, ()),
        ({"temperature": 0.5}, ()),
        ({"temperature": 3.0}, ()),
        ({"top_p": 0.7}, ()),
        ({"top_p": 0.7, "temperature": 3.0, "min_length": 2}, ()),
        ({"top_p": 1e-9}, ()),
        ({}, (5, 7)),
    ],
    ids=str,
)
def test_samples_are_as_frequent_as_they_are_probable(changes: dict[str, float], banned: tuple[int, ...]) -> None:
    decoder, draws = make_decoder(0.0), 3000
    feature = torch.randn(FEATURE_SIZE, generator=torch.Generator().manual_seed(3))
    options = SearchOptions(max_length=2, sample=True, **changes)  # type: ignore[arg-type]
    drawn = search(decoder, feature.expand(draws, -1), options, banned_ids=banned)
    frequencies = {ids: count / draws for ids, count in Counter(found[0].ids for found in drawn).items()}
    expected = distribution(decoder, feature, options, banned)
    assert frequencies.keys() <= expected.keys()
    assert difference(frequencies, expected) < 0.04
    if changes or banned:  # else the test could not tell one distribution from another
        assert difference(frequencies, distribution(decoder, feature, SearchOptions(max_length=2))) > 0.1


SAMPLING = [
    SearchOptions(sample=True),
    SearchOptions(sample=True, num_captions=4, temperature=1.5),
    SearchOptions(sample=True, num_captions=3, top_p=0.8, seed=3, max_length=3),
]


@pytest.mark.parametrize("options", SAMPLING, ids=["plain", "several", "nucleus"])
def test_the_samples_of_an_image_do_not_depend_on_other_images(
    decoder: LSTMDecoder, features: Tensor, options: SearchOptions
) -> None:
    seeds = [2**63 + 11, 5, 0, 7, 8, 9, 2**64 - 1]
    together = ids_of(search(decoder, features, options, image_seeds=seeds))
    for i, seed in enumerate(seeds):
        assert ids_of(search(decoder, features[i : i + 1], options, image_seeds=[seed])) == [together[i]]
    backwards = search(decoder, features.flip(0), options, image_seeds=seeds[::-1])
    assert ids_of(backwards) == together[::-1]
    assert ids_of(search(decoder, features, options, image_seeds=range(7))) == ids_of(
        search(decoder, features, options)
    )


def test_other_seeds_give_other_samples(features: Tensor) -> None:
    decoder, options = make_decoder(-1.0), SearchOptions(sample=True, max_length=9)
    first = ids_of(search(decoder, features, options))
    assert first == ids_of(search(decoder, features, options))
    assert first != ids_of(search(decoder, features, SearchOptions(sample=True, max_length=9, seed=1)))
    assert first != ids_of(search(decoder, features, options, image_seeds=range(1, IMAGES + 1)))


@pytest.mark.parametrize("options", SAMPLING, ids=["plain", "several", "nucleus"])
def test_samples_are_distinct_sorted_and_scored_by_the_models_own_probabilities(
    decoder: LSTMDecoder, features: Tensor, options: SearchOptions
) -> None:
    for feature, found in zip(features, search(decoder, features, options), strict=True):
        assert 1 <= len({h.ids for h in found}) == len(found) <= options.num_captions
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            assert h.word_log_probabilities == pytest.approx(step_log_probabilities(decoder, feature, h.ids), abs=1e-4)
            assert h.score == pytest.approx(h.log_probability / len(h.ids) ** 0.7)


def test_sampling_returns_fewer_captions_if_there_are_no_more(features: Tensor) -> None:
    options = SearchOptions(sample=True, max_length=1, num_captions=50, temperature=10)
    for found in search(make_decoder(0.0), features, options):
        assert {h.ids for h in found} == {(word,) for word in ORDINARY}
