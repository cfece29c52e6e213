"""Real language models for the functions that the chapters use on tiny ones."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .model import best_device


def load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase] | None:
    """A real model and its tokenizer, or None, said in one line, where the weights cannot be had.

    Nothing is downloaded: `name` is a local folder, or a hub id whose files are already in the local hub cache.
    """
    try:
        # By folder, not by name: for a name AutoTokenizer asks the hub, whatever local_files_only says.
        place = name if Path(name).is_dir() else snapshot_download(name, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(place, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError) as e:
        reason = "it is not a folder with a model" if Path(name).exists() else "its weights are not on this machine"
        if os.environ.get("ALIGNLAB_DEBUG"):
            print(e)
        print(f"{name}: {reason}. This part is left out.")
        return None
    return model.to(best_device()).eval(), tokenizer
