"""The pages of the book in reading order, from _toc.yml: the one place where the order is written."""

from __future__ import annotations

from pathlib import Path

import yaml


def pages(root: Path) -> dict[str, Path]:
    """Every page: name without suffix -> its file.

    Raises:
        FileNotFoundError: _toc.yml names a page that is not there.
    """
    found: dict[str, Path] = {}

    def walk(node) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            name = node.get("file") or node.get("root")
            if name:
                files = [root / (name + suffix) for suffix in ("", ".ipynb", ".md") if Path(name + suffix).suffix]
                file = next((f for f in files if f.is_file()), None)
                if file is None:
                    raise FileNotFoundError(f"_toc.yml names {name}, but there is no such .md or .ipynb file")
                found[file.relative_to(root).with_suffix("").as_posix()] = file
            for key in ("parts", "chapters", "sections"):
                walk(node.get(key))

    walk(yaml.safe_load((root / "_toc.yml").read_text("utf-8")))
    return found


def notebooks(root: Path) -> dict[str, Path]:
    """The chapters that are notebooks: name -> file."""
    return {name: file for name, file in pages(root).items() if file.suffix == ".ipynb"}
