"""Train a decoder that reads concepts, on Flickr8k and on captions without images. It resumes where it stopped.

    python tools/train_general.py CONCEPTS.pt STATE --flickr8k FLICKR8K --general GENERAL --features FEATURES \
        --start default --steps 4000

CONCEPTS.pt comes from `concepts.py`, FEATURES from `encode_sets.py`. The decoder's first input is a linear function of
the concepts' log-odds. A Flickr8k image has those of a layer that has not seen it; a caption without an image has those
that `made_up_concepts.py` makes.

STATE receives `state.pt`, `curve.jsonl` (scores on the dev sets), `captions.json` (captions of the dev sets) and
`decoder.pt` (averaged weights).
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from general_captions import Batch, Data, batches, make_batch, read_data
from general_dev import DevSets
from imgcap.files import replacing
from imgcap.model.decoder import DecoderConfig, LSTMDecoder, pack, visible
from imgcap.model.folder import load_model_folder
from imgcap.model.search import SearchOptions
from imgcap.model.store import locate
from imgcap.text.vocabulary import Vocabulary
from made_up_concepts import MadeUpConcepts
from naming import DICTIONARY

IMITATION_RIDGE = 100.0
SAVE_SECONDS = 180
AVERAGE = 0.998
"""Decay of the running mean of the weights."""
WARM_UP_STEPS = 100
COOL_DOWN = 0.6
"""Share of the steps, at the end, in which the learning rate falls to zero."""


class ConceptDecoder(LSTMDecoder):
    """An `LSTMDecoder` that takes the log-odds (B, K) of concepts in place of features."""

    def __init__(self, config: DecoderConfig, concepts: int) -> None:
        super().__init__(config)
        self.image = nn.Linear(concepts, config.embedding_size)

    def embed_images(self, features: Tensor) -> Tensor:
        return self.image(self._drop(visible(features)))  # type: ignore[no-any-return]


def copy_weights(
    decoder: ConceptDecoder, vocabulary: Vocabulary, weights: dict[str, Tensor], source: list[str]
) -> None:
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


def imitate(decoder: ConceptDecoder, teacher: LSTMDecoder, data: Data, features: Tensor) -> None:
    """Fit the first layer to the LSTM inputs that `teacher` computes from `features`, by ridge regression."""
    with torch.no_grad():
        x, y = visible(data.logits), teacher.embed_images(features)
        mean, goal = x.mean(0), y.mean(0)
        gram = (x - mean).T @ (x - mean) + IMITATION_RIDGE * torch.eye(x.shape[1])
        weight = torch.linalg.solve(gram, (x - mean).T @ (y - goal)).T
        decoder.image.weight.copy_(weight)
        decoder.image.bias.copy_(goal - weight @ mean)


class Run:
    """One training: its data, decoder, optimizer and dev sets."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.data = read_data(args.concepts, args.flickr8k, args.general, args.min_count)
        data = self.data
        self.make_up = MadeUpConcepts(data.targets, data.logits, data.concepts.class_matrix().sum(0) > 0)
        counts = {source: len(several) for source, several in self.data.others.items()}
        print(len(self.data.captions), "Flickr8k captions;", counts, len(self.data.vocabulary), "words", flush=True)
        sizes = DecoderConfig(len(self.data.vocabulary), dropout=args.dropout)
        self.decoder = ConceptDecoder(sizes, len(self.data.concepts.words))
        self.decoder.output.bias.data.fill_(-10)
        self.step, self.state_file = 0, args.state / "state.pt"
        if not self.state_file.exists():
            self._start()
        self.average = {name: value.clone() for name, value in self.decoder.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.decoder.parameters(), lr=args.learning_rate, weight_decay=0.01, fused=True
        )
        if self.state_file.exists():
            state = torch.load(self.state_file, weights_only=True)
            self.decoder.load_state_dict(state["decoder"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step = state["average"], state["step"]
            print("resumed at step", self.step, flush=True)
        self.dev = DevSets(args.features, args.flickr8k, args.general, args.concepts, args.dev_limit, args.wordnet)
        self.scored = ConceptDecoder(sizes, len(self.data.concepts.words))
        self.losses: list[float] = []

    def _start(self) -> None:
        if self.args.start_from:
            saved = torch.load(self.args.start_from, weights_only=True)
            copy_weights(self.decoder, self.data.vocabulary, saved["decoder"], saved["vocabulary"])
            return
        model = load_model_folder(locate(self.args.start), torch.device("cpu"))
        weights = model.decoder.state_dict()
        copy_weights(self.decoder, self.data.vocabulary, weights, list(model.vocabulary.words))
        imitate(self.decoder, model.decoder, self.data, self._features())

    def _features(self) -> Tensor:
        """float32 (N, 2048): features of the images in `data`."""
        rows: dict[str, int] = {}
        arrays = {}
        for name in ("flickr8k-train", "general"):
            arrays[name] = np.load(self.args.features / name / "features.npy", mmap_mode="r")
            listed = (self.args.features / name / "images.txt").read_text().split("\n")[:-1]
            rows |= {f"{name}/{image}": i for i, image in enumerate(listed)}
        return torch.from_numpy(np.stack([arrays[n.split("/")[0]][rows[n]] for n in self.data.names]))

    def save(self) -> None:
        """Write `state.pt` and `decoder.pt`."""
        parts = {"decoder": self.decoder.state_dict(), "optimizer": self.optimizer.state_dict()}
        with replacing(self.state_file) as partial:
            torch.save({**parts, "average": self.average, "step": self.step}, partial)
        words = {"vocabulary": self.data.vocabulary.words, "concepts": self.data.concepts.words}
        with replacing(self.args.state / "decoder.pt") as partial:
            torch.save({"decoder": self.average, **words}, partial)

    def learn(self, batch: Batch) -> None:
        """Take one step on a batch."""
        args = self.args
        left = (args.steps - self.step) / (COOL_DOWN * args.steps)
        factor = min(1.0, (self.step + 1) / WARM_UP_STEPS, max(0.02, left))
        for group in self.optimizer.param_groups:
            group["lr"] = args.learning_rate * factor
        self.decoder.train()
        logits = self.decoder(batch.logits, batch.ids, batch.lengths)
        loss = F.cross_entropy(logits, pack(batch.targets, batch.lengths), label_smoothing=0.1)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.losses.append(loss.item())
        with torch.no_grad():
            for name, value in self.decoder.named_parameters():
                self.average[name].lerp_(value, 1 - min(AVERAGE, self.step / (self.step + 20)))

    def score(self) -> None:
        """Score the averaged weights and append the figures to `curve.jsonl`."""
        self.scored.load_state_dict(self.average)
        figures, texts = self.dev.score(
            self.scored, self.data.vocabulary, SearchOptions(beam_size=3, length_penalty=0.8)
        )
        row = {"step": self.step, "loss": round(float(np.mean(self.losses[-200:] or [0])), 4), **figures}
        with (self.args.state / "curve.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(time.strftime("%H:%M:%S"), row, texts["coco"][:3], texts["naming"][::60], flush=True)
        (self.args.state / "captions.json").write_text(json.dumps(texts))

    def run(self, stop: list[int]) -> None:
        """Train until the last step, or until a signal puts something into `stop`."""
        args, data = self.args, self.data
        if not self.step:
            self.score()
        per_epoch = len(batches(data, 0, args.sizes))
        epoch, own = -1, []
        saved = begun = time.monotonic()
        while self.step < args.steps and not stop:
            if self.step // per_epoch != epoch:
                epoch = self.step // per_epoch
                own = batches(data, epoch, args.sizes)
            self.learn(make_batch(data, self.make_up, own[self.step % per_epoch], self.step))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", type=Path, help="CONCEPTS.pt of concepts.py")
    parser.add_argument("state", type=Path, help="folder for the training's files")
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--general", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="folder of `encode_sets.py trunk`")
    parser.add_argument("--start", default="default", help="model to start from")
    parser.add_argument("--start-from", type=Path, help="decoder.pt of an earlier training, instead of --start")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument(
        "--sizes",
        type=json.loads,
        default={"flickr30k": 20000},
        help="JSON: captions of a source in an epoch; a larger number than there are repeats them",
    )
    parser.add_argument("--min-count", type=int, default=15, help="a word in this many captions is in the vocabulary")
    parser.add_argument("--score-every", type=int, default=400)
    parser.add_argument("--dev-limit", type=int, help="score only this many Flickr8k dev images")
    parser.add_argument("--wordnet", type=Path, default=DICTIONARY)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.state.mkdir(parents=True, exist_ok=True)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(1))
    Run(args).run(stop)


if __name__ == "__main__":
    main()
