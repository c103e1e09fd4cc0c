"""Score a decoder on the dev sets: Flickr8k, COCO, and images whose subject must be named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_sets import CAPTIONS_FILE, coco_dev, done_rows, flickr8k_captions, image_names
from imgcap.model.decoder import LSTMDecoder
from imgcap.model.search import SearchOptions, search
from imgcap.scoring.metrics.bleu import corpus_bleu
from imgcap.scoring.metrics.cider import CiderD
from imgcap.text.tokenizer import detokenize, tokenize
from imgcap.text.vocabulary import Vocabulary
from naming import Naming


class DevSets:
    """Features of the dev images, and what their captions are scored against."""

    def __init__(self, features: Path, flickr8k: Path, general: Path, limit: int | None, dictionary: Path) -> None:
        def read(name: str) -> Tensor:
            return torch.from_numpy(np.load(features / name / "features.npy"))

        names = image_names(features / "flickr8k-dev")
        rows = done_rows(features / "flickr8k-dev")[:limit]
        self.flickr8k = read("flickr8k-dev")[rows]
        captions = flickr8k_captions(flickr8k / CAPTIONS_FILE)
        self.references = [[tokenize(caption) for caption in captions[names[row]]] for row in rows]
        self.coco = read("dev-coco")
        self.coco_references = [[tokenize(caption) for caption in one["captions"]] for one in coco_dev(general)]
        self.naming = read("dev-naming")
        self.names = image_names(features / "dev-naming")
        self.namer = Naming(dictionary)

    def score(
        self, decoder: LSTMDecoder, vocabulary: Vocabulary, options: SearchOptions
    ) -> tuple[dict[str, float], dict[str, list[str]], tuple[float, float, float, float]]:
        """Figures of a decoder, its captions by dev set, and BLEU-1 to 4 on Flickr8k."""
        tokens = {}
        for name, values in (("flickr8k", self.flickr8k), ("coco", self.coco), ("naming", self.naming)):
            tokens[name] = [
                vocabulary.decode(found[0].ids) if found else []
                for part in torch.split(values, 256)
                for found in search(decoder, part, options)
            ]
        texts = {name: [detokenize(words) for words in own] for name, own in tokens.items()}
        hits = [self.namer.names_subject(name, text) for name, text in zip(self.names, texts["naming"], strict=True)]
        bleu = corpus_bleu(tokens["flickr8k"], self.references).scores
        figures = {
            "flickr8k_cider_d": float(CiderD(self.references).score(tokens["flickr8k"]).mean()),
            "flickr8k_bleu_4": bleu[3],
            "distinct": len(set(texts["flickr8k"])) / len(texts["flickr8k"]),
            "words": len({w for own in tokens["flickr8k"] for w in own}),
            "coco_cider_d": float(CiderD(self.coco_references).score(tokens["coco"]).mean()),
            "names": sum(hits) / len(hits),
            "coco_words": len({w for own in tokens["coco"] for w in own}),
        }
        return figures, texts, bleu
