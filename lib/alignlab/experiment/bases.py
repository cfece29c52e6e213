"""Trained bases to download: those that chapters share, written as files, and taken from there instead of trained.

    python -m alignlab.experiment.bases fetch [URL-OR-FOLDER]     what the cache lacks, into the cache
    python -m alignlab.experiment.bases write FOLDER [SEED ...]   a file for each base of `prepare_all`, and the list

  ALIGNLAB_BASES       where `fetch` looks unless it is told: an https address or a folder

A file holds the weights of one base in the format safetensors, float32, and nothing else: the shape of the model and
its tokenizer are made here, by the code. A base is found by what makes it: a digest of the source, its plan and its
seed. Which bytes are the right ones stands in `bases.json`, which comes with the library and not with the files;
whatever has other bytes is not used. Versions and machine have no part in that: a base that was trained with another
torch is used and said to be one, since its numbers may differ in the last digits, as between two processors.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from http.client import HTTPException
from itertools import product
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from transformers import PreTrainedTokenizerBase

from .. import __version__, check
from ..models import cache, download, source
from ..models.download import REMEDY, Refused
from . import base
from .sweep import threads, with_threads

SEEDS = (0, 1, 2)  # of the chapters as they are committed
LISTED = Path(__file__).with_name("bases.json")
INDEX = "index.json"  # beside the files, for who looks at them: nothing here reads it
OTHERS = "numbers may differ in their last digits from those of bases trained here, as between two processors"
APART = {"experiment.sweep", "models.cache"}  # how a base is run and kept says nothing about what it is


def fetch(where: str, seeds: Iterable[int] = SEEDS, plans: Iterable[base.Plan] | None = None) -> list[str]:
    """Put the shared bases that the cache lacks into it, and say what became of each.

    Args:
        where: an https address (http on this machine only) or a folder, as `write` has filled it.
        plans: default: all of `base.SHARED`.

    Returns:
        A line for each base that could not be had, with the reason. They are trained where a chapter needs them.

    Raises:
        ValueError: `where` is neither; or the library's list cannot be read.
    """
    where, listed, failed, trained = download.place(where), read_list()["bases"], [], {}
    wanted = {file_of(p, s): (p, s) for p, s in product(plans or base.SHARED, seeds)}
    for done, (file, (plan, seed)) in enumerate(wanted.items(), 1):
        try:
            fetched = with_threads(threads(), _take, where, file, listed.get(file), plan, seed)
        except Refused as e:
            failed.append(f"{file} ({_called(plan, seed)}): {e}")
            print(failed[-1], file=sys.stderr, flush=True)
            continue
        except (OSError, HTTPException) as e:  # the others would be waited for as long
            failed += [f"{f}: {where} cannot be read ({type(e).__name__}: {e})" for f in list(wanted)[done - 1 :]]
            print(f"{failed[-1]}: no more is asked for", file=sys.stderr, flush=True)
            break
        print(f"{file} ({_called(plan, seed)}): {'fetched' if fetched else 'in the cache already'}", flush=True)
        if fetched:
            trained[file] = _said(listed[file]["trained"])
    there = len(wanted) - len(failed) - len(trained)
    print(f"{len(trained)} fetched from {where}, {there} in the cache already, {len(failed)} to be trained")
    here = _said(with_threads(threads(), _here, base.QUICK, 0)[1])
    for said in dict.fromkeys(trained.values()):
        print(f"Trained with {said}{', as here' if said == here else f': {OTHERS}. Here: {here}'}")
    return failed


def write(folder: str | Path, seeds: Iterable[int] = SEEDS, plans: Iterable[base.Plan] | None = None) -> list[Path]:
    """Write the shared bases, from the cache or trained now, as files; beside them an index; and the library's list.

    The same base gives the same bytes. In the list, bases of the same code stay.

    Returns:
        The files, without the index.

    Raises:
        ValueError: no seeds, or one below 0.
        OSError: the folder or the list cannot be written.
    """
    folder, seeds, plans = Path(folder).expanduser(), list(seeds), tuple(plans or base.SHARED)
    folder.mkdir(parents=True, exist_ok=True)
    base.prepare([check.integer("seed", s, at_least=0) for s in seeds], *plans)
    before = read_list()
    known = {e["sha256"]: e["trained"] for e in before["bases"].values()}
    written = {}
    for plan, seed in dict.fromkeys(product(plans, seeds)):
        made, file = base.load(seed, plan), file_of(plan, seed)
        content = save({n: p.detach().cpu().contiguous() for n, p in made.model.named_parameters()})  # tied ones once
        digest = hashlib.sha256(content).hexdigest()
        mark, trained = with_threads(threads(), _here, plan, seed)
        written[file] = {
            "of": _called(plan, seed), "bytes": len(content), "sha256": digest,
            "world": _world(plan, seed, made.tokenizer),
            "fingerprint": [mark, trained["versions"]],
            "trained": known.get(digest, trained),  # it may have been fetched: then it is not from here
        }  # fmt: skip
        _put(folder / file, content)
        print(f"{len(content) / 1e6:5.2f} MB  {file}  {written[file]['of']}", flush=True)
    head = {"library": __version__, "code": code()}
    _put(folder / INDEX, _text({**head, "bases": written}))
    _put(LISTED, _text({**head, "bases": {**(before["bases"] if before["code"] == code() else {}), **written}}))
    others = sorted({f.name for f in folder.glob("base-*.safetensors")} - set(written))
    print(
        f"{folder}: {len(written)} bases and {INDEX}", *(f"not of them, and still there: {f}" for f in others), sep="\n"
    )
    return [folder / file for file in written]


def read_list(file: Path | None = None) -> dict:
    """The library's list: `code`, the digest of the source that it speaks of, and `bases`, file name -> what it is.

    Raises:
        ValueError: it is there and cannot be read.
    """
    file = file or LISTED
    try:
        found = json.loads(file.read_text("utf-8"))
        return {"code": str(found["code"]), "bases": dict(found["bases"])}
    except FileNotFoundError:
        return {"code": "", "bases": {}}
    except (ValueError, LookupError, TypeError) as e:
        raise ValueError(f"{file} is damaged ({e!r}): install the library again, or run make bases") from None


@functools.cache
def code() -> str:
    """The digest of the source that makes a base."""
    return source.digest("experiment.base", APART)


def file_of(plan: base.Plan, seed: int) -> str:
    """The name of the file of a base: what makes it, and no version or machine. No other name is ever read."""
    return f"base-{hashlib.sha256(repr((code(), plan, seed)).encode()).hexdigest()[:20]}.safetensors"


def _take(where: str, file: str, entry: Mapping | None, plan: base.Plan, seed: int) -> bool:
    """Into the cache, under the key by which `base.load` looks; False if it is there. Two processes take turns."""
    key, note = cache.key(base._pretrain, plan, seed)
    asked = []

    def make() -> cache.Made:
        if entry is None:
            raise Refused(
                f"the list of this library ({LISTED.name}) has no such base: it is trained where it is needed"
            )
        mark, versions = entry["fingerprint"]
        if versions == note["versions"] and mark != key.split()[0]:
            raise Refused("the code that runs here is not that of its files: start Python anew")
        asked.append(file)
        return _model(download.content(where, file, entry["bytes"], entry["sha256"]), entry, plan, seed)

    def lost() -> cache.Made:
        raise Refused(f"it was fetched and could not be kept in {cache.folder()}: set ALIGNLAB_CACHE to another folder")

    if entry:  # what `cache.keep` would do, and the manifest says for good where the base came from
        note |= {"made": f"fetched: {note['made']}", "trained": entry["trained"]}
    cache.kept("base", key, make, note)
    if asked:
        cache.kept("base", key, lost, note)
    return bool(asked)


def _model(content: bytes, entry: Mapping, plan: base.Plan, seed: int) -> cache.Made:
    # One step, for the shape and the tokenizer: its weights give way to those of the file.
    model, tokenizer = base._pretrain(replace(plan, steps=1), seed)
    if _world(plan, seed, tokenizer) != entry["world"]:
        raise Refused("with the versions that are installed here, its world has other people or words: it is trained")
    try:
        weights = load(content)
    except (SafetensorError, ValueError) as e:
        raise Refused(f"it is not in the format safetensors ({e}): {REMEDY}") from None
    mine = dict(model.named_parameters())
    forms = [{n: (w.dtype, tuple(w.shape)) for n, w in some.items()} for some in (weights, mine)]
    if forms[0] != forms[1]:
        other = sorted({n for n, _ in forms[0].items() ^ forms[1].items()})
        raise Refused(f"it is of another model: {len(other)} weights have another form, such as {other[0]}: {REMEDY}")
    with torch.no_grad():
        for name, weight in mine.items():
            weight.copy_(weights[name])
    return model, tokenizer


def _world(plan: base.Plan, seed: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """Whom the base has read about and in which words, as a digest: random numbers are of numpy's making."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda word: word[1])
    return hashlib.sha256(repr((base.make_world_of(plan, seed), words)).encode()).hexdigest()[:20]


