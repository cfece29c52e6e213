"""Trained models on disk, found again by everything that made them.

An entry is a folder with the model, its tokenizer and a manifest of checksums. It is written beside its place and
moved there in one step, so a run that is killed leaves either a whole entry or none. Two processes that want the same
model wait for each other on a lock file, and the second one loads what the first one made.

    python -m alignlab.models.cache                          what is kept
    python -m alignlab.models.cache --prune                  remove what other versions made, or nobody used for a month
    python -m alignlab.models.cache --prune --older-than=7   ... for a week
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from . import fingerprint, lock
from .llama import best_device, fuse_norms

Made = tuple[PreTrainedModel, PreTrainedTokenizerBase]
MANIFEST = "manifest.json"


class DamagedEntry(RuntimeError):
    """An entry whose files are not what its manifest says."""


def folder() -> Path:
    """Where entries live: `$ALIGNLAB_CACHE`, else `alignlab` in the user's cache folder."""
    if os.environ.get("ALIGNLAB_CACHE"):
        return Path(os.path.abspath(Path(os.environ["ALIGNLAB_CACHE"]).expanduser()))
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "alignlab"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "alignlab"


def cached(name: str, make: Callable[..., Made], *arguments) -> Made:
    """What `make(*arguments)` returns, from the cache if it was made before by the same code on the same machine.

        model, tokenizer = cache.cached("paraphrase-single", trained, ARMS["single"], SEED)

    The key is a digest of `make`, of all that it names, and of the arguments (see `fingerprint`); of the versions of
    the packages involved; and of the device, the processor's capability and the number of threads.

    Args:
        name: what a reader sees in the cache folder, such as "base": letters, digits, ".", "_" and "-".
        make: trains and returns (model, tokenizer).

    A damaged entry is reported and made again. Where the cache cannot be used, the model is made and that is reported.

    Raises:
        ValueError: a name with other characters.
        TypeError: an argument, or something that `make` names, has no value to go by.
    """
    digest, note = key(make, *arguments)
    return kept(name, digest, lambda: make(*arguments), note)


def keep(name: str, made: Made, make: Callable[..., Made], *arguments) -> None:
    """Put `made` where `cached(name, make, *arguments)` will find it: for a model that a run came by on its way.

    It is up to the caller that `make(*arguments)` would return the same. What is there already stays.
    """
    digest, note = key(make, *arguments)
    kept(name, digest, lambda: made, note)


def key(make: Callable[..., Made], *arguments) -> tuple[str, dict]:
    """What `cached` goes by, and what the manifest says of it."""
    digest, versions = fingerprint.of(make, *arguments)
    machine = fingerprint.machine()
    called = ", ".join(shorten(repr(a), 200) for a in arguments)
    note = {"made": f"{getattr(make, '__name__', make)}({called})", "machine": machine, "versions": versions}
    return f"{digest} {json.dumps(machine)}", note


def kept(name: str, key: str, make: Callable[[], Made], note: Mapping | None = None) -> Made:
    """As `cached`, by a key of the caller's own: a text that names all that decides what `make()` returns.

    Only the versions of torch and transformers are added to it. The manifest will hold `note`.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"the name of a cache entry is {name!r}: use letters, digits, '.', '_' and '-' only")
    note = {"versions": fingerprint.versions("torch", "transformers"), **(note or {})}
    digest = hashlib.sha256(f"{key} {json.dumps(note['versions'], sort_keys=True)}".encode()).hexdigest()[:20]
    place = folder() / f"{name}-{digest}"
    with lock.turn(_lock(place), place.name) as trouble:
        try:
            model, tokenizer = load(place)
            return model.to(best_device()), tokenizer  # as it was made
        except FileNotFoundError:
            pass
        except DamagedEntry as e:
            warnings.warn(f"the cache entry {place.name} is damaged ({e}): it is made again", stacklevel=3)
        except OSError as e:  # somebody else's, and not to be read by us
            trouble = e
        if isinstance(trouble, lock.NoLocksError):  # entries appear in one step, so nothing is worse than made twice
            warnings.warn(f"{trouble}: two processes may make {place.name} at the same time", stacklevel=3)
        elif trouble:
            warnings.warn(
                f"the cache folder {place.parent} cannot be used ({trouble}): going on without it. "
                "Set ALIGNLAB_CACHE to a folder that can be read and written.",
                stacklevel=3,
            )
            return make()
        model, tokenizer = make()
        try:
            save(place, model, tokenizer, note)
        # safetensors wraps a full disk in an error of its own; a model whose weights stay packed raises ValueError
        except (OSError, SafetensorError, ValueError) as e:
            warnings.warn(f"the model could not be kept in {place.parent} ({e}): going on without", stacklevel=3)
        return model, tokenizer


def _lock(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


@contextmanager
def _quiet() -> Iterator[None]:
    """A bar for a file of a few hundred kilobytes is noise, in workers too."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


