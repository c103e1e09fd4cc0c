"""Plots as self-contained SVG: learning curves and histograms.

Series differ in shape as well as in colour, so that a black and white print is readable. A page can change the colours:
they are attributes of elements with the classes `paper`, `grid`, `first` and `second`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_PANEL_WIDTH, _PANEL_HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 28, 34, 48
_COLOURS = {"first": "#2563eb", "second": "#b45309"}
_LINES = ("", 'stroke-dasharray="6 4"')
_DOTS = ('fill="currentColor"', 'class="paper" fill="white"')


@dataclass(frozen=True)
class Curve:
    """One line of a panel: a y value for each x."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Histogram:
    """A height for each bin."""

    label: str
    heights: Sequence[float]


def plot_svg(panels: Sequence[tuple[str, Sequence[Curve]]], x_label: str) -> str:
    """Panels side by side, each with a title and one or two curves, as SVG."""
    drawn = [_panel(title, curves, x_label) for title, curves in panels]
    return _svg(", ".join(title for title, _ in panels), drawn)


def histogram_svg(
    title: str, x_label: str, bins: Sequence[str], start: float, step: float, histograms: Sequence[Histogram]
) -> str:
    """One histogram as bars and an optional second one as an outline, as SVG.

    Bin i has the name `bins[i]`, and reaches from `start` + i * `step` to `start` + (i + 1) * `step`.
    """
    top = max((height for each in histograms for height in each.heights), default=0.0) or 1.0
    place, parts = _axes(title, x_label, (start, start + step * len(bins)), (0.0, top))
    if len(histograms) > 1:
        parts += _legend([each.label for each in histograms], "\u25a0\u25a1")
    _, bottom = place(start, 0)
    bars, outline = [], f"M{place(start, 0)[0]} {bottom}"
    for i, name in enumerate(bins):
        numbers = ", ".join(f"{each.label} {each.heights[i]:.4g}" for each in histograms)
        left, y = place(start + i * step, histograms[0].heights[i])
        right, _ = place(start + (i + 1) * step, 0)
        bars.append(
            f'<rect x="{left + 0.5:.1f}" y="{y}" width="{right - left - 1:.1f}" height="{bottom - y:.1f}" '
            f'fill="currentColor" role="img"><title>{escape(f"{name}: {numbers}")}</title></rect>'
        )
        if len(histograms) > 1:
            outline += f"V{place(start, histograms[1].heights[i])[1]}H{right}"
    parts.append(_series("first", bars))
    if len(histograms) > 1:
        parts.append(
            _series("second", [f'<path d="{outline}V{bottom}" fill="none" stroke="currentColor" stroke-width="2"/>'])
        )
    return _svg(title, ["".join(parts)])


def _svg(label: str, panels: Sequence[str]) -> str:
    width, height = _PANEL_WIDTH + _LEFT + _RIGHT, _PANEL_HEIGHT + _TOP + _BOTTOM
    drawn = [f'<g transform="translate({i * width},0)">{panel}</g>' for i, panel in enumerate(panels)]
    total = width * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" width="{total}" height="{height}" '
        f'font-family="sans-serif" font-size="12" role="group" aria-label="{escape(label)}">\n'
        '<rect class="paper" width="100%" height="100%" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _panel(title: str, curves: Sequence[Curve], x_label: str) -> str:
    x_limits = _limits([x for curve in curves for x in curve.x])
    y_limits = _limits([y for curve in curves for y in curve.y])
    place, parts = _axes(title, x_label, x_limits, y_limits, smallest_x_step=1)
    if len(curves) > 1:
        parts += _legend([curve.label for curve in curves], "\u25cf\u25cb")
    for curve, name, line, dot in zip(curves, _COLOURS, _LINES, _DOTS, strict=False):
        points = [(x, y, *place(x, y)) for x, y in zip(curve.x, curve.y, strict=True)]
        path = " ".join(f"{right},{down}" for _, _, right, down in points)
        drawn = [f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="2" {line}/>']
        drawn += [
            f'<circle cx="{right}" cy="{down}" r="3" {dot} stroke="currentColor" stroke-width="1.5" role="img">'
            f"<title>{escape(f'{x_label} {x:g}: {curve.label} {y:.4g}')}</title></circle>"
            for x, y, right, down in points
        ]
        parts.append(_series(name, drawn))
    return "".join(parts)


def _axes(
    title: str,
    x_label: str,
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
    smallest_x_step: float = 0.0,
) -> tuple[Callable[[float, float], tuple[float, float]], list[str]]:
    """A function from values to SVG coordinates, and the SVG of title, grid and numbers."""
    (x_low, x_high), (y_low, y_high) = x_limits, y_limits

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_low) / (x_high - x_low) * _PANEL_WIDTH
        up = (y - y_low) / (y_high - y_low) * _PANEL_HEIGHT
        return round(_LEFT + right, 1), round(_TOP + _PANEL_HEIGHT - up, 1)

    bottom, right = _TOP + _PANEL_HEIGHT, _LEFT + _PANEL_WIDTH
    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for tick in _ticks(y_low, y_high):
        _, y = place(x_low, tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{right}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(x_low, x_high, smallest_x_step):
        x, _ = place(tick, y_low)
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 38}" text-anchor="end">{escape(x_label)}</text>')
    return place, parts


def _series(name: str, drawn: Sequence[str]) -> str:
    return f'<g class="{name}" color="{_COLOURS[name]}">{"".join(drawn)}</g>'


def _legend(labels: Sequence[str], marks: str) -> list[str]:
    right = _LEFT + _PANEL_WIDTH
    return [
        f'<text x="{right - 130 * (len(labels) - 1 - i)}" y="16" text-anchor="end">'
        f'<tspan class="{name}" color="{_COLOURS[name]}" fill="currentColor">{mark}</tspan> {escape(label)}</text>'
        for i, (label, mark, name) in enumerate(zip(labels, marks, _COLOURS, strict=False))
    ]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, smallest_step: float = 0.0) -> list[float]:
    """About five round numbers in the range, with steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(smallest_step, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
