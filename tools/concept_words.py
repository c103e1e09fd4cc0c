"""Concepts: words for what an image can show, and which of them a caption or a label names."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import torch
from torch import Tensor

from data_sets import CAPTIONS_FILE, captions_without_images, flickr8k_captions, flickr8k_names, general_images
from imgcap.text.tokenizer import words

CLASS_WORDS_FILE = Path(__file__).with_name("class_words.txt")
FEWEST_IMAGES = 12
"""A word in the captions of this many Flickr8k training images is a concept."""
FEWEST_PLURALS = 60
"""A plural in the captions of this many is a concept beside its singular."""
STOP_WORDS = frozenset(
    "'d 's a about above across after again against all along also although among amongst an and another any "  # noqa: SIM905
    "appear appears are around as at be because before behind being below beside besides between both but by can "
    "different do does doing done down during each every few for from get gets getting has have having he her "
    "here herself him himself his how i if in inside into is it it's its itself just like looks made many me more "
    "most much my n't near next no not of off on one only onto or other our out outside over own same seem seems "
    "several she so some someone something something's such than that the their them themselves then there these "
    "they this those though through to together too toward towards under underneath until up upon us using "
    "various very was we well were what what's when where which while who why with within without you your".split()
)
KINDS = frozenset(
    ("animal", "bird", "insect", "snake", "instrument", "fruit", "vegetable", "food", "boat", "car", "fish", "dog")
)
"""Words whose kinds may take each other's place in a caption."""
IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "puppies": "puppy",
    "kids": "kid",
    "geese": "goose",
    "mice": "mouse",
    "sheep": "sheep",
    "knives": "knife",
    "leaves": "leaf",
    "scarves": "scarf",
    "wolves": "wolf",
    "shelves": "shelf",
    "jeans": "jeans",
    "glasses": "glasses",
    "sunglasses": "sunglasses",
    "stairs": "stairs",
    "pants": "pants",
    "shorts": "shorts",
    "clothes": "clothes",
    "tennis": "tennis",
    "grass": "grass",
    "christmas": "christmas",
    "motorcyclist": "motorcyclist",
}
MENDED_LABELS = {
    "Faces": "face man",
    "Leopards": "leopard cat animal",
    "Motorbikes": "motorcycle bike",
    "airplanes": "airplane plane",
    "bass": "fish animal",
    "binocular": "binoculars",
    "bonsai": "tree plant pot",
    "brontosaurus": "dinosaur animal",
    "stegosaurus": "dinosaur animal",
    "buddha": "statue",
    "car_side": "car",
    "cellphone": "phone cell cellphone",
    "cougar_body": "lion cat animal",
    "cougar_face": "lion cat animal",
    "crayfish": "lobster animal",
    "crocodile": "crocodile alligator animal",
    "crocodile_head": "crocodile alligator animal",
    "dalmatian": "dog dalmatian animal",
    "dollar_bill": "money dollar bill",
    "dolphin": "dolphin animal",
    "dragonfly": "dragonfly insect",
    "elephant": "elephant animal",
    "emu": "bird animal",
    "euphonium": "horn instrument",
    "ewer": "vase jug pitcher",
    "ferry": "boat ship",
    "flamingo": "flamingo bird animal",
    "flamingo_head": "flamingo bird animal",
    "garfield": "cartoon cat",
    "gerenuk": "deer antelope animal",
    "grand_piano": "piano instrument",
    "hawksbill": "turtle animal",
    "headphone": "headphones",
    "hedgehog": "hedgehog animal",
    "ibis": "bird animal",
    "inline_skate": "skate skates",
    "joshua_tree": "tree desert",
    "kangaroo": "kangaroo animal",
    "ketch": "sailboat boat",
    "llama": "llama animal",
    "lobster": "lobster animal",
    "lotus": "flower",
    "mandolin": "guitar instrument",
    "mayfly": "insect",
    "menorah": "candle",
    "minaret": "tower building mosque",
    "nautilus": "shell",
    "octopus": "octopus animal",
    "okapi": "animal",
    "pagoda": "building temple",
    "panda": "panda bear animal",
    "pigeon": "pigeon bird animal",
    "platypus": "animal",
    "pyramid": "pyramid building",
    "revolver": "gun",
    "rhino": "rhino animal",
    "rooster": "rooster chicken bird animal",
    "schooner": "sailboat ship boat",
    "scorpion": "scorpion animal",
    "sea_horse": "fish",
    "snoopy": "cartoon dog",
    "soccer_ball": "soccer ball",
    "starfish": "starfish animal",
    "stop_sign": "stop sign",
    "sunflower": "sunflower flower yellow",
    "tick": "insect bug",
    "trilobite": "fossil",
    "water_lilly": "flower water",
    "wild_cat": "cat animal",
    "windsor_chair": "chair",
    "wrench": "wrench tool",
    "yin_yang": "symbol sign",
    "BACKGROUND_Google": "",
    "beaver": "beaver animal",
    "ant": "ant insect",
    "butterfly": "butterfly insect",
    "crab": "crab animal",
    "saxophone": "saxophone instrument",
    "accordion": "accordion instrument",
    "electric_guitar": "guitar instrument electric",
    "pizza": "pizza food",
    "strawberry": "strawberry fruit food",
    # clothing
    "longsleeve": "shirt",
    "outwear": "jacket",
    "t-shirt": "shirt t-shirt",
    "shoes": "shoe",
    # PACS
    "giraffe": "giraffe animal",
    "horse": "horse animal",
    "dog": "dog animal",
    "house": "house building",
    "person": "person",
    "guitar": "guitar instrument",
    # waste sorting
    "images": "",
    "trash": "trash",
    "glass": "glass bottle",
    "metal": "metal can",
}
GROCERIES = (
    (r"Milk$", "milk carton box"),
    (r"ghurt|Yoghurt|Sour-Cream", "yogurt carton box food"),
    (r"Juice|Tropicana", "juice carton box drink"),
    (r"Apple$|Delicious|Granny|Pink-Lady|Gala", "apple fruit food"),
    (r"Anjou|Conference|Kaiser", "pear fruit food"),
    (r"Potato", "potato vegetable food"),
    (r"Tomato", "tomato vegetable food"),
    (r"Pepper", "pepper vegetable food"),
    (r"Melon|Cantaloupe|melon", "melon fruit food"),
    (r"Grapefruit|Satsumas|Nectarine|Peach|^Orange$", "orange fruit food"),
    (r"Lemon|^Lime", "lemon fruit food"),
    (r"Avocado|Kiwi|Mango|Papaya|Passion|Plum|Pomegranate|Pineapple|Banana", "fruit food"),
    (r"Asparagus|Aubergine|Cabbage|Carrots|Cucumber|Garlic|Ginger|Leek|Beet|Onion|Zucchini|Mushroom", "vegetable food"),
)


