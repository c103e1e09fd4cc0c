"""Which images a page shows, and in which groups."""

from __future__ import annotations

import pytest

from helpers.scored_images import NAN, image
from imgcap.pages.selection import GROUP_SIZE, ScoredImage, Selection, select


def ids(images: list[ScoredImage], chosen: Selection, group: str = "") -> list[str]:
    """Ids of the images of a group, or of all, in the order of the page."""
    return [images[place].image_id for place, names in chosen.groups.items() if not group or group in names]


def test_best_worst_and_random_images_are_chosen_from_many() -> None:
    images = [image(i, i * 7919 % 1000 / 100) for i in range(1000)]
    ranked = [p.image_id for p in sorted(images, key=lambda p: -p.cider_d)]
    chosen = select(images)
    assert ids(images, chosen, "best") == ranked[:GROUP_SIZE]
    assert ids(images, chosen, "worst") == ranked[-GROUP_SIZE:]
    drawn = ids(images, chosen, "random")
    assert len(drawn) == GROUP_SIZE
    assert 15 < sum(ranked.index(name) < 500 for name in drawn) < 45
    shown = ids(images, chosen)
    assert shown == sorted(shown, key=ranked.index)
    assert set(shown) == {*ranked[:GROUP_SIZE], *ranked[-GROUP_SIZE:], *drawn}
    assert chosen.text.startswith(
        "Of 1,000 images, those with the 60 highest and the 60 lowest CIDEr-D, and 60 drawn at random, always the "
        "same; the highest CIDEr-D first."
    )
    assert chosen == select(images)


def test_the_images_that_gain_and_lose_most_are_chosen_for_a_comparison() -> None:
    images = [image(i, 5.0, compared="a", compared_cider_d=i * 7919 % 1000 / 100) for i in range(1000)]
    ranked = [p.image_id for p in sorted(images, key=lambda p: -p.gain)]
    chosen = select(images, comparing=True)
    assert ids(images, chosen, "gains") == ranked[:GROUP_SIZE]
    assert ids(images, chosen, "losses") == ranked[-GROUP_SIZE:]
    assert len(ids(images, chosen, "random")) == GROUP_SIZE
    assert chosen.text.startswith(
        "Of 1,000 images, the 60 that gain most and the 60 that lose most in CIDEr-D, and 60 drawn at random, always "
        "the same; the largest gain in CIDEr-D first."
    )
    assert [label for _, label, _ in chosen.counts] == ["All", "Largest gains", "Largest losses", "Random"]


def test_an_image_that_stays_the_same_neither_gains_nor_loses() -> None:
    others = [image(i, 1.0, compared="a", compared_cider_d=1.0) for i in range(2, GROUP_SIZE + 1)]
    images = [image(0, 1.0, compared="a", compared_cider_d=2.0), image(1, 1.0, compared="a", compared_cider_d=0.5)]
    images += others
    chosen = select(images, comparing=True)
    assert (ids(images, chosen, "gains"), ids(images, chosen, "losses")) == (["1.png"], ["0.png"])
    assert ids(images, chosen) == ["1.png", *(other.image_id for other in others), "0.png"]
    assert chosen.counts == [
        ("all", "All", GROUP_SIZE + 1),
        ("gains", "Largest gains", 1),
        ("losses", "Largest losses", 1),
        ("random", "Random", GROUP_SIZE),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 59, 60, 61, 119, 120, 121, 179, 180])
def test_all_of_few_images_are_shown_and_best_and_worst_of_more_than_one_group_are_halves(count: int) -> None:
    images = [image(i, i / 100) for i in range(count)]
    chosen = select(images)
    assert ids(images, chosen) == [f"{i}.png" for i in reversed(range(count))]
    if count <= GROUP_SIZE:
        assert chosen.counts == [("all", "All", count)]
        return
    best, worst = (ids(images, chosen, group) for group in ("best", "worst"))
    assert len(best) == len(worst) == min(GROUP_SIZE, (count + 1) // 2)
    assert len(set(best) & set(worst)) == (count % 2 if count < 120 else 0)
    assert chosen.text.startswith("All images, the highest CIDEr-D first. ")


def test_an_image_without_a_score_is_neither_best_nor_worst() -> None:
    images = [image(0, 1.0), image(1, 2.0), *(image(i, NAN) for i in range(2, GROUP_SIZE + 1))]
    chosen = select(images)
    assert (ids(images, chosen, "best"), ids(images, chosen, "worst")) == (["1.png"], ["0.png"])
    assert ids(images, chosen) == ["1.png", "0.png", *(each.image_id for each in images[2:])]


@pytest.mark.parametrize(("count", "shown"), [(180, 180), (181, 60)])
def test_images_without_scores_keep_their_order(count: int, shown: int) -> None:
    images = [image(i, NAN) for i in range(count)]
    chosen = select(images, comparing=True)
    assert len(chosen.groups) == shown
    assert list(chosen.groups) == sorted(chosen.groups)
    which = "All images. " if count == shown else "Of 181 images, 60 drawn at random, always the same. "
    assert chosen.text.startswith(which + "References")


def test_there_may_be_no_images() -> None:
    assert select([]).text == "There are no images."
    assert select([]).counts[0] == ("all", "All", 0)
