"""A line of a ledger drawn small: an axis, what is required, a dot for each seed, and their mean.

Filled dots are the committed seeds, hollow ones below them those of a confirmation on fresh seeds. A strip has a scale
of its own, with 0 and the required value named: units differ from line to line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

WIDTH, HEIGHT, EDGE = 240, 44, 10
SEEDS, FRESH, AXIS = 10, 21, 28  # heights of the dots and of the axis, from above
NEAR = 34  # two numbers that are nearer to each other would touch


def amount(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def region(expect: str, margin: float) -> tuple[float, float]:
    """What is required, or allowed of a control, as an interval.

    Raises:
        ValueError: `expect` is none of the forms of `Entry.expect`.
    """
    found = re.fullmatch(r"at (least|most) ([+-])[\d.]+", expect)
    if found:
        bound = margin if found[2] == "+" else -margin
        return (bound, float("inf")) if found[1] == "least" else (float("-inf"), bound)
    if expect.startswith("within ±"):
        return -margin, margin
    raise ValueError(f"{expect!r} is no requirement: 'at least +0.30', 'at most -0.30' or 'within ±0.30'")


def said(entry: dict, fresh: Sequence[float] = ()) -> str:
    """The strip in words."""
    each = ", ".join(map(amount, entry["values"]))
    text = f"Required {entry['expect']} {entry['unit']}; mean {amount(entry['mean'])}; every seed {each}"
    return text + (f"; confirmed on fresh seeds {', '.join(map(amount, fresh))}" if fresh else "")


def svg(entry: dict, fresh: Sequence[float] = ()) -> str:
    """The strip of an entry of a ledger's JSON; `fresh` are the values of its confirmation."""
    low, high = region(entry["expect"], entry["margin"])
    bounds = [b for b in (low, high) if abs(b) != float("inf")]
    numbers = [0.0, *bounds, *entry["values"], *fresh]
    least, most = min(numbers), max(numbers)
    room = (most - least) * 0.08 or 1.0
    least, most = least - room, most + room

    def x(value: float) -> float:
        share = (min(max(value, least), most) - least) / (most - least)
        return round(EDGE + share * (WIDTH - 2 * EDGE), 1)

    left, right = x(low), x(high)
    parts = [
        f'<rect class="strip-required" x="{left}" y="2" width="{right - left:.1f}" height="{AXIS - 2}"/>',
        f'<path class="strip-axis" d="M{EDGE} {AXIS}H{WIDTH - EDGE}"/>',
        f'<path class="strip-zero" d="M{x(0)} 2V{AXIS}"/>',
        *(f'<path class="strip-bound" d="M{x(b)} 2V{AXIS}"/>' for b in bounds),
        f'<path class="strip-mean" d="M{x(entry["mean"])} {SEEDS - 8}v16"/>',
        *(f'<circle class="strip-seed" cx="{x(v)}" cy="{SEEDS}" r="4"/>' for v in entry["values"]),
        *(f'<circle class="strip-fresh" cx="{x(v)}" cy="{FRESH}" r="3.5"/>' for v in fresh),
    ]
    places = {x(b): amount(b) for b in bounds}
    if all(abs(x(0) - place) > NEAR for place in places):
        places[x(0)] = "0"
    for place, text in places.items():
        middle = min(max(place, 18), WIDTH - 18)  # a number at the end of the axis stays inside
        parts.append(f'<text x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">{text}</text>')
    name = html.escape(said(entry, fresh))
    return (
        f'<svg class="strip" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><title>{name}</title>{"".join(parts)}</svg>'
    )
