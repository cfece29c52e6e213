"""One call at the top of a chapter: profile, seeds, figure style; locally, in CI, in JupyterLab and on Colab."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from .. import check
from . import plot
from .sweep import threads

PROFILES = {"quick": 3, "full": 10}  # name -> number of seeds


@dataclass(frozen=True)
class Lab:
    """What `start` decided: `lab.profile`, `lab.seeds`, and `lab.pick(quick=..., full=...)` for settings."""

    profile: str
    seeds: tuple[int, ...]

    def pick(self, **by_profile):
        """The value for this profile: `lab.pick(quick=200, full=2000)`. Every profile must be named."""
        missing = sorted(set(PROFILES) - set(by_profile))
        if missing:
            raise ValueError(f"no value for the profile {missing[0]!r}: name all of {', '.join(PROFILES)}")
        return by_profile[self.profile]

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
        profile: "quick" (3 seeds, minutes on two cores) or "full" (10 seeds, larger settings).
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

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="IProgress not found")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(threads())  # as in the workers of a sweep
    plot.use_style()
    return Lab(profile, tuple(range(seed, seed + PROFILES[profile])))


def live() -> bool:
    """Is a person at the notebook? False under nbval, nbclient in CI and plain Python."""
    return "ipykernel" in sys.modules and not (os.environ.get("CI") or os.environ.get("ALIGNLAB_QUIET"))