def ranges(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def class_words() -> list[list[str]]:
    """The words of each of ImageNet's 1,000 classes."""
    own: list[list[str]] = [[] for _ in range(1000)]
    for line in CLASS_WORDS_FILE.read_text().splitlines():
        if line.startswith("#"):
            continue
        numbers, _, listed = line.partition(":")
        for number in ranges(numbers):
            own[number] += [w for w in listed.split() if w not in own[number]]
    return own


class Lemmas:
    """Maps words of captions to their singular."""

    def __init__(self, counts: collections.Counter[str]) -> None:
        self._counts = counts
        self._known: dict[str, str] = dict(IRREGULAR)

    def __call__(self, word: str) -> str:
        if word not in self._known:
            self._known[word] = self._singular(word)
        return self._known[word]

    def _singular(self, word: str) -> str:
        candidates = []
        if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
            if word.endswith("ies"):
                candidates.append(word[:-3] + "y")
            if word.endswith(("shes", "ches", "xes", "sses", "oes", "zzes")):
                candidates.append(word[:-2])
            candidates.append(word[:-1])
        return next((c for c in candidates if self._counts[c] >= 2), word)


class Concepts:
    """An ordered list of K concepts."""

    def __init__(self, listed: list[str], lemmas: Lemmas) -> None:
        self.words = listed
        self.lemma = lemmas
        self.place = {word: i for i, word in enumerate(listed)}

    def of_tokens(self, tokens: list[str]) -> list[int]:
        """Indices of the concepts that a caption names, ascending."""
        found = set()
        for token in tokens:
            if token in STOP_WORDS:
                continue
            for form in (token, self.lemma(token)):
                if form in self.place:
                    found.add(self.place[form])
        return sorted(found)

    def of_words(self, named: str) -> list[int]:
        return self.of_tokens(named.split())

    def class_matrix(self) -> Tensor:
        """float32 (1000, K): 1 where a concept is a word for an ImageNet class."""
        matrix = torch.zeros(1000, len(self.words))
        for number, own in enumerate(class_words()):
            matrix[number, self.of_tokens(own)] = 1
        return matrix


def build(flickr8k: dict[str, list[list[str]]], others: list[list[str]]) -> Concepts:
    """Choose the concepts, from the tokens of Flickr8k's training captions (by image) and of other captions."""
    counts: collections.Counter[str] = collections.Counter()
    for captions in flickr8k.values():
        counts.update(word for caption in captions for word in caption)
    for caption in others:
        counts.update(caption)
    for own in class_words():
        counts.update(own * 2)
    lemmas = Lemmas(counts)
    images: collections.Counter[str] = collections.Counter()
    plurals: collections.Counter[str] = collections.Counter()
    for captions in flickr8k.values():
        tokens = {word for caption in captions for word in caption if word not in STOP_WORDS}
        images.update({lemmas(word) for word in tokens})
        plurals.update(word for word in tokens if lemmas(word) != word)
    listed = {word for word, n in images.items() if n >= FEWEST_IMAGES}
    listed |= {word for word, n in plurals.items() if n >= FEWEST_PLURALS}
    named = " ".join(MENDED_LABELS.values()) + " " + " ".join(own for _, own in GROCERIES)
    for own in [*class_words(), named.split()]:
        listed |= {lemmas(word) for word in own}
    return Concepts(sorted(listed, key=lambda w: (-images[w], w)), lemmas)


def read_flickr8k(folder: Path, split: str = "train") -> dict[str, list[list[str]]]:
    """Tokens of the captions of a split, by image; images without a file are left out."""
    captions = flickr8k_captions(folder / CAPTIONS_FILE)
    return {name: [words(c) for c in captions[name]] for name in flickr8k_names(folder, split)}


def read_others(general: Path) -> list[tuple[str, list[str]]]:
    """Source and tokens of each caption without an image."""
    return [(source, words(caption)) for source, caption in captions_without_images(general)]


def basic_words(general: Path) -> list[str]:
    """One word for each ImageNet class: from the general set's list, else the first in `class_words.txt`."""
    basic = [own[0] for own in class_words()]
    for line in (general / "imagenet_words.tsv").read_text().splitlines():
        number, _, _, word = line.split("\t")
        basic[int(number)] = word or basic[int(number)]
    return basic


def label_words(general: Path) -> list[str | None]:
    """Words for the label of each general image; None if it has no useful label."""
    classes = class_words()
    numbers = {
        line.split("\t")[1]: int(line.split("\t")[0])
        for line in (general / "imagenet_words.tsv").read_text().splitlines()
    }
    found: list[str | None] = []
    for row in general_images(general):
        label, source = row["label"], row["source"]
        if source == "nyu":
            found.append("room")
        elif not label or source in ("in5", "in300"):
            found.append(None)
        elif source == "imagenette":
            found.append(" ".join(classes[numbers[label.removeprefix("n")]]))
        elif source == "grocery":
            named = [own for pattern, own in GROCERIES if re.search(pattern, label)]
            plain = label.rpartition("-")[2].lower().rstrip("s")
            found.append(" ".join([*named, plain]))
        else:
            found.append(MENDED_LABELS.get(label, label.replace("_", " ").lower()) or None)
    return found
