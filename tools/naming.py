"""Decide whether a caption names the subject of an ImageNet image.

It does if it has a word for the image's class or for a WordNet hypernym of it. Hypernyms that are too general
(artifact, whole, ...) do not count, nor do those above them. The dictionary is WordNet 3.0, from Debian's
`wordnet-base`. The file name of an image begins with a WordNet id: `n02123045_tabby.jpg`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DICTIONARY = Path("/usr/share/wordnet")
TOO_GENERAL = frozenset(
    "entity physical_entity object physical_object whole unit thing artifact artefact instrumentality instrumentation "  # noqa: SIM905
    "living_thing animate_thing organism being matter substance abstraction group causal_agent cause "
    "psychological_feature natural_object structure construction device equipment covering way implement container "
    "consumer_goods commodity article_of_commerce surface area part portion geological_formation formation cause "
    "causal_agency solid material stuff attribute state event act communication mechanism system machine person "
    "individual someone somebody mortal soul restraint support facility creation article means instrument piece figure "
    "line protective_covering natural_elevation elevation ware decoration ornament ornamentation".split()
)
PEOPLE = frozenset({"man", "woman", "boy", "girl", "person", "people", "child"})
ALSO = {
    "dog": ("puppy", "puppies"),
    "cat": ("kitten", "cat"),
    "vehicle": ("car", "truck", "vehicle"),
}


class Naming:
    """WordNet's nouns: the words and the hypernyms of each synset."""

    def __init__(self, dictionary: Path = DICTIONARY) -> None:
        self._synsets: dict[str, tuple[list[str], list[str]]] = {}
        for line in (dictionary / "data.noun").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            fields = line.split("|")[0].split()
            count = int(fields[3], 16)
            lemmas = [fields[4 + 2 * i].lower() for i in range(count)]
            first = 4 + 2 * count
            pointers = range(first + 1, first + 1 + 4 * int(fields[first]), 4)
            above = [fields[p + 1] for p in pointers if fields[p] in ("@", "@i")]
            self._synsets[fields[0]] = lemmas, above

    def names(self, offset: str) -> set[str]:
        """Words for a synset and its hypernyms, and the last word of each compound."""
        found: set[str] = set()
        seen: set[str] = set()
        todo = [offset]
        while todo:
            synset = todo.pop()
            if synset in seen or synset not in self._synsets:
                continue
            seen.add(synset)
            lemmas, above = self._synsets[synset]
            if TOO_GENERAL & set(lemmas):
                continue
            for lemma in lemmas:
                spaced = lemma.replace("_", " ")
                found |= {spaced, spaced.split()[-1]}
            todo += above
        for word, others in ALSO.items():
            if word in found:
                found.update(others)
        return found

    def names_subject(self, file_name: str, caption: str) -> bool:
        """Whether the caption names the subject of the image. Raises `ValueError` if the name has no WordNet id."""
        match = re.match(r"n(\d{8})_", file_name)
        if not match:
            raise ValueError(f"{file_name} does not begin with a WordNet id.")
        padded = f" {re.sub(r'[^a-z ]', ' ', caption.lower())} "
        return any(f" {form} " in padded for name in self.names(match[1]) for form in forms(name))


def forms(word: str) -> Iterable[str]:
    """Singular and plural; none for people, because captions of any image may mention them."""
    if word in PEOPLE:
        return ()
    return {word, f"{word}s", f"{word}es", word[:-1] + "ies" if word.endswith("y") else word}
