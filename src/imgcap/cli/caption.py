"""`imgcap caption`: images in, captions out."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgcap.cli import options
from imgcap.cli.console import interruptible, say
from imgcap.errors import ExitCode, ImgcapError, UsageError, listing
from imgcap.files import read_bytes
from imgcap.images.archives import expand_braces, is_archive
from imgcap.model.store import DEFAULT_MODEL
from imgcap.sharding import WHOLE, Shard

if TYPE_CHECKING:
    from imgcap.captioning.batch import Tally
    from imgcap.captioning.shards import ShardedRun
    from imgcap.distributed import World
    from imgcap.model.search import SearchOptions


_SHARDS_NEED = "Shards go with -o FILE.jsonl.", "Each writes a file of its own beside it, for `imgcap merge`."


def caption(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Images, folders or .tar archives that are searched for images, or - for stdin."),
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option(help="A list of paths, one a line; - for stdin.", rich_help_panel=options.IMAGES)
    ] = None,
    recursive: Annotated[bool, typer.Option(help="Search sub-folders too.", rich_help_panel=options.IMAGES)] = True,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these of a folder's images, such as '*.jpg'. Repeat it.", rich_help_panel=options.IMAGES
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="None of these, such as 'thumbs/**'. Repeat it.", rich_help_panel=options.IMAGES),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Images with more pixels are not decoded; by default what takes over 450 MB.",
            show_default=False,
            rich_help_panel=options.IMAGES,
        ),
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    num_captions: Annotated[
        int,
        typer.Option(
            "--num-captions", "-n", help="Different captions for each image.", rich_help_panel=options.WORDING
        ),
    ] = 1,
    beam_size: options.BeamSize = None,
    length_penalty: options.LengthPenalty = None,
    min_length: Annotated[
        int | None, typer.Option(help="Fewest words in a caption.", rich_help_panel=options.WORDING)
    ] = None,
    max_length: options.MaxLength = None,
    ban: Annotated[
        list[str] | None,
        typer.Option(help="A word that captions never hold. Repeat it.", rich_help_panel=options.WORDING),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option("--sample", help="Draw captions instead of searching the best.", rich_help_panel=options.WORDING),
    ] = False,
    temperature: Annotated[
        float, typer.Option(help="With --sample: below 1 bolder, above 1 wilder.", rich_help_panel=options.WORDING)
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(help="With --sample: draw from this share of the probability.", rich_help_panel=options.WORDING),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(help="With --sample: equal seeds, equal captions.", rich_help_panel=options.WORDING)
    ] = 0,
    prefix: Annotated[str, typer.Option(help="Text before each caption.", rich_help_panel=options.WORDING)] = "",
    suffix: Annotated[str, typer.Option(help="Text after each caption.", rich_help_panel=options.WORDING)] = "",
    trigger: Annotated[
        str,
        typer.Option(help="Word and comma before everything, for fine-tuning sets.", rich_help_panel=options.WORDING),
    ] = "",
    words: Annotated[
        bool, typer.Option("--words", help="Each word's probability.", rich_help_panel=options.TELLING)
    ] = False,
    min_confidence: Annotated[
        float, typer.Option(help="Withhold captions with less confidence, 0 to 1.", rich_help_panel=options.TELLING)
    ] = 0.0,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Nearest training images, whether the caption stands in the training captions, and a warning for "
            "images unlike all of them.",
            rich_help_panel=options.TELLING,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write rows to this file, not to stdout.", rich_help_panel=options.OUTPUT),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="text, jsonl, json or csv; by default what the ending of --output says, else text.",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a gallery page with thumbnails, too.", rich_help_panel=options.OUTPUT)
    ] = None,
    sidecar: options.Sidecar = None,
    sidecar_dir: options.SidecarDir = None,
    write_metadata: options.WriteMetadata = False,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the .jsonl file of --output.", rich_help_panel=options.RUN)
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="With --resume: try failed images again.", rich_help_panel=options.RUN),
    ] = False,
    by_content: Annotated[
        bool,
        typer.Option(
            "--by-content",
            help="Know images by SHA-256, not by size and time of change.",
            rich_help_panel=options.RUN,
        ),
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave out images that have a sidecar.", rich_help_panel=options.RUN),
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=options.RUN)
    ] = False,
    batch_size: Annotated[
        int, typer.Option(help="Images computed together; changes no caption.", rich_help_panel=options.RUN)
    ] = 8,
    shard: options.Shard = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Neither progress nor summary.", rich_help_panel=options.RUN)
    ] = False,
    device: options.Device = None,
    precision: options.Precision = "float32",
) -> None:
    """Write a caption for each image.

    A single image gets its bare caption, several get lines of path, tab and caption. An image that cannot be read is
    reported and the others go on. Exit codes: 0 all have captions, 3 some failed, 1 none succeeded, 2 wrong usage.
    """
    inputs = _inputs(paths or [], from_file)
    kind = _format(format_name, output)
    share = Shard.parse(shard) if shard else WHOLE
    _check_calls(kind, output, resume, retry_failed, skip_existing and not (sidecar or sidecar_dir))
    _check_page(html, output, overwrite or resume)
    from_stdin = any(map(_is_stdin, inputs))
    places = _files(inputs, only=bool(sidecar or sidecar_dir or write_metadata))
    from imgcap.captioning.batch import BatchOptions, Tally, check_model
    from imgcap.captioning.captioner import load_model
    from imgcap.captioning.resume import ResumeOptions
    from imgcap.captioning.rows import RowOptions, make_origin
    from imgcap.captioning.shards import remove_shards
    from imgcap.cli.caption_run import Run
    from imgcap.distributed import joined
    from imgcap.images.discovery import Selection

    row_options = RowOptions(prefix, suffix, trigger, min_confidence, words, by_content)
    sidecars = options.make_sidecars(sidecar, sidecar_dir, places, overwrite)
    bare = inputs == places[:1] and from_file is None and not os.path.isdir(places[0])  # noqa: PTH112 (as in `expand`)
    anew = overwrite and not resume
    with interruptible("Nothing was captioned."), joined(device) as world:
        sharded = _sharded(world, output, share, batch_size, anew)
        if sharded:
            unfit = [("--html", html), ("--skip-existing", skip_existing), ("An image from stdin", from_stdin)]
            _check_shards(sharded, kind, [name for name, given in unfit if given], overwrite)
        silent = quiet or bare or not world.is_first
        captioner = load_model(model, str(world.device), precision)
        search = replace(
            with_overrides(captioner.model.config.search, beam_size, length_penalty, max_length, min_length),
            num_captions=num_captions,
            ban=tuple(ban or ()),
            sample=sample,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
        chosen = BatchOptions(search, row_options, batch_size, max_pixels, explain, fail_fast)
        check_model(captioner, chosen)
        if sidecars:
            sidecars.check()
        run = Run(
            captioner=captioner,
            options=chosen,
            origin=make_origin(captioner, search, row_options),
            inputs=inputs,
            selection=Selection(recursive, tuple(include or ()), tuple(exclude or ())),
            format_name=kind,
            bare=bare,
            html=html,
            sidecars=sidecars,
            skip_existing=skip_existing,
            metadata=write_metadata,
            overwrite=overwrite,
            goes_on=not anew if sharded else resume,
            resume=ResumeOptions(by_content, retry_failed),
            silent=silent,
        )
        go_on = _go_on(resumable=bool(output) and kind == "jsonl", as_it_is=bool(sharded) and not anew)
        if output and anew and share == WHOLE and world.is_first:
            remove_shards(output, but=world.size)
        if sharded and sharded.begun and share == WHOLE and not silent:
            say(f"Going on with the {sharded.count:,} shards of {output}.")
        with interruptible(go_on):
            if sharded:
                own = sharded.shards(share)[world.rank :: world.size]
                again = anew or retry_failed or share != WHOLE
                done = list(run.shards(own, sharded.batch_size, again))
            else:
                done = [run.share(share, batch_size, output)]
        tally = sum((each.tally for each in done), Tally())
        ends = world.gather((tally, any(each.stopped for each in done)))
        if not world.is_first:
            return
        if sharded:
            _settle(sharded, share, overwrite, silent)
    _end(ends, any(each.kept for each in done), silent, go_on, world.is_launched)


def _sharded(world: World, output: Path | None, share: Shard, batch_size: int, anew: bool) -> ShardedRun | None:
    """The run in shards that this one is, goes on with or has a `share` of; None for one whose rows have one place."""
    from imgcap.captioning.shards import plan

    if output is None:
        if world.size > 1:
            raise UsageError(*_SHARDS_NEED)
        return None
    planned = world.gather(plan(output, share, world.size, batch_size, anew) if world.is_first else None)[0]
    return planned if planned and planned.count > 1 else None


def _check_shards(sharded: ShardedRun, kind: str, unfit: list[str], overwrite: bool) -> None:
    """Raise `ImgcapError` for outputs and options that shards do not go with, as those in `unfit`."""
    output = sharded.output
    if kind != "jsonl" or output.suffix.lower() != ".jsonl":
        raise UsageError(*_SHARDS_NEED)
    if unfit:
        raise UsageError(
            f"{unfit[0]} does not go with shards.",
            f"Leave it out until {output} is put together from its shards; then add it, with --resume.",
        )
    if output.exists() and not overwrite:
        if sharded.begun:
            raise ImgcapError(
                f"{output} is there already, and so are shards of it.",
                "Remove those that are not to be gone on with, or begin anew with --overwrite.",
            )
        raise ImgcapError(f"{output} is there already.", "Replace it with --overwrite, or give another file.")


def _settle(sharded: ShardedRun, share: Shard, overwrite: bool, silent: bool) -> None:
    """Put the shards together if all of them are this run's, else say what does that."""
    from imgcap.captioning.shards import merge

    shards = sharded.shards(share)
    if not all(each.finished() for each in shards):
        return
    if share == WHOLE:
        merge(sharded.output, overwrite)
    elif not silent:
        files = listing([str(each.file) for each in shards])
        are = "is" if len(shards) == 1 else "are"
        say(f"{files} {are} complete. When all shards are: imgcap merge {sharded.output}")


