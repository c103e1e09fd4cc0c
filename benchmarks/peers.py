"""Compare imgcap with its peers on a CPU: images per second, cold start, peak memory and size on disk.

    python benchmarks/peers.py [--images FOLDER] [--count 16] [--batches 1 4 8] [--repeats 3] [--threads 2]

The peers are BLIP-base and ViT-GPT2 from `transformers` (4.50 or later, which must be installed), and the loop that
people write themselves: torchvision's Inception V3 and a greedy LSTM, one image at a time. They have their published
sizes and random weights, because speed does not depend on the values. Each of them writes exactly 12 tokens. imgcap
writes captions of their natural length, whose mean is in the table. It and the two transformers search with a beam of
3; by itself, the default model searches with a beam of 5. The peers have no tokeniser here: neither its file nor
decoding ids into text counts against them.

Each figure comes from processes of its own, in alternating order. Images per second are measured after a first batch
that warms up, together with the peak memory of that process. The cold start of `imgcap caption` or of a script is the
time from the start of the process to its first caption, with the files in the page cache. The fastest time and the
largest memory of the repeats count. Needs Linux. Ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

# A child's peak memory starts at its parent's. This process may import torch, as all children do, but nothing more.
import torch
from torch import Tensor, nn

BEAM, TOKENS = 3, 12
EXAMPLES = Path(__file__).parents[1] / "examples"

# https://huggingface.co/Salesforce/blip-image-captioning-base/blob/main/config.json; other values
# are the defaults of `BlipConfig`. The published file is larger, 990 MB, because it holds tied weights twice.
LAYERS = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
BLIP_VISION = {**LAYERS, "image_size": 384, "patch_size": 16, "initializer_range": 0.02}
BLIP_TEXT = {**LAYERS, "encoder_hidden_size": 768, "vocab_size": 30524, "max_position_embeddings": 512}

# https://huggingface.co/nlpconnect/vit-gpt2-image-captioning/blob/main/config.json
VIT = {**LAYERS, "image_size": 224, "patch_size": 16}
GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
GPT2_START = 50256  # also the end and the padding

# Show and Tell (Vinyals et al. 2016); sizes of its implementation:
# https://github.com/tensorflow/models/blob/master/research/im2txt/im2txt/configuration.py
LSTM_UNITS, LSTM_WORDS = 512, 12000
# https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.inception_v3.html
INCEPTION_PIXELS, IMAGENET_MEAN, IMAGENET_STD = 299, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

CaptionLengths = Callable[[Sequence[Path], int], list[int]]
"""Captions images in batches of the given size, and returns the number of tokens of each caption."""


@dataclass(frozen=True)
class Program:
    search: str
    save: Callable[[Path], Path]
    """Writes the model to a folder, or finds it, and returns its folder."""
    load: Callable[[Path], CaptionLengths]
    batches: bool = True


def find_imgcap(_: Path) -> Path:
    from imgcap.model.store import DEFAULT_MODEL, locate

    return locate(DEFAULT_MODEL)


def load_imgcap(_: Path) -> CaptionLengths:
    from imgcap import SearchOptions, load_model

    captioner = load_model(device="cpu")

    def caption(images: Sequence[Path], batch: int) -> list[int]:
        batches = captioner.batches(images, SearchOptions(beam_size=BEAM), batch_size=batch)
        return [len(caption.wordings[0].words) for captions in batches for caption in captions]

    return caption


def import_transformers() -> Any:
    from imgcap.model.torchvision_compat import import_torchvision

    import_torchvision()  # transformers imports it, and fails if its build does not match torch's
    import transformers  # type: ignore[import-not-found, unused-ignore]

    return transformers


def save_blip(folder: Path) -> Path:
    transformers = import_transformers()
    config = transformers.BlipConfig(text_config=BLIP_TEXT, vision_config=BLIP_VISION)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    transformers.BlipImageProcessor().save_pretrained(folder)
    return folder


def load_blip(folder: Path) -> CaptionLengths:
    transformers = import_transformers()
    return transformer_captions(transformers.BlipForConditionalGeneration, transformers.BlipImageProcessor, folder)


def save_vit_gpt2(folder: Path) -> Path:
    transformers = import_transformers()
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VIT), transformers.GPT2Config(**GPT2)
    )
    model = transformers.VisionEncoderDecoderModel(config)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = settings.eos_token_id = settings.pad_token_id = GPT2_START
    model.save_pretrained(folder)
    transformers.ViTImageProcessor().save_pretrained(folder)
    return folder


def load_vit_gpt2(folder: Path) -> CaptionLengths:
    transformers = import_transformers()
    return transformer_captions(transformers.VisionEncoderDecoderModel, transformers.ViTImageProcessor, folder)


def transformer_captions(model_class: Any, processor_class: Any, folder: Path) -> CaptionLengths:
    from PIL import Image

    model, processor = model_class.from_pretrained(folder).eval(), processor_class.from_pretrained(folder)

    def caption(images: Sequence[Path], batch: int) -> list[int]:
        lengths: list[int] = []
        for start in range(0, len(images), batch):
            batch_images = [Image.open(image).convert("RGB") for image in images[start : start + batch]]
            pixels = processor(images=batch_images, return_tensors="pt").pixel_values
            ids = model.generate(pixels, num_beams=BEAM, min_new_tokens=TOKENS, max_new_tokens=TOKENS)
            lengths += [ids.shape[1] - 1] * len(ids)  # all but the start token
        return lengths

    return caption


class InceptionLSTM(nn.Module):
    def __init__(self) -> None:
        from imgcap.model.torchvision_compat import import_torchvision

        super().__init__()
        self.encoder = import_torchvision("torchvision.models").inception_v3(init_weights=False)
        self.encoder.fc = nn.Linear(self.encoder.fc.in_features, LSTM_UNITS)
        self.embedding = nn.Embedding(LSTM_WORDS, LSTM_UNITS)
        self.lstm = nn.LSTMCell(LSTM_UNITS, LSTM_UNITS)
        self.logits = nn.Linear(LSTM_UNITS, LSTM_WORDS)

    def forward(self, pixels: Tensor) -> list[int]:
        """The ids of one caption, for pixels (1, 3, 299, 299)."""
        state = self.lstm(self.encoder(pixels))
        ids = [0]
        for _ in range(TOKENS):
            state = self.lstm(self.embedding(torch.tensor(ids[-1:])), state)
            ids.append(int(self.logits(state[0]).argmax()))
        return ids[1:]


def save_loop(folder: Path) -> Path:
    folder.mkdir()
    torch.save(InceptionLSTM().state_dict(), folder / "model.pt")
    return folder


def load_loop(folder: Path) -> CaptionLengths:
    model = InceptionLSTM().eval()
    model.load_state_dict(torch.load(folder / "model.pt"))
    from PIL import Image
    from torchvision import transforms

    size = (INCEPTION_PIXELS, INCEPTION_PIXELS)
    normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    transform = transforms.Compose([transforms.Resize(size), transforms.ToTensor(), normalize])

    @torch.inference_mode()
    def caption(images: Sequence[Path], _: int) -> list[int]:
        return [len(model(transform(Image.open(image).convert("RGB"))[None])) for image in images]

    return caption


PROGRAMS = {
    "imgcap": Program(f"beam {BEAM}", find_imgcap, load_imgcap),
    "BLIP-base": Program(f"beam {BEAM}", save_blip, load_blip),
    "ViT-GPT2": Program(f"beam {BEAM}", save_vit_gpt2, load_vit_gpt2),
    "Inception + LSTM": Program("greedy", save_loop, load_loop, batches=False),
}


def child_save(program: str, folder: str) -> None:
    """Print the size of a model on disk in bytes."""
    torch.manual_seed(0)
    saved = PROGRAMS[program].save(Path(folder))
    print(sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()))


def child_caption(program: str, folder: str, images: str, batch: int, count: int) -> None:
    """Caption one batch and print the lengths, then print the seconds for `count` images and the mean length."""
    files = list(islice(cycle(sorted(Path(images).glob("*.jpg"))), max(batch, count)))
    caption = PROGRAMS[program].load(Path(folder))
    print(caption(files[:batch], batch), flush=True)
    if count:
        begun = time.perf_counter()
        lengths = caption(files[:count], batch)
        print(json.dumps([time.perf_counter() - begun, sum(lengths) / len(lengths)]))


CHILDREN: dict[str, Callable[..., None]] = {"save": child_save, "caption": child_caption}


def run(command: Sequence[str | Path]) -> tuple[float, list[str], int]:
    """Run a process. Returns the seconds until its first line, all its lines, and its peak memory in MiB."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline()]
        seconds = time.perf_counter() - begun
        lines += process.stdout.readlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"A process failed: {' '.join(map(str, command))}")
    return seconds, lines, usage.ru_maxrss // 1024


