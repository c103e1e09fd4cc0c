"""Train a decoder on Flickr8k and on captions without images. It resumes where it stopped.

    python tools/train_general.py CONCEPTS.pt STATE --flickr8k FLICKR8K --general GENERAL --features FEATURES \
        --start default --steps 4000

CONCEPTS.pt comes from `concepts.py`, FEATURES from `encode_sets.py` or `distill_top.py`. With the mirrored views of the
latter, every second step sees mirrored images. A caption without an image has features that `made_up_features.py`
makes.

STATE receives `state.pt`, `metrics.jsonl` (as `imgcap train` writes it, with a line for each `--score-every` steps),
`curve.jsonl` (the scores on all dev sets), `captions.json` (captions of the dev sets) and
`decoder.pt` (averaged weights). `best.pt` has the weights with the best sum of the three dev scores.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_sets import TRAIN_SETS, add_folders, image_names
from general_captions import Batch, Data, batches, make_batch, read_data
from general_dev import DevSets
from imgcap.files import replacing
from imgcap.model.decoder import DecoderConfig, LSTMDecoder, pack, standardize
from imgcap.model.folder import load_model_folder
from imgcap.model.search import SearchOptions
from imgcap.model.store import METRICS_FILE, locate
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.progress import EpochResult
from made_up_features import MadeUpFeatures
from naming import DICTIONARY

SAVE_SECONDS = 180
MOST_STEPS = 1_000_000
"""Draws of one seed, at most: those of the next seed begin there."""
WARM_UP_STEPS = 100
COOL_DOWN = 0.6
"""Share of the steps, at the end, in which the learning rate falls to zero."""


def copy_weights(decoder: LSTMDecoder, vocabulary: Vocabulary, weights: dict[str, Tensor], source: list[str]) -> None:
    """Copy the LSTM, and the weights of words in both vocabularies, from a trained decoder with the words `source`."""
    places = {word: i for i, word in enumerate(source)}
    pairs = [(i, places[word]) for i, word in enumerate(vocabulary.words) if word in places]
    into, out_of = (torch.tensor(side) for side in zip(*pairs, strict=True))
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            value = weights.get(name)
            if value is None or value.shape[1:] != parameter.shape[1:]:
                continue
            if name.startswith(("embedding", "output")):
                if name == "output.bias":
                    parameter.fill_(value.min())
                parameter[into] = value[out_of]
            else:
                parameter.copy_(value)


class Run:
    """One training: its data, decoder, optimizer and dev sets.

    The decoder learns from standardised features; `decoder.pt` has their mean and standard deviation.
    """

    average_decay = 0.998
    """Of the running mean of the weights."""
    length_penalty = 0.8
    """Of the captions that are scored."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        start = load_model_folder(locate(args.start), torch.device("cpu"))
        saved = torch.load(args.start_from, weights_only=True) if args.start_from else None
        weights: dict[str, Tensor] = saved["decoder"] if saved else start.decoder.state_dict()
        self.mean, self.std = weights["feature_mean"].clone(), weights["feature_std"].clone()
        self.views = [self._features(array) for array in ("features", "mirrored") if self._has(array)]
        self.data = data = read_data(args.concepts, self.views[0], args.flickr8k, args.general, args.min_count)
        nouns = data.concepts.class_matrix().sum(0) > 0
        is_general = torch.tensor([name.startswith("general/") for name in data.names])
        any_image = MadeUpFeatures(data.targets, data.features, nouns, torch.ones_like(is_general))
        general_only = MadeUpFeatures(data.targets, data.features, nouns, is_general)
        self.with_features: tuple[Data | MadeUpFeatures, ...] = (data, any_image, general_only)
        self.make_up = dict.fromkeys(data.others, general_only)
        if "flickr30k" in self.make_up:
            self.make_up["flickr30k"] = any_image
        counts = {source: len(several) for source, several in data.others.items()}
        print(f"{len(data.captions)} Flickr8k captions; {counts}; {len(data.vocabulary)} words", flush=True)
        print(f"{len(self.views)} views of each image", flush=True)
        sizes = DecoderConfig(len(data.vocabulary), dropout=args.dropout)
        self.decoder = LSTMDecoder(sizes)
        self.decoder.output.bias.data.fill_(-10)
        self.draws = args.seed * MOST_STEPS
        """Added to the number of a step or epoch: another seed makes other draws."""
        self.step, self.best, self.state_file = 0, -1.0, args.state / "state.pt"
        words = saved["vocabulary"] if saved else start.vocabulary.words
        copy_weights(self.decoder, data.vocabulary, weights, list(words))
        self.average = {name: value.clone() for name, value in self.decoder.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.decoder.parameters(), lr=args.learning_rate, weight_decay=0.01, fused=True
        )
        if self.state_file.exists():
            state = torch.load(self.state_file, weights_only=True)
            self.decoder.load_state_dict(state["decoder"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step, self.best = state["average"], state["step"], state["best"]
            print("resumed at step", self.step, flush=True)
        self.dev = DevSets(args.features, args.flickr8k, args.general, args.dev_limit, args.wordnet)
        self.scored = LSTMDecoder(sizes)
        self.losses: list[float] = []
        self.scored_at = time.monotonic()

    def _has(self, array: str) -> bool:
        return all((self.args.features / name / f"{array}.npy").exists() for name in TRAIN_SETS)

    def _features(self, array: str) -> Tensor:
        """float32 (N, 2048): standardised features of the images that `concepts.py` has listed."""
        rows: dict[str, int] = {}
        arrays = {}
        for name in TRAIN_SETS:
            arrays[name] = np.load(self.args.features / name / f"{array}.npy", mmap_mode="r")
            rows |= {f"{name}/{image}": i for i, image in enumerate(image_names(self.args.features / name))}
        names = torch.load(self.args.concepts, weights_only=True)["names"]
        values = torch.from_numpy(np.stack([arrays[n.split("/")[0]][rows[n]] for n in names]))
        return standardize(values, self.mean, self.std)

    def save(self) -> None:
        """Write `state.pt` and `decoder.pt`."""
        parts = {"decoder": self.decoder.state_dict(), "optimizer": self.optimizer.state_dict()}
        with replacing(self.state_file) as partial:
            torch.save({**parts, "average": self.average, "step": self.step, "best": self.best}, partial)
        self._save_decoder("decoder.pt")

    def _save_decoder(self, name: str) -> None:
        words = {"vocabulary": self.data.vocabulary.words, "concepts": self.data.concepts.words}
        with replacing(self.args.state / name) as partial:
            torch.save(
                {"decoder": {**self.average, "feature_mean": self.mean, "feature_std": self.std}, **words}, partial
            )

    def learn(self, batch: Batch) -> None:
        """Take one step on a batch."""
        args = self.args
        left = (args.steps - self.step) / (COOL_DOWN * args.steps)
        factor = min(1.0, (self.step + 1) / WARM_UP_STEPS, max(0.02, left))
        for group in self.optimizer.param_groups:
            group["lr"] = args.learning_rate * factor
        self.decoder.train()
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.losses.append(loss.item())
        with torch.no_grad():
            for name, value in self.decoder.named_parameters():
                self.average[name].lerp_(value, 1 - min(self.average_decay, self.step / (self.step + 20)))

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a step."""
        features = self.noisy(mixed(batch.features, self.shares(len(batch.features))))
        logits = self.decoder(features, batch.ids, batch.lengths)
        return F.cross_entropy(logits, pack(batch.targets, batch.lengths), label_smoothing=0.1)

    def noisy(self, features: Tensor) -> Tensor:
        """Standardised features with Gaussian noise, so that small differences of an encoder change few captions."""
        if not self.args.feature_noise:
            return features
        noise: Tensor = self.args.feature_noise * torch.randn_like(features)
        return features + noise

    def shares(self, count: int) -> Tensor:
        """float32 (N, N): how much of each of N images its mixture has, at most `--mix` of another image."""
        if not self.args.mix:
            return torch.eye(count)
        own = 1 - self.args.mix * torch.rand(count)
        shares: Tensor = own.diag()
        shares[torch.arange(count), torch.randperm(count)] += 1 - own
        return shares

    def score(self) -> None:
        """Score the averaged weights and append the figures to `curve.jsonl`."""
        self.scored.load_state_dict({**self.average, "feature_mean": self.mean, "feature_std": self.std})
        figures, texts, bleu = self.dev.score(
            self.scored, self.data.vocabulary, SearchOptions(beam_size=3, length_penalty=self.length_penalty)
        )
        row = {"step": self.step, "loss": round(float(np.mean(self.losses[-200:] or [0])), 4), **figures}
        _append(self.args.state / "curve.jsonl", row)
        total = sum(figures[name] for name in ("flickr8k_cider_d", "coco_cider_d", "names"))
        if total > self.best:
            self.best = total
            self._save_decoder("best.pt")
        seconds, self.scored_at = time.monotonic() - self.scored_at, time.monotonic()
        rate = self.optimizer.param_groups[0]["lr"]
        number = -(-self.step // self.args.score_every)
        result = EpochResult(number, row["loss"], rate, figures["flickr8k_cider_d"], bleu, seconds)
        _append(self.args.state / METRICS_FILE, asdict(result))
        print(time.strftime("%H:%M:%S"), row, texts["coco"][:3], texts["naming"][::60], flush=True)
        (self.args.state / "captions.json").write_text(json.dumps(texts))

    def run(self, stop: list[int]) -> None:
        """Train until the last step, or until a signal puts something into `stop`."""
        args, data = self.args, self.data
        if not self.step:
            self.score()
        per_epoch = len(batches(data, 0, args.sizes, args.batch))
        epoch, own = -1, []
        saved = begun = time.monotonic()
        while self.step < args.steps and not stop:
            if self.step // per_epoch != epoch:
                epoch = self.step // per_epoch
                own = batches(data, self.draws + epoch, args.sizes, args.batch)
            for part in self.with_features:
                part.features = self.views[self.step % len(self.views)]
            place = self.step % per_epoch % len(own)  # general images have a few captions more or less in each epoch
            self.learn(make_batch(data, self.make_up, own[place], self.draws + self.step))
            if self.step % 25 == 0:
                pace = (time.monotonic() - begun) / len(self.losses)
                print(
                    f"{time.strftime('%H:%M:%S')} {self.step} {np.mean(self.losses[-25:]):.3f} {pace:.2f} s", flush=True
                )
            if self.step % args.score_every == 0 or self.step == args.steps:
                self.score()
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()


def mixed(features: Tensor, shares: Tensor) -> Tensor:
    """Mixtures of standardised features (N, 2048), with the variance of the features (Zhang et al. 2018, "mixup").

    The trunk knows the images that it learned from better than others. A decoder that sees them mixed learns to be as
    sure of others as it should be.
    """
    made: Tensor = shares @ features / shares.norm(dim=1, keepdim=True)
    return made


def _append(file: Path, row: dict[str, Any]) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all trainings of a general decoder have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", type=Path, help="CONCEPTS.pt of concepts.py")
    parser.add_argument("state", type=Path, help="folder for the training's files")
    add_folders(parser)
    parser.add_argument("--features", type=Path, required=True, help="folder of `encode_sets.py trunk`")
    parser.add_argument("--start", default="default", help="model to start from")
    parser.add_argument("--start-from", type=Path, help="decoder.pt of an earlier training, instead of --start")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument(
        "--feature-noise", type=float, default=0.0, help="standard deviation of noise on standardised features"
    )
    parser.add_argument(
        "--mix", type=fraction, default=0.0, help="largest share of another image in an image's features"
    )
    parser.add_argument(
        "--sizes",
        type=json.loads,
        default={"flickr30k": 20000},
        help="JSON: captions of a source in an epoch; a larger number than there are repeats them",
    )
    parser.add_argument("--batch", type=int, default=128, help="captions in a batch")
    parser.add_argument("--min-count", type=int, default=15, help="a word in this many captions is in the vocabulary")
    parser.add_argument("--score-every", type=int, default=400)
    parser.add_argument("--dev-limit", type=int, help="score only this many Flickr8k dev images")
    parser.add_argument("--wordnet", type=Path, default=DICTIONARY)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def start(training: type[Run], parser: argparse.ArgumentParser) -> None:
    """Run a training from the command line until it is done or stopped."""
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.state.mkdir(parents=True, exist_ok=True)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(1))
    training(args).run(stop)


def main() -> None:
    start(Run, arguments(__doc__))


if __name__ == "__main__":
    main()
