"""Trained models on disk, keyed by everything that made them.

An entry is a folder with the model, its tokenizer and a manifest of checksums. It is written beside its place and
moved there in one step, so a run that is killed leaves either a whole entry or none. Two processes that want the same
model wait for each other on a lock file, and the second one loads what the first one made.

    python -m alignlab.models.cache            what is kept, and what of it no version installed here will use
    python -m alignlab.models.cache --prune    remove the latter
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .llama import fuse_norms

LIBRARY = __name__.partition(".")[0]
MANIFEST = "manifest.json"
FOREIGN = "not an entry of this cache, or a damaged one: left alone"
# Whatever shapes a base model: a change in one of these makes every older entry unreachable.
MODULES = (
    "worlds.people", "worlds.letters", "worlds.biographies", "worlds.tasks", "worlds.web",
    "models.tokens", "models.llama", "training.muon", "training.train",
)  # fmt: skip


class DamagedEntry(RuntimeError):
    """An entry whose files are not what its manifest says."""


def folder() -> Path:
    """Where entries live: `$ALIGNLAB_CACHE`, else `alignlab` in the user's cache folder."""
    if os.environ.get("ALIGNLAB_CACHE"):
        return Path(os.environ["ALIGNLAB_CACHE"])
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "alignlab"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "alignlab"


def key(settings: dict, modules: Iterable[str] = MODULES, also: Iterable[Callable] = ()) -> str:
    """A digest of the settings, of the source of the modules involved, and of the functions in `also`.

    Raises:
        TypeError: a setting cannot be written as JSON; pass plain values.
    """
    try:
        text = json.dumps(settings, sort_keys=True)
    except TypeError as e:
        raise TypeError(f"a cache key needs plain values (numbers, strings, lists, dicts): {e}") from None
    text += json.dumps(made_by(modules, also), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def made_by(modules: Iterable[str] = MODULES, also: Iterable[Callable] = ()) -> dict[str, str]:
    """What of the software decides how a model turns out: digests of source, and the versions of two packages."""
    modules, also = tuple(modules), tuple(also)  # each is gone through more than once
    sources = [inspect.getsource(importlib.import_module(f"{LIBRARY}.{name}")) for name in modules]
    return {
        "modules": " ".join(modules),
        "source": _short(sources),
        "functions": " ".join(f"{f.__module__}:{f.__qualname__}" for f in also),
        "their source": _short(inspect.getsource(f) for f in also),
        # another version may compute, or store, something else
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }


def _short(texts: Iterable[str]) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:20]


