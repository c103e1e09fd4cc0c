"""Caption images offline with Inception V3 and an LSTM, and train the captioner on your own images.

>>> from imgcap import load_model
>>> load_model().caption("photo.jpg").text  # doctest: +SKIP
'a dog runs through the grass'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imgcap._version import __version__
from imgcap.errors import ImgcapError

if TYPE_CHECKING:
    from imgcap.captioning.captioner import Caption, Captioner, load_model
    from imgcap.model.search import SearchOptions
    from imgcap.model.store import available_models

__all__ = ["Caption", "Captioner", "ImgcapError", "SearchOptions", "__version__", "available_models", "load_model"]

_MODULES = {
    "Caption": "captioning.captioner",
    "Captioner": "captioning.captioner",
    "SearchOptions": "model.search",
    "available_models": "model.store",
    "load_model": "captioning.captioner",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import imgcap` does not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"imgcap.{_MODULES[name]}"), name)