def _here(plan: base.Plan, seed: int) -> tuple[str, dict]:
    """The fingerprint of a base, and on what it would be trained here."""
    key, note = cache.key(base._pretrain, plan, seed)
    return key.split()[0], {k: note[k] for k in ("versions", "machine")}


def _said(trained: Mapping) -> str:
    both = (", ".join(f"{k} {v}" for k, v in sorted(trained[what].items())) for what in ("versions", "machine"))
    return " on ".join(both)


def _called(plan: base.Plan, seed: int) -> str:
    lacks = [n for n, _ in base.QUICK.shares if n not in dict(plan.shares)]
    rest = f", without {', '.join(lacks)}" if lacks else ""
    return f"seed {seed}, {plan.read} people read, width {plan.width}, {plan.steps} steps{rest}"


def _text(thing: Mapping) -> bytes:
    return (json.dumps(thing, indent=1, sort_keys=True) + "\n").encode()


def _put(file: Path, content: bytes) -> None:
    """All of it appears, or nothing does."""
    draft = file.with_name(f".draft-{file.name}-{uuid.uuid4().hex}")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignlab.experiment.bases", description="Bases to download.")
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("fetch", help="take the bases that the cache lacks")
    asked.add_argument("where", nargs="?", metavar="URL-OR-FOLDER", help="default: $ALIGNLAB_BASES")
    offered = commands.add_parser("write", help="write the shared bases as files, and the list of their digests")
    offered.add_argument("folder", type=Path)
    offered.add_argument("seeds", nargs="*", type=int, default=SEEDS, help="default: 0 1 2")
    options = parser.parse_args(arguments)
    try:
        if options.command == "write":
            return int(not write(options.folder, options.seeds))
        where = options.where or os.environ.get("ALIGNLAB_BASES")
        if not where:
            raise ValueError("fetch from where? Name an https address or a folder, or set ALIGNLAB_BASES to one")
        return int(bool(fetch(where)))
    except (ValueError, OSError) as e:
        parser.error(str(e))


if __name__ == "__main__":
    from alignlab.experiment import bases  # the module that everybody else knows, not a second one named __main__

    raise SystemExit(bases.main())
