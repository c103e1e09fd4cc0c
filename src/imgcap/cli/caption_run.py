"""What `imgcap caption` does once its options are checked: shares of the images, each from its list to its rows."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imgcap.captioning.batch import BatchOptions, Outputs, Tally, caption_batches
from imgcap.captioning.captioner import Captioner, ImageSource, image_name
from imgcap.captioning.resume import DoneRows, ResumeOptions, take_up
from imgcap.captioning.rows import STDIN, Row, open_rows, read_rows
from imgcap.captioning.shards import Finished, RowShard
from imgcap.captioning.sidecars import Sidecars
from imgcap.cli.console import Watch, print_error, say, stdout, stoppable
from imgcap.files import only_writer
from imgcap.images.archives import find_image, images_in, is_url
from imgcap.images.discovery import Selection, expand
from imgcap.images.errors import ImageError
from imgcap.pages.gallery import GalleryWriter
from imgcap.sharding import Shard


class Listing(Iterable[ImageSource | ImageError]):
    """All images of a run as they come, and what tells those of another run: their number and their names."""

    def __init__(self, images: Iterable[ImageSource | ImageError]) -> None:
        self._images = images
        self._names = hashlib.sha256()
        self.count = 0

    def __iter__(self) -> Iterator[ImageSource | ImageError]:
        for image in self._images:
            self.count += 1
            self._names.update((image_name(image) or STDIN).encode("utf-8", "surrogatepass") + b"\0")
            yield image

    @property
    def names(self) -> str:
        """SHA-256 of the names so far."""
        return self._names.hexdigest()


@dataclass(frozen=True)
class Ended:
    """How a share ended."""

    tally: Tally
    kept: int
    """Images that an earlier run has done."""
    listing: Listing
    stopped: bool
    """Whether Ctrl-C has ended it early."""
    whole: bool
    """Whether nothing has."""


@dataclass(frozen=True)
class Run:
    """What the shares of a run have in common."""

    captioner: Captioner
    options: BatchOptions
    origin: dict[str, str]
    inputs: list[Path | str]
    """Files and folders, `-` for stdin, and archives as text."""
    selection: Selection
    format_name: str
    bare: bool
    """Whether each caption stands alone in its line."""
    html: Path | None
    sidecars: Sidecars | None
    skip_existing: bool
    """Whether images that have a sidecar are left out."""
    metadata: bool
    overwrite: bool
    goes_on: bool
    """Whether rows that are there stay, and are not done again."""
    resume: ResumeOptions
    silent: bool

    def shards(self, shards: list[RowShard], batch_size: int, again: bool) -> Iterator[Ended]:
        """Do one shard after the other, until one is ended early; those that are complete only to see to them `again`.

        `batch_size` is that of the batches that are shared out.
        """
        for shard in shards if again else self._unfinished(shards):
            shard.begin(batch_size)
            ended = self.share(shard.shard, batch_size, shard.file)
            if ended.whole:
                listing, rows = ended.listing, ended.kept + ended.tally.images
                shard.finish(batch_size, Finished(listing.count, listing.names, rows, self.origin))
            yield ended
            if not ended.whole:
                return

    def _unfinished(self, shards: list[RowShard]) -> list[RowShard]:
        """Those of `shards` that are not complete; first the begun ones, which may tell of other settings at once."""
        finished = {shard: said for shard in shards if (said := shard.finished())}
        listing = Listing(self._images() if finished else ())
        deque(listing, maxlen=0)
        of_this = (listing.count, listing.names, self.origin)
        done = {shard for shard, said in finished.items() if (said.images, said.names, said.origin) == of_this}
        return sorted((shard for shard in shards if shard not in done), key=lambda shard: not shard.file.exists())

    def share(self, share: Shard, batch_size: int, file: Path | None) -> Ended:
        """Caption the images of `share` into `file`, or to stdout."""
        tally, listing = Tally(), Listing(self._images())
        with ExitStack() as stack:
            for place in filter(None, (file, self.html)):
                stack.enter_context(only_writer(place))
            earlier = file if self.goes_on and file and file.exists() else None
            done = self._take_up(earlier)
            to = file or stdout(self.format_name)
            rows = open_rows(to, self.format_name, bare=self.bare, append=bool(earlier), overwrite=self.overwrite)
            outputs = Outputs(
                stack.enter_context(rows),
                self.sidecars,
                self.metadata,
                self.overwrite,
                stack.enter_context(self._gallery(self.html, earlier)) if self.html else None,
            )
            on_terminal = not file and sys.stdout.isatty()
            watch = stack.enter_context(Watch("Captioning", self.silent, rows_on_terminal=on_terminal))
            if not any(str(path) == STDIN or is_url(str(path)) for path in self.inputs):
                watch.count(self._left(share.items(self._images(), batch_size), done, None))
            stopped = stack.enter_context(stoppable())
            left = self._left(share.items(listing, batch_size), done, self.sidecars if self.skip_existing else None)
            for batch in caption_batches(self.captioner, left, self.options, outputs, self.origin, tally):
                _tell(batch, tally, watch)
                if stopped():
                    break
        whole = not stopped() and not (self.options.fail_fast and tally.failed)
        return Ended(tally, done.kept, listing, stopped(), whole)

    def _images(self) -> Iterator[ImageSource | ImageError]:
        """All images that were asked for."""
        for path in self.inputs:
            if str(path) == STDIN:
                yield sys.stdin.buffer.read()
            elif isinstance(path, str):
                yield from images_in(path, self.selection)
            else:
                yield from expand([path], self.selection)

    def _take_up(self, earlier: Path | None) -> DoneRows:
        """What an earlier run has done, if there was one."""
        if earlier is None:
            return DoneRows()
        done = take_up(earlier, self.origin, self.resume)
        if not self.silent:
            dropped = f", {done.dropped:,} to be done again" * bool(done.dropped)
            say(f"{earlier}: {done.kept:,} images are done{dropped}")
        return done

    @staticmethod
    def _left(
        images: Iterable[ImageSource | ImageError], done: DoneRows, skip: Sidecars | None
    ) -> Iterator[ImageSource | ImageError]:
        """The images that `done` does not hold and, with `skip`, that have no sidecar."""
        for image in images:
            name = image_name(image)
            if name is None or not (name in done or (skip and os.path.exists(skip.path(Path(name))))):  # noqa: PTH110
                yield image

    @contextmanager
    def _gallery(self, html: Path, earlier: Path | None) -> Iterator[GalleryWriter]:
        """A gallery that begins with the rows of the run that is gone on with."""
        archives = {path for path in self.inputs if isinstance(path, str)}

        def image(path: str) -> ImageSource | None:
            if any(path.startswith(f"{archive}/") for archive in archives):
                with suppress(ImageError):
                    return find_image(path, archives)
            return None if path == STDIN else Path(path)

        with GalleryWriter(html, "Captions") as gallery:
            for row in read_rows(earlier) if earlier else ():
                gallery.add(row, image(row["path"]))
            yield gallery


def _tell(rows: list[Row], tally: Tally, watch: Watch) -> None:
    """Failures and progress of one batch."""
    for row in rows:
        if "error" in row:
            print_error(row["error"])
    watch.advance(tally.images, tally.failed.total())
