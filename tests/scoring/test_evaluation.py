"""An evaluation: scores, and what they are judged by."""

from __future__ import annotations

import random

import pytest

from imgcap.errors import ImgcapError
from imgcap.scoring.evaluation import Evaluation, evaluate
from imgcap.scoring.scores import METRICS, score

CAPTIONS = ["a dog runs on grass", "two cats sit on a wall", "a man rides a bike"]
REFERENCES = [
    ["A dog runs on the grass .", "a brown dog is running"],
    ["two cats sit on a wall", "cats on a wall"],
    ["a man is riding a bicycle", "a man rides a red bike"],
]


def test_the_scores_are_those_of_score_within_their_intervals() -> None:
    found = evaluate(CAPTIONS, REFERENCES)
    assert found.scores == score(CAPTIONS, REFERENCES)
    assert list(found.intervals) == list(METRICS)
    for name, (low, high) in found.intervals.items():
        assert low <= found.scores.metrics[name] <= high
    assert len(found.images) == 3
    assert found.references == (2, 2)
    assert found.comparison is None


def test_the_constant_caption_comes_from_the_references() -> None:
    found = evaluate(CAPTIONS, REFERENCES)
    assert found.floor_caption in {caption.lower().removesuffix(" .") for several in REFERENCES for caption in several}
    assert found.floor == score([found.floor_caption] * 3, REFERENCES)
    assert found.scores.verbatim is None


def test_the_constant_caption_comes_from_the_training_captions_where_they_are_known() -> None:
    found = evaluate(CAPTIONS, REFERENCES, training=[["A man rides a bike!"], ["two birds"]])
    assert found.floor_caption == "a man rides a bike"
    assert found.floor.verbatim == 1
    assert found.scores.verbatim == pytest.approx(1 / 3)
    assert found.ceiling is not None
    assert found.ceiling.verbatim == 0


def test_the_constant_caption_can_be_given() -> None:
    found = evaluate(CAPTIONS, REFERENCES, training=[["two birds"]], constant="A cat, asleep.")
    assert found.floor_caption == "a cat asleep"
    assert found.floor.bleu == score(["a cat asleep"] * 3, REFERENCES).bleu


def test_a_single_reference_has_no_ceiling() -> None:
    found = evaluate(CAPTIONS, [several[:1] for several in REFERENCES[:2]] + [REFERENCES[2]])
    assert found.ceiling is None
    assert found.references == (1, 2)


def test_other_captions_are_compared_with() -> None:
    theirs = ["a dog", "a wall", "a man rides a red bike"]
    found = evaluate(CAPTIONS, REFERENCES, name="ours", compared=("theirs", theirs)).comparison
    assert found is not None
    assert found.name == "theirs"
    assert found.scores == score(theirs, REFERENCES)
    assert found.intervals == evaluate(theirs, REFERENCES).intervals
    ours = score(CAPTIONS, REFERENCES).metrics
    for name, difference in found.differences.items():
        assert difference.value == pytest.approx(ours[name] - found.scores.metrics[name])
    assert found.verdict.startswith("Too few images: ours is ahead of theirs by")


def signature(captions: list[str], references: list[list[str]], made_by: tuple[str, ...] = ()) -> dict[str, str]:
    text = evaluate(captions, references, made_by=made_by).signature
    return dict(part.split(":", 1) for part in text.split("|"))


def test_the_signature_has_everything_needed_to_repeat_the_scores() -> None:
    found = signature(CAPTIONS, REFERENCES, ("model:mine@1a2b", "beam:5"))
    for name in ("model", "beam", "images", "nrefs", "refs", "case", "tok", "bleu", "cider_d", "rouge_l", "bootstrap"):
        assert found[name]
    assert (found["model"], found["images"], found["nrefs"]) == ("mine@1a2b", "3", "2")


def test_the_signature_names_the_references_whatever_their_order() -> None:
    first = signature(CAPTIONS, REFERENCES)["refs"]
    assert signature(CAPTIONS[::-1], [several[::-1] for several in REFERENCES[::-1]])["refs"] == first
    assert signature(CAPTIONS, [*REFERENCES[:2], ["a man rides a bike"] * 2])["refs"] != first
    assert signature(CAPTIONS, [*REFERENCES[:2], REFERENCES[2][:1]])["nrefs"] == "1-2"


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ImgcapError, match="There are 2 captions for 3 images"):
        evaluate(CAPTIONS[:2], REFERENCES)
    with pytest.raises(ImgcapError, match="There are 1 captions for 3 images"):
        evaluate(CAPTIONS, REFERENCES, compared=("other", ["a"]))
    with pytest.raises(ImgcapError, match="Image number 2 has no reference"):
        evaluate(CAPTIONS, [REFERENCES[0], [], REFERENCES[2]])


def test_a_single_image_has_no_cider_d_and_a_remark_says_why() -> None:
    found = evaluate(CAPTIONS[:1], REFERENCES[:1], remarks=["Scored 1 of 2 images."])
    assert found.scores.cider_d == 0
    assert found.remarks == (
        "Scored 1 of 2 images.",
        "CIDEr-D of a single image is always 0: it weighs words by how few of the images have them, and here every "
        "image has them. Score several images.",
    )
    assert evaluate(CAPTIONS, REFERENCES).remarks == ()


def test_captions_without_spaces_between_words_are_remarked_upon() -> None:
    chinese = [["一个男人在草地上快速跑步"], ["一只狗在海边"]]
    [remark] = evaluate(["一个男人在草地上跑步", "一只狗在海边"], chinese).remarks
    assert remark.startswith("4 of 4 captions have no spaces between words (Chinese): the tokeniser takes each run")


def test_the_order_of_images_changes_nothing_but_the_order() -> None:
    order = random.Random(0).sample(range(3), 3)

    def facts(found: Evaluation) -> tuple[object, ...]:
        return found.floor_caption, found.signature, found.floor.bleu, found.scores.bleu

    assert facts(evaluate([CAPTIONS[i] for i in order], [REFERENCES[i] for i in order])) == facts(
        evaluate(CAPTIONS, REFERENCES)
    )


@pytest.mark.parametrize(
    ("captions", "references"),
    [(["a dog"], [["!"]]), ([""], [["a dog", "a cat"]]), (["", ""], [["..."], ["?"]]), (["a"], [["a"]])],
)
def test_captions_and_references_without_words_have_scores_too(
    captions: list[str], references: list[list[str]]
) -> None:
    found = evaluate(captions, references, compared=("other", captions))
    for value in (*found.scores.metrics.values(), *found.floor.metrics.values()):
        assert 0 <= value <= 10
    assert found.comparison
    assert all(difference.p == 1 for difference in found.comparison.differences.values())
