"""Compare the scores of `imgcap eval` with those of pycocoevalcap and its Java tokeniser, on the same files.

    python benchmarks/scoring_agreement.py --flickr8k FOLDER [--captions FILE.jsonl]

The folder holds `Flickr8k.token.txt` and `Flickr_8k.testImages.txt`. Each of the five captions of a test image is
scored against the other four; the captions of FILE, objects with `image_id` and `caption`, against all five. Prints a
table. The exit code is 1 if two scores differ by more than 0.0005.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

REFERENCES = 5
TOLERANCE = 0.0005
METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")

Hypotheses = dict[str, str]
References = dict[str, list[str]]


def read_flickr8k(folder: Path) -> References:
    """The captions of each test image."""
    captions: References = {name: [] for name in (folder / "Flickr_8k.testImages.txt").read_text().split()}
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        key, caption = line.split("\t")
        if (name := key.rsplit("#", 1)[0]) in captions:
            captions[name].append(caption)
    return captions


def caption_sets(captions: References, file: Path | None) -> Iterator[tuple[str, Hypotheses, References]]:
    for k in range(REFERENCES):
        others = {name: own[:k] + own[k + 1 :] for name, own in captions.items()}
        yield f"caption {k + 1}", {name: own[k] for name, own in captions.items()}, others
    if file:
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        yield file.name, {row["image_id"]: row["caption"] for row in rows}, captions


def imgcap_scores(hypotheses: Hypotheses, references: References) -> list[float]:
    with tempfile.TemporaryDirectory() as work:
        ours, theirs = Path(work) / "hypotheses.jsonl", Path(work) / "references.jsonl"
        ours.write_text("".join(json.dumps({"image_id": i, "caption": c}) + "\n" for i, c in hypotheses.items()))
        theirs.write_text("".join(json.dumps({"image_id": i, "captions": c}) + "\n" for i, c in references.items()))
        command = [sys.executable, "-m", "imgcap", "eval", "--hypotheses", str(ours), "--references", str(theirs)]
        scores = json.loads(subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE).stdout)
    return [*scores["bleu"], scores["rouge_l"], scores["cider_d"]]


def coco_scores(hypotheses: Hypotheses, references: References) -> list[float]:
    tokenizer = PTBTokenizer()
    said = tokenizer.tokenize({name: [{"caption": caption}] for name, caption in hypotheses.items()})
    known = tokenizer.tokenize({name: [{"caption": c} for c in references[name]] for name in hypotheses})
    bleu, _ = Bleu(4).compute_score(known, said, verbose=0)
    return [*bleu, Rouge().compute_score(known, said)[0], Cider().compute_score(known, said)[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--captions", type=Path)
    args = parser.parse_args()
    worst = 0.0
    print("| captions | metric | imgcap | pycocoevalcap | difference |\n| --- | --- | --- | --- | --- |")
    for title, hypotheses, references in caption_sets(read_flickr8k(args.flickr8k), args.captions):
        pairs = zip(imgcap_scores(hypotheses, references), coco_scores(hypotheses, references), strict=True)
        for metric, (ours, theirs) in zip(METRICS, pairs, strict=True):
            worst = max(worst, abs(ours - theirs))
            print(f"| {title} | {metric} | {ours:.6f} | {theirs:.6f} | {ours - theirs:+.1e} |", flush=True)
    print(f"\nlargest difference: {worst:.1e}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
