"""Score a model on images from other sources: whether captions name the subject, and CIDEr-D on COCO images.

    python benchmarks/general.py DEV [--model default] [--show 20]

DEV has a folder `naming`, with images whose names begin with a WordNet id (`n02123045_tabby.jpg`), a folder `coco`, and
`coco.jsonl` with the keys `image` and `captions`. Naming needs Debian's `wordnet-base`, see `tools/naming.py`. Prints a
table and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from imgcap.captioning.captioner import load_model
from imgcap.scoring.scores import score

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from naming import DICTIONARY, Naming


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--show", type=int, default=0, help="print this many captions of each set, evenly spaced")
    parser.add_argument("--wordnet", type=Path, default=DICTIONARY)
    args = parser.parse_args()
    captioner = load_model(args.model, "cpu")
    naming = Naming(args.wordnet)

    files = sorted((args.dev / "naming").iterdir())
    named = [caption.text for caption in captioner.stream(files)]
    hits = [naming.names_subject(file.name, text) for file, text in zip(files, named, strict=True)]
    rows = [json.loads(line) for line in (args.dev / "coco.jsonl").read_text().splitlines()]
    coco = [caption.text for caption in captioner.stream([args.dev / "coco" / row["image"] for row in rows])]
    scores = score(coco, [row["captions"] for row in rows])

    figures = {
        "names the subject": sum(hits) / len(hits),
        "COCO CIDEr-D": scores.cider_d,
        "COCO BLEU-4": scores.bleu[3],
        "COCO distinct": scores.distinct / len(coco),
    }
    for name, value in figures.items():
        print(f"| {name} | {value:.4f} |")
    if args.show:
        for file, text, hit in list(zip(files, named, hits, strict=True))[:: max(1, len(files) // args.show)]:
            print("right" if hit else "     ", file.stem, "|", text)
        for row, text in list(zip(rows, coco, strict=True))[:: max(1, len(rows) // args.show)]:
            print(row["image"], "|", text, "|", row["captions"][0])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
