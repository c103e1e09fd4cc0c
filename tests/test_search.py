"""Beam search against exhaustive enumeration and a greedy loop written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imgcap.decoder import DecoderConfig, LSTMDecoder
from imgcap.errors import UsageError
from imgcap.inception import FEATURE_SIZE
from imgcap.search import Hypothesis, SearchOptions, search
from imgcap.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN

WORDS, LONGEST, PICTURES = 8, 4, 7
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


@pytest.fixture(params=[(-1.0, 0), (0.0, 0), (1.0, 4)], ids=["long", "mixed", "short"])
def decoder(request: pytest.FixtureRequest) -> LSTMDecoder:
    return make_decoder(*request.param)


@pytest.fixture(scope="module")
def features() -> Tensor:
    return torch.randn(PICTURES, FEATURE_SIZE, generator=torch.Generator().manual_seed(1))


def log_probability(decoder: LSTMDecoder, feature: Tensor, ids: tuple[int, ...]) -> float:
    """Sum of the step log-probabilities of `ids` and `<end>`."""
    state = decoder.start(feature[None])
    total, read = 0.0, START
    for word in (*ids, END):
        log_probabilities, state = decoder.step(torch.tensor([read]), state)
        total, read = total + log_probabilities[0, word].item(), word
    return total


def enumerate_all(decoder: LSTMDecoder, feature: Tensor, options: SearchOptions) -> dict[tuple[int, ...], float]:
    """The score of every caption that there is."""
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


def ids_of(found: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[hypothesis.ids for hypothesis in hypotheses] for hypotheses in found]


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_huge_beam_finds_every_caption_in_the_true_order(
    decoder: LSTMDecoder, features: Tensor, penalty: float
) -> None:
    options = SearchOptions(1000, penalty, LONGEST)
    for feature, found in zip(features[:3], search(decoder, features[:3], options), strict=True):
        expected = enumerate_all(decoder, feature, options)
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
    options = SearchOptions(beam, penalty, LONGEST)
    for feature, found in zip(features[:4], search(decoder, features[:4], options), strict=True):
        assert 1 <= len(found) <= beam
        assert len({h.ids for h in found}) == len(found)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            assert h.log_probability == pytest.approx(log_probability(decoder, feature, h.ids), abs=1e-4)
            assert h.score == pytest.approx(h.log_probability / len(h.ids) ** penalty)


def test_a_larger_beam_of_enough_size_fills_up(decoder: LSTMDecoder, features: Tensor) -> None:
    for found in search(decoder, features, SearchOptions(5, 0.7, LONGEST)):
        assert len(found) == 5


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("shortest", "longest"), [(1, 4), (3, 4), (1, 12), (2, 2), (1, 1)])
def test_a_beam_of_one_is_greedy_search(
    decoder: LSTMDecoder, features: Tensor, penalty: float, shortest: int, longest: int
) -> None:
    options = SearchOptions(1, penalty, longest, shortest)
    assert ids_of(search(decoder, features, options)) == [[greedy(decoder, each, options)] for each in features]


def test_greedy_captions_of_the_test_decoders_end_on_their_own(features: Tensor) -> None:
    """Else the comparisons above would compare little."""
    lengths = {len(greedy(make_decoder(0.0), each, SearchOptions(1, max_length=12))) for each in features}
    assert len(lengths) > 1
    assert min(lengths) < 12


@pytest.mark.parametrize("beam", [1, 3, 5])
@pytest.mark.parametrize("longest", [4, 15])
def test_results_do_not_depend_on_the_batch(decoder: LSTMDecoder, features: Tensor, beam: int, longest: int) -> None:
    options = SearchOptions(beam, 0.7, longest)
    together = ids_of(search(decoder, features, options))
    assert together == [ids_of(search(decoder, each[None], options))[0] for each in features]
    assert together[::-1] == ids_of(search(decoder, features.flip(0), options))
    assert len({hypotheses[0] for hypotheses in together}) > 1


@pytest.mark.parametrize("beam", [1, 4, 50])
@pytest.mark.parametrize(("shortest", "longest"), [(1, 1), (1, 3), (3, 3), (4, 9), (9, 9)])
def test_lengths_are_kept_and_special_words_are_not_said(
    decoder: LSTMDecoder, features: Tensor, beam: int, shortest: int, longest: int
) -> None:
    with torch.no_grad():  # it would love to say them
        decoder.output.bias[[PAD, START, UNKNOWN]] += 10
    for found in search(decoder, features, SearchOptions(beam, 0.7, longest, shortest)):
        assert found
        for hypothesis in found:
            assert shortest <= len(hypothesis.ids) <= longest
            assert set(hypothesis.ids) <= set(ORDINARY)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_stopping_early_loses_nothing(decoder: LSTMDecoder, features: Tensor, penalty: float) -> None:
    """The best caption within the beam is that of a search that never stops before the longest caption."""
    options = SearchOptions(3, penalty, 10)
    stopped = search(decoder, features, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgcap.search._is_done", lambda *_arguments: False)
        patient = search(decoder, features, options)
    assert ids_of(stopped) == ids_of(patient)


def test_a_larger_length_penalty_makes_no_shorter_captions(features: Tensor) -> None:
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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
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
def test_options_that_make_no_sense_are_usage_errors(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"beam_size": 1}, {"beam_size": 1000}, {"length_penalty": 0}, {"min_length": 24}, {"max_length": 1000}]
)
def test_options_at_their_limits_are_taken(options: dict[str, int]) -> None:
    assert vars(SearchOptions(**options)).items() >= options.items()