def child(*task: str | int) -> list[str | Path]:
    return [sys.executable, __file__, "--child", json.dumps(task)]


def cold_start(program: str, folder: Path, images: Path) -> float:
    if program == "imgcap":
        image = min(images.glob("*.jpg"))
        options = ["--beam-size", str(BEAM), "--device", "cpu"]
        return run([sys.executable, "-m", "imgcap", "caption", image, *options])[0]
    return run(child("caption", program, str(folder), str(images), 1, 0))[0]


def measure(args: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """One row for each program and batch size."""
    cases = [(name, batch) for name, p in PROGRAMS.items() for batch in (args.batches if p.batches else [1])]
    mb_on_disk = {name: int(run(child("save", name, str(root / name)))[1][-1]) / 1e6 for name in PROGRAMS}
    cold: dict[str, list[float]] = defaultdict(list)
    runs: dict[tuple[str, int], list[tuple[float, float, int]]] = defaultdict(list)
    for repeat in range(args.repeats):
        step = -1 if repeat % 2 else 1
        for name in list(PROGRAMS)[::step]:
            cold[name].append(cold_start(name, root / name, args.images))
        for name, batch in cases[::step]:
            task = ("caption", name, str(root / name), str(args.images), batch, args.count)
            _, lines, mib = run(child(*task))
            seconds, tokens = json.loads(lines[-1])
            runs[name, batch].append((seconds, tokens, mib))
        print(f"repeat {repeat + 1} of {args.repeats}", file=sys.stderr)
    return [
        {
            "program": name,
            "search": PROGRAMS[name].search,
            "batch": batch,
            "images_per_second": round(args.count / min(seconds for seconds, _, _ in runs[name, batch]), 3),
            "memory_mib": max(mib for _, _, mib in runs[name, batch]),
            "cold_start_seconds": round(min(cold[name]), 2),
            "mb_on_disk": round(mb_on_disk[name], 1),
            "mean_tokens": runs[name, batch][0][1],
        }
        for name, batch in cases
    ]


def compare(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Figures of imgcap divided by those of each peer, each at its fastest batch size."""
    fastest = {row["program"]: row for row in sorted(rows, key=lambda row: row["images_per_second"])}
    own = fastest.pop("imgcap")
    keys = ("images_per_second", "memory_mib", "cold_start_seconds", "mb_on_disk")
    return {
        name: {key: round(own[key] / fastest[name][key], 3) for key in keys} for name in PROGRAMS if name in fastest
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=EXAMPLES, metavar="FOLDER", help="a folder of .jpg files")
    parser.add_argument("--count", type=int, default=16, help="number of images to time, repeated if there are fewer")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="number of threads and CPUs")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, *task = args.child
        CHILDREN[name](*task)
        return
    try:
        transformers = version("transformers")
    except PackageNotFoundError:
        parser.error("transformers is not installed. Run: pip install 'transformers>=4.50'")
    if not any(args.images.glob("*.jpg")):
        parser.error(f"{args.images} contains no .jpg files")
    # Children inherit both; the CPUs also bound threads that are not torch's, such as those that decode images.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    os.environ.update(
        OMP_NUM_THREADS=str(args.threads),
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TRANSFORMERS_VERBOSITY="error",
    )

    with tempfile.TemporaryDirectory() as work:
        rows = measure(args, Path(work))
    ratios = compare(rows)

    setting = f"torch {torch.__version__}, transformers {transformers}, {args.threads} threads"
    print(f"{setting}; {args.count} images, best of {args.repeats}")
    print("| program | search | batch | images/s | peak MiB | cold start, s | MB on disk | mean tokens |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print("|", " | ".join(map(str, row.values())), "|")
    print("\nimgcap divided by the peer, each at its fastest batch")
    print("| peer | images/s | peak memory | cold start | on disk |\n| --- | --- | --- | --- | --- |")
    for name, ratio in ratios.items():
        print("|", " | ".join(map(str, (name, *ratio.values()))), "|")
    facts = {"torch": torch.__version__, "transformers": transformers, "threads": args.threads}
    facts |= {"images": args.count, "repeats": args.repeats, "beam": BEAM, "tokens": TOKENS}
    print(json.dumps({**facts, "rows": rows, "imgcap_divided_by": ratios}))


if __name__ == "__main__":
    main()
