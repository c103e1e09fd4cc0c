"""Captions as rows: one dictionary for each image, with the keys that docs/captioning.md lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgcap.errors import UsageError, is_unicode
from imgcap.files import sha256

if TYPE_CHECKING:
    from imgcap.captioning.captioner import Caption, Wording

Row = dict[str, Any]

STDIN = "-"
"""Path of the image that came on standard input."""
KEPT = "kept"
"""`description` of a row where a description that a person wrote was kept."""
NOT_WRITTEN = "not written"
"""`error_kind` of a caption that could not be written to its sidecar or image."""

_DIGITS = 3
"""Digits after the point that do not depend on which images were computed together."""


@dataclass(frozen=True)
class RowOptions:
    """What rows contain. Raises `UsageError` for a confidence outside 0 to 1, and for a text that is not UTF-8."""

    prefix: str = ""
    suffix: str = ""
    trigger: str = ""
    """A word to put before each caption, followed by a comma, as fine-tuning of image generators uses it."""
    min_confidence: float = 0.0
    """Withhold captions below this confidence."""
    words: bool = False
    """Include the probability of each word."""
    by_content: bool = False
    """Include the SHA-256 of each image."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"The minimum confidence must be between 0 and 1, not {self.min_confidence}.")
        for name, text in (("prefix", self.prefix), ("suffix", self.suffix), ("trigger", self.trigger)):
            if not is_unicode(text):
                raise UsageError(f"The {name} {text!r} is not UTF-8 text.")

    def wrap(self, text: str) -> str:
        """`text` with the trigger, the prefix and the suffix."""
        return f"{self.trigger + ', ' if self.trigger else ''}{self.prefix}{text}{self.suffix}"


@dataclass(frozen=True)
class Origin:
    """The model and the settings that a row's caption comes from; only rows of equal origin share a file."""

    model: str
    model_hash: str
    settings: str
    """All options that can change a caption and differ from their defaults, as NAME=JSON, separated by spaces."""


@dataclass(frozen=True)
class FileState:
    """State of an image file, by which a later run recognises an unchanged image."""

    bytes: int | None = None
    modified: int | None = None
    """Nanoseconds since 1970; None for a file in an archive. This and `bytes` are None if no file can be read."""
    sha256: str | None = None
    """None unless requested."""

    @classmethod
    def of(cls, path: str | None, by_content: bool = False) -> FileState:
        if path is None or path == STDIN:
            return cls()
        try:
            stat = Path(path).stat()
            digest = sha256(Path(path)) if by_content and Path(path).is_file() else None
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return cls()
        return cls(stat.st_size, stat.st_mtime_ns, digest)

    @classmethod
    def from_row(cls, row: Row) -> FileState:
        return cls(row.get("bytes"), row.get("modified"), row.get("sha256"))

    def same_image(self, other: FileState) -> bool:
        """Compare by content where both states have a hash, else by size and time."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return (self.bytes, self.modified) == (other.bytes, other.modified)


def write_settings(settings: Mapping[str, Any]) -> str:
    """The `settings` of an `Origin`."""
    return " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())


def read_settings(text: str) -> dict[str, Any]:
    """What `write_settings` wrote as `text`. Raises `ValueError` for another text."""
    decode, found, start = json.JSONDecoder().raw_decode, dict[str, Any](), 0
    while start < len(text):
        equals = text.index("=", start)
        found[text[start:equals]], end = decode(text, equals + 1)
        start = end + 1
    return found


def make_row(caption: Caption, options: RowOptions, origin: Origin) -> Row:
    """The row of one image."""
    row: Row = {"path": caption.path or STDIN}
    if caption.error:
        row |= {"error": str(caption.error), "error_kind": caption.error.kind}
    else:
        row |= _caption_keys(caption, options)
    if explanation := caption.explanation:
        row |= {
            "nearest": [[name, round(similarity, _DIGITS)] for name, similarity in explanation.nearest],
            "verbatim": explanation.verbatim,
            "distance": round(explanation.distance, _DIGITS),
            "percentile": None if explanation.percentile is None else round(explanation.percentile, _DIGITS),
        }
        if explanation.warning:
            row["warning"] = explanation.warning
    return row | asdict(origin)


def with_state(row: Row, state: FileState) -> Row:
    """`row` with the state of its image's file."""
    row = row | {"bytes": state.bytes, "modified": state.modified}
    return row | {"sha256": state.sha256} if state.sha256 else row


def _caption_keys(caption: Caption, options: RowOptions) -> Row:
    """The keys of an image that has a caption."""
    best, *others = caption.wordings
    if best.confidence is not None and round(best.confidence, _DIGITS) < options.min_confidence:
        return {"caption": "", **_scores(best), "withheld": True}
    row: Row = {"caption": options.wrap(best.text), **_scores(best)}
    if options.words:
        row["words"] = [[word, round(probability, _DIGITS)] for word, probability in best.words]
    if others:
        row["alternatives"] = [{"caption": options.wrap(w.text), **_scores(w)} for w in others]
    return row


def _scores(wording: Wording) -> Row:
    confidence = wording.confidence
    return {
        "confidence": None if confidence is None else round(confidence, _DIGITS),
        "log_probability": round(wording.log_probability, _DIGITS),
    }
