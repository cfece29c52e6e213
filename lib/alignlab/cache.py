"""Trained models on disk, keyed by everything that made them.

An entry is a folder with the model, its tokenizer and a manifest of checksums. It is written beside its place and
moved there in one step, so a run that is killed leaves either a whole entry or none. Two processes that want the same
model wait for each other on a lock file, and the second one loads what the first one made.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .model import fuse_norms

MANIFEST = "manifest.json"
# Whatever shapes a base model: a change in one of these makes every older entry unreachable.
MODULES = ("world", "text", "tokens", "web", "model", "train")


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
    digest = hashlib.sha256(text.encode())
    for name in modules:
        digest.update(inspect.getsource(importlib.import_module(f"{__package__}.{name}")).encode())
    for function in also:
        digest.update(inspect.getsource(function).encode())
    for package in (torch, transformers):  # another version may compute, or store, something else
        digest.update(package.__version__.split("+")[0].encode())
    return digest.hexdigest()[:20]


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
            save(place, model, tokenizer, settings)
        # safetensors wraps a full disk in an error of its own; a model whose weights stay packed raises ValueError
        except (OSError, SafetensorError, ValueError) as e:
            warnings.warn(f"the model could not be kept in {place.parent} ({e}): going on without", stacklevel=2)
        return model, tokenizer
    finally:
        lock.release()


def save(place: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: dict) -> None:
    """Write an entry atomically: all of it appears at `place`, or nothing does."""
    for stale in place.parent.glob(f".draft-{place.name}-*"):  # of a run that was killed: the lock is ours now
        shutil.rmtree(stale, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".draft-{place.name}-", dir=place.parent))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        files = {f.name: _digest(f) for f in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps({"settings": settings, "files": files}, indent=1, sort_keys=True))
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
