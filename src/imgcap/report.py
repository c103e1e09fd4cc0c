"""Plots of a training, as self-contained SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_PANEL_WIDTH, _PANEL_HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 40
_COLOURS = ("#2563eb", "#d97706")


@dataclass(frozen=True)
class Curve:
    """One line of a panel: a y value for each x."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def plot_svg(panels: Sequence[tuple[str, Sequence[Curve]]], x_label: str) -> str:
    """Panels side by side, each a title and one or two curves over the same x."""
    width, height = _PANEL_WIDTH + _LEFT + _RIGHT, _PANEL_HEIGHT + _TOP + _BOTTOM
    drawn = [
        f'<g transform="translate({i * width},0)">{_panel(title, curves, x_label)}</g>'
        for i, (title, curves) in enumerate(panels)
    ]
    total = width * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" width="{total}" height="{height}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def _panel(title: str, curves: Sequence[Curve], x_label: str) -> str:
    x_low, x_high = _limits([x for curve in curves for x in curve.x])
    y_low, y_high = _limits([y for curve in curves for y in curve.y])

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_low) / (x_high - x_low) * _PANEL_WIDTH
        up = (y - y_low) / (y_high - y_low) * _PANEL_HEIGHT
        return round(_LEFT + right, 1), round(_TOP + _PANEL_HEIGHT - up, 1)

    bottom, right = _TOP + _PANEL_HEIGHT, _LEFT + _PANEL_WIDTH
    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for tick in _ticks(y_low, y_high):
        _, y = place(x_low, tick)
        parts.append(f'<path d="M{_LEFT} {y}H{right}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:.3g}</text>')
    for tick in _ticks(x_low, x_high, smallest_step=1):
        x, _ = place(tick, y_low)
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:.3g}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 32}" text-anchor="end">{escape(x_label)}</text>')
    for i, (curve, colour) in enumerate(zip(curves, _COLOURS, strict=False)):
        points = [place(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
        line = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in points]
        label_x = right - 110 * (len(curves) - 1 - i)
        parts.append(f'<text x="{label_x}" y="16" text-anchor="end" fill="{colour}">{escape(curve.label)}</text>')
    return "".join(parts)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, smallest_step: float = 0.0) -> list[float]:
    """Round numbers in the range, about five of them, a step of 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(smallest_step, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
