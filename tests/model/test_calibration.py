"""Steps, biases and roundings for 8-bit integers, and their way through a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imgcap.errors import ImgcapError
from imgcap.model.calibration import calibrate
from imgcap.model.encoder import Encoder, fingerprint, read_encoder, save_encoder
from imgcap.model.inception import FoldedConv, InceptionV3
from imgcap.model.quantization import ConvIntegers, from_tensors, to_tensors

CPU = torch.device("cpu")


def images(count: int, seed: int) -> Tensor:
    """Smooth images, as the encoder reads them."""
    made = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(made, (75, 75), mode="bilinear")


@pytest.fixture(scope="module")
def network(encoder_file: Path) -> InceptionV3:
    network: InceptionV3 = Encoder.load(encoder_file, CPU).network
    return network


@pytest.fixture(scope="module")
def thorough(network: InceptionV3) -> dict[str, ConvIntegers]:
    return calibrate(network, [images(4, 1), images(4, 2)], thorough=True)


@torch.inference_mode()
def read_by(network: InceptionV3, batch: Tensor) -> dict[str, tuple[FoldedConv, Tensor, Tensor]]:
    """Every convolution with what it reads and computes."""
    found: dict[str, tuple[FoldedConv, Tensor, Tensor]] = {}
    hooks = [
        part.register_forward_hook(lambda part, x, y, name=name: found.__setitem__(name, (part, x[0], y)))
        for name, part in network.named_modules()
        if isinstance(part, FoldedConv)
    ]
    network(batch)
    for hook in hooks:
        hook.remove()
    return found


def test_a_map_has_the_steps_that_its_makers_write(thorough: dict[str, ConvIntegers]) -> None:
    assert len(thorough) == 94
    branches = ("branch3x3", "branch3x3dbl_3")
    before = ("branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool")
    makers = [*(f"Mixed_6a.{name}" for name in branches), *(f"Mixed_5d.{name}" for name in before)]
    steps = torch.cat([thorough[name].out_steps for name in makers])
    for reader in ("branch1x1", "branch7x7_1", "branch7x7dbl_1", "branch_pool"):
        assert thorough[f"Mixed_6b.{reader}"].steps.equal(steps)
    assert thorough["Conv2d_1a_3x3"].steps.equal(torch.full((3,), 1 / 127.5))
    assert not len(thorough["Mixed_7c.branch_pool"].out_steps)


def test_calibration_images_exceed_255_steps_only_in_large_maps(
    network: InceptionV3, thorough: dict[str, ConvIntegers]
) -> None:
    few = calibrate(network, [images(4, 1), images(4, 2)], thorough=False)
    for name, (_, _, y) in read_by(network, torch.cat([images(4, 1), images(4, 2)])).items():
        for integers in (thorough[name], few[name]):
            if len(integers.out_steps):
                is_cut = integers is thorough[name] and name.startswith(("Conv2d_", "Mixed_5"))
                most = 255.01 / 0.8 if is_cut else 255.01
                assert (y.amax((0, 2, 3)) <= most * integers.out_steps).all()
                if name.startswith("Conv2d_"):
                    assert (y.amax((0, 2, 3)) > 255.01 * integers.out_steps).any() == is_cut
        assert len(set(few[name].out_steps.tolist())) <= 1


@torch.inference_mode()
def test_chosen_roundings_change_sums_less_than_nearest_ones(
    network: InceptionV3, thorough: dict[str, ConvIntegers]
) -> None:
    few = calibrate(network, [images(4, 1), images(4, 2)], thorough=False)
    read = read_by(network, images(4, 3))
    for name in ("Conv2d_2b_3x3", "Mixed_5c.branch5x5_2", "Mixed_6c.branch7x7_3", "Mixed_7b.branch1x1"):
        conv, x, _ = read[name]
        expected = F.conv2d(x, conv.plain_weight(), None, conv.stride, conv.padding)

        def error(integers: ConvIntegers, conv: FoldedConv = conv, x: Tensor = x, expected: Tensor = expected) -> float:
            levels, scales = integers.levels(conv.plain_weight())
            weight = levels * scales[:, None, None, None] / integers.steps[:, None, None]
            return (F.conv2d(x, weight, None, conv.stride, conv.padding) - expected).square().sum().item()

        assert error(thorough[name]) < 0.7 * error(few[name]), name


@torch.inference_mode()
def test_the_bias_keeps_the_mean_of_each_channel(network: InceptionV3) -> None:
    seen = images(4, 1)
    found = calibrate(network, [seen], thorough=False)
    conv, x, _ = read_by(network, seen)["Conv2d_2a_3x3"]
    levels, scales = found["Conv2d_2a_3x3"].levels(conv.plain_weight())
    weight = levels * scales[:, None, None, None] / found["Conv2d_2a_3x3"].steps[:, None, None]

    def mean(weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias).mean((0, 2, 3))

    expected = mean(conv.plain_weight(), conv.bias)
    before = (mean(weight, conv.bias) - expected).abs().max()
    assert (mean(weight, found["Conv2d_2a_3x3"].bias) - expected).abs().max() < 0.2 * before


def test_integers_travel_in_the_file_of_the_weights(
    encoder_file: Path, thorough: dict[str, ConvIntegers], tmp_path: Path
) -> None:
    weights, config = read_encoder(encoder_file)
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, weights, config, torch.float16, thorough)
    assert fingerprint(file) == fingerprint(encoder_file)
    assert file.stat().st_size < 1.08 * encoder_file.stat().st_size
    again = from_tensors(read_encoder(file)[0])
    assert again.keys() == thorough.keys()
    assert all(
        vars(again[name])[field].equal(tensor) for name in again for field, tensor in vars(thorough[name]).items()
    )
    save_encoder(tmp_path / "retrained.safetensors", read_encoder(file)[0], config, torch.float16)
    assert not from_tensors(read_encoder(tmp_path / "retrained.safetensors")[0])


@pytest.mark.parametrize("damage", ["missing", "unknown", "short", "not a number", "of another type"])
def test_integers_that_do_not_fit_are_one_sentence(
    damage: str, encoder_file: Path, thorough: dict[str, ConvIntegers], tmp_path: Path
) -> None:
    tensors = to_tensors(thorough)
    name = "int8.Mixed_6b.branch1x1"
    if damage == "missing":
        tensors = {each: tensor for each, tensor in tensors.items() if not each.startswith(name)}
    elif damage == "unknown":
        tensors["int8.Mixed_6b.branch1x1.colour"] = torch.zeros(1)
    elif damage == "short":
        tensors[f"{name}.rounded_up"] = tensors[f"{name}.rounded_up"][:-1]
    elif damage == "not a number":
        tensors[f"{name}.steps"] = tensors[f"{name}.steps"] * float("nan")
    else:
        tensors[f"{name}.rounded_up"] = tensors[f"{name}.rounded_up"].float()
    weights, config = read_encoder(encoder_file)
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, weights, config, torch.float16)
    encoder = Encoder.load(file, CPU)
    with pytest.raises(ImgcapError) as raised:
        encoder.quantize(tensors, file)
    assert str(raised.value) == f"{file} holds integers that do not fit its weights."
