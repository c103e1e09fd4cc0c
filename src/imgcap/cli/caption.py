"""`imgcap caption`: images in, captions out."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import typer

from imgcap.captioning.options import BATCH_SIZE, BatchOptions, Inputs, OutputOptions, RunOptions
from imgcap.captioning.progress import RunListener
from imgcap.captioning.resume import DoneRows, ResumeOptions
from imgcap.captioning.row_files import format_of
from imgcap.captioning.rows import KEPT, STDIN, RowOptions
from imgcap.cli import options
from imgcap.cli.console import (
    RowStream,
    RunProgress,
    interruptible,
    print_error,
    print_message,
    stoppable,
)
from imgcap.errors import ExitCode, ImgcapError, UsageError, listing
from imgcap.files import read_bytes
from imgcap.images.discovery import Selection, counted
from imgcap.images.locations import archive_locations, is_archive
from imgcap.model.store import DEFAULT_MODEL
from imgcap.sharding import WHOLE, Shard

if TYPE_CHECKING:
    from imgcap.captioning.batch import Tally
    from imgcap.captioning.rows import Row
    from imgcap.captioning.run import Outcome
    from imgcap.captioning.shards import ShardedRun
    from imgcap.distributed import World


def caption(
    paths: options.Images = None,
    from_file: options.FromFile = None,
    recursive: options.Recursive = True,
    include: options.Include = None,
    exclude: options.Exclude = None,
    max_pixels: options.MaxPixels = None,
    model: options.Model = DEFAULT_MODEL,
    num_captions: options.NumCaptions = 1,
    beam_size: options.BeamSize = None,
    length_penalty: options.LengthPenalty = None,
    min_length: options.MinLength = None,
    max_length: options.MaxLength = None,
    ban: options.Ban = None,
    sample: options.Sample = False,
    temperature: options.Temperature = 1.0,
    top_p: options.TopP = 1.0,
    seed: options.Seed = 0,
    prefix: options.Prefix = "",
    suffix: options.Suffix = "",
    trigger: options.Trigger = "",
    words: options.Words = False,
    min_confidence: options.MinConfidence = 0.0,
    explain: options.Explain = False,
    output: options.RowFile = None,
    format_name: options.Format = None,
    html: options.Gallery = None,
    sidecar: options.Sidecar = None,
    sidecar_dir: options.SidecarDir = None,
    append: options.Append = False,
    write_metadata: options.WriteMetadata = False,
    keep_mtime: options.KeepMtime = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    retry_failed: options.RetryFailed = False,
    by_content: options.ByContent = False,
    skip_existing: options.SkipExisting = False,
    fail_fast: options.FailFast = False,
    batch_size: options.BatchSize = BATCH_SIZE,
    shard: options.Shard = None,
    quiet: options.Quiet = False,
    device: options.Device = None,
    precision: options.Precision = "float32",
) -> None:
    """Write a caption for each image.

    A single image gets its bare caption, several get lines of path, tab and caption. An image that cannot be read is
    reported, and the others are captioned. Exit codes: 0 all have captions, 3 some failed, 1 none succeeded, 2 wrong
    usage, 130 interrupted.
    """
    started = time.monotonic()
    inputs = Inputs(
        sources=_sources(paths or [], from_file),
        selection=Selection(recursive, tuple(include or ()), tuple(exclude or ())),
        read_stdin=lambda: sys.stdin.buffer.read(),
    )
    output = None if output == Path(STDIN) else output
    kind = format_of(output, format_name) if output else format_name or "text"
    rows = output or cast(TextIO, RowStream(kind))
    bare = from_file is None and len(inputs.sources) == 1 and not _is_collection(inputs.sources[0])
    outputs = OutputOptions(
        rows=rows,
        format_name=kind,
        bare=bare,
        gallery=html,
        sidecars=options.make_sidecars(sidecar, sidecar_dir, inputs.files, overwrite, append),
        skip_existing=skip_existing,
        metadata=write_metadata,
        keep_mtime=keep_mtime,
        overwrite=overwrite,
        resume=resume,
    )
    run_options = RunOptions(
        inputs=inputs,
        outputs=outputs,
        batches=BatchOptions(
            RowOptions(prefix, suffix, trigger, min_confidence, words, by_content),
            batch_size,
            max_pixels,
            explain,
            fail_fast,
        ),
        resume=ResumeOptions(by_content, retry_failed),
        choose_search=options.search_overrides(
            beam_size=beam_size,
            length_penalty=length_penalty,
            min_length=min_length,
            max_length=max_length,
            num_captions=num_captions,
            ban=tuple(ban or ()),
            sample=sample,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        ),
        model=model,
        device=device,
        precision=precision,
        shard=Shard.parse(shard) if shard else WHOLE,
    )
    from imgcap.captioning.run import run

    terminal = _Terminal(run_options, quiet)
    with interruptible(lambda: terminal.advice):
        outcome = run(run_options, terminal)
    if outcome:
        _report(outcome, terminal, output, html, seconds=time.monotonic() - started)


class _Terminal(RunListener):
    """Shows a run on the terminal."""

    def __init__(self, run_options: RunOptions, quiet: bool) -> None:
        self._outputs = run_options.outputs
        self._min_confidence = run_options.batches.rows.min_confidence
        self.is_quiet = quiet
        self.advice = "Nothing was captioned."
        """What to do about an interruption now."""
        self._progress: RunProgress | None = None
        self._stop_requested: Callable[[], bool] = lambda: False

    @property
    def silent(self) -> bool:
        """Whether neither progress nor a summary is shown: a single image is captioned before they could help."""
        return self.is_quiet or self._outputs.bare

    def joined(self, world: World) -> None:
        self.is_quiet = self.is_quiet or not world.is_first

    def precision_chosen(self, precision: str, why: str) -> None:
        if not self.is_quiet:
            print_message(f"Precision: {precision}, because {why}.")

    def ready(self, advice: str) -> None:
        self.advice = advice

    def resuming_shards(self, sharded: ShardedRun) -> None:
        self._print(f"Continuing the {sharded.count:,} shards of {sharded.output}.")

    def resuming(self, file: Path, done: DoneRows) -> None:
        again = f", {done.dropped:,} to be done again" if done.dropped else ""
        self._print(f"{file}: {done.kept:,} image{' is' if done.kept == 1 else 's are'} done{again}")

    @contextmanager
    def captioning(self) -> Iterator[None]:
        rows_on_terminal = not isinstance(self._outputs.rows, Path) and self._outputs.rows.isatty()
        with (
            RunProgress("Captioning", self.silent, rows_on_terminal) as self._progress,
            stoppable() as self._stop_requested,
        ):
            yield

    def listed(self, images: Iterable[object]) -> None:
        if self._progress:
            self._progress.count(images)

    def captioned(self, rows: list[Row], tally: Tally) -> None:
        for row in rows:
            if "error" in row:
                print_error(row["error"])
            elif self._outputs.bare and not self.is_quiet:
                self._explain(row)
        if self._progress:
            self._progress.advance(tally.images, tally.failed.total())

    def _explain(self, row: Row) -> None:
        """Say why a single image has no caption, or why its caption was not written into it."""
        name = "the image on stdin" if row["path"] == STDIN else row["path"]
        if row.get("withheld"):
            print_message(
                f"The caption of {name} is withheld, because its confidence, {row['confidence']:g}, is below "
                f"{self._min_confidence} (--min-confidence)."
            )
        elif row.get("description") == KEPT:
            print_message(f"{name} keeps the description that a person wrote; --overwrite replaces it.")

    def is_stopping(self) -> bool:
        return self._stop_requested() or self.has_no_reader

    @property
    def has_no_reader(self) -> bool:
        """Whether the rows go to a pipe that is closed, and captions nowhere else."""
        outputs = self._outputs
        is_abandoned = isinstance(outputs.rows, RowStream) and outputs.rows.is_abandoned
        return is_abandoned and not (outputs.write_to_images or outputs.gallery)

    def _print(self, message: str) -> None:
        if not self.silent:
            print_message(message)


def _report(outcome: Outcome, terminal: _Terminal, output: Path | None, gallery: Path | None, seconds: float) -> None:
    """Print the summary, and exit with the code that fits the outcome."""
    tally = outcome.tally
    if terminal.has_no_reader:
        raise typer.Exit(ExitCode.FAILED)
    if outcome.unmerged and not terminal.silent:
        files = listing([str(file) for file in outcome.unmerged])
        are = "is" if len(outcome.unmerged) == 1 else "are"
        print_message(f"{files} {are} complete. When all shards are: imgcap merge {output}")
    if not (terminal.silent if tally.images else terminal.is_quiet or outcome.is_stopped):
        print_message(_summary(outcome, seconds))
    if gallery and not (terminal.silent or outcome.is_stopped):
        print_message(f"{gallery}: open it in a browser to look at the captions and to correct them.")
    if outcome.is_stopped:
        print_message(f"Interrupted. {terminal.advice}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    # torchrun would start all processes again if one of them failed.
    if tally.failed and not outcome.is_launched:
        some = tally.captioned or tally.withheld or outcome.has_earlier
        raise typer.Exit(ExitCode.SOME_FAILED if some else ExitCode.FAILED)


def _summary(outcome: Outcome, seconds: float) -> str:
    """What became of the images, in one line."""
    tally, unreadable = outcome.tally, outcome.unreadable
    skipped = f"{unreadable.total():,} skipped, in formats that imgcap cannot read ({counted(unreadable)})"
    if not tally.images:
        return "There was nothing left to do" + (f"; {skipped}." if unreadable else ".")
    rate = tally.images / max(seconds, 1e-9)
    per_second = f"{rate:.1f}" if rate >= 0.1 else f"{rate:.2g}"
    of_all = "" if outcome.is_stopped else f" of {tally.images:,}"  # what is left is not known
    parts = [f"Captioned {tally.captioned:,}{of_all} images in {seconds:,.1f} s, {per_second} a second"]
    if tally.withheld:
        parts.append(f"{tally.withheld:,} withheld for low confidence")
    if tally.kept:
        parts.append(f"{tally.kept:,} keep the description that a person wrote")
    if tally.failed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in tally.failed.most_common())
        parts.append(f"{tally.failed.total():,} failed ({kinds})")
    if unreadable:
        parts.append(skipped)
    return "; ".join(parts) + "."


def _sources(paths: list[str], from_file: Path | None) -> tuple[Path | str, ...]:
    """All inputs as `Inputs.sources`. Raises `UsageError` if there are none."""
    listed: list[str] = []
    if from_file is not None and str(from_file) == STDIN:
        if STDIN in paths:
            raise UsageError("Stdin cannot be both an image and a list of paths.")
        listed = _read_list(sys.stdin.buffer.read(), "The list on stdin")
    elif from_file is not None:
        listed = _read_list(read_bytes(from_file), str(from_file))
    if not paths and not listed:
        raise UsageError(
            f"{from_file} lists no paths." if from_file else "Give an image, a folder, or - for stdin.",
            "See `imgcap caption --help`.",
        )
    return tuple(source for text in (*paths, *listed) for source in _source(text))


def _source(text: str) -> Iterable[Path | str]:
    if is_archive(text):
        return archive_locations(text)
    return [STDIN if str(Path(text)) == STDIN else Path(text)]


def _read_list(data: bytes, name: str) -> list[str]:
    """One path a line, or separated by NUL characters as `find -print0` writes them; names need not be UTF-8.

    A byte order mark is skipped. Raises `ImgcapError` for UTF-16, which PowerShell writes.
    """
    if _is_utf16(data):
        raise ImgcapError(f"{name} is UTF-16, not UTF-8 text.", "In PowerShell: Out-File -Encoding utf8.")
    data = data.removeprefix(codecs.BOM_UTF8)
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _is_utf16(data: bytes) -> bool:
    """Whether `data` has the mark of UTF-16, or a NUL in each of its first four characters, at the same place.

    Taken for NUL-separated paths, it would be names of one character, such as `/`.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return bytes(4) in (data[0:8:2], data[1:8:2])


def _is_collection(source: Path | str) -> bool:
    """Whether `source` is a folder or an archive, which may hold several images."""
    return source != STDIN and (isinstance(source, str) or os.path.isdir(source))  # noqa: PTH112 (as in `expand`)
