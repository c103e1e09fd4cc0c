"""A score between its floor and its ceiling, as positions on a horizontal axis that starts at 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imgcap.pages.parts import is_known, number
from imgcap.scoring.resampling import Difference

_ROUND = (1, 2, 2.5, 3, 4, 5, 6, 8, 10)
_SMALLEST_SHOWN = 0.0005
"""Smaller values are written as 0.000."""
_ABOVE, _BELOW = 11, 49
"""Baselines of the text above and below the axis, in pixels."""


@dataclass(frozen=True)
class Measure:
    """One score of all captions."""

    name: str
    value: float
    low: float
    """Start of the 95 % interval."""
    high: float
    floor: float | None
    """The score of one constant caption."""
    ceiling: float | None
    """The score of one person's captions against the others'."""
    compared: float | None = None
    """The score of the captions that these are compared with."""
    compared_interval: tuple[float, float] | None = None
    """Its 95 % interval."""
    difference: Difference | None = None
    """How much higher the score is than that of the captions compared with."""
    top: float = 1.0
    """Largest value that the score can have."""


@dataclass(frozen=True)
class Limit:
    """The floor or the ceiling on the axis."""

    x: str
    text: str
    anchor: str
    baseline: int


@dataclass(frozen=True)
class IntervalPlot:
    """Positions on the axis in percent; None for what is missing."""

    label: str
    """The plot in words."""
    end: str
    """The number at the end of the axis."""
    value: str | None
    interval: tuple[str, str] | None
    span: tuple[str, str] | None
    """Start and width of the range from floor to ceiling."""
    limits: tuple[Limit, ...]
    compared: str | None

    @classmethod
    def of(cls, measure: Measure) -> IntervalPlot:
        end = axis_end(measure)

        def at(value: float) -> str:
            return f"{100 * min(max(value / end, 0), 1):.2f}%"

        def place(value: float | None) -> str | None:
            return at(value) if is_known(value) else None

        limits = [
            Limit(at(limit), f"{name} {number(limit)}", "start" if limit < end / 2 else "end", baseline)
            for name, limit, baseline in (("floor", measure.floor, _ABOVE), ("ceiling", measure.ceiling, _BELOW))
            if is_known(limit)
        ]
        span = None
        if is_known(measure.floor) and is_known(measure.ceiling):
            span = at(measure.floor), at(measure.ceiling - measure.floor)
        known_interval = is_known(measure.low) and is_known(measure.high)
        interval = f"{number(measure.low)} to {number(measure.high)}" if known_interval else number(None)
        parts = [f"{measure.name}: {number(measure.value)}", f"95 % interval {interval}", *(x.text for x in limits)]
        if is_known(measure.compared):
            parts.append(f"compared with {number(measure.compared)}")
        return cls(
            label=", ".join(parts),
            end=f"{end:g}",
            value=place(measure.value),
            interval=(at(measure.low), at(measure.high)) if known_interval else None,
            span=span,
            limits=tuple(limits),
            compared=place(measure.compared),
        )


def axis_end(measure: Measure) -> float:
    """A round number at or just above all that is drawn; the score's largest value if all is 0.000 or missing."""
    drawn = (measure.value, measure.low, measure.high, measure.floor, measure.ceiling, measure.compared)
    largest = max((value for value in drawn if is_known(value)), default=0.0)
    return round_up(largest) if largest >= _SMALLEST_SHOWN else measure.top


def round_up(value: float) -> float:
    """The next round number that is not smaller than `value`, which is above 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(factor * power, 9) for factor in _ROUND if factor * power >= value)
