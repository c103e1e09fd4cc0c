"""Captions for images in folders of classes (`images/cat/1.jpg`), from templates such as "a photo of a {label}"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgcap.dataset.records import Entry, LeftOut
from imgcap.dataset.splits import known_split
from imgcap.errors import ImgcapError, UsageError, is_unicode

_LABEL = "{label}"
_ARTICLE = re.compile(r"\b(a|an) \{label\}", re.IGNORECASE)
_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|eu|one\b|once)[aeiou]|hour|honest|heir", re.IGNORECASE)


@dataclass(frozen=True)
class CaptionTemplate:
    """A caption with `{label}` in the place of the class. Raises `UsageError` without it."""

    text: str

    def __post_init__(self) -> None:
        if not is_unicode(self.text):
            raise UsageError(f"The caption template {self.text!r} is not UTF-8 text.")
        if _LABEL not in self.text:
            raise UsageError(
                f"The caption template {self.text!r} has no {_LABEL}.", f'For example "a photo of a {_LABEL}".'
            )

    def fill(self, label: str) -> str:
        """The caption of an image of this class. "a" and "an" directly before the label become what fits it."""

        def article(match: re.Match[str]) -> str:
            fitting = "an" if _VOWEL_SOUND.match(label) else "a"
            return (fitting.capitalize() if match[1][0].isupper() else fitting) + f" {_LABEL}"

        return _ARTICLE.sub(article, self.text).replace(_LABEL, label)


def label_of(folder: str) -> str:
    """The class that a folder is named after: "golden_retriever" is "golden retriever"."""
    return " ".join(re.sub("[_-]", " ", folder).split())


def class_captions(root: Path, paths: Iterable[str], templates: Sequence[CaptionTemplate]) -> Iterator[Entry | LeftOut]:
    """A caption from each template for each image, by its path below `root`.

    The label is the folder that the image is in. If all outermost folders are named after splits (`train/cat/1.jpg`),
    they are the splits. An image that is in no folder, or directly in that of a split, is left out; if all are, raises
    `ImgcapError`.
    """
    folders = {path: path.split("/")[:-1] for path in sorted(paths)}
    outermost = {names[0] for names in folders.values() if names}
    have_splits = all(map(known_split, outermost))
    depth = 1 if have_splits else 0
    if not any(names[depth:] for names in folders.values()):
        raise ImgcapError(
            f"{root} has no class folders, such as {root / 'cat' / '1.jpg'}.",
            f"--caption-template takes {_LABEL} from the folder that an image is in.",
        )
    for path, names in folders.items():
        split = known_split(names[0]) if have_splits and names else None
        if not names[depth:]:
            yield LeftOut(path, "is in no class folder")
            continue
        label = label_of(names[-1])
        yield from (Entry(path, template.fill(label), split, path) for template in templates)
