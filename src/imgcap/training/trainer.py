"""The training loop: one epoch after another, a checkpoint after each, and the model folder at the end.

Everything random in an epoch follows from the seed and the number of the epoch. So a training that is killed loses at
most one epoch, and resumed it ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imgcap.dataset.prepared import METADATA_FILE, PreparedFolder
from imgcap.dataset.splits import VAL
from imgcap.distributed import World
from imgcap.errors import ImgcapError
from imgcap.files import make_folder, only_writer, read_json, read_json_lines, writing
from imgcap.model.encoder import has_fast_bfloat16
from imgcap.model.folder import Model
from imgcap.model.store import CONFIG_FILE, MANIFEST_FILE, METRICS_FILE, locate, verify
from imgcap.text.tokenizer import tokenize
from imgcap.text.vocabulary import SPECIAL_WORDS, Vocabulary
from imgcap.training.batches import Batches, Part
from imgcap.training.checkpoint import CHECKPOINT_FILE, Checkpoint
from imgcap.training.encoded_captions import EncodedCaptions
from imgcap.training.export import TrainedModel, finish, save_model
from imgcap.training.networks import Networks, build_networks, under
from imgcap.training.objectives import NextWord, Objective, SelfCritical
from imgcap.training.options import SCRATCH, TrainingOptions, resumed_options
from imgcap.training.progress import EpochResult, Listener, SilentListener, best_epoch
from imgcap.training.self_critical import Reward
from imgcap.training.settings import Settings, complete, described
from imgcap.training.start import adapted_vocabulary, choose_start, doubts, load_start, wants_default
from imgcap.training.start import described as start_described
from imgcap.training.validation import Validation


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended."""

    folder: Path
    best: EpochResult
    epochs: int
    """Number of epochs in all, those before a resume included."""
    interrupted: bool = False
    """Whether Ctrl-C ended it. The folder then holds the best model so far, and the training can be resumed."""
    was_finished: bool = False
    """Whether the training to resume was finished, so that there was nothing to do."""


