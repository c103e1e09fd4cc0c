"""`imgcap train`: a prepared folder to a model folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from imgcap.cli import options
from imgcap.cli.console import err, interruptible, print_message
from imgcap.errors import ExitCode

if TYPE_CHECKING:
    from imgcap.training.trainer import EpochResult, TrainingResult


def train(
    prepared: Annotated[Path, typer.Argument(help="Folder written by `imgcap prepare`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    epochs: Annotated[int, typer.Option(help="Most times that every caption is seen.")] = 80,
    patience: Annotated[int, typer.Option(help="Stop after this many epochs without a better val score.")] = 8,
    batch_size: Annotated[
        int, typer.Option(help="Captions in a batch; images with --fine-tune-encoder or --self-critical.")
    ] = 128,
    accumulation: Annotated[
        int, typer.Option(help="Parts that a batch is computed in, one after the other, to take less memory.")
    ] = 1,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate of the decoder: 0.001 by default, 0.0001 with --self-critical.", show_default=False
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="AdamW's weight decay.")] = 0.01,
    label_smoothing: Annotated[float, typer.Option(help="Probability spread over all words.")] = 0.1,
    dropout: Annotated[float, typer.Option(help="Share of values dropped in the decoder.")] = 0.5,
    word_dropout: Annotated[float, typer.Option(help="Share of the words read that are hidden.")] = 0.0,
    average: Annotated[
        float, typer.Option(help="Keep a moving average of the weights, decaying by this each step; 0 for none.")
    ] = 0.0,
    embedding_size: Annotated[int, typer.Option(help="Size of image and word embeddings.")] = 512,
    hidden_size: Annotated[int, typer.Option(help="Size of the LSTM.")] = 512,
    min_count: Annotated[int, typer.Option(help="Fewest times a word must stand in the training captions.")] = 3,
    fine_tune_encoder: Annotated[
        bool, typer.Option("--fine-tune-encoder", help="Train the CNN too, from the images themselves.")
    ] = False,
    encoder_learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the CNN.")] = 2e-5,
    self_critical: Annotated[
        bool,
        typer.Option("--self-critical", help="Learn from the CIDEr-D of sampled captions; needs --start-from."),
    ] = False,
    samples: Annotated[int, typer.Option(help="Captions sampled for each image with --self-critical.")] = 5,
    start_from: Annotated[
        str | None, typer.Option(help="Start from the weights of this model, a name or folder.", show_default=False)
    ] = None,
    beam_size: Annotated[int, typer.Option(help="Beam size for the val score, and the model's own choice.")] = 3,
    length_penalty: Annotated[
        float, typer.Option(help="Length penalty for the val score, and the model's own choice.")
    ] = 0.7,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal models on a CPU.")] = 0,
    device: options.Device = None,
) -> None:
    """Train a captioner on a prepared folder.

    After each epoch the model captions the val split on its own; the epoch with the best CIDEr-D is kept. Ctrl-C or a
    kill loses at most one epoch: the same command with --resume goes on.
    """
    from imgcap.dataset.prepared import PreparedFolder
    from imgcap.distributed import joined
    from imgcap.model.search import SearchOptions
    from imgcap.training.trainer import TrainingOptions
    from imgcap.training.trainer import train as run

    chosen = TrainingOptions(
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        accumulation=accumulation,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        dropout=dropout,
        word_dropout=word_dropout,
        average=average,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        min_count=min_count,
        fine_tune_encoder=fine_tune_encoder,
        encoder_learning_rate=encoder_learning_rate,
        self_critical=self_critical,
        samples=samples,
        start_from=start_from,
        seed=seed,
        search=SearchOptions(beam_size=beam_size, length_penalty=length_penalty),
    )
    with interruptible("No epoch was finished: start again.") as check_interrupt, joined(device) as world:
        with _Progress(epochs, check_interrupt) if world.is_first else nullcontext() as progress:
            result = run(PreparedFolder(prepared), chosen, output, resume=resume, world=world, listener=progress)
        if world.is_first:
            _tell(output, result)
    if result.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _tell(output: Path, result: TrainingResult) -> None:
    best = result.best
    print_message(
        f"{output}: epoch {best.epoch} of {result.epochs} is the best on val, CIDEr-D {best.val_cider_d:.4f}, "
        f"BLEU-4 {best.val_bleu[3]:.4f}."
    )
    if result.interrupted:
        print_message("Interrupted: the model is the best so far, and the same command with --resume goes on.")


class _Progress:
    """Rich's bar over the steps of all epochs, and a line for each epoch."""

    def __init__(self, epochs: int, check_interrupt: Callable[[], None]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.epochs = epochs
        self._check_interrupt = check_interrupt
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left at most"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=err,
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._check_interrupt()
        self._bar.update(
            self._task,
            description=f"epoch {epoch}/{self.epochs}  loss {loss:.3f}",
            completed=(epoch - 1) * steps + step,
            total=self.epochs * steps,
        )

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        self._bar.console.print(
            f"epoch {result.epoch:>3}  loss {result.loss:.3f}  val CIDEr-D {result.val_cider_d:.4f}  "
            f"BLEU-4 {result.val_bleu[3]:.4f}  {result.seconds:.0f} s{'  best so far' if best else ''}"
        )
