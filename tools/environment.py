"""The environment of every kernel that the tools start: what a chapter shows must not depend on a reader's settings.

`MPLBACKEND=Agg` would leave a notebook without its figures, a start-up file of IPython would put something else into
them, `PYTHONWARNINGS=error` would stop them, and without a home that can be written Jupyter does not start at all.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from .notebooks import ROOT

# Which modules are found is the reader's business: the tool that asks was found by the same paths.
KEPT = {"PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8"}
DROPPED = {
    "MPLBACKEND", "MATPLOTLIBRC",  # another backend, another style
    "TORCH_LOGS", "TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY",  # lines on stderr
    "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS",  # of the make that called: the next one would take them over
}  # fmt: skip
OF_THE_READER = ("PYTHON", "IPYTHON", "JUPYTER_", "JPY_")
XDG = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config", "XDG_DATA_HOME": ".local/share"}


def clean(**settings: str) -> dict[str, str]:
    """This process's environment without what would change a notebook's outputs, and with `settings` added.

    Matplotlib, IPython and Jupyter get folders of the tools' own. The threads and the kind of processor stay as they
    are: `make stress` sets them, and so may a reader.
    """
    env = {k: v for k, v in os.environ.items() if k in KEPT or not (k in DROPPED or k.startswith(OF_THE_READER))}
    own = folder()
    return env | homes(env, own) | {
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTER_CONFIG_DIR": str(own / "jupyter"),
        "JUPYTER_DATA_DIR": str(own / "jupyter-data"),
        "JUPYTER_RUNTIME_DIR": str(own / "jupyter-runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one that was installed elsewhere
        "MPLCONFIGDIR": str(own / "matplotlib"),
        "ALIGNLAB_QUIET": "1",  # progress bars are for people: none may reach an output
        "PYTHONUNBUFFERED": "1",
    } | settings  # fmt: skip


def homes(env: Mapping[str, str], own: Path) -> dict[str, str]:
    """The folders that programs would make in the reader's home, moved to `own` where they cannot be written."""
    return {
        name: str(own / name.lower())
        for name, usual in XDG.items()
        if not writable(Path(env[name]) if env.get(name) else home(env) / usual)
    }


def home(env: Mapping[str, str]) -> Path:
    """The reader's home, or a place that cannot be written where nobody knows one."""
    try:
        return Path(env["HOME"]) if env.get("HOME") else Path.home()
    except RuntimeError:
        return Path(os.devnull)


def writable(place: Path) -> bool:
    """Could files be written into `place`, which may have to be made first? Tried, as permissions do not tell all."""
    there = next((p for p in (place, *place.parents) if p.exists()), None)
    try:
        with tempfile.TemporaryFile(dir=there):
            return there is not None
    except OSError:
        return False


@cache
def folder() -> Path:
    """Where the kernels' programs keep their own files: in _build, or in a temporary folder where that is read-only."""
    place = ROOT / "_build" / "kernel"
    if not writable(place):
        place = Path(tempfile.mkdtemp(prefix="alignlab-kernel-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    fonts = place / "matplotlib"
    for made in (fonts, place / "ipython"):
        made.mkdir(parents=True, exist_ok=True)
    if not any(fonts.glob("fontlist*")):  # in a chapter, matplotlib's line about this would be an output
        listing = [sys.executable, "-c", "import matplotlib.font_manager"]
        subprocess.run(listing, env={**os.environ, "MPLCONFIGDIR": str(fonts)}, capture_output=True)
    return place
