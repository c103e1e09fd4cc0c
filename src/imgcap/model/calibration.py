"""Find the steps, biases and roundings with which a network computes in 8-bit integers: see `quantization`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from imgcap.model.inception import AveragePool, FoldedConv, InceptionV3
from imgcap.model.quantization import COLOURS, PIXEL_STEP, PIXEL_ZERO, UINT8_MAX, ConvIntegers, pack_bits, split_levels

_POSITIONS = 64
"""Positions of a map, drawn at random, that an image adds to the second moments."""
_DAMPING = 0.03
"""Added to the second moments, in parts of their mean, so that errors cancel for other images too."""
_MIN_PEAK = 1e-6
"""Least largest value of a map, which may be zero for all images."""
_MIN_SHARE = 1e-3
"""Least peak of a channel, in parts of its map's."""
_OWN_SHARE, _REACH = 0.5, 1.0
"""255 steps reach the geometric mean of the channel's own peak, with this weight, and its map's, times the reach."""
_LARGE_MAPS, _OWN_SHARE_OF_LARGE, _REACH_OF_LARGE = ("Conv2d_", "Mixed_5"), 0.6, 0.8
"""The same for maps of convolutions with these names. They reach their peak in few positions, whose errors matter less
than finer steps for all others."""


class _Seen:
    """What a convolution reads and writes: peaks of the output channels, means and second moments of the input."""

    def __init__(self, conv: FoldedConv, with_moments: bool) -> None:
        out_channels, in_channels, *kernel = conv.plain_weight().shape
        self._unfold = nn.Unfold(tuple(kernel), padding=conv.padding, stride=conv.stride)  # type: ignore[arg-type]
        self._with_moments = with_moments
        self._count, self._sum = 0, torch.zeros(in_channels)
        self.peaks = torch.zeros(out_channels)
        size = in_channels * kernel[0] * kernel[1] if with_moments else 0
        self.moments = torch.zeros(size, size)
        self._random = torch.Generator().manual_seed(0)

    def add(self, x: Tensor, y: Tensor) -> None:
        self.peaks = self.peaks.maximum(y.amax((0, 2, 3)))
        self._sum += x.mean((2, 3)).sum(0)
        self._count += len(x)
        if self._with_moments:
            columns = self._unfold(x)
            places = torch.randperm(columns.shape[2], generator=self._random)[:_POSITIONS]
            drawn = columns[:, :, places].transpose(0, 1).flatten(1)
            self.moments.addmm_(drawn, drawn.T)

    @property
    def means(self) -> Tensor:
        return self._sum / self._count


@torch.inference_mode()
def calibrate(network: InceptionV3, batches: Iterable[Tensor], thorough: bool) -> dict[str, ConvIntegers]:
    """The integers of each convolution of a `network` with folded batch norms, by name.

    `batches` are images in its format, float32 (B, 3, S, S). With a few images, the largest value of a channel is too
    uncertain, so all channels of a map share a step, and weights are rounded to the nearest integer. With hundreds, be
    `thorough`: channels have their own steps, and roundings are chosen together, which takes minutes.
    """
    convs = {name: part for name, part in network.named_modules() if isinstance(part, FoldedConv)}
    seen = {name: _Seen(conv, thorough) for name, conv in convs.items()}
    hooks = [
        conv.register_forward_hook(lambda _, x, y, name=name: seen[name].add(x[0], y)) for name, conv in convs.items()
    ]
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    sources = _sources(network, batch[:1])
    steps = _steps({name: each.peaks for name, each in seen.items()}, list(sources.values()), thorough)
    found = {}
    for name, conv in convs.items():
        reads = (
            torch.cat([steps[source] for source in sources[name]])
            if sources[name]
            else torch.full((COLOURS,), PIXEL_STEP)
        )
        found[name] = _integers(conv.plain_weight(), conv.bias, reads, steps.get(name, torch.empty(0)), seen[name])
    return found


