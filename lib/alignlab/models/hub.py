"""The files of models: what a folder holds, what the hub's local cache has, and a download that has to end.

The hub is asked by a process of its own, which can be ended: no setting of the hub's library limits the look-up of a
host's name. That process runs this file, and says in one line why it failed:

    python hub.py ask|get NAME
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

WANTED = ("*.json", "*.jinja", "*.txt", "*.model")  # of a repository, beside its weights
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")  # their formats; only the first one that a repository has is fetched
ASK_SECONDS, FETCH_SECONDS = 30, 900  # how long the hub may take to say that it has a model, and to send it
LACKS = "only a part of it is on this machine: weights or a tokenizer are missing"


class NotHere(Exception):
    """The weights cannot be had; the message says why, as the end of a sentence."""


def held(folder: Path) -> str | None:
    """What a folder holds, given by its path or in the hub's cache: the name of its GGUF file, or None for a model.

    Raises:
        NotHere: it holds neither, or only a part.
    """
    if whole(folder):
        return None
    found = sorted(folder.glob("*.gguf"))
    if len(found) > 1:
        raise NotHere(f"the folder has {len(found)} files in GGUF format: name one of them")
    if not found:
        raise NotHere(LACKS if (folder / "config.json").exists() else "it is not a folder with a model")
    return found[0].name


def whole(folder: Path) -> bool:
    """Has it all files of a model? A download that was cut off leaves a folder with some of them."""
    # Some versions of transformers make a tokenizer up where there is none.
    described = any(any(folder.glob(p)) for p in ("tokenizer*", "vocab*", "*.model", "*.tiktoken"))
    return described and (folder / "config.json").exists() and any(_weights(folder, k) for k in ("safetensors", "bin"))


def _weights(folder: Path, kind: str) -> bool:
    try:
        indices = [json.loads(f.read_text("utf-8"))["weight_map"] for f in folder.glob(f"*.{kind}.index.json")]
        shards = [folder / f for i in indices for f in i.values()]
    except (ValueError, LookupError, AttributeError, TypeError):  # cut off as well
        return False
    return all(f.exists() for f in shards) if shards else any(folder.glob(f"*.{kind}"))


def local(name: str) -> Path | None:
    """The folder of a model in the hub's local cache, whole or not; None if nothing of it is there.

    Raises:
        NotHere: the cache cannot be read.
    """
    try:
        # By folder, not by name: for a name AutoTokenizer asks the hub, whatever local_files_only says.
        return Path(snapshot_download(name, local_files_only=True))
    except (FileNotFoundError, ValueError):  # the latter also for what can be no name
        return None
    except OSError as e:
        raise NotHere(f"the hub's cache cannot be read ({reason(e)})") from None


def fetch(name: str) -> None:
    """Bring a model from the hub, or the mirror in `$HF_ENDPOINT`, into the hub's local cache.

    Raises:
        NotHere: with the reason, also that of the process that asks.
    """
    _in_time("ask", name, ASK_SECONDS, "the hub is silent")
    print(f"{name}: its files are fetched, once. This can take minutes.")
    _in_time("get", name, FETCH_SECONDS, f"the hub did not send it in {FETCH_SECONDS:g} s")


def _in_time(step: str, name: str, seconds: float, late: str) -> None:
    # The cache of this process, wherever the other one would look for it.
    own = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_CACHE": constants.HF_HUB_CACHE, "PYTHONIOENCODING": "utf-8"}
    if os.environ.get("HF_ENDPOINT"):  # its newer protocol, xet, goes to addresses that a mirror does not serve
        own["HF_HUB_DISABLE_XET"] = os.environ.get("HF_HUB_DISABLE_XET", "1")
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__, step, name],  # -P: no file beside this one stands in for a package
            capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, env=os.environ | own,
        )  # fmt: skip
        why = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        why = late
    except (IndexError, ValueError):  # it did not live to say a word
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        why = f"the process that asks the hub broke off ({last[0]})"
    if why:
        raise NotHere(f"its weights are not on this machine, and {why}")


def reason(error: BaseException) -> str:
    """What a library said about a failure, in one short line: the kind of error and how its text begins."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said[:150]}" if said else type(error).__name__


def main(step: str, name: str) -> str:
    """Ask for a model, or get it too; in the process that can be ended. Returns why that failed, or nothing."""
    doing = "the hub cannot be reached"
    try:
        files = [f.rfilename for f in HfApi().model_info(name, timeout=10).siblings or ()]
        weights = next((w for w in WEIGHTS if fnmatch.filter(files, w)), "")
        found = len(fnmatch.filter(files, weights))
        if not found:
            return "the hub has no weights of it that can be read here"
        if weights == "*.gguf" and found > 1:
            return f"the hub has it in {found} files in GGUF format: fetch one of them and pass its path"
        if step == "get":
            doing = "the download broke off"
            snapshot_download(name, allow_patterns=[*WANTED, weights])
    except GatedRepoError:
        return "the hub wants an account that may read it (hf auth login)"
    except RepositoryNotFoundError:
        return "the hub has no such model"
    except Exception as e:
        return f"{doing} ({reason(e)})"
    return ""


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))  # in ASCII, whatever can be written here
