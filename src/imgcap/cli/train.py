"""`imgcap train`: a prepared folder to a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from imgcap.cli import options
from imgcap.cli.console import counting, err, interruptible, print_message, progress_bar
from imgcap.errors import ExitCode, ImgcapError
from imgcap.training.options import DEFAULTS
from imgcap.training.settings import SIZE

if TYPE_CHECKING:
    import torch

    from imgcap.training.progress import EpochResult
    from imgcap.training.trainer import TrainingResult

_BY_SIZE = "by the number of images"
_AS_START = "as the start model"


def train(
    prepared: Annotated[Path, typer.Argument(help="Folder written by `imgcap prepare`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.", callback=options.not_stdout)],
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted training.")] = False,
    start_from: Annotated[
        str,
        typer.Option(
            help="Start from this model, a name or folder; none: from scratch; auto: from default if it fits."
        ),
    ] = DEFAULTS.start_from,
    keep_words: Annotated[
        bool, typer.Option("--keep-words", help="Keep the words of the start model that your captions lack.")
    ] = DEFAULTS.keep_words,
    epochs: Annotated[
        int | None, typer.Option(help="Maximum number of epochs.", show_default=_BY_SIZE)
    ] = DEFAULTS.epochs,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many epochs without a better val score, and keep the best; 0: keep the last epoch.",
            show_default=_BY_SIZE,
        ),
    ] = DEFAULTS.patience,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Captions in a batch; images with --fine-tune-encoder or --self-critical.", show_default=_BY_SIZE
        ),
    ] = DEFAULTS.batch_size,
    accumulation: Annotated[
        int, typer.Option(help="Compute each batch in this many parts, to save memory.")
    ] = DEFAULTS.accumulation,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate of the decoder.", show_default=_BY_SIZE)
    ] = DEFAULTS.learning_rate,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = DEFAULTS.weight_decay,
    label_smoothing: Annotated[
        float, typer.Option(help="Probability that is spread over all words.")
    ] = DEFAULTS.label_smoothing,
    dropout: Annotated[
        float | None, typer.Option(help="Fraction of values to drop in the decoder.", show_default=_BY_SIZE)
    ] = DEFAULTS.dropout,
    word_dropout: Annotated[
        float, typer.Option(help="Fraction of input words to hide from the decoder.")
    ] = DEFAULTS.word_dropout,
    average: Annotated[
        float, typer.Option(help="Decay per step of a moving average of the weights, which is saved; 0 turns it off.")
    ] = DEFAULTS.average,
    embedding_size: Annotated[
        int | None, typer.Option(help="Size of image and word embeddings, from scratch.", show_default=str(SIZE))
    ] = DEFAULTS.embedding_size,
    hidden_size: Annotated[
        int | None, typer.Option(help="Size of the LSTM, from scratch.", show_default=str(SIZE))
    ] = DEFAULTS.hidden_size,
    min_count: Annotated[
        int, typer.Option(help="Ignore words that occur less often in the training captions.")
    ] = DEFAULTS.min_count,
    fine_tune_encoder: Annotated[
        bool, typer.Option("--fine-tune-encoder", help="Train the encoder too, from the images themselves.")
    ] = DEFAULTS.fine_tune_encoder,
    encoder_learning_rate: Annotated[
        float, typer.Option(help="Peak learning rate of the encoder.")
    ] = DEFAULTS.encoder_learning_rate,
    self_critical: Annotated[
        bool,
        typer.Option(
            "--self-critical",
            help="Learn from the CIDEr-D of sampled captions; needs a start model, and a val split or --patience 0.",
        ),
    ] = DEFAULTS.self_critical,
    samples: Annotated[
        int, typer.Option(help="Captions to sample for each image with --self-critical.")
    ] = DEFAULTS.samples,
    beam_size: Annotated[
        int | None,
        typer.Option(help="Beam size for the val score, and the default of the model.", show_default=_AS_START),
    ] = DEFAULTS.beam_size,
    length_penalty: Annotated[
        float | None,
        typer.Option(help="Length penalty for the val score, and the default of the model.", show_default=_AS_START),
    ] = DEFAULTS.length_penalty,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal models on a CPU.")] = DEFAULTS.seed,
    val_share: Annotated[
        float, typer.Option(help="Draw this fraction of the training images as the val split, if there is none.")
    ] = DEFAULTS.val_share,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html: captions before and after, and scores.")
    ] = True,
    device: options.Device = None,
) -> None:
    """Train a captioner on a prepared folder, from the default model on.

    After each epoch the model captions the val split on its own; the epoch with the best CIDEr-D is kept. Below 200
    training images, or 5,000 from a model, the number of epochs is fixed instead, and no val split is needed; so it is
    with --patience 0. Ctrl-C or a kill loses at most one epoch: run the same command with --resume to continue. At the
    end, report.html in the model folder shows images with their captions before and after the training.
    """
    from imgcap.dataset.prepared import PreparedFolder
    from imgcap.distributed import joined
    from imgcap.training.checkpoint import CHECKPOINT_FILE
    from imgcap.training.options import TrainingOptions
    from imgcap.training.report import REPORT_FILE
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
        keep_words=keep_words,
        seed=seed,
        val_share=val_share,
        beam_size=beam_size,
        length_penalty=length_penalty,
    )

    def advice() -> str:
        is_resumable = (output / CHECKPOINT_FILE).exists()
        return "Run the same command with --resume." if is_resumable else "No epoch was finished: start again."

    with interruptible(advice), joined(device) as world:
        with _Progress() if world.is_first else nullcontext() as progress:
            result = run(PreparedFolder(prepared), chosen, output, resume=resume, world=world, listener=progress)
        writes_report = report and not (result.was_finished and (output / REPORT_FILE).exists())
        if world.is_first:
            _print_result(output, result, writes_report)
    if result.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if world.is_first and writes_report:
        with interruptible("The model is finished; --resume writes the missing report."):
            _write_report(prepared, output, world.device)


def _print_result(output: Path, result: TrainingResult, writes_report: bool) -> None:
    if result.was_finished:
        rest = "so there is nothing to do. To start over, remove the folder or give another one"
        print_message(f"{output}: this training is finished, {'except for its report' if writes_report else rest}.")
        return
    best = result.best
    of = "" if result.interrupted else f" of {result.epochs}"
    print_message(f"{output}: epoch {best.epoch}{of} is kept{_val_scores(best, ', ')}.")
    if result.interrupted:
        print_message("Interrupted. Run the same command with --resume to continue.")


def _val_scores(result: EpochResult, gap: str) -> str:
    """The val scores of an epoch, each after `gap`; "" if it has none."""
    if result.val_cider_d is None or result.val_bleu is None:
        return ""
    return f"{gap}val CIDEr-D {result.val_cider_d:.4f}{gap}BLEU-4 {result.val_bleu[3]:.4f}"


def _write_report(prepared: Path, output: Path, device: torch.device) -> None:
    """Write the report and say where it is, or why there is none: the training has succeeded without it."""
    from imgcap.dataset.prepared import PreparedFolder
    from imgcap.training.report import REPORT_FILE, write_report

    try:
        with counting("Writing the report") as on_progress:
            report = write_report(PreparedFolder(prepared), output, device, on_progress)
    except Exception as error:  # whatever is wrong with the page, the model is complete
        what = error if isinstance(error, ImgcapError) else f"{type(error).__name__}: {error}"
        print_message(f"The model is complete, but {output / REPORT_FILE} could not be written: {what}")
        return
    for sentence in (report.verdict, report.advice):
        if sentence:
            print_message(sentence)
    print_message(f"{report.file}: {report.content}")


class _Progress:
    """Rich's bar over the steps of all epochs, and a line for each epoch."""

    def __init__(self) -> None:
        self.epochs = 0
        self._bar = progress_bar()
        self._task = self._bar.add_task("epoch 1", total=None)
        self._starting = err.status("Starting")

    def __enter__(self) -> _Progress:
        self._starting.start()  # unlike the bar, it leaves no line behind if the training is refused
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._starting.stop()
        if self._bar.live.is_started:  # else stopping it prints an empty line
            self._bar.stop()

    def on_start(self, epochs: int, plan: Sequence[str]) -> None:
        self._starting.stop()
        self._bar.start()
        self.epochs = epochs
        for sentence in plan:
            print_message(sentence)

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._bar.update(
            self._task,
            description=f"epoch {epoch}/{self.epochs}  loss {loss:.3f}",
            completed=(epoch - 1) * steps + step,
            total=self.epochs * steps,
        )

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        self._bar.console.print(
            f"epoch {result.epoch:>3}  loss {result.loss:.3f}{_val_scores(result, '  ')}  {result.seconds:.0f} s"
            f"{'  best so far' if best else ''}"
        )
