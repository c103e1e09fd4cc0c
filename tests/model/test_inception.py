"""Inception V3 equals that of torchvision in names and results."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imgcap.model.inception import (
    FEATURE_SIZE,
    STRIDE_16_LAYER,
    STRIDE_32_LAYER,
    AveragePool,
    ConvNorm,
    FoldedConv,
    InceptionV3,
    fold_batch_norms,
)
from imgcap.model.torchvision_compat import import_torchvision


def reference() -> nn.Module:
    """torchvision's network without its classifiers."""
    models = import_torchvision("torchvision.models")
    network: nn.Module = models.inception_v3(
        weights=None, aux_logits=False, transform_input=False, init_weights=False
    ).eval()
    network.fc = nn.Identity()
    return network


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random weights whose activations keep their scale through all layers, as those of a trained network do."""
    torch.manual_seed(0)
    network = InceptionV3(count_padding=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        network(torch.rand(6, 3, 139, 139) * 2 - 1)
    return network.state_dict()


def network(weights: dict[str, Tensor], count_padding: bool = True) -> InceptionV3:
    """The network with a copy of `weights`, in evaluation mode."""
    made = InceptionV3(count_padding).eval()
    made.load_state_dict(weights)
    return made


def images(count: int, height: int, width: int) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height)) * 2 - 1


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_names_and_shapes_are_torchvisions() -> None:
    models = import_torchvision("torchvision.models")
    with torch.device("meta"):
        theirs = models.inception_v3(weights=None, aux_logits=True, init_weights=False).state_dict()
        ours = InceptionV3(count_padding=True).state_dict()
    used = {name: t.shape for name, t in theirs.items() if not name.startswith(("AuxLogits.", "fc."))}
    assert len(used) < len(theirs)
    assert {name: t.shape for name, t in ours.items()} == used
    assert list(ours) == list(used)


@pytest.mark.parametrize(("height", "width"), [(299, 299), (128, 181), (75, 75)])
@torch.inference_mode()
def test_features_equal_torchvisions(weights: dict[str, Tensor], height: int, width: int) -> None:
    theirs = reference()
    theirs.load_state_dict(weights)
    x = images(2, height, width)
    expected = theirs(x)
    features = network(weights)(x)
    assert features.shape == (2, FEATURE_SIZE)
    assert expected.std() > 0.1  # otherwise the comparison would mean nothing
    assert relative_error(features[0], features[1]) > 1e-2
    assert relative_error(features, expected) < 1e-4


@torch.inference_mode()
def test_count_padding_changes_only_the_average_pools(weights: dict[str, Tensor]) -> None:
    counted, left_out = network(weights, True), network(weights, False)
    x = images(1, 107, 107)
    assert relative_error(counted(x), left_out(x)) > 1e-3
    pools = [module for module in left_out.modules() if isinstance(module, AveragePool)]
    assert len(pools) == 9
    for pool in pools:
        assert not pool.count_include_pad
        pool.count_include_pad = True
    assert torch.equal(counted(x), left_out(x))


@pytest.mark.parametrize("count_padding", [True, False])
def test_an_average_pool_counts_the_padding_or_not(count_padding: bool) -> None:
    corner = AveragePool(count_padding)(torch.ones(1, 1, 3, 3))[0, 0, 0, 0].item()
    assert corner == pytest.approx(4 / 9 if count_padding else 1)


@pytest.mark.parametrize("one_dnn", [True, False])
@pytest.mark.parametrize("count_padding", [True, False])
@torch.inference_mode()
def test_folding_the_batch_norms_keeps_the_features(
    weights: dict[str, Tensor], count_padding: bool, one_dnn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not one_dnn:
        monkeypatch.setattr("imgcap.model.one_dnn.has", lambda *_names: False)
    folded = network(weights, count_padding)
    x = images(3, 139, 107)
    before = folded(x)
    fold_batch_norms(folded)
    assert not any(isinstance(module, (ConvNorm, nn.BatchNorm2d)) for module in folded.modules())
    assert not list(folded.parameters())
    assert relative_error(folded(x), before) < 1e-4
    fold_batch_norms(folded)  # again: nothing is left to do
    assert relative_error(folded(x[:1]), before[:1]) < 1e-4
    other = images(1, 75, 91)  # another size than the one that the weights were packed for
    assert relative_error(folded(other), network(weights, count_padding)(other)) < 1e-4


@torch.inference_mode()
def test_a_folded_convolution_computes_the_same_and_keeps_its_input() -> None:
    trained = ConvNorm(3, 5, (1, 3), stride=2, padding=(0, 1)).eval()
    for tensor in (trained.bn.weight, trained.bn.bias, trained.bn.running_mean, trained.bn.running_var):
        assert isinstance(tensor, Tensor)
        nn.init.uniform_(tensor, 0.1, 0.5)
    x = images(2, 9, 11)
    kept, expected = x.clone(), trained(x)
    output = FoldedConv(trained)(x)
    assert torch.equal(x, kept)
    assert output.shape == (2, 5, 5, 6)
    assert 0 < (output == 0).sum() < output.numel()
    torch.testing.assert_close(output, expected)


def test_gradients_reach_every_parameter_and_the_image(weights: dict[str, Tensor]) -> None:
    trained = network(weights)
    x = images(2, 75, 75).requires_grad_()
    trained(x).square().mean().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("layer", "shape"), [(STRIDE_16_LAYER, (1, 768, 17, 17)), (STRIDE_32_LAYER, (1, 2048, 8, 8))])
@torch.inference_mode()
def test_the_stride_layers_have_their_strides(weights: dict[str, Tensor], layer: str, shape: tuple[int, ...]) -> None:
    made, seen = network(weights), []

    def remember(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(tuple(output.shape))

    made.get_submodule(layer).register_forward_hook(remember)
    made(images(1, 299, 299))
    assert seen == [shape]
