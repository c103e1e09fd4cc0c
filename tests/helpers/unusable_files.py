"""Caption files that cannot be used, each with the sentence that says why."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

TOKEN_FILE = "a.jpg#0\tA dog .\na.jpg#1\tA brown dog .\nb.jpg#0\tTwo cats .\nb.jpg#1\tTwo cats sit .\n"
COCO_ANNOTATIONS = {
    "info": {"year": 2014},
    "images": [{"id": 7, "file_name": "COCO_7.jpg", "height": 480}, {"id": 42, "file_name": "COCO_42.jpg"}],
    "licenses": [],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "Two cats sit."},
        {"id": 2, "image_id": 42, "caption": "A dog."},
        {"id": 3, "image_id": 7, "caption": "Cats."},
    ],
}


def changed(**fields: object) -> dict[str, object]:
    return {**COCO_ANNOTATIONS, **fields}


def write(folder: Path, name: str, content: object) -> Path:
    """A file with `content`: text as it is, all else as JSON; in .jsonl, one item a line."""
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
        return folder / name
    if not isinstance(content, str):
        lines = "".join(json.dumps(item) + "\n" for item in content) if name.endswith("jsonl") else json.dumps(content)  # type: ignore[attr-defined]
        content = lines
    (folder / name).write_text(content, encoding="utf-8", newline="")
    return folder / name


def one(image_id: object, caption: object = "x") -> dict[str, object]:
    return {"image_id": image_id, "caption": caption}


NO_HEADER = "FILE, line 1 is not a header that names a column of image ids and one of captions:"


UNUSABLE: list[tuple[str, object, str]] = [
    # rows
    ("f.jsonl", [one(1, [])], "FILE, line 1 has no caption."),
    ("f.jsonl", [one(1), {"image_id": 2}], "FILE, line 2 has no caption."),
    ("f.jsonl", [{"image_id": 1, "caption_0": "", "caption_1": None}], "FILE, line 1 has no caption."),
    ("f.jsonl", [one(1, None)], "FILE, line 1 has a caption that is not text."),
    ("f.jsonl", [one(1), one(2, 5)], "FILE, line 2 has a caption that is not text."),
    ("f.jsonl", [one(1, ["a", 5])], "FILE, line 1 has a caption that is not text."),
    ("f.jsonl", [one(1, [["a"]])], "FILE, line 1 has a caption that is not text."),
    ("f.jsonl", [one(1, {"tokens": ["x"]})], "FILE, line 1 has a caption that is not text."),
    ("f.jsonl", [one(1, "a \ud83d dog")], "FILE, line 1 has a caption with U+D83D in it, which no text can hold."),
    ("f.jsonl", [one(1, "a \udc4d dog")], "FILE, line 1 has a caption with U+DC4D in it, which no text can hold."),
    ("f.jsonl", [one(1, "a\0dog")], "FILE, line 1 has a caption with U+0000 in it, which no text can hold."),
    ("f.jsonl", [{"caption": "x"}], "FILE, line 1 has no image id."),
    ("f.jsonl", [one(None)], "FILE, line 1 has an image id that is neither text nor a whole number."),
    ("f.jsonl", [one(True)], "FILE, line 1 has an image id that is neither text nor a whole number."),
    ("f.jsonl", [one(["a"])], "FILE, line 1 has an image id that is neither text nor a whole number."),
    ("f.jsonl", [one(1), one(1.0)], "FILE, line 2 has an image id that is neither text nor a whole number."),
    (
        "f.jsonl",
        '{"image_id": NaN, "caption": "x"}',
        "FILE, line 1 has an image id that is neither text nor a whole number.",
    ),
    (
        "f.json",
        '[{"image_id": -Infinity, "caption": "x"}]',
        "FILE, item 1 has an image id that is neither text nor a whole number.",
    ),
    ("f.jsonl", [one("")], "FILE, line 1 has an empty image id."),
    ("f.jsonl", [one(" \t")], "FILE, line 1 has an empty image id."),
    ("f.jsonl", [one(1), "x"], "FILE, line 2 is not a JSON object."),
    ("f.jsonl", [[one(1)]], "FILE, line 1 is not a JSON object."),
    ("f.jsonl", [None], "FILE, line 1 is not a JSON object."),
    ("f.json", ["x"], "FILE, item 1 is not a JSON object."),
    ("f.json", [[one(1)]], "FILE, item 1 is not a JSON object."),
    ("f.json", [one(1), {"image_id": 2}], "FILE, item 2 has no caption."),
    # JSON
    ("f.jsonl", '\n{"image_id": 1, "caption": "x"}\n{"image_id": 2, "cap', "FILE, line 3 is not valid JSON."),
    ("f.jsonl", '[\n{"image_id": 1, "caption": "x"}\n]\n', "FILE, line 1 is not valid JSON."),
    ("f.jsonl", "{'image_id': 1, 'caption': 'x'}\n", "FILE, line 1 is not valid JSON."),
    ("f.jsonl", '{"image_id": 1, "caption": "x",}\n', "FILE, line 1 is not valid JSON."),
    ("f.jsonl", '// mine\n{"image_id": 1, "caption": "x"}\n', "FILE, line 1 is not valid JSON."),
    ("f.jsonl", '{"image_id": 1, "caption": "x"} {"image_id": 2}', "FILE, line 1 is not valid JSON."),
    ("f.jsonl", f'{{"image_id": {"9" * 5000}, "caption": "x"}}', "FILE, line 1 is not valid JSON."),
    (
        "f.jsonl",
        '{"image_id": 1, "caption": "x", "caption": "y"}',
        "FILE, line 1 has the key 'caption' twice in one JSON object.",
    ),
    ("f.json", '[{"id": 1, "id": 2, "text": "x"}]', "FILE has the key 'id' twice in one JSON object."),
    ("f.json", '[{"image_id": 1,\n', "FILE is not valid JSON at line 2."),
    ("f.json", '{"image_id": 1, "caption": "x"}\n{"image_id": 2}\n', "FILE is not valid JSON at line 2."),
    ("f.json", "[" * 100_000, "FILE is not valid JSON."),
    ("f.json", "", "FILE is not valid JSON at line 1."),
    ("f.json", [], "FILE holds no captions."),
    ("f.json", "3", "FILE holds neither an array of captions nor COCO annotations."),
    ("f.json", "null", "FILE holds neither an array of captions nor COCO annotations."),
    ("f.json", {"1": "a dog"}, "FILE holds neither an array of captions nor COCO annotations."),
    ("f.json", {"images": 3}, "FILE holds neither an array of captions nor COCO annotations."),
    ("f.json", {"images": []}, "FILE holds no captions."),
    ("f.json", {"images": [{"filename": "a.jpg", "sentences": []}]}, "FILE, image 1 has no caption."),
    ("f.json", {"images": [{"filename": "a.jpg"}]}, "FILE, image 1 has no caption."),
    ("f.json", {"images": [{"sentences": [{"raw": "x"}]}]}, "FILE, image 1 has no image id."),
    ("f.json", {"images": [7]}, "FILE, image 1 is not a JSON object."),
    # COCO
    ("f.json", changed(annotations={}), "FILE holds neither an array of captions nor COCO annotations."),
    ("f.json", changed(annotations=[]), "FILE holds no captions."),
    ("f.json", changed(annotations=[one(7), {"image_id": 7}]), "FILE, annotation 2 has no caption."),
    ("f.json", changed(annotations=[one(7, 5)]), "FILE, annotation 1 has a caption that is not text."),
    ("f.json", changed(annotations=[{"caption": "x"}]), "FILE, annotation 1 has no image id."),
    # tables
    ("f.csv", "a.jpg,A dog\nb.jpg,Two cats\n", f"{NO_HEADER} a.jpg, a dog."),
    ("f.csv", "image,words\na.jpg,x\n", f"{NO_HEADER} image, words."),
    ("f.csv", "photo,caption\na.jpg,x\n", f"{NO_HEADER} photo, caption."),
    ("f.csv", "image:caption\na.jpg:x\n", f"{NO_HEADER} image:caption."),
    ("f.tsv", "image caption\na.jpg x\n", f"{NO_HEADER} image caption."),
    ("f.csv", "image,caption\n", "FILE holds no captions."),
    ("f.csv", "", "FILE holds no captions."),
    ("f.csv", "image,caption,caption\na.jpg,x,y\n", "FILE, line 1 names the column 'caption' twice."),
    ("f.csv", "image,caption\na.jpg,x\n\nb.jpg", "FILE, line 4 has 1 of 2 columns."),
    ("f.csv", "image,caption\na.jpg,A dog, running\n", "FILE, line 2 has 3 columns, but the header 2."),
    ("f.csv", 'image,caption\na,"x\ny"\nb,"x\ny\n', "FILE, line 4 is not valid CSV: unexpected end of data."),
    ("f.csv", 'image,caption\na,"A" dog\n', "FILE, line 2 is not valid CSV: ',' expected after '\"'."),
    ("f.csv", 'image,caption\na,"x\ny"\n ,x\n', "FILE, line 4 has an empty image id."),
    ("f.csv", "image,caption_0,caption_1\na,x,y\nb,,\n", "FILE, line 3 has no caption."),
    # bytes
    ("f.txt", b"a dog\ncaf\xe9\n", "FILE, line 2 is not UTF-8 text."),
    ("f.csv", "image,caption\na,x\nb,caf\xe9\n".encode("latin-1"), "FILE, line 3 is not UTF-8 text."),
    ("f.jsonl", b'{"image_id": 1, "caption": "caf\xe9"}\n', "FILE, line 1 is not UTF-8 text."),
    ("f.json", '[{"image_id": 1, "caption": "x"}]'.encode("utf-16"), "FILE, line 1 is not UTF-8 text."),
    ("f.json", '[{"image_id": 1, "caption": "x"}]'.encode("utf-16-le"), "FILE, line 1 holds a NUL character."),
    ("f.txt", "a dog\na\0cat\n", "FILE, line 2 holds a NUL character."),
    ("f.csv", "image,caption\na,x\0\n", "FILE, line 2 holds a NUL character."),
    ("f.jsonl.gz", gzip.compress(b'{"image_id": 1, "caption": "x"}', mtime=0), "FILE, line 1 is not UTF-8 text."),
]
