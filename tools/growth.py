"""How the cost grows with chapters, seeds and the size of the world, and what more of each would cost on a cluster.

    python -m tools.growth    measure on this machine, and write book/_data/growth.csv and book/_data/cluster.csv

Three points of each in one run, and the exponent of the power law through them: 1 is linear. What chapters cost is
not measured again but taken from book/_data/costs.csv, and follows it when a chapter's line is written anew.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from alignlab.experiment.notebook import PROFILES

from . import costs, tables

TABLE, CLUSTER = tables.DATA / "growth.csv", tables.DATA / "cluster.csv"
COLUMNS = ("grows", "three points", "exponent", "so the cost is")
ON_CLUSTER = ("what", "hours of one core", "with 100 cores", "longest cell")
SEEDS, PEOPLE = (2, 8, 32), (50, 100, 200)
CORES, QUICK_SEEDS = 100, PROFILES["quick"]
STEPS_EACH = 3  # steps of training for each person of the world: every page is read as often in a large one
TWO_AGAINST_ONE = "a sweep of six cells: two workers against one"


def exponent(cost: Mapping[int, float]) -> float:
    """The power with which a cost grows: the slope of a straight line through the logarithms.

    Args:
        cost: size -> its cost, both above zero; two sizes or more.
    """
    if len(cost) < 2 or min(*cost, *cost.values()) <= 0:
        raise ValueError(f"no law goes through {dict(cost)}: pass two sizes or more, sizes and costs above zero")
    return statistics.linear_regression([*map(math.log, cost)], [*map(math.log, cost.values())]).slope


def law(power: float) -> str:
    """In words: what one more costs, where there are many."""
    if abs(power - 1) < 0.1:
        return "linear"
    return "less than linear" if power < 1 else "more than linear"


def row(grows: str, cost: Mapping[int, float], unit: str) -> dict[str, str]:
    power = exponent(cost)
    points = ", ".join(f"{size}: {amount:.1f} {unit}" for size, amount in cost.items())
    return dict(zip(COLUMNS, (grows, points, f"{power:.2f}", law(power)), strict=True))


def timed(function: Callable, *arguments, **named) -> float:
    start = time.perf_counter()
    function(*arguments, **named)
    return time.perf_counter() - start


def pretrained(people: int, seed: int, steps: int | None = None) -> dict[str, float]:
    """A base that is kept nowhere: its world and web written, and read in `steps`."""
    from alignlab.experiment import base  # seconds of loading, which only who measures needs

    plan = base.Plan(people=people, read=people * 4 // 5, steps=people * STEPS_EACH if steps is None else steps)
    model, _ = base._pretrain(plan, seed)
    return {"parameters": model.num_parameters()}


def cell(condition, seed: int) -> dict[str, float]:
    return pretrained(40, seed, steps=12)


def chapters(minutes: Collection[float], bases: float) -> dict[int, float]:
    """Number of chapters -> minutes for so many, drawn at random: their mean, and once the bases that they share."""
    mean, n = sum(minutes) / len(minutes), len(minutes)
    return {k: bases + k * mean for k in (n // 3, n * 2 // 3, n)}


def cluster(minutes: Collection[float], bases: float, gain: float) -> list[dict[str, str]]:
    """What a thousand seeds and a hundred chapters would take.

    Args:
        minutes: of each chapter with three seeds on two cores, besides the bases; `bases`: of those that they share.
        gain: how many times faster two workers are than one: what is lost by it, more workers lose as well.
    """
    hours, n = (sum(minutes) + bases) * gain / 60, len(minutes)
    # The cells of a sweep cannot be divided; one is at most a seed's share of the longest chapter.
    longest = f"at most {max(minutes) * gain / QUICK_SEEDS:.0f} minutes"

    def line(what, factor):
        spread = hours * factor / CORES / (gain / 2)
        return dict(zip(ON_CLUSTER, (what, f"{hours * factor:.0f}", f"{spread:.1f} h", longest), strict=True))

    return [
        line(f"{n} chapters with a thousand seeds each", 1000 / QUICK_SEEDS),
        line("a hundred chapters like these with three seeds each", 100 / n),
    ]


def derive(given: Path = costs.TABLE, table: Path = TABLE, on_cluster: Path = CLUSTER) -> None:
    """Write anew what follows from the minutes of the chapters."""
    rows = tables.read(given, "chapter")
    minutes = [costs.own(r) for (c,), r in rows.items() if c not in (costs.SHARED, "all")]
    shared = float(rows[costs.SHARED,][costs.MINUTES])
    gain = float(tables.read(tables.DATA / "speed.csv", "measured")[TWO_AGAINST_ONE,]["ratio"])
    measured = [r for (what,), r in tables.read(table, "grows").items() if what != "chapters"]
    tables.write([row("chapters", chapters(minutes, shared), "min"), *measured], COLUMNS, table)
    tables.write(cluster(minutes, shared, gain), ON_CLUSTER, on_cluster)


def main() -> int:
    from alignlab.experiment.sweep import sweep

    pretrained(8, 0, steps=1)  # what is loaded or set up once is nobody's cost
    sweep(cell, ["warm"], range(2))
    rows = [
        row("seeds of a sweep", {n: timed(sweep, cell, ["one"], range(n)) for n in SEEDS}, "s"),
        row("people of a world, each page read as often", {n: timed(pretrained, n, 0) for n in PEOPLE}, "s"),
    ]
    tables.write(rows, COLUMNS, TABLE)
    derive()
    print(TABLE.read_text("utf-8"), CLUSTER.read_text("utf-8"), sep="\n", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
