"""What can be wrong with an image or a folder of images."""

from __future__ import annotations

from typing import Literal

from imgcap.errors import ImgcapError, printable

Kind = Literal["missing", "unreadable", "not an image", "unsupported", "damaged", "too large", "empty folder"]
"""Why an image has no pixels, as counted in summaries and written in rows:

    missing        there is no such file, or it is a link to a missing file
    unreadable     the system refuses to read the file or folder
    not an image   a folder, pipe or device instead of a file, or a file of another kind
    unsupported    an image in a format that imgcap or the installed packages cannot decode
    damaged        starts like an image but cannot be decoded
    too large      more pixels than allowed, or than fit into memory
    empty folder   a folder without any of the requested images
"""


class ImageError(ImgcapError):
    """An image, or a folder of images, that cannot be used; `str(error)` is one printable line for any file name."""

    def __init__(self, message: str, hint: str = "", kind: Kind = "damaged", path: str = "") -> None:
        super().__init__(printable(message), hint)
        self.kind: Kind = kind
        self.path = path
        """The file or folder as the user named it; "" for an image without a file."""


class Refusal(Exception):  # noqa: N818 (an answer, which `open_image` turns into the error)
    """Why an image is not decoded: `what` completes the sentence that starts with the image's name."""

    def __init__(self, kind: Kind, what: str) -> None:
        super().__init__(what)
        self.kind: Kind = kind
        self.what = what
