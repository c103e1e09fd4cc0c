"""Distil three EfficientNets into the last block of the trunk, from stored maps. It resumes where it stopped.

    python tools/distill_top.py FEATURES TEACHERS CONCEPTS.pt STATE --steps 3000 --plain 600

FEATURES and TEACHERS are folders of `encode_sets.py`; CONCEPTS.pt comes from `concepts.py`. Only Mixed_7 is trained.
The layers before it do not change, so their output (the maps after Mixed_6e) is read from FEATURES and not computed.

An example is a random crop of the maps, mirrored in half of the steps. Every second example of a batch is mixed with
another (Verma et al. 2019, "Manifold Mixup"). From the student's pooled vector, linear heads predict the teachers'
pooled vectors, their softened classes and the concepts; from its map, the map of the last teacher. The heads start from
ridge regressions, and the first `--heads-only` steps train them alone, so that untrained heads do not disturb Mixed_7.
The last `--plain` steps use whole images and no mixing, so that the statistics of the batch norms fit the use.

Layers whose names begin with a name in `--reset` start from random weights. This is for layers that draw a frame around
every image and see little of the image (`MeanFilter`); `frames.py` finds them.

STATE receives `state.pt` and `curve.jsonl`. At the end, or with `--encode`, it also receives `trunk.safetensors` and
the folder `features`, with the arrays of `encode_sets.py trunk` except the maps, and the features of the mirrored maps,
`mirrored.npy`.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_sets import TRAIN_SETS, done_rows, image_names
from distill_networks import DEVICE, TEACHERS, MeanFilter, mixed, resampled
from imgcap.files import replacing
from imgcap.model.encoder import Encoder, find_encoder, read_encoder, save_encoder
from imgcap.model.inception import FEATURE_SIZE, ConvNorm, InceptionV3
from probe import ridge

TOP = ("Mixed_7a", "Mixed_7b", "Mixed_7c")
TEMPERATURE = 2.0
HEAD_START_IMAGES = 4096
"""Images whose features the heads' regressions are fitted on."""
RESET_ROUNDS = 3
RESET_BATCHES = 8
"""Batches in each round, in which reset layers find the mean of their input and the statistics of their batch norms."""
LEAST_VARIATION = 1e-3
"""Variance below which the heads do not amplify a feature."""
SMALLEST_CROP = 0.65
"""Side of the smallest crop, as a share of the map's side: 11 of 17."""
COOL_DOWN = 0.4
"""Share of the steps, at the end, in which the learning rate falls."""
PENALTY = 500.0
"""Of the regressions from which the heads start."""
LEAST_VARIANCE = 0.05
"""Of a concept's target, so that the head of a rare concept does not start with huge weights."""
SAVE_SECONDS = 300
LOG_EVERY = 20


@dataclass(frozen=True)
class Example:
    """Where an image is stored: its set, and its row in the arrays."""

    name: str
    row: int


class Store:
    """The stored arrays of all images that the trunk and the teachers have encoded and that have concepts."""

    def __init__(self, features: Path, teachers: Path, concepts: Path) -> None:
        saved = torch.load(concepts, weights_only=True)
        place = {name: i for i, name in enumerate(saved["names"])}
        self.maps: dict[str, npt.NDArray[np.float16]] = {}
        self.seen: dict[str, dict[str, npt.NDArray[np.float16]]] = {}
        self.examples: list[Example] = []
        concept_rows = []
        for name in TRAIN_SETS:
            self.maps[name] = np.load(features / name / "maps.npy", mmap_mode="r")
            self.seen[name] = {
                array: np.load(teachers / name / f"{array}.npy", mmap_mode="r")
                for array in ("pooled", "logits", "maps")
            }
            names = image_names(features / name)
            done = done_rows(features / name, teachers / name)
            own = [row for row in done if f"{name}/{names[row]}" in place]
            self.examples += [Example(name, row) for row in own]
            concept_rows += [place[f"{name}/{names[row]}"] for row in own]
        self.concepts = saved["targets"][concept_rows]
        sample = random.Random(0).sample(range(len(self.examples)), min(512, len(self.examples)))
        pooled = self.teacher("pooled", sample).flatten(1)
        self.pooled_mean, self.pooled_std = pooled.mean(0), pooled.std(0) + 1e-3
        maps = self.teacher("maps", sample)
        self.maps_mean, self.maps_std = maps.mean((0, 2, 3)), maps.std((0, 2, 3)) + 1e-3

    def teacher(self, array: str, rows: list[int]) -> Tensor:
        """Rows of an array of the teachers, float32."""
        own = (self.seen[self.examples[i].name][array][self.examples[i].row] for i in rows)
        return torch.from_numpy(np.stack(list(own))).float().to(DEVICE)

    def student(self, rows: list[int]) -> Tensor:
        """Maps after Mixed_6e, float32 (B, 768, 17, 17), channels last."""
        return to_maps(np.stack([self.maps[self.examples[i].name][self.examples[i].row] for i in rows]))


