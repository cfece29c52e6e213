"""The measured tables of the book, book/_data/*.csv: read by key, written in one step, in the order of the book."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .notebooks import ROOT, notebooks

DATA = ROOT / "book" / "_data"


def read(table: Path, *keys: str) -> dict[tuple[str, ...], dict[str, str]]:
    """The values of the columns `keys` -> their row; nothing where there is no table.

    Raises:
        ValueError: the table lacks one of the columns, or two of its rows have one key.
    """
    if not table.exists():
        return {}
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    with table.open(newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        missing = [k for k in keys if k not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{table.name} has no column {missing[0]!r}: it has {', '.join(reader.fieldnames or ())}")
        for row in reader:
            key = tuple(row[k] for k in keys)
            if key in rows:
                raise ValueError(f"{table.name} has two rows for {', '.join(key)}: delete one of them")
            rows[key] = row
    return rows


def write(rows: Iterable[Mapping[str, object]], columns: Sequence[str], table: Path) -> None:
    """Replace the table in one step; a value that a row does not have is left empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace(table, text.getvalue().encode())


def by_chapter(rows: Iterable[Mapping[str, str]], *then: str) -> list[Mapping[str, str]]:
    """The rows in the order of the book's chapters, those of one chapter by the columns `then`; unknown ones last."""
    place = {file.stem: i for i, file in enumerate(notebooks(ROOT).values())}
    return sorted(rows, key=lambda r: (place.get(r["chapter"], len(place)), r["chapter"], *(r[c] for c in then)))


def replace(file: Path, content: bytes) -> None:
    """Put `content` in the place of `file` in one step: who reads sees the old file or the new one, whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
        os.chmod(draft, file.stat().st_mode & 0o777 if file.exists() else 0o644)  # mkstemp's would be its owner's alone
        os.replace(draft, file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
