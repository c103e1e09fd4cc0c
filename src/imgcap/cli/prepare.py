"""`imgcap prepare`: pictures and captions to a prepared folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imgcap.cli import options
from imgcap.cli.console import counting, interruptible, say
from imgcap.errors import ExitCode, UsageError

SHOWN = 10
"""Things left out that the summary names; the rest stands in the prepared folder."""


def prepare(
    images: Annotated[Path, typer.Option(help="Folder of the pictures.")],
    captions: Annotated[Path, typer.Option(help="Caption file, or folder for sidecars and imagefolder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write features and captions to.")],
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="flickr8k, csv, coco, karpathy, jsonl, sidecars or imagefolder; by default detected.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="SPLIT=FILE with one picture name a line; SPLIT is train, val or test. Repeat it."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="default, imagenet (downloaded once), a model, or a .safetensors file.")
    ] = "default",
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Encode the mirrored pictures too: `train` then draws from both views.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder prepared from other inputs.")
    ] = False,
    device: options.Device = None,
) -> None:
    """Compute the features of all pictures once, for training and scoring.

    Interrupt it whenever you like: the same command goes on where it stopped. Pictures that cannot be used are listed
    and the others go on (exit code 3).
    """
    split_files = _split_files(split or [])
    from imgcap import features
    from imgcap.datasets import read_dataset
    from imgcap.encoder import Encoder, find_encoder, pick_device

    dataset = read_dataset(images, captions, format_name, split_files)
    encoder_file = find_encoder(encoder)
    loaded = Encoder.load(encoder_file, pick_device(device))
    progress, on_progress = counting("Encoding")
    with interruptible("The same command goes on where it stopped."), progress:
        prepared = features.prepare(
            dataset,
            encoder_file,
            loaded,
            encoder,
            output,
            mirrored=mirrored,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    metadata, left_out = prepared.metadata, prepared.left_out()
    splits = ", ".join(f"{name} {count:,}" for name, count in metadata.splits.items() if count)
    say(f"{output}: {metadata.pictures:,} pictures ({splits}) with {metadata.captions:,} captions.")
    if left_out:
        say(f"Left out {len(left_out):,}:")
        for item in left_out[:SHOWN]:
            say(f"  {item.name}: {item.reason}")
        if len(left_out) > SHOWN:
            say(f"  ... all of them are listed in {output / features.LEFT_OUT_FILE}")
        raise typer.Exit(ExitCode.SOME_FAILED)


def _split_files(given: list[str]) -> dict[str, Path]:
    from imgcap.datasets import split_name

    files: dict[str, Path] = {}
    for item in given:
        name, equals, file = item.partition("=")
        if not equals or not file:
            raise UsageError(f"--split {item!r} is not SPLIT=FILE.", "For example --split val=dev.txt.")
        split = split_name(name, "--split")
        if split in files:
            raise UsageError(f"--split names {split!r} twice.")
        files[split] = Path(file)
    return files
