"""torchvision can be imported with a torch of another build, and with a matching one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from imgcap.model.torchvision_compat import import_torchvision

OURS = "from imgcap.model.torchvision_compat import import_torchvision\n"


def run_fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False)


def test_models_and_transforms_work_even_if_a_plain_import_fails() -> None:
    plain = run_fresh("import torchvision")
    ours = run_fresh(
        OURS
        + """
import torch
from PIL import Image
models = import_torchvision("torchvision.models")
assert models.__name__ == "torchvision.models"
assert import_torchvision("torchvision.models") is models
network = models.squeezenet1_1(weights=None).eval()
with torch.inference_mode():
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
assert models.Inception_V3_Weights.IMAGENET1K_V1.url.startswith("https://")
transforms = import_torchvision("torchvision.transforms.v2")
resized = transforms.functional.resize(transforms.functional.pil_to_tensor(Image.new("RGB", (9, 5))), [4, 3])
assert resized.shape == (3, 4, 3)
import torchvision
assert import_torchvision() is torchvision
import imgcap.model.torchvision_compat
print(len(imgcap.model.torchvision_compat._declared))
"""
    )
    assert ours.returncode == 0, ours.stderr
    if plain.returncode:
        assert "torchvision::" in plain.stderr
        assert ours.stdout == "1\n"  # it is the declarations that make it work, and they are made once
    else:
        assert ours.stdout == "0\n"  # the builds match: there was nothing to do


def test_operators_that_exist_are_not_declared_again() -> None:
    code = (
        OURS
        + """
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import imgcap.model.torchvision_compat as compat
import_torchvision("torchvision.models")
import_torchvision("torchvision.models")
print(len(compat._declared))
"""
    )
    finished = run_fresh(code)
    assert (finished.stdout, finished.returncode) == ("0\n", 0), finished.stderr


@pytest.mark.parametrize("error", [RuntimeError("out of cheese"), ImportError("no module")])
def test_an_unrelated_error_is_not_swallowed(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    calls = []

    def fail(module: str) -> None:
        calls.append(module)
        raise error

    monkeypatch.setattr("imgcap.model.torchvision_compat.importlib.import_module", fail)
    with pytest.raises(type(error), match=str(error)):
        import_torchvision()
    assert calls == ["torchvision"]


def test_a_missing_torchvision_module_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no_such_module"):
        import_torchvision("torchvision.no_such_module")
