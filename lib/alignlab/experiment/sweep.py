"""Seeds x conditions, side by side, into one tidy table."""

from __future__ import annotations

import reprlib
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from numbers import Real

import pandas as pd
import torch
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from .. import check
from .ledger import Ledger
from .notebook import threads, watched
from .rows import COLUMNS

PER_GPU = 2  # processes: each has a context of some hundred megabytes on the card, and waits for the others' kernels


class CellError(RuntimeError):
    """Cells of the grid failed or did not come back; the message names their conditions and seeds, and the cause.

    `table` holds the cells that had finished, as `sweep` would have returned them.
    """

    table: pd.DataFrame


def sweep(
    run: Callable[..., Mapping | list[Mapping]],
    conditions: Mapping[str, object] | Iterable[str],
    seeds: Iterable[int],
    *,
    along: str | Sequence[str] | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    ledger: Ledger | None = None,
    besides: Iterable[str] = (),
) -> pd.DataFrame:
    """Run every condition with every seed and collect the metrics.

    Cells run in worker processes of one thread each through joblib: at these sizes two processes with one thread do
    more work than one with two, and the numbers do not depend on how many run at once. A joblib backend registered by
    the reader (`joblib.parallel_config("dask")`, Ray, ...) takes the same sweep to a cluster. `run` may be defined in
    a notebook cell; what it names there (data, models) is pickled into each of its cells: megabytes are tolerable, for
    more let `run` load or build what its own cell needs. A GPU, where there is one, is shared by all workers of this
    machine, so there are at most two; `run` sees it as `alignlab.models.llama.best_device()`.

    Nothing random is handed out: `run` passes its `seed` to whatever draws, sampling included
    (`generate(..., seed=seed)`), so conditions of one seed are compared on the same draws. For draws that only this
    cell has, `check.derived_seed(seed, condition)` is a seed and `check.rng(seed, condition)` a stream of its own.

    Args:
        run: `run(condition, seed)` returns a mapping metric -> number, the same metrics in every cell; or, with
            `along`, a list of such mappings, one per point of a curve.
        conditions: names, or a mapping name -> the object that is passed to `run` in place of the name. Long cells
            are best listed first: they then do not run alone at the end.
        seeds: integers.
        along: the name of the curve's coordinate, a key of each mapping (for instance "exposures"); or several names.
        workers: processes; default: one per core, two where there is a GPU. 1 runs in this process, which is the way
            to debug.
        progress: default: a bar if anybody is watching, see `notebook.watched`.
        ledger: its entries must be answered by this sweep: an unknown condition is refused before the first cell runs,
            an unknown metric or point of a curve when the first cell comes back, not after the last.
        besides: conditions and metrics of the ledger that come from elsewhere, and are not looked for.

    Returns:
        A DataFrame with `condition`, `seed`, (the `along` columns,) `metric`, `value`; in the order of the arguments.

    Raises:
        ValueError: a condition or seed used twice, none given, metrics that differ between cells, or an entry of the
            ledger that this sweep cannot answer.
        TypeError: a seed that is no integer, or a metric that is no number.
        CellError: `run` raised, or workers were lost, most often for want of memory; says in which conditions and
            with which seeds. Whatever is raised, an interrupt too, carries what has finished as its `table`.
    """
    names, objects = _conditions(conditions)
    along = _coordinates(along)
    seeds = [check.integer("seed", s, at_least=0) for s in seeds]
    if not seeds:
        raise ValueError("no seeds were given: pass at least one, for instance seeds=[0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"a seed is used twice in {seeds}: the same run would be counted twice")
    besides = set([besides] if isinstance(besides, str) else besides)
    if ledger is not None:
        ledger.refuse_unknown(names, besides)
    # Condition by condition, so that the long ones, listed first, start first.
    cells = [(name, seed) for name in names for seed in seeds]
    workers = _workers(workers, len(cells))
    label = f"{len(names)} conditions x {len(seeds)} seeds"
    bar = tqdm(total=len(cells), desc=label, disable=not (watched() if progress is None else progress), leave=False)
    rows: dict[tuple[str, int], list[dict]] = {}
    expected: set[str] = set()
    try:
        with bar, _workers_may_be_replaced():
            for name, seed, metrics, error in _cells(run, cells, objects, workers):
                if error:
                    raise CellError(f"{_where(name, seed)} failed:\n{error}")
                found = _rows(name, seed, metrics, along, expected)
                rows[name, seed] = found
                bar.update()
                if ledger is not None:
                    ledger.refuse_unmeasured(pd.DataFrame(found), besides)
    except BaseException as error:
        error.table = _tidy(rows, cells)  # minutes of work, which no error and no interrupt may throw away
        raise
    return _tidy(rows, cells)


def _cells(run, cells: list[tuple[str, int]], objects: dict, workers: int) -> Iterator[tuple]:
    """(condition, seed, metrics, error) of every cell, as they come back."""
    n, calls = threads(), [(name, objects[name], seed) for name, seed in cells]
    if workers == 1:
        yield from (_cell(n, run, *call) for call in calls)
        return
    missing = dict.fromkeys(cells)
    try:
        for back in _parallel(workers)(delayed(_cell)(n, run, *call) for call in calls):
            del missing[back[:2]]
            yield back
    except Exception as error:  # what `run` raises comes back as text: this one is about the workers
        seeds: dict[str, list[str]] = {}
        for name, seed in missing:
            seeds.setdefault(name, []).append(str(seed))
        lost = "; ".join(f"condition {name!r}, seed {', '.join(s)}" for name, s in seeds.items())
        raise CellError(_not_back(lost, workers, error)) from error


def side_by_side(function: Callable, *arguments: Iterable, workers: int | None = None) -> list:
    """[function(*a) for a in zip(*arguments)], each call in a worker process of one thread, as in `sweep`.

    For a few models that a chapter wants to keep: two threads on one tiny model do less than two processes, and on a
    busy machine they wait for each other. Results come back in order; an error is raised as it is.

    Raises:
        CellError: workers were lost; names the calls that did not come back.
    """
    calls = list(zip(*arguments, strict=True))
    n, workers = threads(), _workers(workers, len(calls))
    found: dict[int, object] = {}
    try:
        with _workers_may_be_replaced():
            jobs = (delayed(_numbered)(n, k, function, *call) for k, call in enumerate(calls))
            for k, result in _parallel(workers)(jobs):
                found[k] = result
    except Exception as error:
        # Dask has an error of its own for a worker that was lost again and again.
        if not isinstance(error, BrokenExecutor) and type(error).__name__ != "KilledWorker":
            raise
        name = getattr(function, "__name__", "call")
        lost = "; ".join(f"{name}{reprlib.repr(c)}" for k, c in enumerate(calls) if k not in found)
        raise CellError(_not_back(lost, workers, error)) from error
    return [found[k] for k in range(len(calls))]


def _parallel(workers: int) -> Parallel:
    return Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1, pre_dispatch="all")


