"""Caption any number of images into rows, sidecars, metadata and a gallery; one bad image never stops the rest."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from imgcap.captioning.captioner import Caption, Captioner, ImageSource, image_name
from imgcap.captioning.options import BatchOptions
from imgcap.captioning.row_files import RowWriter
from imgcap.captioning.rows import KEPT, NOT_WRITTEN, FileState, Origin, Row, RowOptions, make_row, with_state
from imgcap.captioning.sidecars import Sidecars
from imgcap.errors import ImgcapError, UsageError
from imgcap.images.archived import ArchivedFile
from imgcap.images.errors import ImageError
from imgcap.images.metadata.description import write_description
from imgcap.model.search import SearchOptions
from imgcap.pages.gallery import GalleryWriter


@dataclass(frozen=True)
class Outputs:
    """Open outputs of a run."""

    rows: RowWriter
    sidecars: Sidecars | None = None
    metadata: bool = False
    """Write captions into the images."""
    overwrite: bool = False
    """Replace descriptions that a person wrote."""
    gallery: GalleryWriter | None = None
    keep_mtime: bool = False
    """Keep the modification times of images that metadata is written into."""


@dataclass
class Tally:
    """Counts of a run."""

    captioned: int = 0
    withheld: int = 0
    kept: int = 0
    """Descriptions that a person wrote and that were kept."""
    failed: Counter[str] = field(default_factory=Counter)
    """Failures by kind."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.captioned + other.captioned,
            self.withheld + other.withheld,
            self.kept + other.kept,
            self.failed + other.failed,
        )

    @property
    def images(self) -> int:
        return self.captioned + self.withheld + self.failed.total()

    def add(self, row: Row) -> None:
        if "error" in row:
            self.failed[row["error_kind"]] += 1
        elif row.get("withheld"):
            self.withheld += 1
        else:
            self.captioned += 1
        self.kept += row.get("description") == KEPT


def check_model(captioner: Captioner, options: BatchOptions) -> None:
    """Raise `ImgcapError` if the model lacks what `options` need. Call it before outputs are opened."""
    if options.rows.min_confidence and not captioner.model.config.confidence:
        raise UsageError(
            f"The model {captioner.model.config.name!r} has no calibrated confidence, so --min-confidence cannot work.",
            "Train it again with at least 50 val images that have two captions or more.",
        )
    if options.explain:
        _ = captioner.training_index  # raises if there is none


def caption_batches(
    captioner: Captioner,
    images: Iterable[ImageSource | ImageError],
    search: SearchOptions,
    options: BatchOptions,
    outputs: Outputs,
    origin: Origin,
    tally: Tally,
) -> Iterator[list[Row]]:
    """Caption `images` in order. Yields the rows of each batch, when they are written and counted in `tally`.

    Raises `ImgcapError` if the rows or the gallery cannot be written, or if `check_model` does.
    """
    check_model(captioner, options)
    states: deque[tuple[ImageSource | ImageError, FileState]] = deque()

    def with_states() -> Iterator[ImageSource | ImageError]:
        for image in images:
            # Before the image is read: a change while it is captioned must show in the next run.
            states.append((image, _state(image, options.rows.by_content)))
            yield image

    batches = captioner.batches(
        with_states(),
        search,
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
        with suppress(ImageError):  # reported when the image is captioned
            digest = hashlib.sha256(image.read()).hexdigest()
    return FileState(image.size, None, digest)


def _deliver(
    caption: Caption,
    image: ImageSource | ImageError,
    state: FileState,
    options: RowOptions,
    outputs: Outputs,
    origin: Origin,
) -> Row:
    """Write one caption to all outputs. Its row is written last, so that an image with a row is done."""
    row = make_row(caption, options, origin)
    if row.get("caption") and caption.path is not None:
        written = write_caption(
            Path(caption.path),
            row["caption"],
            outputs.sidecars,
            outputs.metadata,
            outputs.overwrite,
            keep_mtime=outputs.keep_mtime,
        )
        if written.get("description"):  # writing metadata has changed the file
            state = FileState.of(caption.path, options.by_content)
        row |= written
    row = with_state(row, state)
    outputs.rows.write(row)
    if outputs.gallery:
        outputs.gallery.add(row, None if isinstance(image, ImageError) else image)
    return row


def write_caption(
    image: Path,
    text: str,
    sidecars: Sidecars | None,
    metadata: bool,
    overwrite: bool,
    *,
    by_person: bool = False,
    keep_mtime: bool = False,
) -> Row:
    """Write `text` beside or into the image. Returns the keys that this adds to the image's row.

    `by_person` marks the text as written or checked by a person, so that later runs keep it. `keep_mtime` keeps the
    modification time of an image that is rewritten.
    """
    row: Row = {}
    try:
        if sidecars and not sidecars.write(image, text, by_person=by_person):
            row["description"] = KEPT
        if metadata:
            written = write_description(image, text, overwrite=overwrite, by_person=by_person, keep_mtime=keep_mtime)
            row["description"] = "written" if written else KEPT
    except ImgcapError as error:
        row |= {"error": str(error), "error_kind": NOT_WRITTEN}
    return row