def to_maps(stored: npt.NDArray[np.float16]) -> Tensor:
    """Stored maps (B, 17, 17, 768) as Mixed_7 reads them: float32 (B, 768, 17, 17), channels last."""
    return torch.from_numpy(stored).to(DEVICE).float().permute(0, 3, 1, 2)


class Student:
    """Mixed_7, the heads and the optimizer."""

    def __init__(self, start: Path, store: Store, learning_rate: float, state_file: Path, reset: list[str]) -> None:
        torch.manual_seed(0)
        whole: InceptionV3 = Encoder.load(start, torch.device("cpu"), fold=False).network
        self.network = nn.Sequential(*(whole.get_submodule(name) for name in TOP))
        self.network.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.requires_grad_(True)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.02
        self.filters = [MeanFilter(m) for m in self.network.modules() if isinstance(m, nn.Conv2d) and any(m.padding)]
        self.maps = nn.Conv2d(FEATURE_SIZE, len(store.maps_mean), 1)
        self.pooled = nn.Linear(FEATURE_SIZE, len(store.pooled_mean))
        self.concepts = nn.Linear(FEATURE_SIZE, store.concepts.shape[1])
        self.norm = nn.BatchNorm1d(FEATURE_SIZE, eps=LEAST_VARIATION, affine=False)
        self.map_norm = nn.BatchNorm2d(FEATURE_SIZE, eps=LEAST_VARIATION, affine=False)
        self.heads = nn.ModuleList([self.maps, self.pooled, self.concepts, self.norm, self.map_norm]).to(DEVICE)
        groups = [
            {"params": self.network.parameters(), "lr": learning_rate},
            {"params": self.heads.parameters(), "lr": learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.file, self.steps, self.seconds = state_file, 0, 0.0
        if state_file.exists():
            state = torch.load(state_file, map_location=DEVICE, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.heads.load_state_dict(state["heads"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.steps, self.seconds = state["steps"], state["seconds"]
            print("resumed at step", self.steps, flush=True)
        else:
            if reset:
                self._reset(store, reset)
            self._start_heads(store)

    @torch.no_grad()
    def _reset(self, store: Store, prefixes: list[str]) -> None:
        """Give random weights to the layers whose names begin so, and fit their batch norms to them."""
        layers = {
            f"{name}.{part_name}": part
            for name, block in zip(TOP, self.network, strict=True)
            for part_name, part in block.named_children()
            if isinstance(part, ConvNorm)
        }
        for prefix in prefixes:
            own = [layer for name, layer in layers.items() if name.startswith(prefix)]
            if not own:
                raise SystemExit(f"--reset {prefix}: no layer begins with it. The layers: {', '.join(layers)}.")
            for layer in own:
                nn.init.kaiming_normal_(layer.conv.weight, nonlinearity="relu")
                layer.bn.reset_parameters()
        draw = random.Random(0)
        self.network.train()
        for _ in range(RESET_ROUNDS):
            for _ in range(RESET_BATCHES):
                self.network(store.student(draw.sample(range(len(store.examples)), 16)))
            for mean_filter in self.filters:
                mean_filter.apply()

    @torch.no_grad()
    def _start_heads(self, store: Store) -> None:
        """Start the linear heads from ridge regressions on the features of the trunk as it is."""
        rows = random.Random(0).sample(range(len(store.examples)), min(HEAD_START_IMAGES, len(store.examples)))
        features = self.encode(store.student(rows[i : i + 16]) for i in range(0, len(rows), 16))
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.copy_(features.mean(0))
        self.norm.running_var.copy_(features.var(0))
        values = self.norm.eval()(features)
        pooled = (store.teacher("pooled", rows).flatten(1) - store.pooled_mean) / store.pooled_std
        targets = store.concepts[rows].float().to(DEVICE)
        [slopes] = ridge(values, torch.cat([pooled, targets], 1), [PENALTY])
        of_pooled, of_concepts = slopes.T[: pooled.shape[1]], slopes.T[pooled.shape[1] :]
        self.pooled.weight.copy_(of_pooled)
        self.pooled.bias.copy_(pooled.mean(0))
        mean = targets.mean(0)
        self.concepts.weight.copy_(of_concepts / (mean * (1 - mean)).clamp(min=LEAST_VARIANCE)[:, None])
        self.concepts.bias.copy_(torch.logit(mean, eps=1e-4))

    @torch.no_grad()
    def encode(self, batches: Iterable[Tensor]) -> Tensor:
        """Batches of maps as from `Store.student` -> features, float32 (N, 2048)."""
        self.network.eval()
        return torch.cat([self.network(x).mean((2, 3)) for x in batches])

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
        }
        with replacing(self.file) as partial:
            torch.save(state, partial)

    def learn(
        self, store: Store, rows: list[int], plain: bool, factor: float, heads_only: bool, fcs: list[nn.Linear]
    ) -> dict[str, float]:
        """Take one step on the images `rows`, at `factor` times the peak learning rate. Returns the losses."""
        self.network.train()
        self.heads.train()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if heads_only:
            self.optimizer.param_groups[0]["lr"] = 0.0
        draw = random.Random(self.steps)
        x = store.student(rows)
        side = x.shape[-1]
        size = side if plain else draw.randint(round(SMALLEST_CROP * side), side)
        left, top = draw.randint(0, side - size), draw.randint(0, side - size)
        x = x[:, :, top : top + size, left : left + size]
        goal = (store.teacher("maps", rows) - store.maps_mean[:, None, None]) / store.maps_std[:, None, None]
        pooled = (store.teacher("pooled", rows).flatten(1) - store.pooled_mean) / store.pooled_std
        classes = (store.teacher("logits", rows) / TEMPERATURE).softmax(-1)
        concepts = store.concepts[rows].float().to(DEVICE)
        if draw.random() < 0.5:
            x, goal, left = x.flip(3), goal.flip(3), side - size - left
        if not plain:
            own = torch.tensor([draw.random() if i % 2 else 1.0 for i in range(len(rows))], device=DEVICE)
            x, goal, pooled, classes, concepts = (mixed(v, own) for v in (x, goal, pooled, classes, concepts))
        maps = self.network(x.contiguous(memory_format=torch.channels_last))
        box = [s * 2 / side - 1 for s in (left, left + size, top, top + size)]
        dense = F.mse_loss(self.maps(self.map_norm(maps)), cropped(goal, box, maps.shape[-1]))
        vector = self.norm(maps.mean((2, 3)))
        guess = self.pooled(vector)
        pool = F.mse_loss(guess, pooled)
        parts = (guess * store.pooled_std + store.pooled_mean).chunk(len(fcs), 1)
        logits = torch.stack([fc(part) for fc, part in zip(fcs, parts, strict=True)], 1) / TEMPERATURE
        kl = F.kl_div(logits.log_softmax(-1), classes, reduction="sum") / logits[..., 0].numel()
        words = F.binary_cross_entropy_with_logits(self.concepts(vector), concepts, reduction="sum") / len(rows)
        loss = 0.5 * dense + 2 * pool + kl + 0.1 * words
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        for mean_filter in self.filters:
            mean_filter.apply()
        self.steps += 1
        losses = {"loss": loss, "dense": dense, "pooled": pool, "classes": kl, "words": words}
        return {name: round(value.item(), 4) for name, value in losses.items()}


def cropped(maps: Tensor, box: list[float], size: int) -> Tensor:
    """The part of maps (B, C, H, W) in `box` (left, right, top, bottom in [-1, 1]), as (B, C, size, size)."""
    left, right, top, bottom = box
    if (left, right, top, bottom) == (-1, 1, -1, 1):
        return resampled(maps, size)
    theta = maps.new_tensor([[(right - left) / 2, 0, (left + right) / 2], [0, (bottom - top) / 2, (top + bottom) / 2]])
    grid = F.affine_grid(theta.expand(len(maps), 2, 3), [len(maps), 1, size, size], align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def rate_factor(step: int, steps: int) -> float:
    """The learning rate of a step, as a share of the peak."""
    return min(1.0, (step + 1) / 50, max(0.01, (steps - step) / (COOL_DOWN * steps)))


def classifiers() -> list[nn.Linear]:
    """The last layers of the teachers, from pooled vectors to ImageNet logits."""
    from efficientnet_lite_pytorch import EfficientNet

    networks = [EfficientNet.from_pretrained(name, weights_path=weights) for name, weights in TEACHERS.items()]
    return [network._fc.requires_grad_(False).to(DEVICE) for network in networks]


def encode(student: Student, features: Path, out: Path) -> None:
    """Write the features of all images whose maps are stored, and of the mirrored maps."""
    for name in TRAIN_SETS:
        maps = np.load(features / name / "maps.npy", mmap_mode="r")
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "images.txt").write_text((features / name / "images.txt").read_text())
        done = done_rows(features / name)
        for array, is_mirrored in (("features", False), ("mirrored", True)):
            inputs = (to_maps(maps[done[i : i + 16]]) for i in range(0, len(done), 16))
            values = np.zeros((len(maps), FEATURE_SIZE), np.float32)
            values[done] = student.encode(x.flip(3) if is_mirrored else x for x in inputs).cpu().numpy()
            np.save(folder / f"{array}.npy", values)
        np.save(folder / "done.npy", np.load(features / name / "done.npy"))
        print("encoded", name, flush=True)


def write_trunk(student: Student, start: Path, out: Path) -> None:
    """Write the trunk `start` with the student's Mixed_7."""
    weights, config = read_encoder(start)
    for name, part in zip(TOP, student.network, strict=True):
        for key, tensor in part.state_dict().items():
            weights[f"{name}.{key}"] = tensor
    save_encoder(out, weights, config, torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("teachers", type=Path)
    parser.add_argument("concepts", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("--start", default="default", help="trunk to start from, by name or file")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--plain", type=int, default=600, help="of these, the last on whole images")
    parser.add_argument("--heads-only", type=int, default=40, help="of these, the first that train the heads alone")
    parser.add_argument("--reset", nargs="*", default=[], help="beginnings of the names of layers to start at random")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--encode", action="store_true", help="do not train; write trunk and features")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.state.mkdir(parents=True, exist_ok=True)
    start = find_encoder(args.start)
    store = Store(args.features, args.teachers, args.concepts)
    print(len(store.examples), "images", flush=True)
    student = Student(start, store, args.learning_rate, args.state / "state.pt", args.reset)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(1))
    fcs = classifiers()
    saved = time.monotonic()
    while student.steps < args.steps and not stop and not args.encode:
        begun = time.monotonic()
        per_epoch = max(1, len(store.examples) // args.batch)
        order = random.Random(student.steps // per_epoch).sample(range(len(store.examples)), len(store.examples))
        rows = order[student.steps % per_epoch * args.batch :][: args.batch]
        plain = student.steps >= args.steps - args.plain
        losses = student.learn(
            store, rows, plain, rate_factor(student.steps, args.steps), student.steps < args.heads_only, fcs
        )
        student.seconds += time.monotonic() - begun
        if student.steps % LOG_EVERY == 0:
            row = {"step": student.steps, "minutes": round(student.seconds / 60, 1), **losses}
            with (args.state / "curve.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(time.strftime("%H:%M:%S"), row, flush=True)
        if time.monotonic() - saved > SAVE_SECONDS:
            student.save()
            saved = time.monotonic()
    if not args.encode:
        student.save()
    if student.steps >= args.steps or args.encode:
        write_trunk(student, start, args.state / "trunk.safetensors")
        encode(student, args.features, args.state / "features")


if __name__ == "__main__":
    main()