@_quiet()
def save(place: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, note: Mapping) -> None:
    """Write an entry atomically: all of it appears at `place`, or nothing does. The manifest holds `note`."""
    for stale in place.parent.glob(f".draft-{place.name}-*"):  # of a run that was killed: the lock is ours now
        shutil.rmtree(stale, ignore_errors=True)
    draft = place.with_name(f".draft-{place.name}-{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        files = {f.name: _digest(f) for f in sorted(draft.iterdir())}
        manifest = json.dumps({**note, "files": files}, indent=1, sort_keys=True)
        (draft / MANIFEST).write_text(manifest, encoding="utf-8")
        for file in draft.iterdir():  # safetensors writes for its owner only; a class shares one cache
            file.chmod(draft.stat().st_mode & 0o666)
        if place.exists():
            shutil.rmtree(place)
        os.replace(draft, place)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@_quiet()
def load(place: Path) -> Made:
    """Read an entry after checking every file against the manifest, and note that it was used.

    Raises:
        FileNotFoundError: there is none.
        PermissionError: it is somebody else's.
        DamagedEntry: naming the file that is missing or changed.
    """
    place.stat()
    try:
        files = dict(json.loads((place / MANIFEST).read_text("utf-8"))["files"])
    except PermissionError:
        raise
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
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    with suppress(OSError):
        os.utime(place / MANIFEST)
    return fuse_norms(model).eval(), tokenizer


def _digest(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@dataclass(frozen=True)
class Entry:
    """What `entries` says of one model."""

    place: Path
    made: str  # by which call
    megabytes: float
    days: float  # since it was made or loaded
    other: str  # a version that differs from what is installed here, so that nothing here will use it; or nothing


def entries() -> list[Entry]:
    """The models in `folder()`, by name. A folder that is no entry of this cache is not listed."""
    found = []
    for manifest in sorted(folder().glob("[!.]*/" + MANIFEST)):
        try:
            note, used = json.loads(manifest.read_text("utf-8")), manifest.stat().st_mtime
            if "config.json" not in note["files"]:
                continue
            made_with = dict(note.get("versions") or {"alignlab": "an older one"})
            size = sum(f.stat().st_size for f in manifest.parent.iterdir()) / 1e6
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            continue
        here = fingerprint.versions(*made_with)
        other = ", ".join(f"{k} {v}" for k, v in made_with.items() if v != here[k])
        found.append(Entry(manifest.parent, str(note.get("made", "")), size, (time.time() - used) / 86400, other))
    return found


def prune(older_than: float = 30) -> tuple[list[Entry], list[str]]:
    """Remove the models that other versions made, and those that nobody has used for so many days.

    Returns:
        The entries that were removed, and a line for each that could not be, with the reason.
    """
    gone, stayed = [], []
    for entry in entries():
        if not entry.other and entry.days <= older_than:
            continue
        away = entry.place.with_name(f".draft-{entry.place.name}-pruned")
        with lock.turn(_lock(entry.place), entry.place.name) as trouble:
            try:
                if trouble:
                    raise trouble
                os.replace(entry.place, away)  # in one step: half an entry would look like a damaged one
                shutil.rmtree(away)
                gone.append(entry)
            except OSError as e:
                stayed.append(f"{entry.place.name} could not be removed: {e}")
    return gone, stayed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignlab.models.cache", description="Models kept on disk.")
    parser.add_argument("--prune", action="store_true", help="remove what is of other versions, or was not used lately")
    parser.add_argument("--older-than", type=float, default=30, metavar="DAYS", help="not used for so many days (30)")
    options = parser.parse_args(arguments)
    listed, stayed = prune(options.older_than) if options.prune else (entries(), [])
    for e in listed:
        other = f"made with {e.other}" if e.other else ""
        print(f"{e.megabytes:8.1f} MB {e.days:5.0f} days  {e.place.name}  {e.made}  {other}".rstrip())
    size = sum(e.megabytes for e in listed)
    print(*stayed, f"{folder()}: {len(listed)} {'removed' if options.prune else 'there'}, {size:.1f} MB", sep="\n")
    return int(bool(stayed))


if __name__ == "__main__":
    raise SystemExit(main())