def _sources(network: InceptionV3, image: Tensor) -> dict[str, list[str]]:
    """The convolutions that make the channels of the map that each convolution reads, in order; none of the first."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    hooks = [
        part.register_forward_hook(lambda part, x, y: seen.__setitem__(part, (x[0], y))) for part in network.modules()
    ]
    network(image)
    for hook in hooks:
        hook.remove()
    names = {part: name for name, part in network.named_modules()}
    makers: dict[int, list[str]] = {id(image): []}
    found: dict[str, list[str]] = {}

    def walk(whole: nn.Module) -> list[str]:
        """Makers of the map that `whole` concatenates from the maps that none of its parts reads."""
        read = {id(seen[part][0]) for part in whole.children()}
        ends = []
        for part in whole.children():
            x, y = seen[part]
            if isinstance(part, FoldedConv):
                found[names[part]], makers[id(y)] = makers[id(x)], [names[part]]
            else:
                is_pool = isinstance(part, AveragePool | nn.MaxPool2d)
                makers[id(y)] = makers[id(x)] if is_pool else walk(part)
            ends += makers[id(y)] if id(y) not in read else []
        return ends

    walk(network)
    return found


def _steps(peaks: dict[str, Tensor], maps: list[list[str]], per_channel: bool) -> dict[str, Tensor]:
    """Steps of the output channels of each convolution that another one reads.

    The full peak of the map for all channels wastes levels of the weaker ones, their own peak levels of the weights
    that read them; a geometric mean balances both. It also leaves room for images with larger values.
    """
    found = {}
    for name, own in peaks.items():
        whole = max((each for each in maps if name in each), key=len, default=[])
        if not whole:
            continue
        peak = top = torch.stack([peaks[each].max() for each in whole]).max().clamp(min=_MIN_PEAK)
        if per_channel:
            is_large = name.startswith(_LARGE_MAPS)
            share, reach = (_OWN_SHARE_OF_LARGE, _REACH_OF_LARGE) if is_large else (_OWN_SHARE, _REACH)
            peak = reach * own.clamp(min=_MIN_SHARE * top.item()) ** share * top ** (1 - share)
        found[name] = peak.expand(len(own)) / UINT8_MAX
    return found


def _integers(weight: Tensor, bias: Tensor, steps: Tensor, out_steps: Tensor, seen: _Seen) -> ConvIntegers:
    _, rest, scales = split_levels(weight, steps)
    is_up = _rounded_up(rest, seen.moments, steps) if len(seen.moments) else rest >= 0.5
    found = ConvIntegers(steps, out_steps, bias, pack_bits(is_up))
    lost = weight - found.levels(weight)[0] * scales[:, None, None, None] / steps[:, None, None]
    bias = bias + lost.sum((2, 3)) @ seen.means
    if len(steps) == COLOURS:
        bias += weight.sum((1, 2, 3)) * PIXEL_STEP * (PIXEL_ZERO - UINT8_MAX / 2)
    return replace(found, bias=bias)


def _rounded_up(rest: Tensor, moments: Tensor, steps: Tensor) -> Tensor:
    """Whether to round each level up, of which `rest` (out, in, height, width) is missing: so that sums change little.

    From the last weight to the first, a weight first takes over the errors of those after it, as far as its input
    predicts theirs. `moments` are the second moments of the inputs.
    """
    scale = (1 / steps).repeat_interleave(rest[0, 0].numel())
    moments = moments * scale[:, None] * scale
    moments.diagonal().add_(_DAMPING * moments.diagonal().mean() + 1e-12)
    factor = torch.linalg.cholesky(moments, upper=True)
    factor = factor / factor.diagonal()[:, None]
    wanted = rest.flatten(1).T.contiguous()
    errors = torch.zeros_like(wanted)
    for i in reversed(range(len(wanted))):
        is_up = wanted[i] + factor[i, i + 1 :] @ errors[i + 1 :] >= 0.5
        errors[i] = wanted[i] - is_up.float()
    return (wanted - errors > 0.5).T.reshape(rest.shape)
