"""Beam search against exhaustive enumeration, and greedy search against a plain loop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import imgcap
from helpers.decoders import IMAGES, LONGEST, ORDINARY, PENALTIES, ids_of, make_decoder, step_log_probabilities
from imgcap.errors import UsageError
from imgcap.model.decoder import LSTMDecoder
from imgcap.model.folder import load_model_folder
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.search import SearchOptions, search
from imgcap.model.store import DEFAULT_MODEL
from imgcap.text.vocabulary import END, PAD, START, UNKNOWN


@pytest.fixture(params=[(-1.0, 0), (0.0, 0), (1.0, 4)], ids=["long", "mixed", "short"])
def decoder(request: pytest.FixtureRequest) -> LSTMDecoder:
    return make_decoder(*request.param)


@pytest.fixture(scope="module")
def default_decoder() -> LSTMDecoder:
    folder = Path(imgcap.__file__).parent / "model" / DEFAULT_MODEL
    return load_model_folder(folder, torch.device("cpu")).decoder


@pytest.fixture(scope="module")
def features() -> Tensor:
    return torch.randn(IMAGES, FEATURE_SIZE, generator=torch.Generator().manual_seed(1))


def enumerate_all(decoder: LSTMDecoder, feature: Tensor, options: SearchOptions) -> dict[tuple[int, ...], float]:
    """Scores of all possible captions."""
    scores: dict[tuple[int, ...], float] = {}

    def grow(ids: tuple[int, ...], total: float, read: int, state: tuple[Tensor, Tensor]) -> None:
        found, state = decoder.step(torch.tensor([read]), state)
        if len(ids) >= options.min_length:
            scores[ids] = (total + found[0, END].item()) / len(ids) ** options.length_penalty
        if len(ids) < options.max_length:
            for word in ORDINARY:
                grow((*ids, word), total + found[0, word].item(), word, state)

    grow((), 0.0, START, decoder.start(feature[None]))
    return scores


def greedy(decoder: LSTMDecoder, feature: Tensor, options: SearchOptions) -> tuple[int, ...]:
    state, read = decoder.start(feature[None]), START
    ids: tuple[int, ...] = ()
    while True:
        found, state = decoder.step(torch.tensor([read]), state)
        allowed = [
            *([END] if len(ids) >= options.min_length else []),
            *(ORDINARY if len(ids) < options.max_length else []),
        ]
        read = max(allowed, key=lambda word: found[0, word].item())
        if read == END:
            return ids
        ids = (*ids, read)


def test_a_huge_beam_finds_every_caption_in_the_right_order(decoder: LSTMDecoder, features: Tensor) -> None:
    plain = SearchOptions(1000, 0, LONGEST, num_captions=1000)
    totals = [enumerate_all(decoder, feature, plain) for feature in features[:3]]
    for penalty in PENALTIES:
        captions = search(decoder, features[:3], replace(plain, length_penalty=penalty))
        for found, total in zip(captions, totals, strict=True):
            expected = {ids: log_probability / len(ids) ** penalty for ids, log_probability in total.items()}
            assert len(expected) == sum(len(ORDINARY) ** n for n in range(1, LONGEST + 1))
            assert {h.ids for h in found} == expected.keys()
            assert found[0].ids == max(expected, key=lambda ids: expected[ids])
            for hypothesis in found:
                assert hypothesis.score == pytest.approx(expected[hypothesis.ids], abs=1e-4)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("beam", [1, 3, 20])
def test_hypotheses_are_distinct_sorted_and_add_up(
    decoder: LSTMDecoder, features: Tensor, beam: int, penalty: float
) -> None:
    options = SearchOptions(beam, penalty, LONGEST, num_captions=beam)
    for feature, found in zip(features[:4], search(decoder, features[:4], options), strict=True):
        assert 1 <= len(found) <= beam
        assert len({h.ids for h in found}) == len(found)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            assert h.word_log_probabilities == pytest.approx(step_log_probabilities(decoder, feature, h.ids), abs=1e-4)
            assert h.log_probability == sum(h.word_log_probabilities)
            assert h.score == pytest.approx(h.log_probability / len(h.ids) ** penalty)


def test_a_beam_fills_up_if_there_are_enough_captions(decoder: LSTMDecoder, features: Tensor) -> None:
    for found in search(decoder, features, SearchOptions(5, 0.7, LONGEST, num_captions=5)):
        assert len(found) == 5


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("shortest", "longest"), [(1, 4), (3, 4), (1, 12), (2, 2), (1, 1)])
def test_a_beam_of_one_is_greedy_search(
    decoder: LSTMDecoder, features: Tensor, penalty: float, shortest: int, longest: int
) -> None:
    options = SearchOptions(1, penalty, longest, shortest)
    assert ids_of(search(decoder, features, options)) == [[greedy(decoder, each, options)] for each in features]


def test_greedy_captions_of_the_test_decoders_end_before_the_limit(features: Tensor) -> None:
    """Otherwise the comparisons above would mean little."""
    lengths = {len(greedy(make_decoder(0.0), each, SearchOptions(1, max_length=12))) for each in features}
    assert len(lengths) > 1
    assert min(lengths) < 12


@pytest.mark.parametrize("beam", [1, 3, 5])
@pytest.mark.parametrize("longest", [4, 15])
def test_results_do_not_depend_on_the_batch(decoder: LSTMDecoder, features: Tensor, beam: int, longest: int) -> None:
    options = SearchOptions(beam, 0.7, longest, num_captions=beam)
    together = ids_of(search(decoder, features, options))
    assert together == [ids_of(search(decoder, each[None], options))[0] for each in features]
    assert together[::-1] == ids_of(search(decoder, features.flip(0), options))
    assert len({hypotheses[0] for hypotheses in together}) > 1


@pytest.mark.parametrize(
    "options",
    [SearchOptions(3, 0.8), SearchOptions(num_captions=5), SearchOptions(sample=True, num_captions=2)],
    ids=["one", "five", "samples"],
)
def test_captions_of_the_default_model_do_not_depend_on_the_batch(
    default_decoder: LSTMDecoder, options: SearchOptions
) -> None:
    decoder = default_decoder
    noise = torch.randn(5, FEATURE_SIZE, generator=torch.Generator().manual_seed(2))
    features = decoder.feature_mean + decoder.feature_std * noise
    together = ids_of(search(decoder, features, options))
    alone = [ids_of(search(decoder, f[None], options, image_seeds=[i]))[0] for i, f in enumerate(features)]
    assert together == alone


@pytest.mark.parametrize("beam", [1, 4, 50])
@pytest.mark.parametrize(("shortest", "longest"), [(1, 1), (1, 3), (3, 3), (4, 9), (9, 9)])
def test_lengths_are_within_limits_and_special_words_do_not_occur(
    decoder: LSTMDecoder, features: Tensor, beam: int, shortest: int, longest: int
) -> None:
    with torch.no_grad():  # so that they would be chosen
        decoder.output.bias[[PAD, START, UNKNOWN]] += 10
    for found in search(decoder, features, SearchOptions(beam, 0.7, longest, shortest)):
        assert found
        for hypothesis in found:
            assert shortest <= len(hypothesis.ids) <= longest
            assert set(hypothesis.ids) <= set(ORDINARY)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_pruning_changes_no_caption(decoder: LSTMDecoder, features: Tensor, penalty: float, count: int) -> None:
    """The best captions within the beam are those of a search that never stops before the longest caption."""
    options = SearchOptions(3, penalty, 10, num_captions=count)
    stopped = search(decoder, features, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgcap.model.search._least_total", lambda *_arguments: -math.inf)
        patient = search(decoder, features, options)
    assert ids_of(stopped) == ids_of(patient)


def test_a_larger_length_penalty_does_not_shorten_captions(features: Tensor) -> None:
    decoder = make_decoder(0.0)
    lengths = [
        sum(len(found[0].ids) for found in search(decoder, features, SearchOptions(1000, penalty, LONGEST)))
        for penalty in PENALTIES
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_a_decoder_in_training_is_searched_without_dropout(features: Tensor) -> None:
    decoder = make_decoder(0.0)
    expected = search(decoder, features, SearchOptions())
    decoder.train()
    assert ids_of(search(decoder, features, SearchOptions())) == ids_of(expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_more_captions_than_the_beam_holds_widen_it(decoder: LSTMDecoder, features: Tensor, count: int) -> None:
    best = search(decoder, features, SearchOptions(5, 0.7, LONGEST, num_captions=5))
    for narrow, all_five in zip(
        search(decoder, features, SearchOptions(2, 0.7, LONGEST, num_captions=5)), best, strict=True
    ):
        assert narrow == all_five
    for fewer, all_five in zip(
        search(decoder, features, SearchOptions(5, 0.7, LONGEST, num_captions=count)), best, strict=True
    ):
        assert [h.ids for h in fewer] == [h.ids for h in all_five[:count]]


@pytest.mark.parametrize(
    "options",
    [SearchOptions(1), SearchOptions(4, num_captions=4), SearchOptions(sample=True, num_captions=4)],
    ids=["greedy", "beam", "samples"],
)
def test_banned_words_do_not_occur_and_the_others_keep_their_probabilities(
    features: Tensor, options: SearchOptions
) -> None:
    decoder = make_decoder(0.0)
    said = {word for found in search(decoder, features, options) for h in found for word in h.ids}
    banned = sorted(said)[:2]
    assert len(banned) == 2
    for feature, found in zip(features, search(decoder, features, options, banned_ids=[*banned, UNKNOWN]), strict=True):
        assert found
        for h in found:
            assert not set(banned) & set(h.ids)
            assert h.word_log_probabilities == pytest.approx(step_log_probabilities(decoder, feature, h.ids), abs=1e-4)


def test_banned_words_are_kept_as_the_tokeniser_writes_them() -> None:
    assert SearchOptions(ban=["Dog", "T-shirt!", "n't", "'s"]).ban == ("dog", "t-shirt", "n't", "'s")  # type: ignore[arg-type]
    assert SearchOptions(ban="Dog").ban == ("dog",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_captions": 0}, "number of captions"),
        ({"num_captions": 1001}, "number of captions"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0}, "top-p"),
        ({"top_p": 1.01}, "top-p"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"ban": ["a dog"]}, "single word can be banned, not 'a dog'"),
        ({"ban": ["don't"]}, "single word"),
        ({"ban": ["..."]}, "single word"),
        ({"ban": [""]}, "single word"),
        ({"beam_size": 0}, "beam size"),
        ({"beam_size": -1}, "beam size"),
        ({"beam_size": 1001}, "beam size"),
        ({"length_penalty": -0.1}, "length penalty"),
        ({"length_penalty": 10.1}, "length penalty"),
        ({"length_penalty": float("nan")}, "length penalty"),
        ({"length_penalty": float("inf")}, "length penalty"),
        ({"max_length": 0}, "shortest and longest"),
        ({"min_length": 0}, "shortest and longest"),
        ({"min_length": -5}, "shortest and longest"),
        ({"max_length": 1001}, "shortest and longest"),
        ({"min_length": 9, "max_length": 8}, "shortest and longest"),
    ],
    ids=str,
)
def test_invalid_options_are_usage_errors(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"beam_size": 1}, {"beam_size": 1000}, {"length_penalty": 0}, {"min_length": 24}, {"max_length": 1000}]
)
def test_options_at_their_limits_are_accepted(options: dict[str, Any]) -> None:
    assert vars(SearchOptions(**options)).items() >= options.items()
