"""Intervals and paired comparison: as wide and as sure as statistics says."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from imgcap.scoring import resampling
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.resampling import DRAWS, SHUFFLES, Difference, compare, intervals, verdict
from imgcap.scoring.scores import METRICS, ImageScores, metrics_of_sums, score_images

WORDS = ["a", "dog", "cat", "runs", "sits", "on", "the", "grass", "red", "blue", "ball", "with", "man"]
Tokens = list[str]


def captions(source: random.Random, count: int) -> list[Tokens]:
    return [source.choices(WORDS, k=source.randint(4, 10)) for _ in range(count)]


def scored(seed: int, count: int = 60, *, copies: float = 0.0) -> ImageScores:
    """Random captions against random references, a share `copies` of them equal to a reference."""
    references = [captions(random.Random(i), 2) for i in range(count)]
    source = random.Random(1000 + seed)
    drawn = captions(source, count)
    return score_images([r[0] if source.random() < copies else c for c, r in zip(drawn, references)], references)  # noqa: B905


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    images = scored(0, 400, copies=0.5)
    found = intervals(images)
    for name, values in (("cider_d", images.cider_d), ("rouge_l", images.rouge_l)):
        low, high = found[name]
        assert low < values.mean() < high
        # 1,000 draws leave 3 % of chance in the width; an interval of 90 % would be 16 % narrower.
        assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(len(values)), rel=0.08)


def test_intervals_hold_each_metric_of_the_set() -> None:
    images = scored(0, copies=0.5)
    found = intervals(images)
    assert list(found) == list(METRICS)
    references = [captions(random.Random(i), 2) for i in range(60)]
    assert len(references) == len(images)
    for name, value in zip(METRICS, metrics_of_sums(images.summands.sum(0)[None], 60)[0], strict=True):
        low, high = found[name]
        assert low < value < high
        assert low > 0


def test_more_images_give_narrower_intervals() -> None:
    few, many = (intervals(scored(0, count, copies=0.5)) for count in (50, 800))
    for name in METRICS:
        assert (few[name][1] - few[name][0]) > 2 * (many[name][1] - many[name][0])


def test_one_image_has_an_interval_without_width() -> None:
    found = intervals(score_images([["a", "dog"]], [[["a", "dog"]]]))
    assert all(low == high for low, high in found.values())


@pytest.mark.parametrize("cells", [1, 60 * 7, 60 * DRAWS])
def test_how_much_is_in_memory_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    images, others = scored(0), scored(1)
    monkeypatch.setattr(resampling, "SHUFFLES", 500)
    expected, differences = intervals(images), compare(images, others)
    monkeypatch.setattr(resampling, "_CELLS", cells)
    found = intervals(images)
    for name, difference in compare(images, others).items():
        assert found[name] == pytest.approx(expected[name])
        assert difference.p == differences[name].p
        assert difference.interval == pytest.approx(differences[name].interval)


def test_the_difference_is_that_of_the_scores() -> None:
    better, worse = scored(0, copies=0.6), scored(1)
    references = [captions(random.Random(i), 2) for i in range(60)]
    found = compare(better, worse)
    assert list(found) == list(METRICS)
    sums = [p.summands.sum(0)[None] for p in (better, worse)]
    ours, theirs = (metrics_of_sums(s, 60)[0] for s in sums)
    assert [d.value for d in found.values()] == pytest.approx((ours - theirs).tolist())
    assert found["cider_d"].value == pytest.approx(better.cider_d.mean() - worse.cider_d.mean())
    source = random.Random(1001)
    drawn = captions(source, 60)
    whole = corpus_bleu(drawn, references).scores
    assert theirs[:4].tolist() == pytest.approx(whole)


def test_far_better_captions_differ_in_every_metric() -> None:
    for difference in compare(scored(0, copies=0.6), scored(1)).values():
        assert 0 < difference.interval[0] < difference.value < difference.interval[1]
        assert difference.p == 1 / (SHUFFLES + 1)


def test_the_same_captions_do_not_differ() -> None:
    for difference in compare(scored(0), scored(0)).values():
        assert difference == Difference(0.0, (0.0, 0.0), 1.0)


def test_a_reversed_comparison_has_the_opposite_sign_and_the_same_p() -> None:
    there, back = compare(scored(0), scored(1)), compare(scored(1), scored(0))
    for name in METRICS:
        assert there[name].value == -back[name].value
        assert there[name].interval == pytest.approx([-limit for limit in reversed(back[name].interval)])
        assert there[name].p == pytest.approx(back[name].p, abs=0.02)


def test_p_is_the_share_of_exchanges_with_as_large_a_difference() -> None:
    """Six images that are all better by the same: of 64 exchanges two leave so large a difference."""
    ones = ImageScores(np.ones((6, 10), dtype=np.int64), np.ones(6), np.ones(6))
    zeros = ImageScores(np.ones((6, 10), dtype=np.int64), np.zeros(6), np.zeros(6))
    found = compare(ones, zeros)
    assert found["cider_d"].p == pytest.approx(2 / 64, abs=0.006)
    assert found["bleu_4"].p == 1


def test_p_values_of_captions_that_differ_by_chance_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "SHUFFLES", 500)
    monkeypatch.setattr(resampling, "DRAWS", 2)  # intervals do not matter here
    p = np.array([compare(scored(2 * i), scored(2 * i + 1))["cider_d"].p for i in range(80)])
    assert 0.3 < (p < 0.5).mean() < 0.7
    assert (p < 0.05).mean() < 0.15


def differences(cider_d: tuple[float, float], bleu_4: tuple[float, float] = (0.0, 1.0)) -> dict[str, Difference]:
    """Values and p-values of two metrics."""
    return {
        "bleu_4": Difference(bleu_4[0], (bleu_4[0] - 0.01, bleu_4[0] + 0.01), bleu_4[1]),
        "cider_d": Difference(cider_d[0], (cider_d[0] - 0.02, cider_d[0] + 0.02), cider_d[1]),
    }


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            differences((0.031, 0.0012)),
            "ours is better than theirs by 0.0310 in CIDEr-D (95 % interval 0.0110 to 0.0510, p = 0.0012): "
            "more than chance among these images explains.",
        ),
        (
            differences((-0.031, 0.0012)),
            "theirs is better than ours by 0.0310 in CIDEr-D (95 % interval 0.0110 to 0.0510, p = 0.0012): "
            "more than chance among these images explains.",
        ),
        (
            differences((0.004, 0.71), (0.02, 0.001)),
            "No verdict: ours is ahead of theirs by 0.0040 in CIDEr-D (95 % interval -0.0160 to 0.0240, p = 0.7100), "
            "which chance among these images can explain. With 500 images, a difference shows from about 0.02 on.",
        ),
        (
            differences((0.031, 0.0012), (-0.02, 0.01)),
            "ours is better than theirs by 0.0310 in CIDEr-D (95 % interval 0.0110 to 0.0510, p = 0.0012): "
            "more than chance among these images explains. But BLEU-4 says the opposite.",
        ),
    ],
)
def test_the_verdict_is_in_plain_words(found: dict[str, Difference], sentence: str) -> None:
    assert verdict(found, "ours", "theirs", 500) == sentence


def test_so_few_images_that_no_difference_could_show_are_no_verdict() -> None:
    ours, theirs = (ImageScores(np.ones((5, 10), dtype=np.int64), np.full(5, v), np.ones(5)) for v in (1.0, 0.5))
    found = compare(ours, theirs)
    assert found["cider_d"].p > 0.05
    assert verdict(found, "ours", "theirs", 5) == (
        f"Too few images: ours is ahead of theirs by 0.5000 in CIDEr-D (95 % interval 0.5000 to 0.5000, "
        f"p = {found['cider_d'].p:.4f}), but fewer than 6 images can never tell a difference from chance."
    )


def test_equal_captions_have_no_difference() -> None:
    sentence = "No difference: ours and theirs have the same CIDEr-D on every image."
    assert verdict(compare(scored(0), scored(0)), "ours", "theirs", 60) == sentence


def test_a_smaller_p_than_the_level_is_needed() -> None:
    assert verdict(differences((0.02, 0.05)), "a", "b", 9).startswith("No verdict")
    assert verdict(differences((0.02, 0.0499)), "a", "b", 9).startswith("a is better")
