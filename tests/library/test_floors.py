"""The house: a floor imports only from those below it, and nothing private leaves its module."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import alignlab
import pytest

LIBRARY = Path(alignlab.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
BELOW = {  # floor -> the floors that it may import from, its own aside; `check` and the package itself serve all
    "experiment": {"measure", "training", "models", "worlds"},
    "measure": {"models", "worlds"},
    "training": {"models", "worlds"},
    "models": {"worlds"},
    "worlds": set(),
}
ALLOWED = {  # no name of its own: base.py is part of confirmed experiments, so that nothing in it may change for this
    "experiment/bases.py": ["reads the private base._pretrain"],
}
MODULES = sorted(p.relative_to(LIBRARY).as_posix() for p in LIBRARY.rglob("*.py"))


def imports(source: str, path: str) -> list[tuple[str, str]]:
    """(module, name) of all that a file of the library imports, wherever in it, relative imports spelt out.

    `path` is the file's, inside the library; the name is "" where a whole module is imported.
    """
    found, here = [], ["alignlab", *Path(path).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(a.name, "") for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            found += [(module, a.name) for a in node.names]
    return found


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def faults(source: str, path: str) -> list[str]:
    """What a file imports against the rules of the house."""
    found = []
    floor = path.split("/")[0]  # the file's own name, where it stands on no floor
    ours = {name for module, name in imports(source, path) if module.split(".")[0] == "alignlab"}
    for node in ast.walk(ast.parse(source)):
        reads = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours
        if reads and private(node.attr):
            found.append(f"reads the private {node.value.id}.{node.attr}")
    for module, name in imports(source, path):
        parts = f"{module}.{name}".strip(".").split(".")
        if floor == "worlds" and parts[0] in ("torch", "transformers"):
            found.append(f"imports {parts[0]}")
        if parts[0] != "alignlab":
            continue
        if any(map(private, parts)):
            found.append(f"imports the private {'.'.join(parts)}")
        other = parts[1] if len(parts) > 1 else ""
        if other in BELOW and other != floor and other not in BELOW.get(floor, set()):
            found.append(f"imports {'.'.join(parts)}")
    return found


@pytest.mark.parametrize("path", MODULES)
def test_a_module_imports_from_its_own_floor_and_those_below(path):
    assert sorted(set(faults((LIBRARY / path).read_text("utf-8"), path))) == ALLOWED.get(path, [])


def test_every_folder_is_a_floor_and_only_check_stands_outside():
    folders = {p.name for p in LIBRARY.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert folders == set(BELOW) and all((LIBRARY / f / "__init__.py").is_file() for f in folders)
    assert {p for p in MODULES if "/" not in p} == {"__init__.py", "check.py"}


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("models/x.py", "from ..training.train import train", "imports alignlab.training.train.train"),
        ("models/x.py", "from .. import training", "imports alignlab.training"),
        ("models/x.py", "def f():\n    import alignlab.measure.shift", "imports alignlab.measure.shift"),
        ("measure/x.py", "from ..training import muon", "imports alignlab.training.muon"),
        ("training/x.py", "from alignlab.measure import score", "imports alignlab.measure.score"),
        ("measure/x.py", "from alignlab import experiment", "imports alignlab.experiment"),
        ("worlds/x.py", "from ..models.tokens import IGNORE", "imports alignlab.models.tokens.IGNORE"),
        ("worlds/x.py", "import torch", "imports torch"),
        ("worlds/x.py", "from torch import nn", "imports torch"),
        ("check.py", "from .worlds import people", "imports alignlab.worlds.people"),
        ("measure/x.py", "from .shift import _logits", "imports the private alignlab.measure.shift._logits"),
        ("measure/x.py", "from . import shift\nx = shift._logits", "reads the private shift._logits"),
        ("measure/x.py", "from ..models import _x", "imports the private alignlab.models._x"),
    ],
)
def test_an_upward_or_private_import_is_seen(path, source, said):
    assert faults(source, path) == [said]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "experiment/x.py",
            "from ..measure.shift import KINDS\nfrom . import plot\nfrom ..training.train import train",
        ),
        (
            "measure/x.py",
            "from .. import check\nfrom ..models.read import logits\nimport torch\nfrom .shift import kind",
        ),
        ("worlds/x.py", "from __future__ import annotations\nfrom alignlab.check import rng\nimport numpy as np"),
        ("models/x.py", "from importlib.metadata import _meta\nfrom .. import __version__"),
    ],
)
def test_what_the_house_allows_is_not_refused(path, source):
    assert faults(source, path) == []


def test_the_worlds_are_written_without_torch():
    """Nor does anything that they import bring it in."""
    modules = ", ".join(f"alignlab.worlds.{Path(p).stem}" for p in MODULES if p.startswith("worlds/"))
    code = f"import sys, {modules}\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    path = os.pathsep.join([str(LIBRARY.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
