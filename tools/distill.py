"""Distil three EfficientNets into the Inception V3 trunk, on a GPU or a CPU, resumable at any moment.

    python tools/distill.py --images DIR --train-list FILE --start TRUNK.safetensors --state runs/distill \
        --phases 224:4000 299:500:plain

DIR has the images whose names are in FILE, such as the unpacked tars of `pack_images.py` with their `images.txt`.

The teachers, EfficientNet-Lite0, 1 and 2 (Apache 2.0, 75 to 77.5 % ImageNet top-1), are frozen and see what the student
sees: the same crops, mirrored or not, lighter or darker, half of them mixed with another image (Beyer et al. 2022,
"Knowledge distillation: A good teacher is patient and consistent"). The student's maps at stride 32 and stride 16 pass
through 1 x 1 convolutions and learn the teachers', their pooled vectors, and their softened class probabilities (Hinton
et al. 2015). With `--captions`, the pooled vector also learns which words the image's captions use.

The state folder holds `state.pt` (everything a resumed run needs), `curve.jsonl` (loss and probe by step) and, when all
phases are done, `trunk.safetensors`. Kill it whenever you like and start it again with the same arguments. Only the
images of the list are ever read, except to probe.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from data_sets import flickr8k_captions
from distill_networks import DEVICE, TEACHER_PIXELS, TEACHER_SIZES, MeanFilter, Teacher, Views, resampled, to_input
from imgcap.files import replacing
from imgcap.images.decoding import Pixels, open_image, squash
from imgcap.model.encoder import EncoderConfig, find_encoder, save_encoder
from imgcap.model.inception import FEATURE_SIZE, STEM_PREFIXES, STRIDE_16_LAYER, STRIDE_32_LAYER, InceptionV3
from imgcap.text.tokenizer import words
from probe import names_to_probe, probe

HELD_PIXELS = 224
"""Side of the images in memory: Flickr8k's own."""
PROBE_PIXELS = 299
MAP_LAYERS = (STRIDE_32_LAYER, STRIDE_16_LAYER)
TEMPERATURE = 2.0
"""Softens the classes of teacher and student (Hinton et al. 2015)."""
PADDED = ("Mixed_6", "Mixed_7")
"""Layers whose maps are so small that their edge counts."""
WORD_IMAGES = 10
"""A word is learned when the captions of at least this many training images use it."""
WORD_WEIGHT = 0.2
LOG_EVERY = 50
WARM_UP_STEPS = 50
COOL_DOWN = 0.3
"""Share of all steps over which the learning rate falls from its peak to zero."""
SAVE_SECONDS = 240


@dataclass(frozen=True)
class Phase:
    """`steps` updates at views of `pixels` x `pixels`.

    Views are crops of 30-100 % of an image, half of them mixed with another; plain ones are crops of 60-100 % and not
    mixed, so that the batch norms' statistics end up as those of whole images. With the stem frozen, only Mixed_6a
    and later learn.
    """

    pixels: int
    steps: int
    plain: bool
    stem_frozen: bool

    @classmethod
    def parse(cls, text: str) -> Phase:
        pixels, steps, *flags = text.split(":")
        if unknown := set(flags) - {"plain", "stem-frozen"}:
            raise argparse.ArgumentTypeError(f"no such flag of a phase: {', '.join(unknown)}")
        return cls(int(pixels), int(steps), "plain" in flags, "stem-frozen" in flags)


def word_shares(token_file: Path, files: list[Path]) -> Tensor:
    """Share of an image's captions that use a word, float32 (images, words), from a Flickr8k token file."""
    texts = flickr8k_captions(token_file)
    captions = {file.name: [set(words(text)) for text in texts[file.name]] for file in files}
    images = collections.Counter(word for sets in captions.values() for word in set().union(*sets))
    column = {word: i for i, word in enumerate(sorted(w for w, n in images.items() if n >= WORD_IMAGES))}
    shares = torch.zeros(len(files), len(column))
    for row, file in enumerate(files):
        for used in captions[file.name]:
            for word in used & column.keys():
                shares[row, column[word]] += 1 / len(captions[file.name])
    return shares


def load(files: list[Path], size: int) -> Tensor:
    """Whole images, squashed, uint8 (N, size, size, 3)."""

    def one(file: Path) -> Pixels:
        return squash(open_image(file), size)

    with ThreadPoolExecutor() as pool:
        return torch.from_numpy(np.stack(list(pool.map(one, files))))


