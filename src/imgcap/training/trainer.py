"""The training loop: the decoder on prepared features, or encoder and decoder together on the images.

The loss is the cross-entropy of the next word, or in self-critical training the expected CIDEr-D of whole captions.

After every epoch the whole state goes to one file, replaced at once: weights, optimiser, the best weights so far and
the log. Whatever is random in an epoch follows from the seed and the epoch's number. So a training killed at any moment
loses at most one epoch, and resumed it ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import tee
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imgcap._version import __version__
from imgcap.captioning.explain import TrainingIndex, evenly_spaced, indexed_rows
from imgcap.dataset.prepared import Features, MappedFeatures, PreparedFolder
from imgcap.distributed import World
from imgcap.errors import ImgcapError, UsageError, listing
from imgcap.files import (
    make_folder,
    only_writer,
    read_json_lines,
    reason,
    replacing,
    write_json,
    write_json_lines,
    write_tensors,
    write_text,
)
from imgcap.images.decoding import Pixels, batched, load_batches
from imgcap.model.confidence import FEWEST_IMAGES, Calibration, agreement, fit
from imgcap.model.decoder import DecoderConfig, LSTMDecoder, pack
from imgcap.model.encoder import Encoder, fingerprint, has_fast_bfloat16, save_encoder
from imgcap.model.folder import Model, ModelConfig, check_encoder, load_model_folder, save_decoder
from imgcap.model.inception import FEATURE_SIZE, InceptionV3
from imgcap.model.search import SearchOptions, search
from imgcap.model.store import (
    CONFIG_FILE,
    ENCODER_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    locate,
    write_manifest,
)
from imgcap.pages.plots import Curve, plot_svg
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.sharding import Shard, interleave
from imgcap.text.tokenizer import tokenize
from imgcap.text.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary
from imgcap.training.encoded_captions import EncodedCaptions
from imgcap.training.self_critical import Reward, sample, self_critical_loss

STATE_FILE, CURVES_FILE = "training-state.safetensors", "curves.svg"

_BATCHES_IN_POOL = 50
"""Captions are sorted by length within pools of this many batches: little padding, and still a random order."""
_VAL_BATCH = 32
"""Val images that go to one process after the other."""
_STATISTICS_IMAGES = 2**18
"""Images that mean and standard deviation of the features are over, at most: they know them to 0.2 % of the latter,
and ten million would take minutes before the first step."""


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that a training depends on besides its data. Raises `UsageError` for values that make no sense."""

    epochs: int = 80
    patience: int = 8
    """Epochs without a better val score after which training stops."""
    batch_size: int = 128
    """Captions in a batch; with `fine_tune_encoder` or `self_critical`, images in a batch. All processes together
    compute one batch."""
    accumulation: int = 1
    """Parts of its share of a batch that a process computes one after the other, to take less memory."""
    learning_rate: float | None = None
    """Peak learning rate of the decoder; None stands for 1e-3, or 1e-4 in self-critical training."""
    weight_decay: float = 0.01
    warm_up: float = 0.02
    """Share of all steps over which the learning rate rises; it then falls to zero along a cosine."""
    gradient_clip: float = 5.0
    label_smoothing: float = 0.1
    dropout: float = 0.5
    word_dropout: float = 0.0
    """Share of the words read that are hidden behind `<unk>` (Bowman et al. 2016)."""
    average: float = 0.0
    """Decay, at every step, of a moving average of the weights, which is scored and kept instead of the weights
    themselves (Polyak and Juditsky 1992); 0 for none."""
    embedding_size: int = 512
    hidden_size: int = 512
    min_count: int = 3
    """Fewest times a word stands in the training captions to enter the vocabulary."""
    fine_tune_encoder: bool = False
    encoder_learning_rate: float = 2e-5
    self_critical: bool = False
    """Learn from the CIDEr-D of sampled captions instead of the next word; needs `start_from`."""
    samples: int = 5
    """Captions that self-critical training draws for each image."""
    start_from: str | None = None
    """A model, by name or folder, whose weights, sizes and vocabulary the training starts from."""
    seed: int = 0
    search: SearchOptions = field(default_factory=lambda: SearchOptions(beam_size=3))
    """How val captions are searched, and the model's own default afterwards."""

    def __post_init__(self) -> None:
        positive = ("epochs", "patience", "batch_size", "accumulation", "learning_rate", "gradient_clip")
        for name in (*positive, "embedding_size", "hidden_size", "min_count", "encoder_learning_rate"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise UsageError(f"The option {name} must be above 0, not {getattr(self, name)}.")
        for name in ("warm_up", "label_smoothing", "dropout", "word_dropout", "average", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"The option {name} must be at least 0 and below 1, not {getattr(self, name)}.")
        if self.self_critical and not self.start_from:
            raise UsageError("Self-critical training goes on from a trained model: give it by --start-from.")
        if self.samples < 2:
            raise UsageError(f"Self-critical training compares at least 2 samples of an image, not {self.samples}.")

    @property
    def peak_learning_rate(self) -> float:
        return self.learning_rate or (1e-4 if self.self_critical else 1e-3)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainingOptions:
        return cls(**{**data, "search": SearchOptions(**data["search"])})


@dataclass(frozen=True)
class EpochResult:
    """One line of `metrics.jsonl`."""

    epoch: int
    loss: float
    """Mean cross-entropy of a word, in nats, with label smoothing and dropout; in self-critical training, the negative
    mean reward of the samples."""
    learning_rate: float
    val_cider_d: float
    val_bleu: tuple[float, float, float, float]
    seconds: float

    @property
    def rank(self) -> tuple[float, ...]:
        """What the checkpoint is chosen by; BLEU decides where CIDEr-D cannot, in tiny val splits."""
        return (self.val_cider_d, *reversed(self.val_bleu))


class Listener(Protocol):
    """Whoever wants to know how the training goes."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None: ...

    def on_epoch(self, result: EpochResult, best: bool) -> None: ...


class SilentListener:
    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        pass

    def on_epoch(self, result: EpochResult, best: bool) -> None:
        pass


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended."""

    folder: Path
    best: EpochResult
    epochs: int
    """Epochs that were run in all."""
    interrupted: bool
    """Whether Ctrl-C ended it; the folder then holds the best model so far and can be resumed."""


def train(
    prepared: PreparedFolder,
    options: TrainingOptions,
    out: Path,
    *,
    resume: bool = False,
    world: World | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train a model on a prepared folder and write it to the folder `out`. Raises `ImgcapError`.

    With `resume`, the options of the interrupted training hold; one that differs from both them and its default is an
    error. All processes of `world` call this with the same arguments, and the first one writes.
    """
    world = world or World()
    resume = resume or world.restarted
    make_folder(out)
    with only_writer(out) if world.is_first else nullcontext():
        _check_out(out, resume)
        state_file = out / STATE_FILE
        saved = _read_state(state_file) if resume and state_file.exists() else None
        if saved:
            options = _resumed_options(options, TrainingOptions.from_dict(saved.header["options"]))
            if saved.header["digest"] != prepared.metadata.digest:
                raise ImgcapError(f"{out} was trained on another prepared folder than {prepared.root}.")
        trainer = Trainer(prepared, options, world, listener or SilentListener())
        if saved:
            trainer.restore(saved)
        try:
            interrupted = _run(trainer, out)
            if world.is_first:
                trainer.save_model(out)
                if not interrupted:
                    finish(prepared, out, world.device)
                    state_file.unlink(missing_ok=True)
        except OSError as error:
            hint = "Run again with --resume to go on."
            raise ImgcapError(f"{out} cannot be written: {reason(error)}.", hint) from None
        return TrainingResult(out, trainer.best, len(trainer.log), interrupted)


def _run(trainer: Trainer, out: Path) -> bool:
    """Run the epochs that are left, the state kept in `out` after each; whether Ctrl-C ended them."""
    try:
        while not trainer.is_done:
            trainer.run_epoch()
            if trainer.world.is_first:
                trainer.save_state(out / STATE_FILE)
    except KeyboardInterrupt:
        if not trainer.log:
            raise
        return True
    return False


def finish(prepared: PreparedFolder, folder: Path, device: torch.device) -> None:
    """Add to the trained model in `folder` the calibration of its confidence and the index of its training images.

    `prepared` is what the model was trained on. A model with an encoder of its own sees the images once more. Raises
    `ImgcapError`.
    """
    model = load_model_folder(folder, device)
    with _features_for(model, prepared) as features:
        confidence = _calibrate(model, prepared, features)
        index = TrainingIndex.build(prepared, model.decoder, features)
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    index.save(folder / INDEX_FILE)
    write_json(folder / CONFIG_FILE, asdict(replace(model.config, confidence=confidence)))
    write_manifest(folder)


@contextmanager
def _features_for(model: Model, prepared: PreparedFolder) -> Iterator[MappedFeatures | Features]:
    """Features (N, 2048) of indexed and val images by the model's own encoder, prepared ones if it is the same."""
    if model.config.encoder_fingerprint == prepared.metadata.encoder_fingerprint:
        yield prepared.features
        return
    encoder = Encoder.load(model.encoder_file, model.decoder.feature_mean.device)
    with TemporaryDirectory() as folder:
        shape = (len(prepared.records), FEATURE_SIZE)
        features = np.lib.format.open_memmap(Path(folder) / "features.npy", "w+", np.float32, shape)
        for rows in batched(np.concatenate([indexed_rows(prepared), prepared.rows("val")]), 32):
            features[rows] = encoder(list(_decoded(prepared, rows, encoder.config.pixels))).numpy()
        yield features


def _calibrate(model: Model, prepared: PreparedFolder, features: MappedFeatures | Features) -> Calibration | None:
    """Fit the confidence on val images with two references or more; None if they are too few."""
    rows = [row for row in prepared.rows("val") if len(prepared.records[row].captions) > 1]
    if len(rows) < FEWEST_IMAGES:
        return None
    vectors = (vector for part in batched(rows, 128) for vector in torch.from_numpy(features[part]))
    hypotheses = [found[0] for found in model.search(vectors, model.config.search)]
    references = [[tokenize(caption) for caption in prepared.records[row].captions] for row in rows]
    return fit(hypotheses, agreement([model.vocabulary.decode(h.ids) for h in hypotheses], references))


def _decoded(prepared: PreparedFolder, rows: Iterable[int], size: int) -> Iterator[Pixels]:
    """Decoded images of `rows`. Raises `ImgcapError` for one that has gone since they were prepared."""
    sources = (prepared.source(prepared.records[row].path) for row in rows)
    for batch in load_batches(sources, size):
        for pixels in batch:
            if isinstance(pixels, ImgcapError):
                raise pixels
            yield pixels


def _check_out(out: Path, resume: bool) -> None:
    if (out / STATE_FILE).exists() and not resume:
        raise ImgcapError(f"{out} holds an interrupted training.", "Go on with --resume, or give another folder.")
    if (out / MANIFEST_FILE).exists() and not (out / STATE_FILE).exists():
        raise ImgcapError(f"{out} holds a finished model already.", "Give another folder.")


def _resumed_options(given: TrainingOptions, saved: TrainingOptions) -> TrainingOptions:
    default = TrainingOptions()
    changed = [
        f.name
        for f in fields(TrainingOptions)
        if getattr(given, f.name) not in (getattr(saved, f.name), getattr(default, f.name))
    ]
    if changed:
        raise UsageError(
            f"A resumed training keeps its options, but {listing(changed)} is given with another value.",
            "Leave it out, or start a new training in another folder.",
        )
    return saved


@dataclass(frozen=True)
class Batch:
    """Captions and their images: R images, C captions, T words."""

    rows: list[int]
    """Rows of the R images in the prepared folder."""
    mirrored: npt.NDArray[np.bool_]
    """Which of the images are mirrored, (R,)."""
    image: Tensor
    """int64 (C,): each caption's place in `rows`."""
    ids: Tensor
    """int64 (C, 1 + T): `<start>`, words, padding; with word dropout, `<unk>` for some of the words."""
    targets: Tensor
    """int64 (C, 1 + T): words, `<end>`, padding."""
    lengths: Tensor
    """int64 (C,): words and `<start>`."""

    @property
    def words(self) -> int:
        """Words to predict, `<end>` among them."""
        return int(self.lengths.sum())

    def part(self, number: int, parts: int) -> Batch:
        """Every one of `parts` images, from image `number` on, with its captions."""
        own = self.image % parts == number
        return Batch(
            self.rows[number::parts],
            self.mirrored[number::parts],
            self.image[own] // parts,
            self.ids[own],
            self.targets[own],
            self.lengths[own],
        )


@dataclass(frozen=True)
class Part:
    """What a process computes at a time of a batch."""

    batch: Batch
    weight: float
    """Share of the whole batch's loss, 0-1."""
    images: list[Pixels] | None = None
    """The R decoded images, if the encoder is trained."""


@dataclass(frozen=True)
class _SavedState:
    header: dict[str, Any]
    tensors: dict[str, Tensor]


class Trainer:
    """A training in progress."""

    def __init__(self, prepared: PreparedFolder, options: TrainingOptions, world: World, listener: Listener) -> None:
        self.prepared = prepared
        self.options = options
        self.world = world
        self.device = world.device
        self.listener = listener
        self.log: list[EpochResult] = []
        self.best_weights: dict[str, Tensor] = {}

        records = prepared.records
        self.train_rows, self.val_rows = prepared.rows("train"), prepared.rows("val")
        references = [[tokenize(caption) for caption in records[row].captions] for row in self.val_rows]
        self.references, self.cider = references, CiderD(references)

        start = self._start()
        if start:
            self.vocabulary = start.vocabulary
        else:
            self.vocabulary = Vocabulary.build((caption for _, caption in self._captions()), options.min_count)
        if len(self.vocabulary) == len(SPECIAL_WORDS):
            raise ImgcapError(
                f"No word stands {options.min_count} times in the training captions.", "Lower --min-count."
            )
        self.captions = EncodedCaptions(self._captions(), self.vocabulary)
        self.reward = self._reward() if options.self_critical else None

        torch.manual_seed(options.seed)
        sizes = DecoderConfig(len(self.vocabulary), options.embedding_size, options.hidden_size, options.dropout)
        if start:
            sizes = replace(start.config.decoder, dropout=options.dropout)
        self.decoder = LSTMDecoder(sizes).to(self.device)
        self.encoder = self._encoder(start) if options.fine_tune_encoder else None
        if start:
            self.decoder.load_state_dict(start.decoder.state_dict())
        else:
            self.decoder.standardize_features(*self._feature_statistics())

        self.modules: dict[str, nn.Module] = {"decoder": self.decoder}
        """What is trained."""
        groups: list[dict[str, Any]] = [{"params": list(self.decoder.parameters()), "lr": options.peak_learning_rate}]
        if self.encoder:
            self.modules["encoder"] = self.encoder.network
            groups.append({"params": list(self.encoder.network.parameters()), "lr": options.encoder_learning_rate})
        self.parallel = {name: world.parallel(module) for name, module in self.modules.items()}
        """The same, as called in training: gradients are exchanged behind it."""
        self.optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay, foreach=True)
        self.peak_rates = [group["lr"] for group in groups]
        self.averages: dict[str, AveragedModel] = {}
        if options.average:
            average = get_ema_multi_avg_fn(options.average)  # type: ignore[no-untyped-call]
            self.averages = {name: AveragedModel(m, multi_avg_fn=average) for name, m in self.modules.items()}

    def _captions(self) -> Iterator[tuple[int, str]]:
        """Row and caption of all training captions."""
        return ((row, caption) for row in self.train_rows for caption in self.prepared.records[row].captions)

    def _start(self) -> Model | None:
        if not self.options.start_from:
            return None
        start = load_model_folder(locate(self.options.start_from), self.device)
        if not self.options.fine_tune_encoder:
            check_encoder(start, self.prepared.metadata.encoder_fingerprint, self.prepared.root)
        return start

    def _encoder(self, start: Model | None) -> Encoder:
        file = start.encoder_file if start else self.prepared.encoder_file
        encoder = Encoder.load(file, self.device, fold=False)
        if encoder.config != self.prepared.metadata.encoder_config:
            raise ImgcapError(f"The encoder of {file} sees images differently from that of {self.prepared.root}.")
        if not (self.prepared.metadata.archives or self.prepared.image_root.is_dir()):
            raise ImgcapError(f"The images have gone from {self.prepared.image_root}.", "Prepare them again.")
        return encoder

    def _reward(self) -> Reward:
        captions = [self.prepared.records[row].captions for row in self.train_rows]
        return Reward([[tokenize(caption) for caption in own] for own in captions], self.vocabulary)

    def _feature_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (2048,) of the training images' features, or of evenly spaced ones."""
        chosen = evenly_spaced(self.train_rows, _STATISTICS_IMAGES)
        total, squares = np.zeros(FEATURE_SIZE), np.zeros(FEATURE_SIZE)
        for rows in batched(chosen, 4096):
            part = self.prepared.features[rows].astype(np.float64)
            total += part.sum(0)
            squares += (part**2).sum(0)
        mean = total / len(chosen)
        std = np.sqrt(np.maximum(squares / len(chosen) - mean**2, 0))
        return torch.from_numpy(mean).float(), torch.from_numpy(std).float()

    @property
    def best(self) -> EpochResult:
        return max(self.log, key=lambda result: result.rank)

    @property
    def is_done(self) -> bool:
        epochs = len(self.log)
        return epochs >= self.options.epochs or (epochs > 0 and epochs - self.best.epoch >= self.options.patience)

    def run_epoch(self) -> None:
        """Train on every caption once, then caption the val split freely and score it."""
        begun, epoch = time.monotonic(), len(self.log) + 1
        torch.manual_seed(_epoch_seed(self.options.seed, epoch, self.world.rank))
        steps, batches = self._batches(epoch)
        total, tokens = 0.0, 0
        for step, (batch, parts) in enumerate(self._with_parts(batches), 1):
            self._set_rates((epoch - 1) * steps + step, self.options.epochs * steps)
            loss = self._step(parts)
            total, tokens = total + loss * batch.words, tokens + batch.words
            self.listener.on_step(epoch, step, steps, loss)
        if not math.isfinite(total):
            raise ImgcapError(f"The loss became infinite in epoch {epoch}.", "Try a lower --learning-rate.")
        cider_d, bleu = self._validate()
        rate = self.optimizer.param_groups[0]["lr"]
        result = EpochResult(epoch, total / tokens, rate, cider_d, bleu, time.monotonic() - begun)
        is_best = not self.log or result.rank > self.best.rank
        self.log.append(result)
        if is_best:
            self.best_weights = {
                f"{name}.{key}": tensor.detach().clone()
                for name, module in self._kept_modules().items()
                for key, tensor in module.state_dict().items()
            }
        self.listener.on_epoch(result, is_best)

    def _kept_modules(self) -> dict[str, nn.Module]:
        """What is scored and kept: the averages, if there are any."""
        return {name: self.averages[name].module if self.averages else m for name, m in self.modules.items()}

    def _batches(self, epoch: int) -> tuple[int, Iterator[Batch]]:
        """How many batches there are in `epoch`, and the batches: the same in every process."""
        rng = np.random.default_rng([self.options.seed, epoch])
        size, captions = self.options.batch_size, self.captions
        if self.encoder or self.reward:
            # An image goes through the encoder once for all its captions.
            order = rng.permutation(self.train_rows)
            count = -(-len(order) // size)
            numbers = np.arange(count)
        else:
            order = rng.permutation(len(captions))
            for begin in range(0, len(order), _BATCHES_IN_POOL * size):
                pool = order[begin : begin + _BATCHES_IN_POOL * size]
                pool[:] = pool[np.argsort(captions.lengths(pool), kind="stable")]
            count = -(-len(order) // size)
            numbers = rng.permutation(count)

        def images(number: int) -> list[tuple[int, list[list[int]]]]:
            chosen = order[number * size : (number + 1) * size].tolist()
            if self.encoder or self.reward:
                return [(row, captions.of(row)) for row in chosen]
            return [(int(captions.rows[caption]), [captions[caption]]) for caption in chosen]

        return count, (self._batch(images(number), rng) for number in numbers.tolist())

    def _batch(self, images: list[tuple[int, list[list[int]]]], rng: np.random.Generator) -> Batch:
        """Rows of images, and the captions of each, as a batch; draws what is mirrored and which words are hidden."""
        captions = [(place, ids) for place, (_, several) in enumerate(images) for ids in several]
        ids = torch.full((len(captions), max(len(ids) for _, ids in captions) + 1), PAD)
        targets = ids.clone()
        for i, (_, caption) in enumerate(captions):
            ids[i, : len(caption) + 1] = torch.tensor([START, *caption])
            targets[i, : len(caption) + 1] = torch.tensor([*caption, END])
        if self.options.word_dropout:
            hidden = torch.from_numpy(rng.random(ids.shape) < self.options.word_dropout)
            ids[hidden & (ids > UNKNOWN)] = UNKNOWN
        return Batch(
            rows=[row for row, _ in images],
            mirrored=rng.random(len(images)) < 0.5,
            image=torch.tensor([place for place, _ in captions]),
            ids=ids,
            targets=targets,
            lengths=torch.tensor([len(caption) + 1 for _, caption in captions]),
        )

    def _parts(self, batch: Batch) -> list[Part]:
        """What this process computes of `batch`, one part or more."""
        parts = self.world.size * self.options.accumulation
        own = range(self.world.rank, min(parts, len(batch.rows)), self.world.size)
        if not own:  # it has to take part in the exchange of gradients, with some that count for nothing
            return [Part(batch.part(0, len(batch.rows)), 0.0)]
        several = [batch.part(number, parts) for number in own]
        return [Part(part, self._weight(part) / self._weight(batch)) for part in several]

    def _weight(self, batch: Batch) -> int:
        """What the mean loss of a batch is over: images in self-critical training, else words."""
        return len(batch.rows) if self.reward else batch.words

    def _with_parts(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Part]]]:
        """Each batch with this process's parts of it."""
        pairs = ((batch, self._parts(batch)) for batch in batches)
        if not self.encoder:
            yield from pairs
            return
        current, ahead = tee(pairs)  # images are decoded a few batches ahead
        rows = (row for _, parts in ahead for part in parts for row in part.batch.rows)
        pixels = _decoded(self.prepared, rows, self.encoder.config.pixels)
        for batch, parts in current:
            yield batch, [replace(part, images=[next(pixels) for _ in part.batch.rows]) for part in parts]

    def _features(self, part: Part) -> Tensor:
        """Features (R, 2048) from the prepared folder, or with gradients from the images; half of them mirrored."""
        batch = part.batch
        if not self.encoder or part.images is None:
            features = self.prepared.features[batch.rows]
            if self.prepared.mirrored is not None:
                features[batch.mirrored] = self.prepared.mirrored[np.array(batch.rows)[batch.mirrored]]
            return torch.from_numpy(features).to(self.device)
        pairs = zip(part.images, batch.mirrored, strict=True)
        views = np.stack([pixels[:, ::-1] if mirrored else pixels for pixels, mirrored in pairs])
        x = self.encoder.to_input(torch.from_numpy(views)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)):
            # Batch norms keep their statistics (the network stays in evaluation mode): batches are small here.
            return self.parallel["encoder"](x).float()  # type: ignore[no-any-return]

    def _step(self, parts: list[Part]) -> float:
        """One update from a batch, of which this process computes `parts`. Returns the loss of the whole batch."""
        self.decoder.train()
        self.optimizer.zero_grad()
        loss = 0.0
        for number, part in enumerate(parts, 1):
            with self.world.gradients(self.parallel.values(), exchanged=number == len(parts)):
                features = self._features(part)
                learn = self._reinforce if self.reward else self._teach
                value, reported = learn(features, part.batch)
                (value * (part.weight * self.world.size)).backward()  # type: ignore[no-untyped-call]
            loss += reported * part.weight
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.options.gradient_clip)
        self.optimizer.step()
        for name, average in self.averages.items():
            average.update_parameters(self.modules[name])
        return self.world.sum(loss)

    def _teach(self, features: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Cross-entropy of the next word, its mean over the words."""
        ids = batch.ids.to(self.device)
        logits = self.parallel["decoder"](features[batch.image.to(self.device)], ids, batch.lengths)
        targets = pack(batch.targets, batch.lengths).to(self.device)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.options.label_smoothing)
        return loss, loss.item()

    def _reinforce(self, features: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Self-critical loss, and the negative mean reward."""
        assert self.reward
        samples = self.options.samples
        features = features.repeat_interleave(samples, 0)
        ids = sample(self.decoder, features.detach(), self.options.search.max_length).clone()
        images = np.searchsorted(self.train_rows, batch.rows).repeat(samples)
        rewards = self.reward(ids, images.tolist()).to(self.device)
        return self_critical_loss(self.parallel["decoder"], features, ids, rewards, samples), -rewards.mean().item()

    def _set_rates(self, step: int, steps: int) -> None:
        """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter 2017)."""
        warm_up = max(1, round(self.options.warm_up * steps))
        cosine = 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm_up) / max(1, steps - warm_up))
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * min(1, step / warm_up) * cosine

    def _validate(self) -> tuple[float, tuple[float, float, float, float]]:
        """CIDEr-D and BLEU-1..4 of the captions that the model writes for the val images on its own."""
        kept = self._kept_modules()
        decoder, encoder = cast(LSTMDecoder, kept["decoder"]), cast(InceptionV3 | None, kept.get("encoder"))
        own = [
            self.vocabulary.decode(found[0].ids)
            for features in self._val_features(encoder)
            for found in search(decoder, features.to(self.device), self.options.search)
        ]
        hypotheses = interleave(self.world.gather(own), _VAL_BATCH)
        return float(self.cider.score(hypotheses).mean()), corpus_bleu(hypotheses, self.references).scores

    def _val_features(self, network: InceptionV3 | None) -> Iterator[Tensor]:
        own = list(Shard(self.world.rank, self.world.size).items(self.val_rows, _VAL_BATCH))
        if not self.encoder or not network:
            for rows in batched(own, 128):
                yield torch.from_numpy(self.prepared.features[rows])
            return
        encoder = Encoder(network, self.encoder.config, self.device)
        for pixels in batched(_decoded(self.prepared, own, encoder.config.pixels), 32):
            yield encoder(pixels)

    def save_state(self, file: Path) -> None:
        """Write everything that a resumed training needs, as one file."""
        tensors = {
            f"now.{name}.{key}": tensor
            for name, module in self.modules.items()
            for key, tensor in module.state_dict().items()
        }
        for name, average in self.averages.items():
            tensors |= {f"average.{name}.{key}": tensor for key, tensor in average.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        header = {
            "options": asdict(self.options),
            "digest": self.prepared.metadata.digest,
            "log": [asdict(result) for result in self.log],
        }
        state = json.dumps(header)
        write_tensors(file, tensors, {"state": state, "sha256": _digest(state, tensors)})

    def restore(self, saved: _SavedState) -> None:
        """Take up the training where `save_state` left it."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): t for k, t in saved.tensors.items() if k.startswith(prefix)}

        for name, module in self.modules.items():
            module.load_state_dict(part(f"now.{name}."))
        for name, average in self.averages.items():
            average.load_state_dict(part(f"average.{name}."))
        self.best_weights = {name: tensor.to(self.device) for name, tensor in part("best.").items()}
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in part("optimizer.").items():
            number, name = key.split(".")
            state.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.log = [EpochResult(**{**row, "val_bleu": tuple(row["val_bleu"])}) for row in saved.header["log"]]

    def save_model(self, out: Path) -> None:
        """Write the model folder with the best weights so far, its manifest last."""
        (out / MANIFEST_FILE).unlink(missing_ok=True)
        weights: dict[str, dict[str, Tensor]] = {"decoder": {}, "encoder": {}}
        for key, tensor in self.best_weights.items():
            name, parameter = key.split(".", 1)
            weights[name][parameter] = tensor
        if self.encoder:
            save_encoder(out / ENCODER_FILE, weights["encoder"], self.encoder.config, torch.float32)
        else:
            with replacing(out / ENCODER_FILE) as partial:
                shutil.copyfile(self.prepared.encoder_file, partial)
        best = self.best
        training = {
            "imgcap": __version__,
            "torch": torch.__version__,
            "options": asdict(self.options),
            "images": {"train": len(self.train_rows), "val": len(self.val_rows)},
            "captions": len(self.captions),
            "epochs": len(self.log),
            "best_epoch": best.epoch,
            "val_cider_d": best.val_cider_d,
            "val_bleu": best.val_bleu,
        }
        config = ModelConfig(
            name=out.resolve().name,
            encoder_fingerprint=fingerprint(out / ENCODER_FILE),
            decoder=self.decoder.config,
            search=self.options.search,
            training=training,
        )
        save_decoder(out, weights["decoder"], self.vocabulary, config)
        write_json_lines(out / METRICS_FILE, map(asdict, self.log))
        write_text(out / CURVES_FILE, _curves(self.log))
        write_manifest(out)


def _read_state(file: Path) -> _SavedState:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ImgcapError(f"The state of the training in {file} cannot be read: {error}.", "Start anew.") from None
    state = metadata.get("state", "")
    if metadata.get("sha256") != _digest(state, tensors):
        raise ImgcapError(f"The state of the training in {file} is damaged.", "Start anew.")
    return _SavedState(json.loads(state), tensors)


def _digest(state: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all that a saved state holds: with damaged weights, a training could go on for hours."""
    digest = hashlib.sha256(state.encode("utf-8", "surrogatepass"))
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode("utf-8", "surrogatepass"))
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of what each process draws on its own, as for dropout."""
    return int(np.random.SeedSequence([seed, epoch, rank][: 3 if rank else 2]).generate_state(1)[0])


def learning_curves(folder: Path) -> str | None:
    """Loss and val scores of the training that made the model in `folder`, as SVG; None if it keeps no record of it.

    Raises `ImgcapError` if the record is damaged.
    """
    file = folder / METRICS_FILE
    if not file.is_file():
        return None
    try:
        return _curves([EpochResult(**row) for _, row in read_json_lines(file)])
    except (TypeError, ValueError, LookupError, ArithmeticError):
        raise ImgcapError(f"{file} is damaged.", "Train the model again, or remove the file.") from None


def _curves(log: list[EpochResult]) -> str:
    epochs = [result.epoch for result in log]
    return plot_svg(
        [
            ("Training loss (nats a word)", [Curve("loss", epochs, [result.loss for result in log])]),
            (
                "Val, free-running",
                [
                    Curve("CIDEr-D", epochs, [result.val_cider_d for result in log]),
                    Curve("BLEU-4", epochs, [result.val_bleu[3] for result in log]),
                ],
            ),
        ],
        "epoch",
    )
