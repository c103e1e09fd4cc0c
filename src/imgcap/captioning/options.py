"""Options of a captioning run. A module of its own, so that wrong usage is an error before torch is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from imgcap.captioning.resume import ResumeOptions
from imgcap.captioning.row_files import FORMATS
from imgcap.captioning.rows import STDIN, RowOptions
from imgcap.captioning.sidecars import Sidecars
from imgcap.errors import ImgcapError, UsageError
from imgcap.images.discovery import EVERYTHING, Selection
from imgcap.model.store import DEFAULT_MODEL
from imgcap.sharding import WHOLE, Shard

if TYPE_CHECKING:
    from imgcap.model.search import SearchOptions

BATCH_SIZE = 8
"""Default number of images computed together: small, so that the first captions come soon."""


@dataclass(frozen=True)
class Inputs:
    """The images of a run, in order."""

    sources: tuple[Path | str, ...]
    """Files and folders as `Path`; archives, and `STDIN` for the image on standard input, as text."""
    selection: Selection = EVERYTHING
    """Which images of folders and archives to take."""
    read_stdin: Callable[[], bytes] = bytes
    """Reads the image on standard input."""

    @property
    def files(self) -> list[Path]:
        """The files and folders, which sidecars and metadata can be written to."""
        return [source for source in self.sources if isinstance(source, Path)]

    @property
    def have_stdin(self) -> bool:
        return STDIN in self.sources


@dataclass(frozen=True)
class OutputOptions:
    """Where captions go. Raises `UsageError` for options that exclude each other, `ImgcapError` if a file exists."""

    rows: Path | TextIO
    format_name: str = "text"
    bare: bool = False
    """Leave out the path in text."""
    gallery: Path | None = None
    sidecars: Sidecars | None = None
    skip_existing: bool = False
    """Skip images that have a sidecar."""
    metadata: bool = False
    """Write captions into the images."""
    keep_mtime: bool = False
    """Keep the modification times of these images."""
    overwrite: bool = False
    """Replace output files, and descriptions that a person wrote."""
    resume: bool = False
    """Continue the file of rows."""

    def __post_init__(self) -> None:
        if self.format_name not in FORMATS:
            raise UsageError(f"There is no format {self.format_name!r}.", f"Use one of {', '.join(FORMATS)}.")
        if self.resume and not self.can_resume:
            raise UsageError("--resume needs -o FILE.jsonl.")
        if self.skip_existing and not self.sidecars:
            raise UsageError("--skip-existing needs --sidecar or --sidecar-dir.")
        if self.keep_mtime and not self.metadata:
            raise UsageError("--keep-mtime needs --write-metadata.")
        if self.skip_existing and self.sidecars and self.sidecars.append:
            raise UsageError("--skip-existing cannot be combined with --append.")
        if self.gallery and self.gallery == self.rows:
            raise UsageError(f"{self.gallery} cannot be both the gallery and the rows.")
        if self.gallery and self.gallery.exists() and not (self.overwrite or self.resume):
            raise ImgcapError(f"{self.gallery} already exists.", "Use another file, or replace it with --overwrite.")

    @property
    def can_resume(self) -> bool:
        return isinstance(self.rows, Path) and self.format_name == "jsonl"

    @property
    def restart(self) -> bool:
        """Replace the rows of an earlier run."""
        return self.overwrite and not self.resume

    @property
    def write_to_images(self) -> bool:
        """Whether captions are written beside or into the images."""
        return bool(self.sidecars or self.metadata)


@dataclass(frozen=True)
class BatchOptions:
    """How images are captioned. Raises `UsageError` if a number is below 1."""

    rows: RowOptions = field(default_factory=RowOptions)
    batch_size: int = BATCH_SIZE
    max_pixels: int | None = None
    """See `open_image`."""
    explain: bool = False
    fail_fast: bool = False
    """End the run at the first failure."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.max_pixels is not None and self.max_pixels < 1):
            raise UsageError("The batch size and the maximum number of pixels must be at least 1.")


@dataclass(frozen=True)
class RunOptions:
    """A captioning run. Raises `UsageError` if captions cannot be written beside or into the inputs."""

    inputs: Inputs
    outputs: OutputOptions
    batches: BatchOptions = field(default_factory=BatchOptions)
    resume: ResumeOptions = field(default_factory=ResumeOptions)
    choose_search: Callable[[SearchOptions], SearchOptions] = lambda own: own
    """Turns the model's own search options into those to use."""
    model: str = DEFAULT_MODEL
    device: str | None = None
    precision: str = "float32"
    """float32, int8, or auto: see `automatic_precision`."""
    shard: Shard = WHOLE
    """The part of the run that this command does."""

    def __post_init__(self) -> None:
        if self.outputs.write_to_images and self.inputs.have_stdin:
            raise UsageError("An image from stdin is not a file, so it cannot get a sidecar or metadata.")
        if self.outputs.write_to_images and len(self.inputs.files) < len(self.inputs.sources):
            raise UsageError("Images in archives get neither sidecars nor metadata.", "Write rows with -o FILE.jsonl.")
        if self.resume.retry_failed and not self.outputs.resume:
            raise UsageError("--retry-failed needs --resume.")
