"""`imgcap eval`: score a model on a prepared split, or anybody's captions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgcap.cli import options
from imgcap.cli.caption import with_overrides
from imgcap.cli.console import counting, interruptible, out
from imgcap.errors import UsageError
from imgcap.model_store import DEFAULT_MODEL

if TYPE_CHECKING:
    from imgcap.metrics import Scores


def evaluate(
    prepared: Annotated[
        Path | None, typer.Argument(help="Folder written by `imgcap prepare`.", show_default=False)
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    split: Annotated[str, typer.Option(help="Split to score: train, val or test.")] = "test",
    hypotheses: Annotated[
        Path | None,
        typer.Option(help="Score these captions instead of a model's: .jsonl, COCO results .json, or .txt lines."),
    ] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(
            help="References: .jsonl, COCO .json, Flickr8k token file, or .txt parallel to the captions. Repeat it."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON object.")] = False,
    save_captions: Annotated[
        Path | None, typer.Option(help="Write the model's captions to this file, as JSON Lines.")
    ] = None,
    beam_size: options.BeamSize = None,
    length_penalty: options.LengthPenalty = None,
    max_length: options.MaxLength = None,
    device: options.Device = None,
) -> None:
    """Print BLEU-1 to BLEU-4, CIDEr-D and ROUGE-L with their intervals, and what it takes to repeat them.

    Captions and references are lower-cased and stripped of punctuation before they are compared, as coco-caption does.
    """
    if (prepared is None) == (hypotheses is None):
        raise UsageError("Give either a prepared folder or --hypotheses and --references.")
    if (hypotheses is None) != (not references):
        raise UsageError("--hypotheses and --references need each other.")
    from imgcap.metrics import score

    if hypotheses:
        if save_captions:
            raise UsageError("--save-captions goes with a prepared folder and a model.")
        from imgcap.caption_files import read_pairs

        _, captions, wanted = read_pairs(hypotheses, references or [])
        scores, title = score(captions, wanted), str(hypotheses)
    else:
        assert prepared
        from imgcap.evaluation import caption_split, write_captions

        progress, on_progress = counting("Captioning")
        with interruptible("Nothing was written."), progress:
            rows = caption_split(
                prepared,
                model,
                split,
                lambda own: with_overrides(own, beam_size, length_penalty, max_length),
                device=device,
                on_progress=on_progress,
            )
        if save_captions:
            write_captions(save_captions, rows)
        scores, title = score([r.caption for r in rows], [r.references for r in rows]), f"{model} on {split}"
    if as_json:
        print(json.dumps(asdict(scores)))
    else:
        _print_table(scores, title)


def _print_table(scores: Scores, title: str) -> None:
    from rich.table import Table

    table = Table("score", "value", "95 % interval", title=title, title_justify="left")
    named = {f"bleu_{n}": (f"BLEU-{n}", value) for n, value in enumerate(scores.bleu, 1)}
    named |= {"cider_d": ("CIDEr-D", scores.cider_d), "rouge_l": ("ROUGE-L", scores.rouge_l)}
    for key, (name, value) in named.items():
        low, high = scores.intervals[key]
        table.add_row(name, f"{value:.4f}", f"{low:.4f} - {high:.4f}")
    table.add_row("distinct captions", f"{scores.distinct:,}")
    table.add_row("words used", f"{scores.words_used:,}")
    table.add_row("captions that repeat a word", f"{scores.repeated_words:,}")
    table.add_row("brevity penalty", f"{scores.brevity_penalty:.4f}")
    table.add_row("mean words, captions", f"{scores.mean_length:.2f}")
    table.add_row("mean words, nearest references", f"{scores.mean_reference_length:.2f}")
    table.add_row("pictures (N)", f"{scores.pictures:,}")
    out.print(table)
    print(f"BLEU signature: {scores.signature}")
