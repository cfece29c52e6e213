"""The rows of a tidy table that a figure wants, and what they are called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from .. import check

Order = Sequence | Mapping | None
COLUMNS = ("condition", "seed", "metric", "value")  # the others of a table are coordinates of curves


def some(table: pd.DataFrame, column: str, wanted) -> pd.DataFrame:
    """The rows whose `column` is `wanted`, or one of those; refused by name where there are none."""
    check.one_of("the column", column, table.columns)
    wanted = list(wanted) if isinstance(wanted, list | tuple | set | range | dict) else [wanted]
    known = table[column].unique().tolist()
    for value in wanted:
        if value not in known:
            has = ", ".join(map(repr, known))
            raise ValueError(f"the table has no {column} {value!r} to draw here: it has {has}")
    return table[table[column].isin(wanted)]


def labels_of(order: Order, default: Sequence) -> dict:
    """What is drawn -> what it is called."""
    return dict(order) if isinstance(order, Mapping) else {c: c for c in (default if order is None else order)}


def named(table: pd.DataFrame, column: str, labels: Mapping, name: str) -> pd.DataFrame:
    """The rows that `labels` names, with what they are called in a new column `name`, in the order of the labels."""
    coordinates = [c for c in table.columns if c not in COLUMNS]
    parts = []
    for key, label in labels.items():
        value, *at = key if isinstance(key, tuple) else (key,)
        rows = some(table, column, [value])
        for coordinate, point in zip(coordinates, at, strict=False):
            rows = some(rows, coordinate, [point])
        parts.append(rows.assign(**{name: str(label)}))
    return pd.concat(parts)


def drawn(table: pd.DataFrame, metric: str | Mapping, where: Mapping | None) -> tuple[pd.DataFrame, dict]:
    """The rows of the metrics, and the label of each metric."""
    labels = dict(metric) if isinstance(metric, Mapping) else {metric: metric}
    for column, wanted in (where or {}).items():
        table = some(table, column, wanted)
    return some(table, "metric", list(labels)), labels


def one_row_a_seed(rows: pd.DataFrame, by: list[str]) -> None:
    """Refuse to average anything but seeds: what has more than one row for a seed is named."""
    twice = rows[rows.duplicated([*by, "seed"])]
    if len(twice):
        raise ValueError(
            f"there is more than one row per seed for {', '.join(map(str, twice.iloc[0][by]))}: say with `where` or "
            "`order` which point of the curve is meant"
        )
