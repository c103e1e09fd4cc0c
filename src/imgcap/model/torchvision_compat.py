"""Import torchvision even if its compiled operators do not match the installed torch.

A torchvision built for CUDA cannot load its operators with a CPU torch. Its import then fails with "operator
torchvision::nms does not exist", because it registers shape functions for operators that were never declared. The
import works if their schemas are declared first; models, weights and transforms need no compiled operator.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[object] = []  # the declarations of a torch library last as long as the object


def import_torchvision(module: str = "torchvision") -> ModuleType:
    """Import `module` of torchvision. Operators that it expects are declared if they are missing."""
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _declared.append(library)
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + schema)  # type: ignore[no-untyped-call]
    return importlib.import_module(module)