def _go_on(resumable: bool, as_it_is: bool) -> str:
    """What becomes of a run that is interrupted."""
    if not resumable:
        return "What was written is complete."
    return "The same command goes on." if as_it_is else "The same command with --resume goes on."


def _end(ends: list[tuple[Tally, bool]], earlier: bool, silent: bool, go_on: str, launched: bool) -> None:
    """Say how the run went, and leave with the exit code that says it too.

    `ends` has what each process has done and whether it was stopped. Of those that torchrun has `launched` none fails
    for an image that cannot be read: it would start all of them again.
    """
    tally, stopped = sum((own for own, _ in ends[1:]), ends[0][0]), any(stop for _, stop in ends)
    if not silent:
        say(_summary(tally))
    if stopped:
        say(f"Interrupted. {go_on}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if tally.failed and not launched:
        raise typer.Exit(ExitCode.SOME_FAILED if tally.captioned or tally.withheld or earlier else ExitCode.FAILED)


def _inputs(paths: list[str], from_file: Path | None) -> list[Path | str]:
    """All paths that were given, `-` for the image on stdin, and archives as text. Raises `UsageError` if none is."""
    if from_file is None:
        listed: list[str] = []
    elif _is_stdin(from_file):
        if "-" in paths:
            raise UsageError("Stdin cannot be both an image and a list of paths.")
        listed = _read_list(sys.stdin.buffer.read())
    else:
        listed = _read_list(read_bytes(from_file))
    if not paths and not listed:
        raise UsageError(
            f"{from_file} lists no paths." if from_file else "Give an image, a folder, or - for stdin.",
            "See `imgcap caption --help`.",
        )
    return [each for text in (*paths, *listed) for each in (expand_braces(text) if is_archive(text) else [Path(text)])]


def _read_list(data: bytes) -> list[str]:
    """One path a line, or with NUL characters between them, as `find -print0` writes; names need not be UTF-8."""
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _files(inputs: list[Path | str], only: bool) -> list[Path]:
    """The inputs on disk that can be written beside; raises `UsageError` if there may be `only` such ones."""
    if only and any(map(_is_stdin, inputs)):
        raise UsageError("An image from stdin is no file that could get a sidecar or metadata.")
    files = [path for path in inputs if isinstance(path, Path)]
    if only and len(files) < len(inputs):
        raise UsageError("Images in archives get neither sidecars nor metadata.", "Write rows with -o FILE.jsonl.")
    return files


def _is_stdin(path: Path | str) -> bool:
    return str(path) == "-"


def _format(name: str | None, output: Path | None) -> str:
    kinds = ("text", "jsonl", "json", "csv")  # those of `rows.FORMATS`, whose import would take a second
    ending = output.suffix[1:].lower() if output else ""
    kind = name or (ending if ending in kinds else "text")
    if kind not in kinds:
        raise UsageError(f"There is no format {kind!r}.", f"Use one of {', '.join(kinds)}.")
    return kind


def _check_calls(kind: str, output: Path | None, resume: bool, retry_failed: bool, skips_nothing: bool) -> None:
    """Raise `UsageError` for options that do not go together."""
    if resume and (output is None or kind != "jsonl"):
        raise UsageError("--resume goes with -o FILE.jsonl.")
    if retry_failed and not resume:
        raise UsageError("--retry-failed goes with --resume.")
    if skips_nothing:
        raise UsageError("--skip-existing goes with --sidecar or --sidecar-dir.")


def _check_page(html: Path | None, output: Path | None, may_be_there: bool) -> None:
    if html and html == output:
        raise UsageError(f"{html} cannot be both the gallery and the rows.")
    if html and html.exists() and not may_be_there:
        raise ImgcapError(f"{html} is there already.", "Give another file, or replace it with --overwrite.")


def _summary(tally: Tally) -> str:
    """What came of all images, in one line."""
    if not tally.images:
        return "There was nothing left to do."
    seconds = tally.images / tally.rate
    parts = [f"Captioned {tally.captioned:,} of {tally.images:,} images in {seconds:,.1f} s, {tally.rate:.1f} a second"]
    if tally.withheld:
        parts.append(f"{tally.withheld:,} withheld for their confidence")
    if tally.kept:
        parts.append(f"{tally.kept:,} keep the description that a person wrote")
    if tally.failed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in tally.failed.most_common())
        parts.append(f"{tally.failed.total():,} failed ({kinds})")
    return "; ".join(parts) + "."


def with_overrides(
    search: SearchOptions,
    beam_size: int | None,
    length_penalty: float | None,
    max_length: int | None,
    min_length: int | None = None,
) -> SearchOptions:
    """`search` with the options that were given on the command line."""
    given: dict[str, Any] = {
        "beam_size": beam_size,
        "length_penalty": length_penalty,
        "max_length": max_length,
        "min_length": min_length,
    }
    return replace(search, **{name: value for name, value in given.items() if value is not None})
