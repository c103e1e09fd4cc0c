"""Pack the images that a trunk is distilled from into small tars, to carry them to another machine.

    python tools/pack_images.py OUT --flickr8k FLICKR8K --general GENERAL [--size 160] [--quality 82] [--limit 60]

The images are Flickr8k's training images and the general images. Each becomes a WebP of SIZE x SIZE pixels; its aspect
ratio is not kept, as `distill.py` does not keep it either. OUT receives `images-1.tar` and so on, of at most LIMIT MiB
each, and `images.txt` with the names of all images. `distill.py` reads the unpacked tars:

    mkdir images
    for pack in OUT/images-*.tar; do tar -xf $pack -C images; done
    python tools/distill.py --images images --train-list OUT/images.txt ...

An image that cannot be read is named and left out, and the exit code is 3.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from data_sets import TRAIN_SETS, add_folders, image_sets
from imgcap.errors import ExitCode
from imgcap.files import replacing
from imgcap.images.decoding import load_pixels
from imgcap.images.errors import ImageError

BLOCK = tarfile.BLOCKSIZE
END = tarfile.RECORDSIZE
"""The most bytes that end a tar."""

Packed = tuple[str, bytes]
"""The name of an image in a tar, and its content."""


def webp(file: Path, size: int, quality: int) -> Packed | ImageError:
    """The image as a WebP of `size` x `size` pixels, or its error."""
    pixels = load_pixels(file, size)
    if isinstance(pixels, ImageError):
        return pixels
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "WEBP", quality=quality)
    return f"{file.stem}.webp", content.getvalue()


def packs(images: Sequence[Packed], limit: int) -> Iterator[list[Packed]]:
    """The images in groups whose tars have at most `limit` bytes; an image that is too large is a group of its own."""
    group: list[Packed] = []
    room = limit - END
    for name, content in images:
        size = BLOCK + -(-len(content) // BLOCK) * BLOCK  # header and content
        if group and size > room:
            yield group
            group, room = [], limit - END
        group.append((name, content))
        room -= size
    if group:
        yield group


def write_tar(out: Path, images: Sequence[Packed]) -> None:
    with replacing(out) as partial, tarfile.open(partial, "w") as tar:
        for name, content in images:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    add_folders(parser)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--quality", type=int, default=82)
    parser.add_argument("--limit", type=int, default=60, help="MiB that a tar may have")
    args = parser.parse_args()
    sets = image_sets(args.flickr8k, args.general)
    files = [file for name in TRAIN_SETS for file in sets[name]]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda file: webp(file, args.size, args.quality), files))
    images = [each for each in found if not isinstance(each, ImageError)]
    args.out.mkdir(parents=True, exist_ok=True)
    for number, group in enumerate(packs(images, args.limit << 20), 1):
        tar = args.out / f"images-{number}.tar"
        write_tar(tar, group)
        print(f"{tar}: {len(group):,} images, {tar.stat().st_size:,} bytes")
    (args.out / "images.txt").write_text("".join(f"{name}\n" for name, _ in images))
    print(f"{len(images):,} images, {sum(len(content) for _, content in images):,} bytes of WebP")
    errors = [each for each in found if isinstance(each, ImageError)]
    for error in errors:
        print(error, file=sys.stderr)
    sys.exit(ExitCode.SOME_FAILED if errors else ExitCode.DONE)


if __name__ == "__main__":
    main()
