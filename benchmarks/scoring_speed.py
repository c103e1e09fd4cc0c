"""CPU time for scoring captions with five references each, for pycocoevalcap and imgcap on the same tokens.

    python benchmarks/scoring_speed.py [--flickr8k FOLDER] [--captions 40000]

The folder holds `Flickr8k.token.txt`. Its captions are sampled, and some of their words exchanged. Without it, the
words are synthetic, with the frequencies of Zipf's law. Also computes the bootstrap intervals of 1,000 images. Prints a
table and a line of JSON. The exit code is 1 if the scores differ.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.scoring.metrics.rouge import rouge_l
from imgcap.scoring.resampling import DRAWS, intervals
from imgcap.scoring.scores import score_images

REFERENCES = 5
EXCHANGED, EXCHANGED_IN_HYPOTHESES = 0.1, 0.3
TOLERANCE = 1e-6
BOOTSTRAPPED = 1000

Caption = list[str]


def flickr8k(folder: Path) -> list[list[Caption]]:
    """The five captions of each image."""
    captions: dict[str, list[Caption]] = defaultdict(list)
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        name, text = line.split("\t")
        captions[name.split("#")[0]].append(text.lower().split())
    return [texts for texts in captions.values() if len(texts) == REFERENCES]


def zipf(images: int, source: random.Random, words: int = 10_000) -> list[list[Caption]]:
    """Five captions of each of `images`, of 6 to 18 words; the word of rank r is drawn in proportion to 1 / r."""
    names = [f"word{rank}" for rank in range(1, words + 1)]
    shares = [1 / rank for rank in range(1, words + 1)]
    return [[source.choices(names, shares, k=source.randint(6, 18)) for _ in range(REFERENCES)] for _ in range(images)]


def draw(images: list[list[Caption]], count: int, source: random.Random) -> tuple[list[Caption], list[list[Caption]]]:
    """Hypotheses and references of `count` images; a hypothesis is one of the image's captions, changed."""
    words = [word for texts in images for text in texts for word in text]

    def change(caption: Caption, share: float) -> Caption:
        return [source.choice(words) if source.random() < share else word for word in caption]

    drawn = source.choices(images, k=count)
    references = [[change(text, EXCHANGED) for text in texts] for texts in drawn]
    return [change(source.choice(texts), EXCHANGED_IN_HYPOTHESES) for texts in drawn], references


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()  # both run in one thread, and CPU time depends less on other programs
    value = call()
    return time.process_time() - begun, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, metavar="FOLDER")
    parser.add_argument("--captions", type=int, default=40_000)
    args = parser.parse_args()
    source = random.Random(0)
    images = flickr8k(args.flickr8k) if args.flickr8k else zipf(8000, source)
    hypotheses, references = draw(images, args.captions, source)
    gts = {i: [" ".join(tokens) for tokens in texts] for i, texts in enumerate(references)}
    res = {i: [" ".join(tokens)] for i, tokens in enumerate(hypotheses)}

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = {
        "BLEU": timed(lambda: corpus_bleu(hypotheses, references).scores),
        "CIDEr-D": timed(lambda: CiderD(references).score(hypotheses)),
        "ROUGE-L": timed(lambda: rouge_l(hypotheses, references)),
    }
    extra_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    theirs = {
        "BLEU": timed(lambda: Bleu(4).compute_score(gts, res, verbose=0)[0]),
        "CIDEr-D": timed(lambda: Cider().compute_score(gts, res)[1]),
        "ROUGE-L": timed(lambda: Rouge().compute_score(gts, res)[1]),
    }
    scored = score_images(hypotheses[:BOOTSTRAPPED], references[:BOOTSTRAPPED])
    bootstrap_seconds = timed(lambda: intervals(scored))[0]

    text = "Flickr8k, drawn anew" if args.flickr8k else "synthetic (Zipf)"
    print(f"{args.captions:,} captions with {REFERENCES} references each, {text}; CPU seconds")
    print("| metric | pycocoevalcap | imgcap | ratio | largest difference |\n| --- | --- | --- | --- | --- |")
    seconds = {name: (theirs[name][0], ours[name][0]) for name in ours}
    differences = {name: float(np.abs(np.subtract(theirs[name][1], ours[name][1])).max()) for name in ours}
    for name, (their, our) in seconds.items():
        print(f"| {name} | {their:.2f} | {our:.2f} | {their / our:.1f} | {differences[name]:.1e} |")
    their, our = map(sum, zip(*seconds.values(), strict=True))
    print(f"| all three | {their:.2f} | {our:.2f} | {their / our:.1f} | {max(differences.values()):.1e} |")
    print(
        f"imgcap's memory grew by {extra_mib} MiB; {DRAWS:,} bootstrap draws of {len(scored):,} images took "
        f"{bootstrap_seconds:.2f} s"
    )
    agree = max(differences.values()) < TOLERANCE
    print(
        json.dumps(
            {
                "captions": args.captions,
                "text": text,
                "pycocoevalcap_seconds": {name: round(pair[0], 3) for name, pair in seconds.items()},
                "imgcap_seconds": {name: round(pair[1], 3) for name, pair in seconds.items()},
                "ratio": round(their / our, 1),
                "extra_mib": extra_mib,
                "bootstrap_seconds": round(bootstrap_seconds, 3),
                "agree": agree,
            }
        )
    )
    sys.exit(not agree)


if __name__ == "__main__":
    main()
