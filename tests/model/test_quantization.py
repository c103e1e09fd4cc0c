"""The network in 8-bit integers: each part against its float32 form, and the captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.data import EXAMPLES, Run
from imgcap.captioning import run as run_module
from imgcap.captioning.captioner import load_model
from imgcap.captioning.options import Inputs, OutputOptions, RunOptions
from imgcap.captioning.progress import RunListener
from imgcap.captioning.run import Outcome, run
from imgcap.errors import UsageError
from imgcap.images.decoding import open_image, squash
from imgcap.model import encoder as encoder_module
from imgcap.model import one_dnn
from imgcap.model.encoder import AUTO, FLOAT32, INT8, Encoder, automatic_precision, check_precision, read_encoder
from imgcap.model.inception import AveragePool, ConvNorm, FoldedConv
from imgcap.model.quantization import (
    FLOAT32_LAYERS,
    ConvIntegers,
    QuantizedConv,
    QuantizedMaxPool,
    QuantizedPoolConv,
    calibration_images,
    is_supported,
    pack_bits,
    split_levels,
)

CPU = torch.device("cpu")
IMAGES = sorted(EXAMPLES.glob("*.jpg"))
integers = pytest.mark.skipif(not is_supported(), reason="this processor has no VNNI")
operators = pytest.mark.skipif(
    not one_dnn.has("onednn", "qconv_prepack", "qconv2d_pointwise"), reason="this torch has no oneDNN for integers"
)


def folded(*sizes: int, **conv: int) -> FoldedConv:
    torch.manual_seed(1)
    trained = ConvNorm(*sizes, **conv).eval()
    torch.nn.init.uniform_(trained.bn.bias, -0.5, 0.5)
    with torch.no_grad():
        return FoldedConv(trained)


def levels(*shape: int) -> Tensor:
    """Values of 8 bits. Up to 128, kernels without VNNI are exact too: sums of two products fit into 16 bits."""
    made = torch.randint(0, 129, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return made.contiguous(memory_format=torch.channels_last)


def nearest(conv: FoldedConv, steps: Tensor, out_steps: Tensor | None = None) -> ConvIntegers:
    """Every weight rounded to the nearest integer, and the bias unchanged."""
    _, rest, _ = split_levels(conv.plain_weight(), steps)
    return ConvIntegers(steps, torch.empty(0) if out_steps is None else out_steps, conv.bias, pack_bits(rest >= 0.5))


def uneven_steps(channels: int) -> Tensor:
    return torch.linspace(0.01, 0.03, channels)


@operators
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding"),
    [(16, 1, 1, 0), (16, 3, 1, 1), (16, 3, 2, 0), (3, 1, 1, 0), (3, 3, 2, 0)],
)
@torch.inference_mode()
def test_a_convolution_is_within_rounding_of_float32(channels: int, kernel: int, stride: int, padding: int) -> None:
    conv, x = folded(channels, 32, kernel, stride=stride, padding=padding), levels(2, channels, 11, 11)
    steps = uneven_steps(channels)
    real = (x.float() - (128 if channels == 3 else 0)) * steps[:, None, None]
    expected = F.conv2d(real, conv.weight, conv.bias, stride, padding).relu()
    exact = QuantizedConv(conv, nearest(conv, steps))(x)
    assert exact.dtype == torch.float32
    assert 0 < (exact - expected).abs().max() < 0.05 * expected.std().item()
    out_steps = expected.amax((0, 2, 3)) / 255 + 0.001
    rounded = QuantizedConv(conv, nearest(conv, steps, out_steps))(x)
    assert rounded.dtype == torch.uint8
    out_steps = out_steps[:, None, None]
    assert ((rounded * out_steps - exact).abs() <= 0.51 * out_steps).all()


@operators
@torch.inference_mode()
def test_a_map_written_twice_has_one_more_bit() -> None:
    first, second, x = folded(3, 32, 3, stride=2), folded(32, 16, 1), levels(2, 3, 21, 21)
    real = F.conv2d((x.float() - 128) / 127.5, first.weight, first.bias, 2).relu()
    steps = real.amax((0, 2, 3)) / 200 + 1e-4
    pixel_steps = torch.full((3,), 1 / 127.5)
    once, twice = (QuantizedConv(first, nearest(first, pixel_steps, steps)) for _ in range(2))
    exact = QuantizedConv(first, nearest(first, pixel_steps))
    twice.write_twice()
    map_once, map_twice, values = once(x), twice(x), exact(x) / steps[:, None, None]
    assert map_twice.shape == (2, 64, 10, 10)
    mean = (map_twice[:, :32].float() + map_twice[:, 32:]) / 2
    assert (map_once - values).abs().max() > 0.45
    assert (mean - values).abs().max() <= 0.251

    read_once, read_twice = (QuantizedConv(second, nearest(second, steps)) for _ in range(2))
    read_twice.read_twice()
    expected = read_once(mean.round().to(torch.uint8).contiguous(memory_format=torch.channels_last))
    scale = expected.std().item()
    torch.testing.assert_close(read_twice(map_twice), expected, rtol=0, atol=0.05 * scale)
    halves = torch.cat([map_once, map_once], 1).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(read_twice(halves), read_once(map_once), rtol=1e-6, atol=1e-6)


@operators
@torch.inference_mode()
def test_the_layout_of_the_weights_does_not_change_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = folded(16, 32, 3), levels(1, 16, 9, 9)
    outputs = []
    for chosen in range(2):
        monkeypatch.setattr(one_dnn, "fastest", lambda layouts, _, chosen=chosen: layouts[chosen])
        outputs.append(QuantizedConv(conv, nearest(conv, uneven_steps(16)))(x))
    assert outputs[0].max() > 0
    assert outputs[0].equal(outputs[1])


@operators
@pytest.mark.parametrize("count_padding", [True, False])
@torch.inference_mode()
def test_the_pool_can_follow_the_convolution(count_padding: bool) -> None:
    conv, pool, x, steps = folded(16, 8, 1), AveragePool(count_padding), levels(2, 16, 9, 9), uneven_steps(16)
    expected = F.conv2d(pool(x.float() * steps[:, None, None]), conv.weight, conv.bias).relu()
    exact = QuantizedPoolConv(pool, conv, nearest(conv, steps))(x)
    assert (exact - expected).abs().max() < 0.05 * expected.std()
    out_steps = expected.amax((0, 2, 3)) / 255 + 0.001
    rounded = QuantizedPoolConv(pool, conv, nearest(conv, steps, out_steps))(x)
    out_steps = out_steps[:, None, None]
    assert ((rounded * out_steps - exact).abs() <= 0.51 * out_steps).all()


@torch.inference_mode()
def test_weights_become_integers_from_minus_127_to_127() -> None:
    conv, steps = folded(16, 32, 3), uneven_steps(16)
    found, scales = nearest(conv, steps).levels(conv.plain_weight())
    assert found.equal(found.round())
    assert found.abs().amax((1, 2, 3)).equal(torch.full((32,), 127.0))
    back = found * scales[:, None, None, None] / steps[:, None, None]
    assert ((back - conv.plain_weight()).abs() * steps[:, None, None] <= 0.501 * scales[:, None, None, None]).all()


@pytest.mark.parametrize("side", [7, 8, 35])
def test_the_max_pool_finds_the_maximum_at_every_size(side: int) -> None:
    x = levels(2, 5, side, side + 1)
    expected = F.max_pool2d(x.float(), 3, stride=2)
    assert QuantizedMaxPool()(x).float().equal(expected)


def test_the_calibration_images_are_four_of_the_examples() -> None:
    files = [EXAMPLES / f"{name}.jpg" for name in ("astronaut", "cat", "coffee", "rocket")]
    sheet = calibration_images(64)
    assert len(sheet) == len(files)
    for pixels, file in zip(sheet, files, strict=True):
        assert abs(pixels.astype(int) - squash(open_image(file), 64)).mean() < 3


@operators
def test_the_layers_that_suffer_most_stay_in_float32(encoder_file: Path) -> None:
    encoder = Encoder.load(encoder_file, CPU)
    encoder.quantize(read_encoder(encoder_file)[0], encoder_file)
    parts = dict(encoder.network.named_modules())
    assert {name for name, part in parts.items() if isinstance(part, FoldedConv)} == FLOAT32_LAYERS
    maps: list[Tensor] = []
    hooks = [
        parts[f"Mixed_7c.branch{branch}_1"].register_forward_hook(lambda _part, _x, y: maps.append(y))
        for branch in ("3x3", "3x3dbl")
    ]
    features = encoder([squash(open_image(EXAMPLES / "cat.jpg"), encoder.config.pixels)])
    for hook in hooks:
        hook.remove()
    assert [(each.dtype, float(each.min())) for each in maps] == [(torch.float32, 0), (torch.float32, 0)]
    assert features.shape == (1, 2048)


@integers
def test_features_are_near_those_of_float32_and_do_not_depend_on_the_batch() -> None:
    exact, quantized = load_model(device="cpu").encoder, load_model(device="cpu", precision=INT8).encoder
    pixels = [squash(open_image(file), exact.config.pixels) for file in IMAGES]
    expected, found = exact(pixels), quantized(pixels)
    centre = expected.mean(0)
    assert F.cosine_similarity(found - centre, expected - centre).min() > 0.97
    assert not found.equal(expected)
    alone = torch.cat([quantized([each]) for each in pixels])
    torch.testing.assert_close(alone, found, rtol=1e-3, atol=1e-3 * expected.max().item())


@integers
def test_the_command_captions_in_integers_and_records_it(imgcap_here: Run, model_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    done = imgcap_here("caption", EXAMPLES, "--model", model_folder, "--precision", INT8, "-o", rows)
    assert done.returncode == 0, done.stderr
    assert rows.read_text().count('precision=\\"int8\\"') == len(IMAGES)
    again = imgcap_here("caption", EXAMPLES, "--model", model_folder, "-o", rows, "--resume")
    assert again.returncode == 2
    assert "--precision int8" in again.stderr


@pytest.mark.parametrize("capability", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_auto_is_int8_with_any_of_the_fast_instructions(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, capability: True}, raising=False)
    assert automatic_precision(CPU) == (INT8, "this processor supports fast 8-bit integers (VNNI)")
    assert automatic_precision(torch.device("cuda")) == (FLOAT32, "int8 needs a CPU")


@pytest.mark.parametrize("capabilities", [{}, {"avx2": True, "avx512_f": True, "avx512_vnni": False}])
def test_auto_is_float32_without_them(
    capabilities: dict[str, bool], encoder_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    why = "this processor or this version of torch does not support fast 8-bit integers (VNNI)"
    assert automatic_precision(CPU) == (FLOAT32, why)
    assert Encoder.load(encoder_file, CPU, precision=AUTO).precision == FLOAT32


def test_the_command_says_what_auto_chose_and_rows_record_it(
    imgcap_here: Run, model_folder: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    command = ("caption", EXAMPLES, "--model", model_folder, "-o", rows, "--resume", "--precision")
    done = imgcap_here(*command, AUTO)
    assert done.returncode == 0, done.stderr
    precision, why = automatic_precision(CPU)
    assert f"Precision: {precision}, because {why}." in " ".join(done.stderr.split())
    assert rows.read_text().count('precision=\\"int8\\"') == (len(IMAGES) if precision == INT8 else 0)
    again = imgcap_here(*command, precision)
    assert again.returncode == 0, again.stderr
    assert "Precision:" not in again.stderr


def test_auto_does_not_resume_rows_of_the_other_precision(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, said = tmp_path / "rows.jsonl", []

    class Listener(RunListener):
        def precision_chosen(self, precision: str, why: str) -> None:
            said.append((precision, why))

    def caption() -> Outcome | None:
        outputs = OutputOptions(rows=file, format_name="jsonl", resume=True)
        inputs = Inputs(sources=(EXAMPLES / "cat.jpg",))
        return run(RunOptions(inputs, outputs, model=str(model_folder), precision=AUTO), Listener())

    monkeypatch.setattr(run_module, "automatic_precision", lambda device: (FLOAT32, "no VNNI"))
    caption()
    written = file.read_text()
    monkeypatch.setattr(run_module, "automatic_precision", lambda device: (INT8, "VNNI"))
    monkeypatch.setattr(encoder_module, "is_supported", lambda: True)
    with pytest.raises(UsageError) as raised:
        caption()
    assert str(raised.value) == f"{file}, line 1 was written without --precision int8."
    assert file.read_text() == written
    assert said == [(FLOAT32, "no VNNI"), (INT8, "VNNI")]


def test_an_unsupported_precision_is_one_sentence(
    encoder_file: Path, imgcap_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_precision(FLOAT32, torch.device("cuda"))
    with pytest.raises(UsageError, match="The precision int8 needs a CPU"):
        check_precision(INT8, torch.device("cuda"))
    monkeypatch.setattr(encoder_module, "is_supported", lambda: False)
    with pytest.raises(UsageError, match="VNNI"):
        Encoder.load(encoder_file, CPU, precision=INT8)
    done = imgcap_here("caption", EXAMPLES / "cat.jpg", "--precision", "int4")
    assert done.returncode == 2
    assert "There is no precision 'int4'" in done.stderr
