"""`imgcap prepare`: images and captions to a prepared folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcap.cli import options
from imgcap.cli.console import counting, interruptible, print_message
from imgcap.errors import ExitCode, UsageError
from imgcap.images.locations import is_archive
from imgcap.text.columns import Columns

if TYPE_CHECKING:
    from imgcap.dataset.prepared import PreparedFolder
    from imgcap.dataset.records import Dataset, LeftOut

SHOWN = 10
"""Left-out items to list in the summary; the prepared folder lists all of them."""


def prepare(
    images: Annotated[
        str,
        typer.Option(help="Folder of the images, or .tar or .parquet files, or URLs: 'shards/{000..099}.tar'."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to write features and captions to.", callback=options.not_stdout),
    ],
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Caption file, or folder of sidecars or imagefolder; by default those in the archives.",
            show_default=False,
        ),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="flickr8k, csv, coco, karpathy, jsonl, json, parquet, sidecars or imagefolder; by default detected.",
            show_default=False,
        ),
    ] = None,
    caption_template: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Caption for images in folders of classes: 'a photo of a {label}'. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(help="Column or JSON key of the image names; by default detected.", show_default=False),
    ] = None,
    caption_column: Annotated[
        str | None,
        typer.Option(help="Column or JSON key of the captions; by default detected.", show_default=False),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="SPLIT=FILE with one image name per line; SPLIT is train, val or test. Can be repeated."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="default, imagenet (downloaded once), a model, or a .safetensors file.")
    ] = "default",
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Encode the mirrored images too, for `train` to draw from both views.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="float32, or float16 for features of half the size and equal scores.")
    ] = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder prepared from other inputs.")
    ] = False,
    shard: options.Shard = None,
    device: options.Device = None,
) -> None:
    """Compute the features of all images once, for training and scoring.

    You can interrupt it at any time: run the same command again to resume. Images and captions that cannot be used are
    left out and listed (exit code 3). Images that have no caption are only counted.
    """
    split_files = _split_files(split or [])
    from imgcap.dataset import preparation
    from imgcap.dataset.class_folders import CaptionTemplate
    from imgcap.dataset.features import FeatureOptions
    from imgcap.dataset.loading import read_dataset
    from imgcap.dataset.records import NO_CAPTION
    from imgcap.distributed import joined
    from imgcap.sharding import WHOLE, Shard

    features, columns = FeatureOptions(mirrored, dtype), Columns(image_column, caption_column)
    part = Shard.parse(shard) if shard else WHOLE
    templates = tuple(map(CaptionTemplate, caption_template or ()))
    if is_archive(images) and captions == Path(images):
        captions = None
    source = images if is_archive(images) else Path(images)
    dataset = read_dataset(source, captions, format_name, split_files, columns, templates)
    with (
        interruptible("Run the same command again to resume."),
        joined(device) as world,
        counting("Encoding", silent=not world.is_first) as on_progress,
    ):
        if world.is_first:
            _print_notes(dataset)
        loaded = preparation.NamedEncoder.load(encoder, world.device)
        part = part.part(world.rank, world.size)
        if part != WHOLE:
            preparation.prepare_shard(
                dataset, loaded, output, part, features, overwrite=overwrite, on_progress=on_progress
            )
            world.gather(None)
        if not world.is_first:
            return
        if shard:
            print_message(
                f"{output}: shard {shard} is done. After the last one, run the command without --shard to merge them."
            )
            return
        prepared = preparation.prepare(dataset, loaded, output, features, overwrite=overwrite, on_progress=on_progress)
    left_out = prepared.left_out()
    failed = [item for item in left_out if item.reason != NO_CAPTION]
    _print_summary(prepared, output, failed, uncaptioned=len(left_out) - len(failed))
    if failed and not world.is_launched:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _print_notes(dataset: Dataset) -> None:
    """Say before the long work what its result cannot be used for."""
    from imgcap.dataset.splits import split_note
    from imgcap.text.scripts import unspaced_note

    captions = (caption for record in dataset.records for caption in record.captions)
    for note in (split_note(record.split for record in dataset.records), unspaced_note(captions)):
        if note:
            print_message(note)


def _print_summary(prepared: PreparedFolder, output: Path, failed: Sequence[LeftOut], uncaptioned: int) -> None:
    """Say what was prepared and what was left out: inputs that `failed`, and the number of images without a caption."""
    from imgcap.dataset.prepared import LEFT_OUT_FILE

    metadata = prepared.metadata
    splits = ", ".join(f"{name} {count:,}" for name, count in metadata.splits.items() if count)
    images, captions = _counted(metadata.images, "image"), _counted(metadata.captions, "caption")
    print_message(f"{output}: {images} ({splits}) with {captions}.")
    if uncaptioned:
        print_message(f"Left out {_counted(uncaptioned, 'image')} without a caption.")
    if failed:
        print_message(f"Left out {len(failed):,}:")
        for item in failed[:SHOWN]:
            print_message(f"  {item.name}: {item.reason}")
        if len(failed) > SHOWN:
            print_message(f"  ... all of them are listed in {output / LEFT_OUT_FILE}")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _split_files(given: list[str]) -> dict[str, Path]:
    """The files of --split, by split. Raises `UsageError`."""
    from imgcap.dataset.splits import SPLITS, known_split

    files: dict[str, Path] = {}
    for item in given:
        name, equals, file = item.partition("=")
        if not equals or not file:
            raise UsageError(f"--split {item!r} is not SPLIT=FILE.", "For example --split val=dev.txt.")
        split = known_split(name)
        if split is None:
            raise UsageError(f"--split: unknown split {name!r}.", f"Known splits: {', '.join(SPLITS)}.")
        if split in files:
            raise UsageError(f"--split names {split!r} twice.")
        files[split] = Path(file)
    return files