@cache
def whole_images(files: tuple[Path, ...]) -> Tensor:
    return load(list(files), PROBE_PIXELS)


@torch.inference_mode()
def features(network: InceptionV3, files: list[Path]) -> Tensor:
    """Features of whole images, float32 (N, 2048), in evaluation mode."""
    network.eval()
    parts = whole_images(tuple(files)).split(32)  # type: ignore[no-untyped-call]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return torch.cat([network(to_input(part)).cpu() for part in parts])


def probe_figure(network: InceptionV3, images: Path, flickr8k: Path) -> float:
    """The figure of `probe.py`."""
    names = names_to_probe(flickr8k, {file.name for file in images.iterdir()})
    return probe(names, [features(network, [images / name for name in part]) for part in names], flickr8k)


def train_mode(network: InceptionV3, phase: Phase) -> None:
    network.train().requires_grad_(True)
    for name, layer in network.named_children():
        if phase.stem_frozen and name.startswith(STEM_PREFIXES):
            layer.eval().requires_grad_(False)


def rate_factor(step: int, steps: int) -> float:
    """Warm-up, plateau, linear cool-down."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, max(0.0, (steps - step) / (COOL_DOWN * steps)))


class Student:
    """The trunk, the 1 x 1 convolutions to the teacher's maps, their optimiser, and how far they are."""

    def __init__(self, start: Path, learning_rate: float, state_file: Path, word_shares: Tensor | None) -> None:
        torch.manual_seed(0)
        self.network = InceptionV3(count_padding=False)
        self.network.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.load_state_dict(load_file(start), strict=False)
        self.maps: dict[str, Tensor] = {}
        for name in MAP_LAYERS:
            self.network.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: self.maps.__setitem__(name, output)
            )
        self.mean_filters = [
            MeanFilter(module)
            for name, module in self.network.named_modules()
            if isinstance(module, nn.Conv2d) and any(module.padding) and name.startswith(PADDED)
        ]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(own, affine=False), nn.Conv2d(own, teachers, 1))
            for own, teachers in zip((FEATURE_SIZE, 768), TEACHER_SIZES, strict=True)
        ).to(DEVICE)
        self.word_shares = None if word_shares is None else word_shares.to(DEVICE)
        self.word_head: nn.Module | None = None
        parts: dict[str, nn.Module] = {"network": self.network, "heads": self.heads}
        if word_shares is not None:
            linear = nn.Linear(FEATURE_SIZE, word_shares.shape[1])
            nn.init.zeros_(linear.weight)  # at first, each word is as likely as in all images
            linear.bias.data.copy_(torch.logit(word_shares.mean(0), eps=1e-4))
            self.word_head = nn.Sequential(nn.BatchNorm1d(FEATURE_SIZE, affine=False), linear).to(DEVICE)
            parts["word_head"] = self.word_head
        heads = [parameter for name in parts if name != "network" for parameter in parts[name].parameters()]
        groups = [
            {"params": self.network.parameters(), "lr": learning_rate},
            {"params": heads, "lr": 2.5 * learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.state_file, self.steps, self.seconds = state_file, 0, 0.0
        self.parts: dict[str, Any] = {**parts, "optimizer": self.optimizer}
        if state_file.exists():
            state = torch.load(state_file, map_location=DEVICE, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.steps, self.seconds = state["step"], state["seconds"]
            print(f"resumed at step {self.steps}", flush=True)

    def save_state(self) -> None:
        state = {"step": self.steps, "seconds": self.seconds, **{n: p.state_dict() for n, p in self.parts.items()}}
        with replacing(self.state_file) as partial:
            torch.save(state, partial)

    def learn(self, images: Tensor, views: Views, teacher: Teacher, phase: Phase, factor: float) -> dict[str, Tensor]:
        """One step at `factor` times the peak learning rate; returns the losses."""
        train_mode(self.network, phase)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        with torch.autocast(DEVICE, torch.bfloat16):
            self.network(views.see(images, phase.pixels))
            guess = [head(self.maps[name]).float() for head, name in zip(self.heads, MAP_LAYERS, strict=True)]
        seen = teacher.look(views.see(images, TEACHER_PIXELS))
        goal = [resampled(maps, g.shape[-1]) for maps, g in zip(seen, guess, strict=True)]
        dense, middle = (F.mse_loss(g, t) for g, t in zip(guess, goal, strict=True))
        pooled, wanted = guess[0].mean((2, 3)), seen[0].mean((2, 3))
        pool = F.mse_loss(pooled, wanted)
        logits, targets = (teacher.class_logits(vector) / TEMPERATURE for vector in (pooled, wanted))
        classes = F.kl_div(logits.log_softmax(-1), targets.softmax(-1), reduction="sum") / logits[..., 0].numel()
        loss = dense + 2 * pool + 0.5 * middle + 0.5 * classes
        losses = {"dense": dense, "pooled": pool, "middle": middle, "classes": classes}
        if self.word_head is not None and self.word_shares is not None:
            feature = self.maps[STRIDE_32_LAYER].float().mean((2, 3))
            shares = views.mix(self.word_shares[views.rows])
            guesses = self.word_head(feature)
            word = F.binary_cross_entropy_with_logits(guesses, shares, reduction="sum") / len(shares)
            loss, losses["words"] = loss + WORD_WEIGHT * word, word
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        for mean_filter in self.mean_filters:
            mean_filter.apply()
        self.steps += 1
        return {"loss": loss, **losses}


def finite(losses: dict[str, Tensor]) -> dict[str, float]:
    values = {name: round(value.item(), 4) for name, value in losses.items()}
    if not math.isfinite(values["loss"]):
        raise SystemExit("The loss became infinite: try a lower --learning-rate.")
    return values


def distil(args: argparse.Namespace, files: list[Path]) -> None:
    """Run what is left of the phases; SIGTERM and Ctrl-C save the state and stop."""
    shares = word_shares(args.captions, files) if args.captions else None
    student = Student(find_encoder(args.start), args.learning_rate, args.state / "state.pt", shares)
    images = load(files, HELD_PIXELS).to(DEVICE)
    teacher = Teacher(images)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def log(**row: float) -> None:
        with (args.state / "curve.jsonl").open("a") as file:
            file.write(json.dumps({"step": student.steps, "minutes": round(student.seconds / 60, 2), **row}) + "\n")
        print(student.steps, f"{student.seconds:.0f} s", row, flush=True)

    def log_probe() -> None:
        if args.probe_data:
            log(probe=probe_figure(student.network, args.images, args.probe_data))

    phases = [phase for phase in args.phases for _ in range(phase.steps)]
    saved = begun = time.monotonic()
    for step in range(student.steps, len(phases)):
        if step % args.probe_every == 0:
            log_probe()
            begun = time.monotonic()
        views = Views.of_step(step, len(images), args.batch, phases[step].plain)
        losses = student.learn(images, views, teacher, phases[step], rate_factor(step, len(phases)))
        last = student.steps == len(phases)
        if student.steps % LOG_EVERY == 0 or last:
            log(**finite(losses))
        student.seconds, begun = student.seconds + time.monotonic() - begun, time.monotonic()
        if stop.is_set() or last or time.monotonic() - saved > SAVE_SECONDS:
            student.save_state()
            saved = time.monotonic()
        if stop.is_set():
            print(f"stopped at step {student.steps}; start again to go on", flush=True)
            return
    log_probe()
    trunk = args.state / "trunk.safetensors"
    save_encoder(trunk, student.network.state_dict(), EncoderConfig(count_padding=False), torch.float16)
    print(f"wrote {trunk}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--train-list", type=Path, required=True, help="file with one training image's name a line")
    parser.add_argument("--start", required=True, help="trunk to start from, by name or file")
    parser.add_argument("--state", type=Path, required=True, help="folder for state and result")
    parser.add_argument(
        "--phases", type=Phase.parse, nargs="+", required=True, help="PIXELS:STEPS[:plain][:stem-frozen] ..."
    )
    parser.add_argument("--captions", type=Path, help="Flickr8k token file: learn the captions' words as well")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--limit", type=int, help="use only this many training images (a smoke run)")
    parser.add_argument("--probe-every", type=int, default=500, help="steps between probes")
    parser.add_argument("--probe-data", type=Path, help="Flickr8k folder to probe on; without it, no probe")
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    files = [args.images / name for name in args.train_list.read_text().split()[: args.limit]]
    found = [file for file in files if file.exists()]
    if not found:
        parser.error(f"{args.images} has none of the images in {args.train_list}.")
    distil(args, found)


if __name__ == "__main__":
    main()
