"""Run the teachers or the trunk once over all images that the general model learns from. It resumes where it stopped.

    python tools/encode_sets.py teachers STATE --flickr8k FLICKR8K --general GENERAL
    python tools/encode_sets.py trunk STATE --flickr8k FLICKR8K --general GENERAL [--encoder TRUNK.safetensors]

`teachers` runs EfficientNet-Lite0, 1 and 2 under OpenVINO and stores their pooled vectors, their ImageNet logits and
the maps of the last one at stride 32. `trunk` runs the Inception V3 and stores features in float32 and the maps after
Mixed_6e in float16; `distill_top.py` trains Mixed_7 from these maps. Each set of images has a folder of arrays. Row i
of an array belongs to line i of `images.txt`; `done.npy` says which chunks of rows are complete.

The general images are 200 pixels wide and compressed. The trunk sees every second Flickr8k training image in the same
way, so that blur does not tell the two sources apart.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor, nn

from data_sets import CHUNK, TRAIN_SETS, add_folders, image_sets
from distill_networks import TEACHERS
from imgcap.files import replacing
from imgcap.images.decoding import Pixels, open_image, squash
from imgcap.model.encoder import Encoder, find_encoder
from imgcap.model.inception import STRIDE_16_LAYER

TEACHER_PIXELS = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 256}
"""Side of the input of each teacher."""
GENERAL_PIXELS, GENERAL_QUALITY = 200, 82

Arrays = dict[str, npt.NDArray[np.floating]]
Network = Callable[[list[Image.Image]], Arrays]


def as_general(image: Image.Image) -> Image.Image:
    """The image, as small and as compressed as the general images are."""
    file = io.BytesIO()
    small = image.resize((GENERAL_PIXELS, GENERAL_PIXELS), Image.Resampling.BICUBIC)
    small.save(file, "JPEG", quality=GENERAL_QUALITY)
    return Image.open(file).convert("RGB")


class Teachers:
    """EfficientNet-Lite0, 1 and 2 under OpenVINO."""

    def __init__(self, threads: int) -> None:
        import openvino

        self._compiled = []
        for name, weights in TEACHERS.items():
            pixels = TEACHER_PIXELS[name]
            network = EfficientNet.from_pretrained(name, weights_path=weights).eval()
            shape = (1, 3, pixels, pixels)
            model = openvino.convert_model(TeacherOutputs(network), example_input=torch.zeros(shape), input=[*shape])
            options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
            self._compiled.append((openvino.Core().compile_model(model, "CPU", options), pixels))

    def __call__(self, images: list[Image.Image]) -> Arrays:
        rows = []
        for image in images:
            outputs = [model(teacher_input(image, pixels)) for model, pixels in self._compiled]
            rows.append(
                {
                    "pooled": np.stack([output[1][0] for output in outputs]),
                    "logits": np.stack([output[2][0] for output in outputs]),
                    "maps": outputs[-1][0][0],
                }
            )
        return {name: np.stack([row[name] for row in rows]).astype(np.float16) for name in rows[0]}


class TeacherOutputs(nn.Module):
    """Maps at stride 32, pooled vectors and ImageNet logits of an EfficientNet."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.network.extract_features(x)
        pooled = maps.mean((2, 3))
        return maps, pooled, self.network._fc(pooled)


def teacher_input(image: Image.Image, pixels: int) -> npt.NDArray[np.float32]:
    """float32 (1, 3, pixels, pixels), normalised as the teachers expect: (value - 127) / 128."""
    values = squash(image, pixels).astype(np.float32)
    return np.ascontiguousarray((values - 127).transpose(2, 0, 1)[None] / 128)


