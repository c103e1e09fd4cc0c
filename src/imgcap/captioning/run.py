"""A captioning run from its options to its outcome: in one process or many, in one file of rows or in shards."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from imgcap.captioning.batch import Outputs, Tally, caption_batches, check_model
from imgcap.captioning.captioner import Captioner, ImageSource, image_name, load_model
from imgcap.captioning.options import RunOptions
from imgcap.captioning.progress import RunListener
from imgcap.captioning.resume import DoneRows, resume
from imgcap.captioning.row_files import open_rows, read_rows
from imgcap.captioning.rows import STDIN, Origin, RowOptions, write_settings
from imgcap.captioning.shards import FinishedShard, RowShard, ShardedRun, merge, plan, remove_shards
from imgcap.captioning.sidecars import Sidecars
from imgcap.distributed import World, joined
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import only_writer
from imgcap.images.archives import find_image, images_in
from imgcap.images.discovery import expand
from imgcap.images.errors import ImageError
from imgcap.images.locations import is_url
from imgcap.model.encoder import AUTO, FLOAT32, automatic_precision
from imgcap.model.search import SearchOptions
from imgcap.pages.gallery import GalleryWriter
from imgcap.sharding import WHOLE, Shard

_SHARDS_NEED = "Shards need -o FILE.jsonl.", "Each shard writes a file of its own beside it, for `imgcap merge`."


@dataclass(frozen=True)
class Outcome:
    """How a run ended, summed over all processes."""

    tally: Tally
    has_earlier: bool
    """Whether earlier runs have captioned some of the images."""
    is_stopped: bool
    """Whether the user stopped the run."""
    is_launched: bool
    """Whether torchrun started the run."""
    unreadable: Counter[str]
    """Images in formats that imgcap cannot read, counted by ending."""
    unmerged: list[Path]
    """Complete shards of this part of a run, which `merge` needs together with the other parts."""


def run(options: RunOptions, listener: RunListener | None = None) -> Outcome | None:
    """Caption the images; returns None in all processes but the first.

    Raises `ImgcapError` if the model or an output cannot be used, and `UsageError` for options that exclude each other.
    """
    listener = listener or RunListener()
    outputs, part = options.outputs, options.shard
    with joined(options.device) as world:
        listener.joined(world)
        sharded = _plan_shards(options, world)
        precision = _choose_precision(options.precision, world, listener)
        captioner = load_model(options.model, str(world.device), precision)
        search = options.choose_search(captioner.model.config.search)
        check_model(captioner, options.batches)
        if outputs.sidecars:
            outputs.sidecars.check()
        if isinstance(outputs.rows, Path) and outputs.restart and part == WHOLE and world.is_first:
            remove_shards(outputs.rows, except_count=world.size)
        if sharded and sharded.is_started and part == WHOLE:
            listener.resuming_shards(sharded)
        listener.ready(_advice(options, sharded))
        job = _Job(captioner, search, make_origin(captioner, search, options.batches.rows), options, listener)
        if sharded:
            results = list(job.caption_shards(sharded, sharded.shards(part)[world.rank :: world.size]))
        else:
            continued = outputs.rows if outputs.resume and isinstance(outputs.rows, Path) else None
            results = [job.caption(part, options.batches.batch_size, outputs.rows, continued)]
        tally, is_stopped = sum((each.tally for each in results), Tally()), any(each.is_stopped for each in results)
        of_processes = world.gather((tally, is_stopped))
        if not world.is_first:
            return None
        unmerged = _merge_if_complete(sharded, part, outputs.overwrite) if sharded else []
    return Outcome(
        tally=sum((each for each, _ in of_processes), Tally()),
        has_earlier=any(each.kept for each in results),
        is_stopped=any(stopped for _, stopped in of_processes),
        is_launched=world.is_launched,
        unreadable=results[0].listing.unreadable if results else Counter(),  # each shard lists all images
        unmerged=unmerged,
    )


def _choose_precision(precision: str, world: World, listener: RunListener) -> str:
    """What `precision` stands for, the same in all processes, because rows of different precisions do not mix."""
    if precision != AUTO:
        return precision
    choices = world.gather(automatic_precision(world.device))
    chosen, why = next((choice for choice in choices if choice[0] == FLOAT32), choices[0])
    listener.precision_chosen(chosen, why)
    return chosen


def make_origin(captioner: Captioner, search: SearchOptions, options: RowOptions) -> Origin:
    """The model and the settings that these captions come from."""
    always = {"beam_size", "length_penalty"}
    settings = {k: v for k, v in asdict(search).items() if k in always or v != getattr(SearchOptions(), k)}
    changed = {k: v for k, v in asdict(options).items() if v != getattr(RowOptions(), k)}
    if captioner.encoder.precision != FLOAT32:
        settings["precision"] = captioner.encoder.precision
    return Origin(
        model=captioner.model.config.name,
        model_hash=captioner.model.hash,
        settings=write_settings(settings | changed),
    )


def _plan_shards(options: RunOptions, world: World) -> ShardedRun | None:
    """The sharded run to start or continue; None if unsharded. Raises `ImgcapError` if the options exclude shards."""
    outputs = options.outputs
    if not isinstance(outputs.rows, Path):
        if world.size > 1:
            raise UsageError(*_SHARDS_NEED)
        return None
    mine = None
    if world.is_first:
        mine = plan(outputs.rows, options.shard, world.size, options.batches.batch_size, outputs.restart)
    sharded = world.gather(mine)[0]
    if sharded is None or sharded.count == 1:
        return None
    if outputs.format_name != "jsonl" or outputs.rows.suffix.lower() != ".jsonl":
        raise UsageError(*_SHARDS_NEED)
    excluded = {
        "--html": bool(outputs.gallery),
        "--skip-existing": outputs.skip_existing,
        "An image from stdin": options.inputs.have_stdin,
    }
    for name, is_given in excluded.items():
        if is_given:
            raise UsageError(
                f"{name} cannot be combined with shards.",
                f"Leave it out until {outputs.rows} is merged from its shards; then add it, with --resume.",
            )
    if outputs.rows.exists() and not outputs.overwrite:
        if sharded.is_started:
            raise ImgcapError(
                f"{outputs.rows} already exists, and so do shards of it.",
                "Remove those that you do not want to continue, or start again with --overwrite.",
            )
        raise ImgcapError(f"{outputs.rows} already exists.", "Replace it with --overwrite, or use another file.")
    return sharded


def _merge_if_complete(sharded: ShardedRun, part: Shard, overwrite: bool) -> list[Path]:
    """Merge the shards if this was the whole run; returns the files of a complete part, which is merged later."""
    shards = sharded.shards(part)
    if not all(each.finished() for each in shards):
        return []
    if part == WHOLE:
        merge(sharded.output, overwrite)
        return []
    return [each.file for each in shards]


def _advice(options: RunOptions, sharded: ShardedRun | None) -> str:
    """What to do about an interrupted run, as a sentence."""
    if not options.outputs.can_resume:
        return "What was written is complete."
    if sharded and not options.outputs.restart:
        return "Run the same command again to continue."
    return "Run the same command with --resume to continue."


class ImageListing(Iterable[ImageSource | ImageError]):
    """The images of a run; their number and their names tell one run from another."""

    def __init__(self, images: Iterable[ImageSource | ImageError], unreadable: Counter[str] | None = None) -> None:
        self._images = images
        self.unreadable = unreadable if unreadable is not None else Counter[str]()
        """Images in formats that imgcap cannot read, counted by ending."""
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
class _Result:
    """How a file or a shard ended."""

    tally: Tally
    kept: int
    """Images that an earlier run has captioned."""
    listing: ImageListing
    is_stopped: bool
    is_complete: bool


@dataclass(frozen=True)
class _Job:
    """What the shards of a run have in common."""

    captioner: Captioner
    search: SearchOptions
    origin: Origin
    options: RunOptions
    listener: RunListener

    def caption_shards(self, sharded: ShardedRun, shards: list[RowShard]) -> Iterator[_Result]:
        """Caption one shard after the other, until one ends early."""
        outputs = self.options.outputs
        # Complete shards are skipped, unless their rows may have to be replaced.
        revisit = outputs.restart or self.options.resume.retry_failed or self.options.shard != WHOLE
        for shard in shards if revisit else self._incomplete(shards):
            shard.start(sharded.batch_size)
            continued = None if outputs.restart else shard.file
            result = self.caption(shard.shard, sharded.batch_size, shard.file, continued)
            if result.is_complete:
                listing, rows = result.listing, result.kept + result.tally.images
                shard.finish(sharded.batch_size, FinishedShard(listing.count, listing.names, rows, self.origin))
            yield result
            if not result.is_complete:
                return

    def _incomplete(self, shards: list[RowShard]) -> list[RowShard]:
        """The shards that are not complete, started ones first: those may reveal other settings at once."""
        finished = {shard: state for shard in shards if (state := shard.finished())}
        listing = ImageListing(self._images() if finished else ())
        deque(listing, maxlen=0)
        this_run = (listing.count, listing.names, self.origin)
        done = {shard for shard, state in finished.items() if (state.images, state.names, state.origin) == this_run}
        return sorted((shard for shard in shards if shard not in done), key=lambda shard: not shard.file.exists())

    def caption(self, part: Shard, batch_size: int, output: Path | TextIO, continued: Path | None) -> _Result:
        """Caption `part` of the images into `output`, after the rows in `continued` if it exists.

        `batch_size` divides the images among parts.
        """
        options, outputs = self.options, self.options.outputs
        unreadable = Counter[str]()
        tally, listing, is_stopped = Tally(), ImageListing(self._images(unreadable), unreadable), False
        with ExitStack() as stack:
            for file in (output, outputs.gallery):
                if isinstance(file, Path):
                    stack.enter_context(only_writer(file))
            earlier = continued if continued and continued.exists() else None
            done = DoneRows()
            if earlier:
                done = resume(earlier, self.origin, options.resume)
                self.listener.resuming(earlier, done)
            opened = stack.enter_context(self._open_outputs(output, earlier))
            stack.enter_context(self.listener.captioning())
            if not any(source == STDIN or is_url(str(source)) for source in options.inputs.sources):
                self.listener.listed(_without(done, None, part.items(self._images(), batch_size)))
            left = _without(done, outputs.sidecars if outputs.skip_existing else None, part.items(listing, batch_size))
            batches = caption_batches(self.captioner, left, self.search, options.batches, opened, self.origin, tally)
            try:
                for rows in batches:
                    self.listener.captioned(rows, tally)
                    if self.listener.is_stopping():
                        is_stopped = True
                        break
            except KeyboardInterrupt:  # the rows of the batches before are written
                is_stopped = True
        is_complete = not is_stopped and not (options.batches.fail_fast and tally.failed)
        return _Result(tally, done.kept, listing, is_stopped, is_complete)

    def _images(self, unreadable: Counter[str] | None = None) -> Iterator[ImageSource | ImageError]:
        """All images of the run; those in formats that imgcap cannot read are counted in `unreadable`."""
        inputs = self.options.inputs
        for source in inputs.sources:
            if source == STDIN:
                yield inputs.read_stdin()
            elif isinstance(source, str):
                yield from images_in(source, inputs.selection, unreadable)
            else:
                yield from expand([source], inputs.selection, unreadable)

    @contextmanager
    def _open_outputs(self, output: Path | TextIO, earlier: Path | None) -> Iterator[Outputs]:
        outputs = self.options.outputs
        with ExitStack() as stack:
            rows = open_rows(
                output, outputs.format_name, bare=outputs.bare, append=bool(earlier), overwrite=outputs.overwrite
            )
            yield Outputs(
                stack.enter_context(rows),
                outputs.sidecars,
                outputs.metadata,
                outputs.overwrite,
                stack.enter_context(self._gallery(outputs.gallery, earlier)) if outputs.gallery else None,
                outputs.keep_mtime,
            )

    @contextmanager
    def _gallery(self, file: Path, earlier: Path | None) -> Iterator[GalleryWriter]:
        """A gallery that starts with the earlier rows."""
        archives = {source for source in self.options.inputs.sources if isinstance(source, str)}

        def find(path: str) -> ImageSource | None:
            if any(path.startswith(f"{archive}/") for archive in archives):
                with suppress(ImageError):
                    return find_image(path, archives)
            return None if path == STDIN else Path(path)

        with GalleryWriter(file, "Captions", self.options.model) as gallery:
            for row in read_rows(earlier) if earlier else ():
                gallery.add(row, find(row["path"]))
            yield gallery


def _without(
    done: DoneRows, existing: Sidecars | None, images: Iterable[ImageSource | ImageError]
) -> Iterator[ImageSource | ImageError]:
    """The images that have no row in `done`, nor one of the sidecars `existing`."""
    for image in images:
        name = image_name(image)
        if name is not None and (name in done or (existing and existing.exists(Path(name)))):
            continue
        yield image
