"""One call at the top of a chapter: profile, seeds, figure style; locally, in CI, in JupyterLab and on Colab.

All variables of the environment that are the book's own:

  ALIGNLAB_CACHE       folder of trained models; default: `alignlab` in the user's cache folder (`models/cache.py`)
  ALIGNLAB_DOWNLOAD    1: real models may be fetched from the hub (`models/real.py`)
  ALIGNLAB_THREADS     threads for each model, 1 if unset (`threads`)
  ALIGNLAB_QUIET       anything: nobody is watching, so no progress bar is drawn (`watched`); the tools set it
  ALIGNLAB_RECORD      1: `make bench` writes what it measures into the book
  ALIGNLAB_NEEDS_SITE  anything: the tests of the site fail where it was not built, instead of being skipped
  ALIGNLAB_TRAINED     a folder where the tests of the library keep the base that they train, for the notebooks

Of those of others, `CI` and `PYTEST_VERSION` say as ALIGNLAB_QUIET does that nobody is watching.
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from .. import check

PROFILES = {"quick": 3, "full": 10, "one": 1}  # name -> number of seeds; "one" is quick with a single seed


@dataclass(frozen=True)
class Lab:
    """What `start` decided: `lab.profile`, `lab.seeds`, and `lab.pick(quick=..., full=...)` for settings."""

    profile: str
    seeds: tuple[int, ...]

    def pick(self, *, quick, full):
        """The value for this profile: `lab.pick(quick=200, full=2000)`. The profile "one" has the settings of quick."""
        return full if self.profile == "full" else quick

    def report(self) -> None:
        """Print what somebody needs who compares results: versions, processor, profile, seeds."""
        print(f"profile {self.profile}, seeds {', '.join(map(str, self.seeds))}")
        print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
        print(f"processor features used by torch: {torch.backends.cpu.get_cpu_capability()}")
        if torch.cuda.is_available():
            print(f"GPU: {torch.cuda.get_device_name()}")
        for name in ("alignlab", "torch", "transformers", "datasets", "numpy", "pandas"):
            try:
                print(f"{name} {version(name).split('+')[0]}")
            except PackageNotFoundError:
                print(f"{name} from source")


def start(profile: str = "quick", seed: int = 0) -> Lab:
    """Prepare a notebook. `profile` and `seed` come from the cell tagged `parameters`.

    Args:
        profile: "quick" (3 seeds, minutes on two cores), "full" (10 seeds, larger settings), or "one" (a single seed
            with the settings of quick: to see whether a chapter runs, never to judge a claim).
        seed: an offset; the experiment's seeds are seed, seed + 1, ... Offsets that differ by less than the number of
            seeds overlap: use 0, 100, 200.

    Raises:
        TypeError, ValueError: with the value and what is allowed.
    """
    check.one_of("profile", profile, PROFILES)
    seed = check.integer("seed", seed, at_least=0)
    # Models are a few megabytes: bars and advice about loading them are noise in a chapter.
    import datasets
    from transformers.utils import logging

    from . import plot  # here: the workers of a sweep import this module and draw nothing

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="IProgress not found")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(threads())  # as in the workers of a sweep
    plot.use_style()
    return Lab(profile, tuple(range(seed, seed + PROFILES[profile])))


def watched() -> bool:
    """Is anybody watching? A person at a notebook is; CI, a test (nbval's too), a tool or a plain script is not.

    Whatever comes and goes, such as a progress bar, is drawn for people only: in a committed output it would differ
    with every run.
    """
    return "ipykernel" in sys.modules and not any(os.environ.get(v) for v in ("CI", "PYTEST_VERSION", "ALIGNLAB_QUIET"))


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