def train(
    prepared: PreparedFolder,
    options: TrainingOptions,
    out: Path,
    *,
    resume: bool = False,
    world: World | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a model on a prepared folder and write it to the folder `out`.

    With `resume`, the options of the interrupted training apply; one that is finished stays as it is. All processes of
    `world` call this with the same arguments; the first one writes. Raises `ImgcapError`, and `UsageError` if an option
    differs from both its default and its value in the interrupted training.
    """
    world = world or World()
    resume = resume or world.restarted
    if resume and _is_finished(out) and (log := _finished_log(prepared, options, out)):
        return TrainingResult(out, best_epoch(log), len(log), was_finished=True)
    trainer = _set_up(prepared, options, out, resume, world, listener or SilentListener())
    make_folder(out)
    with only_writer(out) if world.is_first else nullcontext():
        _check_out(out, resume)  # again: another process may have finished it meanwhile
        trainer.listener.on_start(trainer.settings.epochs, trainer.plan)
        with writing(out, "Run the command again with --resume."):
            interrupted = _run_epochs(trainer, out)
            if world.is_first:
                trainer.save_model(out)
                if not interrupted:
                    finish(prepared, out, world.device)
                    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
        return TrainingResult(out, trainer.best, len(trainer.log), interrupted)


def _set_up(
    prepared: PreparedFolder, options: TrainingOptions, out: Path, resume: bool, world: World, listener: Listener
) -> Trainer:
    """A trainer that can begin, or continue the training in `out`.

    Errors about what is given occur here, where nothing is written: a training that is refused leaves nothing behind.
    """
    _check_out(out, resume)
    file = out / CHECKPOINT_FILE
    if not (resume and file.exists()):
        trainer = Trainer(prepared, options, world, listener)
        if resume:
            trainer.plan.insert(0, f"{out} holds no interrupted training, so this one starts from the beginning.")
        return trainer
    checkpoint = Checkpoint.load(file)
    options = resumed_options(options, checkpoint.options)
    if checkpoint.digest != prepared.metadata.digest:
        raise ImgcapError(f"{out} was trained on another prepared folder than {prepared.root}.")
    _check_start(options.start_from, out)
    trainer = Trainer(prepared, options, world, listener)
    if checkpoint.start_hash not in (None, trainer.start_hash):
        raise ImgcapError(
            f"The model {trainer.options.start_from} is another one than when the training of {out} began.",
            "Bring that model back, or start the training again in another folder.",
        )
    trainer.restore(checkpoint)
    trainer.plan.insert(0, f"{out}: the training continues after epoch {len(trainer.log)}.")
    return trainer


def _check_start(start: str, out: Path) -> None:
    """Raise `ImgcapError` if the model that the training in `out` started from is gone."""
    if start == SCRATCH:
        return
    try:
        locate(start)
    except ImgcapError as error:
        raise ImgcapError(
            f"The training of {out} needs the model that it started from: {error}",
            "Bring that model back, or start the training again in another folder. A relative path counts from the "
            "folder in which you run the command.",
        ) from None


def _is_finished(out: Path) -> bool:
    return (out / MANIFEST_FILE).exists() and not (out / CHECKPOINT_FILE).exists()


def _finished_log(prepared: PreparedFolder, options: TrainingOptions, out: Path) -> list[EpochResult]:
    """The epochs of the training that made the model in `out`; none if that was not on `prepared`, or nothing tells.

    Raises `UsageError` as `resumed_options` does, and `ImgcapError` if the model is damaged.
    """
    verify(out)
    try:
        training = read_json(out / CONFIG_FILE)["training"]
        if training["prepared"] != prepared.metadata.digest:
            return []
        resumed_options(options, TrainingOptions.from_dict(training["options"]))
        return [EpochResult(**row) for _, row in read_json_lines(out / METRICS_FILE)]
    except (AttributeError, LookupError, TypeError, ValueError):  # nothing checks what a folder says of its training
        return []


def _check_out(out: Path, resume: bool) -> None:
    if (out / METADATA_FILE).exists():
        raise ImgcapError(f"{out} is a prepared folder.", "Give another folder for the model.")
    if (out / CHECKPOINT_FILE).exists() and not resume:
        raise ImgcapError(f"{out} holds an interrupted training.", "Resume it with --resume, or give another folder.")
    if _is_finished(out):
        raise ImgcapError(
            f"{out} already holds a finished model.",
            "To start over, remove it or give another folder. To train it further, start from it in another folder: "
            f"--start-from {out} -o OTHER.",
        )


def _run_epochs(trainer: Trainer, out: Path) -> bool:
    """Run the remaining epochs, with a checkpoint in `out` after each. Returns whether Ctrl-C ended them."""
    try:
        while not trainer.is_done:
            trainer.run_epoch()
            if trainer.world.is_first:
                trainer.checkpoint().save(out / CHECKPOINT_FILE)
    except KeyboardInterrupt:
        if not trainer.log:
            raise
        return True
    return False


class Trainer:
    """A training between two epochs."""

    def __init__(self, prepared: PreparedFolder, options: TrainingOptions, world: World, listener: Listener) -> None:
        """Set up a training. Raises `ImgcapError` if model, images and options do not fit together."""
        self.prepared = prepared = prepared.with_val_share(options.val_share, options.seed)
        self.world = world
        self.listener = listener
        self.log: list[EpochResult] = []
        self.best_weights: dict[str, Tensor] = {}

        self.train_rows = prepared.rows("train")
        patience_is_open = options.patience is None
        wanted_default = wants_default(options)
        options = replace(options, start_from=choose_start(options, prepared))
        start = load_start(options, prepared, world.device)
        self.start_hash = start.hash if start else None
        self.search = options.search(start.config.search) if start else options.search()
        options = replace(options, beam_size=self.search.beam_size, length_penalty=self.search.length_penalty)
        self.vocabulary = self._choose_vocabulary(start, options)
        self.captions = EncodedCaptions(self._training_captions(), self.vocabulary)
        self.options = options = complete(options, len(self.train_rows), len(self.captions), start is not None)
        self.settings = Settings.of(options)
        self.val_rows = prepared.rows(VAL, may_be_empty=True)
        if options.patience and not len(self.val_rows):
            raise ImgcapError(
                f"{prepared.root} has no images in the split 'val', whose score chooses the epoch to keep.",
                "Draw a val split with --val-share 0.1, or keep the last of N epochs with --patience 0 --epochs N.",
            )
        settings = described(options, len(self.train_rows), by_table=patience_is_open)
        # In self-critical training the vocabulary is that of the start model: rare words are not what it lacks.
        rare_words = 0 if options.self_critical else self.captions.unknown_words
        about_start = start_described(start, self.vocabulary, wanted_default)
        self.plan = [about_start, settings, *doubts(start, len(self.train_rows), rare_words, options.min_count)]
        self.batches = Batches(prepared, self.train_rows, self.captions, options, world)
        self.validation = None
        if len(self.val_rows):
            self.validation = Validation(prepared, self.val_rows, self.vocabulary, self.search, world)

        self.networks = build_networks(prepared, self.train_rows, self.vocabulary, options, world, start)
        self.objective = self._make_objective()
        self.optimizer, self.peak_rates = _make_optimizer(self.networks, options)

    def _choose_vocabulary(self, start: Model | None, options: TrainingOptions) -> Vocabulary:
        """The words of the training captions, and with `keep_words` those of `start`."""
        if start and options.self_critical:
            return start.vocabulary  # a word that is never sampled is never learnt
        captions, min_count = (caption for _, caption in self._training_captions()), options.min_count
        if start:
            vocabulary = adapted_vocabulary(start.vocabulary, captions, min_count, options.keep_words)
        else:
            vocabulary = Vocabulary.build(captions, min_count)
        if len(vocabulary) == len(SPECIAL_WORDS):
            raise ImgcapError(f"No word occurs {min_count} times in the training captions.", "Lower --min-count.")
        return vocabulary

    def _training_captions(self) -> Iterator[tuple[int, str]]:
        """Row and caption of all training captions."""
        return ((row, caption) for row in self.train_rows for caption in self.prepared.records[row].captions)

    def _make_objective(self) -> Objective:
        options, decoder = self.options, self.networks.parallel["decoder"]
        if not options.self_critical:
            return NextWord(decoder, options.label_smoothing)
        captions = [self.prepared.records[row].captions for row in self.train_rows]
        reward = Reward([[tokenize(caption) for caption in own] for own in captions], self.vocabulary)
        max_length = self.search.max_length
        return SelfCritical(self.networks.decoder, decoder, reward, self.train_rows, options.samples, max_length)

    @property
    def best(self) -> EpochResult:
        """The best epoch so far. Raises `ValueError` before the first."""
        return best_epoch(self.log)

    @property
    def is_done(self) -> bool:
        """Whether all epochs were run, or `patience` epochs brought no better val score."""
        epochs, patience = len(self.log), self.settings.patience
        return epochs >= self.settings.epochs or bool(patience and epochs and epochs - self.best.epoch >= patience)

    def run_epoch(self) -> None:
        """Train on every caption once, then score the captions that the model writes for the val split."""
        begun, epoch, steps = time.monotonic(), len(self.log) + 1, len(self.batches)
        torch.manual_seed(_epoch_seed(self.options.seed, epoch, self.world.rank))
        pixels = self.networks.encoder.config.pixels if self.networks.encoder else None
        total, words = 0.0, 0
        for step, (batch, parts) in enumerate(self.batches.with_parts(self.batches.of_epoch(epoch), pixels), 1):
            self.set_learning_rates((epoch - 1) * steps + step, self.settings.epochs * steps)
            loss = self.step(parts)
            total, words = total + loss * batch.words, words + batch.words
            self.listener.on_step(epoch, step, steps, loss)
        if not math.isfinite(total):
            raise ImgcapError(f"The loss became infinite in epoch {epoch}.", "Try a lower --learning-rate.")

        chooses = self.settings.patience or epoch == self.settings.epochs
        cider_d, bleu = self.validation.score(self.networks) if chooses and self.validation else (None, None)
        rate = self.optimizer.param_groups[0]["lr"]
        result = EpochResult(epoch, total / words, rate, cider_d, bleu, time.monotonic() - begun)
        self.log.append(result)
        is_best = self.best is result
        if is_best:
            self.best_weights = self.networks.copy_kept()
        self.listener.on_epoch(result, is_best and bool(self.settings.patience))

    def step(self, parts: list[Part]) -> float:
        """One update of the weights from a batch, of which this process computes `parts`.

        Returns the loss of the whole batch.
        """
        self.networks.decoder.train()
        self.optimizer.zero_grad()
        loss = 0.0
        for number, part in enumerate(parts, 1):
            with self.world.gradients(self.networks.parallel.values(), exchanged=number == len(parts)):
                value, reported = self.objective(self.features(part), part.batch)
                (value * (part.weight * self.world.size)).backward()  # type: ignore[no-untyped-call]
            loss += reported * part.weight
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.options.gradient_clip)
        self.optimizer.step()
        self.networks.update_averages()
        return self.world.sum(loss)

    def features(self, part: Part) -> Tensor:
        """Features (R, 2048) of the images of a part, half of them mirrored.

        They come from the prepared folder, or from the images, with gradients, if the encoder is trained.
        """
        batch, encoder, device = part.batch, self.networks.encoder, self.world.device
        if not encoder or part.images is None:
            features = self.prepared.features[batch.rows]
            if self.prepared.mirrored is not None:
                features[batch.mirrored] = self.prepared.mirrored[np.array(batch.rows)[batch.mirrored]]
            return torch.from_numpy(features).to(device)
        pairs = zip(part.images, batch.mirrored, strict=True)
        views = np.stack([pixels[:, ::-1] if mirrored else pixels for pixels, mirrored in pairs])
        x = encoder.to_input(torch.from_numpy(views)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            # Batch norms keep their statistics (the network stays in evaluation mode): batches are small here.
            return self.networks.parallel["encoder"](x).float()  # type: ignore[no-any-return]

    def set_learning_rates(self, step: int, steps: int) -> None:
        """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter 2017)."""
        warm_up = max(1, round(self.options.warm_up * steps))
        cosine = 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm_up) / max(1, steps - warm_up))
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * min(1, step / warm_up) * cosine

    def checkpoint(self) -> Checkpoint:
        """The training as it is, to be resumed later."""
        tensors = self.networks.state()
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        return Checkpoint(self.options, self.prepared.metadata.digest, self.log, tensors, self.start_hash)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same options."""
        tensors = checkpoint.tensors
        self.networks.load_state(tensors)
        self.best_weights = {name: tensor.to(self.world.device) for name, tensor in under("best.", tensors).items()}
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in under("optimizer.", tensors).items():
            number, name = key.split(".")
            state.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.log = list(checkpoint.log)

    def save_model(self, out: Path) -> None:
        """Write the best weights so far as the model folder `out`. Raises `OSError`."""
        model = TrainedModel(
            weights=self.best_weights,
            decoder=self.networks.decoder.config,
            encoder=self.networks.encoder.config if self.networks.encoder else None,
            vocabulary=self.vocabulary,
            options=self.options,
            search=self.search,
            log=self.log,
            images={"train": len(self.train_rows), "val": len(self.val_rows)},
            captions=len(self.captions),
            start_hash=self.start_hash,
        )
        save_model(model, self.prepared, out)


def _make_optimizer(networks: Networks, options: TrainingOptions) -> tuple[torch.optim.Optimizer, list[float]]:
    """AdamW over the networks, and the peak learning rate of each of its parameter groups."""
    peaks = {"decoder": Settings.of(options).learning_rate, "encoder": options.encoder_learning_rate}
    groups: list[dict[str, Any]] = [
        {"params": list(module.parameters()), "lr": peaks[name]} for name, module in networks.modules.items()
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay, foreach=True)
    return optimizer, [group["lr"] for group in groups]


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed for everything that a process draws on its own, such as dropout."""
    return int(np.random.SeedSequence([seed, epoch, rank][: 3 if rank else 2]).generate_state(1)[0])