def cached(
    name: str,
    settings: dict,
    make: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    also: Iterable[Callable] = (),
    modules: Iterable[str] = MODULES,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model that `make` would train from `settings`, or train it and keep it.

    Args:
        name: what a reader sees in the cache folder, such as "base".
        settings: everything that decides what `make` makes, the seed included.
        make: trains and returns (model, tokenizer). Pass it in `also` too when it is more than a call of the library.
        modules: of this package: a change in one of them makes every older entry unreachable.

    A damaged entry is reported and made again. A cache folder that cannot be written is read; what it lacks is made,
    and that it could not be kept is reported.
    """
    logging.disable_progress_bar()  # a bar for a file of a few hundred kilobytes is noise, in workers too
    modules, also = tuple(modules), tuple(also)
    made = made_by(modules, also)  # now: while a model is trained, somebody may edit a file
    place = folder() / f"{name}-{key(settings, modules, also)}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.parent / f"{place.name}.lock")
        lock.acquire()
    except OSError as e:
        if (place / MANIFEST).is_file():  # a folder that others may only read, as an instructor would share it
            try:
                return load(place)
            except DamagedEntry:
                pass
        warnings.warn(
            f"the cache folder {place.parent} cannot be used ({e}): going on without it. "
            "Set ALIGNLAB_CACHE to a folder that can be written.",
            stacklevel=2,
        )
        return make()
    try:
        if place.exists():
            try:
                return load(place)
            except DamagedEntry as e:
                warnings.warn(f"the cache entry {place.name} is damaged ({e}): it is made again", stacklevel=2)
                shutil.rmtree(place, ignore_errors=True)
        model, tokenizer = make()
        try:
            save(place, model, tokenizer, settings, made)
        # safetensors wraps a full disk in an error of its own; a model whose weights stay packed raises ValueError
        except (OSError, SafetensorError, ValueError) as e:
            warnings.warn(f"the model could not be kept in {place.parent} ({e}): going on without", stacklevel=2)
        return model, tokenizer
    finally:
        lock.release()


def save(
    place: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: dict, made: dict | None = None
) -> None:
    """Write an entry atomically: all of it appears at `place`, or nothing does. `made` is noted (see `made_by`)."""
    for stale in place.parent.glob(f".draft-{place.name}-*"):  # of a run that was killed: the lock is ours now
        shutil.rmtree(stale, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".draft-{place.name}-", dir=place.parent))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        files = {f.name: _digest(f) for f in sorted(draft.iterdir())}
        manifest = {"settings": settings, "made_by": made or made_by(), "files": files}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        if place.exists():
            shutil.rmtree(place)
        os.replace(draft, place)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def load(place: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read an entry after checking every file against the manifest.

    Raises:
        DamagedEntry: naming the file that is missing or changed.
    """
    try:
        files = dict(json.loads((place / MANIFEST).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DamagedEntry(f"no readable {MANIFEST}: {e}") from None
    if not files:
        raise DamagedEntry(f"{MANIFEST} names no files")
    for name, digest in files.items():
        if not (place / name).is_file():
            raise DamagedEntry(f"{name} is missing")
        if _digest(place / name) != digest:
            raise DamagedEntry(f"{name} has changed since it was written")
    model = AutoModelForCausalLM.from_pretrained(place, local_files_only=True, dtype=torch.float32)
    return fuse_norms(model).eval(), AutoTokenizer.from_pretrained(place, local_files_only=True)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What `entries` says of a folder in the cache."""

    place: Path
    megabytes: float
    stale: str  # why nothing that is installed here will use it; empty for one that can be used


def entries() -> list[Entry]:
    """What is kept in `folder()`, by name. An entry that is being written is not listed."""
    found = []
    for place in sorted(p for p in folder().glob("[!.]*") if p.is_dir()):
        size = sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) / 1e6
        found.append(Entry(place, size, _stale(place)))
    return found


def _manifest(place: Path) -> dict:
    """What `save` wrote beside the files; empty for a folder that is not an entry, or one whose manifest is damaged."""
    try:
        found = json.loads((place / MANIFEST).read_text())
        return found if {"settings", "files"} <= found.keys() and "config.json" in found["files"] else {}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _stale(place: Path) -> str:
    manifest = _manifest(place)
    if not manifest:
        return FOREIGN
    made = manifest.get("made_by")
    if not made:
        return "made by an older alignlab"
    try:
        named = [name.split(":") for name in made["functions"].split()]
        # A function of a notebook cannot be looked up from here: then what it was is taken to be what it is.
        also = [getattr(importlib.import_module(m), f) for m, f in named if m.startswith(f"{LIBRARY}.")]
        now = made_by(made["modules"].split(), also)
        other = [k for k in ("torch", "transformers") if made[k] != now[k]]
        same = made["source"] == now["source"]
        if len(also) == len(named):
            same = same and made["their source"] == now["their source"]
    except (ImportError, LookupError, TypeError, AttributeError):  # a module or function that is no longer there
        return "made by another alignlab"
    if other:
        return f"made with {other[0]} {made[other[0]]}, here is {now[other[0]]}"
    return "" if same else "made by another alignlab"


def prune() -> tuple[list[Entry], list[str]]:
    """Remove the entries that no version installed here will use. Folders that are no entries are left alone.

    Returns:
        The entries that were removed, and a line for each that could not be, with the reason.
    """
    gone, kept = [], []
    for entry in entries():
        if not entry.stale or entry.stale == FOREIGN:
            continue
        lock = entry.place.with_name(f"{entry.place.name}.lock")
        try:
            with FileLock(lock):
                away = entry.place.with_name(f".draft-{entry.place.name}-pruned")
                os.replace(entry.place, away)  # in one step: half an entry would look like a damaged one
                shutil.rmtree(away)
            lock.unlink(missing_ok=True)
            gone.append(entry)
        except OSError as e:
            kept.append(f"{entry.place.name} could not be removed: {e}")
    return gone, kept


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignlab.models.cache", description="Models kept on disk.")
    parser.add_argument("--prune", action="store_true", help="remove what no version installed here will use")
    options = parser.parse_args(arguments)
    listed, kept = prune() if options.prune else (entries(), [])
    for entry in listed:
        print(f"{entry.megabytes:8.1f} MB  {entry.place.name}  {entry.stale}".rstrip())
    print(*kept, sep="\n", end="\n" if kept else "")
    print(f"{folder()}: {len(listed)} {'removed' if options.prune else 'there'}, {_size(listed)}")
    stale = [e for e in listed if e.stale and e.stale != FOREIGN]
    if stale and not options.prune:
        print(f"{len(stale)} of these, {_size(stale)}, are not used by what is installed here: --prune removes them")
    return int(bool(kept))


def _size(listed: list[Entry]) -> str:
    return f"{sum(e.megabytes for e in listed):.1f} MB"


if __name__ == "__main__":
    raise SystemExit(main())
