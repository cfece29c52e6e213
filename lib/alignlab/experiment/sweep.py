"""Seeds x conditions, side by side, into one tidy table."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real

import pandas as pd
import torch
from joblib import Parallel, delayed, effective_n_jobs
from tqdm.auto import tqdm

from .. import check


class CellError(RuntimeError):
    """One cell of the grid failed; the message names its condition and seed and carries the worker's traceback."""


def sweep(
    run: Callable[..., Mapping | list[Mapping]],
    conditions: Mapping[str, object] | Iterable[str],
    seeds: Iterable[int],
    *,
    along: str | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run every condition with every seed and collect the metrics.

    Cells run in worker processes of one thread each through joblib: at these sizes two processes with one thread do
    more work than one with two, and the numbers do not depend on how many run at once. A joblib backend registered by
    the reader (`joblib.parallel_config("dask")`, Ray, ...) takes the same sweep to a cluster. `run` may be defined in
    a notebook cell. Each cell gets a GPU when there is one: `run` sees it as `alignlab.model.best_device()`.

    Args:
        run: `run(condition, seed)` returns a mapping metric -> number, the same metrics in every cell; or, with
            `along`, a list of such mappings, one per point of a curve.
        conditions: names, or a mapping name -> the object that is passed to `run` in place of the name. Long cells
            are best listed first: they then do not run alone at the end.
        seeds: integers.
        along: the name of the curve's coordinate, a key of each mapping (for instance "exposures").
        workers: processes; default: one per core. 1 runs in this process, which is the way to debug.
        progress: default: a bar for people, silence under CI and where output is captured by nbval.

    Returns:
        A DataFrame with `condition`, `seed`, (the `along` column,) `metric`, `value`; in the order of the arguments.

    Raises:
        ValueError: a condition or seed used twice, none given, or metrics that differ between cells.
        TypeError: a seed that is no integer, or a metric that is no number.
        CellError: `run` raised; says in which condition and with which seed.
    """
    names, objects = _conditions(conditions)
    seeds = [check.integer("seed", s, at_least=0) for s in seeds]
    if not seeds:
        raise ValueError("no seeds were given: pass at least one, for instance seeds=[0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"a seed is used twice in {seeds}: the same run would be counted twice")
    # Condition by condition, so that the long ones, listed first, start first.
    cells = [(name, objects[name], seed) for name in names for seed in seeds]
    workers, n = _workers(workers, len(cells)), threads()
    if progress is None:
        progress = not os.environ.get("CI") and not os.environ.get("ALIGNLAB_QUIET") and "ipykernel" in sys.modules
    bar = tqdm(
        total=len(cells), desc=f"{len(names)} conditions x {len(seeds)} seeds", disable=not progress, leave=False
    )
    results: dict = {}
    with bar, _workers_may_be_replaced():
        if workers == 1:
            stream = (_cell(n, run, *c) for c in cells)
        else:
            stream = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1, pre_dispatch="all")(
                delayed(_cell)(n, run, *c) for c in cells
            )
        for name, seed, metrics, error in stream:
            if error:
                raise CellError(f"condition {name!r}, seed {seed} failed:\n{error}")
            results[name, seed] = metrics
            bar.update()
    return _tidy(results, [(n, s) for n, _, s in cells], along)


def side_by_side(function: Callable, *arguments: Iterable) -> list:
    """[function(*a) for a in zip(*arguments)], each call in a worker process of one thread, as in `sweep`.

    For a few models that a chapter wants to keep: two threads on one tiny model do less than two processes, and on a
    busy machine they wait for each other. Results come back in order; an error is raised as it is.
    """
    calls = list(zip(*arguments, strict=True))
    n = threads()  # asked for here: a worker that was started earlier has its own environment
    with _workers_may_be_replaced():
        return Parallel(n_jobs=_workers(None, len(calls)))(delayed(_alone)(n, function, *call) for call in calls)


@contextmanager
def _workers_may_be_replaced() -> Iterator[None]:
    """No warning when loky replaces a worker that has grown by more than 300 MB.

    Training makes one grow by more than that. The worker is replaced after it has handed in its result, so nothing is
    lost; but whether a job is waiting at that moment is chance, and the warning would be an output that comes and goes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        yield


def threads() -> int:
    """Threads for each model: 1, or what the environment variable ALIGNLAB_THREADS says.

    One is faster: two threads on one tiny model gain a third at best, and wait for each other for most of the time
    where anything else runs on the machine. Another number may change the order of sums, and so the last digits, with
    some builds of torch; `make stress` looks whether that matters.

    Raises:
        ValueError: if ALIGNLAB_THREADS is no number from 1 to 1024.
    """
    said = os.environ.get("ALIGNLAB_THREADS") or "1"
    try:
        return check.integer("ALIGNLAB_THREADS", int(said), at_least=1, at_most=1024)
    except ValueError:
        raise ValueError(
            f"the environment variable ALIGNLAB_THREADS is {said!r}: set it to a number from 1 to 1024, or unset it"
        ) from None


def _alone(n, function, *call):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return function(*call)
    finally:
        torch.set_num_threads(before)


def _conditions(conditions) -> tuple[list[str], dict]:
    if isinstance(conditions, Mapping):
        names, objects = list(conditions), dict(conditions)
    else:
        names = list(conditions)
        objects = {n: n for n in names}
    if not names:
        raise ValueError("no conditions were given: pass at least one")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"the condition name {twice[0]!r} is used twice: each needs a name of its own")
    return names, objects


def _workers(workers: int | None, cells: int) -> int:
    if workers is not None:
        return min(check.integer("workers", workers, at_least=1), cells)
    return min(max(1, effective_n_jobs(-1) // threads()), cells)


def _cell(n, run, name, condition, seed):
    """One cell in its worker. Errors travel as text: not every exception survives pickling."""
    try:
        return name, seed, _alone(n, run, condition, seed), None
    except Exception:
        return name, seed, None, traceback.format_exc()


def _tidy(results: dict, cells: list[tuple[str, int]], along: str | None) -> pd.DataFrame:
    rows, expected = [], None
    for name, seed in cells:
        points = results[name, seed]
        where = f"condition {name!r}, seed {seed}"
        if along is None:
            points = [points]
        elif not isinstance(points, list | tuple):
            kind = type(points).__name__
            raise TypeError(f"run returned {kind} in {where}: with along={along!r} it must return a list of dicts")
        elif not points:
            raise ValueError(f"run returned no point of the curve in {where}: every cell needs at least one")
        for point in points:
            if not isinstance(point, Mapping):
                raise TypeError(
                    f"run returned {type(point).__name__} in {where}: it must return a dict metric -> number"
                )
            point = dict(point)
            if along is not None and along not in point:
                raise ValueError(f"run returned no {along!r} in {where}: every point of the curve needs it")
            place = {along: point.pop(along)} if along is not None else {}
            metrics = set(point)
            expected = metrics if expected is None else expected
            if metrics != expected:
                odd = sorted(expected ^ metrics)
                raise ValueError(
                    f"the metric {odd[0]!r} is missing in {where} or elsewhere: every cell needs the same metrics"
                )
            for metric, value in point.items():
                if isinstance(value, bool) or not isinstance(value, Real):
                    raise TypeError(f"the metric {metric!r} is {value!r} in {where}: it must be a number")
                rows.append({"condition": name, "seed": seed, **place, "metric": metric, "value": float(value)})
    return pd.DataFrame(rows)