class Trunk:
    """The Inception V3: features of whole images, and their maps after Mixed_6e."""

    def __init__(self, file: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.encoder = Encoder.load(file, torch.device("cpu"))
        self.maps: list[Tensor] = []
        layer = self.encoder.network.get_submodule(STRIDE_16_LAYER)
        layer.register_forward_hook(lambda _module, _inputs, output: self.maps.append(output.half()))

    def __call__(self, images: list[Image.Image]) -> Arrays:
        self.maps.clear()
        pixels: list[Pixels] = [squash(image, self.encoder.config.pixels) for image in images]
        features = self.encoder(pixels).numpy()
        maps = torch.cat(self.maps).permute(0, 2, 3, 1).contiguous()  # channels last
        return {"features": features, "maps": maps.numpy()}


class EncodedSet:
    """Arrays of one set of images in a folder, filled chunk by chunk."""

    def __init__(self, folder: Path, files: list[Path], maps: bool) -> None:
        self.folder, self.files, self.maps = folder, files, maps
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "images.txt").write_text("".join(f"{file.name}\n" for file in files))
        self._done_file = folder / "done.npy"
        self._done = (
            np.load(self._done_file) if self._done_file.exists() else np.zeros(-(-len(files) // CHUNK), dtype=bool)
        )

    def left(self) -> list[int]:
        """Chunks that are not complete, shuffled so that all sources advance alike."""
        order = np.random.default_rng(0).permutation(len(self._done))
        return [int(chunk) for chunk in order if not self._done[chunk]]

    def write(self, chunk: int, arrays: Arrays) -> None:
        for name, values in arrays.items():
            if name == "maps" and not self.maps:
                continue
            file = self.folder / f"{name}.npy"
            if file.exists():
                rows = np.lib.format.open_memmap(file, "r+")
            else:
                rows = np.lib.format.open_memmap(file, "w+", values.dtype, (len(self.files), *values.shape[1:]))
            rows[chunk * CHUNK :][: len(values)] = values
            rows.flush()
        if self._done_file.exists():  # another process may work from the other end (--backwards)
            self._done |= np.load(self._done_file)
        self._done[chunk] = True
        with replacing(self._done_file) as partial, partial.open("wb") as file_:
            np.save(file_, self._done)

    def is_done(self, chunk: int) -> bool:
        return bool(np.load(self._done_file)[chunk]) if self._done_file.exists() else False


def chunks(sets: list[EncodedSet]) -> Iterator[tuple[EncodedSet, int]]:
    """Incomplete chunks: those of small sets first, then those of large sets in turn."""
    work = [
        (i / len(own), place, number, s)
        for place, s in enumerate(sets)
        if (own := s.left())
        for i, number in enumerate(own)
    ]
    small = [item for item in work if len(item[3].files) <= CHUNK * 2]
    large = [item for item in work if len(item[3].files) > CHUNK * 2]
    for _, _, number, encoded in [*small, *sorted(large, key=lambda item: item[:3])]:
        yield encoded, number


def trunk_view(encoded: EncodedSet, row: int, image: Image.Image) -> Image.Image:
    """The image as the trunk sees it."""
    return as_general(image) if encoded.folder.name == "flickr8k-train" and row % 2 else image


View = Callable[[EncodedSet, int, Image.Image], Image.Image]
"""Turns the image in a row of a set into the input of a network."""


def run(network: Network, work: list[tuple[EncodedSet, int]], view: View) -> None:
    """Encode and write the chunks in `work`."""
    with ThreadPoolExecutor(1) as pool:
        for encoded, chunk in work:
            if encoded.is_done(chunk):
                continue
            begun = time.monotonic()
            rows = range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(encoded.files)))
            images = pool.map(lambda row, e=encoded: view(e, row, open_image(e.files[row])), rows)
            parts = []
            batch: list[Image.Image] = []
            for image in images:
                batch.append(image)
                if len(batch) == 4:
                    parts.append(network(batch))
                    batch = []
            if batch:
                parts.append(network(batch))
            encoded.write(chunk, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
            rate = len(rows) / (time.monotonic() - begun)
            print(f"{time.strftime('%H:%M:%S')} {encoded.folder.name} {chunk}: {rate:.1f} images/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("teachers", "trunk"))
    parser.add_argument("state", type=Path, help="folder for the arrays")
    add_folders(parser)
    parser.add_argument("--encoder", default="default", help="trunk, by name or file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sets", nargs="+", help="only these sets")
    parser.add_argument("--backwards", action="store_true", help="start at the other end, beside a first process")
    parser.add_argument("--limit", type=int, help="only this many images of each set")
    args = parser.parse_args()
    wanted = {
        name: files[: args.limit]
        for name, files in image_sets(args.flickr8k, args.general).items()
        if not args.sets or name in args.sets
    }
    sets = [EncodedSet(args.state / name, files, name in TRAIN_SETS) for name, files in wanted.items()]
    work = list(chunks(sets))
    if args.backwards:
        work.reverse()
    if args.network == "teachers":
        run(Teachers(args.threads), work, lambda _set, _row, image: image)
    else:
        run(Trunk(find_encoder(args.encoder), args.threads), work, trunk_view)


if __name__ == "__main__":
    main()
