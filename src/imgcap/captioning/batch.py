"""Caption any number of images into rows, sidecars, metadata and a gallery; one bad image never stops the rest."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from imgcap.captioning.captioner import BATCH_SIZE, Caption, Captioner, ImageSource, image_name
from imgcap.captioning.rows import NOT_WRITTEN, FileState, Row, RowOptions, RowWriter, make_row, with_state
from imgcap.captioning.sidecars import Sidecars
from imgcap.errors import ImgcapError, UsageError
from imgcap.images.archives import ArchivedFile
from imgcap.images.errors import ImageError
from imgcap.images.metadata.description import write_description
from imgcap.model.search import SearchOptions
from imgcap.pages.gallery import GalleryWriter

KEPT = "kept"
"""What a row says of a description that a person wrote, and that stays."""


@dataclass(frozen=True)
class BatchOptions:
    """How images are captioned and what is told of them."""

    search: SearchOptions
    rows: RowOptions = field(default_factory=RowOptions)
    batch_size: int = BATCH_SIZE
    max_pixels: int | None = None
    explain: bool = False
    fail_fast: bool = False
    """Whether the first failure ends the run."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.max_pixels is not None and self.max_pixels < 1):
            raise UsageError("The batch size and the most pixels of an image must be at least 1.")


@dataclass(frozen=True)
class Outputs:
    """Where captions go."""

    rows: RowWriter
    sidecars: Sidecars | None = None
    metadata: bool = False
    """Whether captions are written into the images."""
    overwrite: bool = False
    """Whether descriptions that a person wrote are replaced."""
    gallery: GalleryWriter | None = None


@dataclass
class Tally:
    """How a run goes."""

    captioned: int = 0
    withheld: int = 0
    kept: int = 0
    """Descriptions of persons that were kept."""
    failed: Counter[str] = field(default_factory=Counter)
    """Failures by kind."""
    begun: float = field(default_factory=time.monotonic)

    def __add__(self, other: Tally) -> Tally:
        """Both together, as if they had begun with the first."""
        return Tally(
            self.captioned + other.captioned,
            self.withheld + other.withheld,
            self.kept + other.kept,
            self.failed + other.failed,
            self.begun,
        )

    @property
    def images(self) -> int:
        return self.captioned + self.withheld + self.failed.total()

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(time.monotonic() - self.begun, 1e-9)

    def add(self, row: Row) -> None:
        if "error" in row:
            self.failed[row["error_kind"]] += 1
        elif row.get("withheld"):
            self.withheld += 1
        else:
            self.captioned += 1
        self.kept += row.get("description") == KEPT


def check_model(captioner: Captioner, options: BatchOptions) -> None:
    """Raise `ImgcapError` if the model cannot do what `options` ask; best before outputs are opened."""
    if options.rows.min_confidence and not captioner.model.config.confidence:
        raise UsageError(
            f"The model {captioner.model.config.name!r} has no calibrated confidence, so none can be asked for.",
            "Train it again with at least 50 val images that have two captions or more.",
        )
    if options.explain:
        _ = captioner.training_index  # raises if there is none


def caption_batches(
    captioner: Captioner,
    images: Iterable[ImageSource | ImageError],
    options: BatchOptions,
    outputs: Outputs,
    origin: dict[str, str],
    tally: Tally,
) -> Iterator[list[Row]]:
    """Caption `images` in order; after each batch has reached its outputs and `tally`, yield its rows.

    Raises `ImgcapError` if the rows or the gallery cannot be written, or where `check_model` does.
    """
    check_model(captioner, options)
    states: deque[tuple[ImageSource | ImageError, FileState]] = deque()  # as they were before the images were read

    def watched() -> Iterator[ImageSource | ImageError]:
        for image in images:
            states.append((image, _state(image, options.rows.by_content)))
            yield image

    batches = captioner.batches(
        watched(),
        options.search,
        batch_size=options.batch_size,
        max_pixels=options.max_pixels,
        explain=options.explain,
    )
    for batch in batches:
        rows = []
        for caption in batch:
            image, state = states.popleft()
            row = _deliver(caption, image, state, options.rows, outputs, origin)
            tally.add(row)
            rows.append(row)
            if options.fail_fast and "error" in row:
                break
        outputs.rows.stream.flush()
        yield rows
        if options.fail_fast and tally.failed:
            return


def _state(image: ImageSource | ImageError, by_content: bool) -> FileState:
    if not isinstance(image, ArchivedFile):
        return FileState.of(image_name(image), by_content)
    digest = None
    if by_content:
        with suppress(ImageError):  # which it gets as its row
            digest = hashlib.sha256(image.read()).hexdigest()
    return FileState(image.size, None, digest)


def _deliver(
    caption: Caption,
    image: ImageSource | ImageError,
    state: FileState,
    options: RowOptions,
    outputs: Outputs,
    origin: dict[str, str],
) -> Row:
    """Write one caption wherever it goes; its row goes last, so that what has a row is done."""
    row = make_row(caption, options, origin)
    if row.get("caption") and caption.path is not None:
        written = write_caption(
            Path(caption.path), row["caption"], outputs.sidecars, outputs.metadata, outputs.overwrite
        )
        if written.get("description"):  # the image's file is another one now
            state = FileState.of(caption.path, options.by_content)
        row |= written
    row = with_state(row, state)
    outputs.rows.write(row)
    if outputs.gallery:
        outputs.gallery.add(row, None if isinstance(image, ImageError) else image)
    return row


def write_caption(
    image: Path, text: str, sidecars: Sidecars | None, metadata: bool, overwrite: bool, *, by_person: bool = False
) -> Row:
    """Write `text` beside or into the image; returns what its row has to say about that.

    `by_person` says that a person has written or checked the text, so that no later run replaces it unasked.
    """
    row: Row = {}
    try:
        if sidecars:
            sidecars.write(image, text)
        if metadata:
            written = write_description(image, text, overwrite=overwrite, by_person=by_person)
            row["description"] = "written" if written else KEPT
    except ImgcapError as error:
        row |= {"error": str(error), "error_kind": NOT_WRITTEN}
    return row