def _not_back(lost: str, workers: int, error: Exception) -> str:
    return (
        f"these did not come back from {workers} worker processes: {lost}. Where a process was killed, the machine was "
        f"most often short of memory: run fewer at a time, or one after the other in this process (workers=1). "
        f"The cause: {type(error).__name__}: {error}"
    )


@contextmanager
def _workers_may_be_replaced() -> Iterator[None]:
    """No warning when loky replaces a worker that has grown by more than 300 MB.

    Training makes one grow by more than that. The worker is replaced after it has handed in its result, so nothing is
    lost; but whether a job is waiting at that moment is chance, and the warning would be an output that comes and goes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        yield


def with_threads(n: int, function: Callable, *call):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return function(*call)
    finally:
        torch.set_num_threads(before)


def _numbered(n: int, k: int, function: Callable, *call):
    return k, with_threads(n, function, *call)


def _cell(n: int, run: Callable, name: str, condition, seed: int):
    """One cell in its worker. Errors travel as text: not every exception survives pickling."""
    try:
        return name, seed, with_threads(n, run, condition, seed), None
    except (Exception, SystemExit):
        return name, seed, None, traceback.format_exc()


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


def _coordinates(along: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names of the curve's coordinates; none where a cell is a single point."""
    names = () if along is None else (along,) if isinstance(along, str) else tuple(along)
    for name in names:
        if name in COLUMNS or names.count(name) > 1:
            raise ValueError(
                f"along names {name!r}, which is a column already: give every coordinate a name of its own"
            )
    return names


def _workers(workers: int | None, cells: int) -> int:
    if workers is not None:
        return max(1, min(check.integer("workers", workers, at_least=1), cells))
    most = max(1, effective_n_jobs(-1) // threads())
    if torch.cuda.is_available() and "Loky" in type(get_active_backend()[0]).__name__:  # not on a cluster
        most = min(most, PER_GPU)
    return max(1, min(most, cells))


def _where(name: str, seed: int) -> str:
    return f"condition {name!r}, seed {seed}"


def _rows(name: str, seed: int, points, along: tuple[str, ...], expected: set[str]) -> list[dict]:
    """The rows of one cell in the tidy table; `expected`, the metrics of every cell, is filled by the first."""
    where, rows = _where(name, seed), []
    if not along:
        points = [points]
    elif not isinstance(points, list | tuple):
        kind, names = type(points).__name__, " and ".join(map(repr, along))
        raise TypeError(f"run returned {kind} in {where}: with along={names} it must return a list of dicts")
    elif not points:
        raise ValueError(f"run returned no point of the curve in {where}: every cell needs at least one")
    for point in points:
        if not isinstance(point, Mapping):
            raise TypeError(f"run returned {type(point).__name__} in {where}: it must return a dict metric -> number")
        absent = [c for c in along if c not in point]
        if absent:
            raise ValueError(f"run returned no {absent[0]!r} in {where}: every point of the curve needs it")
        place = {c: point[c] for c in along}
        values = {m: v for m, v in point.items() if m not in place}
        expected |= set() if expected else set(values)
        odd = sorted(expected ^ set(values))
        if odd:
            raise ValueError(
                f"the metric {odd[0]!r} is missing in {where} or elsewhere: every cell needs the same metrics"
            )
        if not values:
            raise ValueError(f"run returned no metric in {where}: return at least one, as {{name: number}}")
        for metric, value in values.items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"the metric {metric!r} is {value!r} in {where}: it must be a number")
            rows.append({"condition": name, "seed": seed, **place, "metric": metric, "value": float(value)})
    return rows


def _tidy(rows: dict[tuple[str, int], list[dict]], cells: list[tuple[str, int]]) -> pd.DataFrame:
    return pd.DataFrame([row for cell in cells for row in rows.get(cell, ())])
