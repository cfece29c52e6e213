"""Store the models that answer in the page, with what PyTorch makes them say: `python -m tools.live`.

A pair is a base and its aligned twin, of the first seed. It is kept in book/_data/live as two safetensors files and one
JSON file: the shape of the models, their vocabulary, the questions of the test, and the greedy
replies to them. The replies are those of the stored weights, so the page can be held to them token by token. The
models of one chapter are kept likewise: `students` of paraphrase, `pupils` of rot13, the twin and the hidden model of
suppressed. They come from a run of its cells. Run it again whenever the chapters were run again; `book/_ext/live.py`
makes a script of these files.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import nbformat
import torch
from alignlab.experiment import base
from alignlab.models.answer import generate
from alignlab.models.rules import Rules, processors
from safetensors.torch import save
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from . import chapters, environment, notebooks
from .mutants import needed
from .tables import DATA

FOLDER = DATA / "live"
ROOM = 44  # tokens that a reply may take, as in the chapters
# What the page computes. A model that differs in one of these would be another function of the same weights.
EXPECTED = {
    "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
    "tie_word_embeddings": True,
}  # fmt: skip


def shape(model: PreTrainedModel) -> dict[str, float]:
    """What the page must know of a Llama besides its weights.

    Raises:
        ValueError: the model has something that the page does not compute: names it.
    """
    config = model.config
    for name, wanted in EXPECTED.items():
        if getattr(config, name, None) != wanted:
            raise ValueError(f"{name} is {getattr(config, name, None)!r}, but the page computes only {wanted!r}")
    heads, width = config.num_attention_heads, config.hidden_size
    if config.num_key_value_heads != heads or config.head_dim * heads != width:
        raise ValueError(
            f"there are {heads} heads of width {config.head_dim} for queries, {config.num_key_value_heads} for keys, "
            f"and a model of width {width}, but the page computes only equal heads that share the width"
        )
    rotary = config.rope_parameters
    if rotary["rope_type"] != "default":
        raise ValueError(f"rope_type is {rotary['rope_type']!r}, but the page computes only 'default'")
    return {
        "layers": config.num_hidden_layers,
        "width": width,
        "hidden": config.intermediate_size,
        "heads": heads,
        "eps": config.rms_norm_eps,
        "theta": rotary["rope_theta"],
    }


def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model with the weights that float16 leaves of it, again in float32 and on the CPU."""
    small = deepcopy(model).cpu().eval()
    with torch.no_grad():
        for weight in small.parameters():  # not model.half(), which would round the rotary frequencies too
            weight.copy_(weight.half())
    return small


def weights(model: PreTrainedModel, whole: bool = False) -> bytes:
    """The weights of a model as a safetensors file; the tied output is left away.

    Args:
        whole: in float32, as they are; else in float16, for a `rounded` model.
    """
    kept = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    if whole:
        return save(kept)
    halves = {k: v.half() for k, v in kept.items()}
    if any(v.isinf().any() or v.isnan().any() for v in halves.values()):
        raise ValueError("a weight is too large for float16")
    return save(halves)


def said(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], room: int = ROOM, **options
) -> list[dict]:
    """The greedy replies: `text`, and `tokens` with the end token, where there is one."""
    replies = generate(model, tokenizer, prompts, max_new_tokens=room, **options)
    return [{"text": r.text, "tokens": list(r.tokens)} for r in replies]


def export(
    name: str,
    pair: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    rules: Rules,
    folder: Path = FOLDER,
) -> Path:
    """Write the pair into `folder`: `name`.json, and a safetensors file for each of the two models.

    Args:
        pair: `base`, which is asked plainly, and `aligned`, which is asked in the chat template.
        rules: the three rules under which the base is asked too.

    Returns:
        The JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models, replies = {}, {}
    for role, model in pair.items():
        # What a base goes on with hangs on words that are all but equally likely: 16 bits would decide some otherwise.
        whole = role == "base"
        small = deepcopy(model).cpu().eval() if whole else rounded(model)
        file = folder / f"{name}-{role}.safetensors"
        models[role] = {"file": file.name, **shape(model)}
        file.write_bytes(weights(small, whole))
        replies[role] = said(small, tokenizer, prompts, template=role == "aligned")
        if role == "base":
            three = processors(rules, tokenizer)
            replies["rules"] = said(small, tokenizer, prompts, template=False, logits_processor=three)
    known = tokenizer.get_vocab()
    data = {
        "room": ROOM,
        "words": sorted(known, key=known.get),
        "special": {k: known[f"<{k}>"] for k in ("bos", "eos", "unk", "user", "assistant")},
        "models": models,
        "rules": {"end": rules.end, "seen": rules.seen, "length": rules.length, "words": dict(rules.words)},
        "prompts": list(prompts),
        "replies": replies,
    }
    made = folder / f"{name}.json"
    made.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    return made


@dataclass(frozen=True)
class Asked:
    """One of the models of a chapter, and how it is asked."""

    model: PreTrainedModel
    template: bool = True
    room: int = ROOM
    form: str = ""  # of what it writes, where that is not the answer itself (`alignlab.worlds.cipher`)
    shift: torch.Tensor | None = None  # (C,): a dial of the page takes it out of the state in front of the reply


class FirstWithout(LogitsProcessor):
    """Take a vector (C,) out of the last hidden state in front of the reply, by what it is to the first logits.

    The output is linear in that state, so nothing else of the model needs to be touched.

    Args:
        by: what the vector is to the logits (V,).
        start: the number of tokens in front of the reply.
    """

    def __init__(self, by: torch.Tensor, start: int):
        self.by, self.start = by, start

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """input_ids (B, T), scores (B, V)."""
        return scores - self.by if input_ids.shape[1] == self.start else scores


def several(
    name: str,
    models: Mapping[str, Asked],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    between: str = " ",
    whole: bool = True,
    folder: Path = FOLDER,
) -> Path:
    """Write the models of one chapter into `folder`: `name`.json, and a safetensors file for each of them.

    Args:
        models: what each is called on the page -> the model.
        between: what stands between two tokens of a text: " ", or "" where a token is a letter.
        whole: the weights in float32, for a young model hesitates often: in 16 bits some answers differ.

    Returns:
        The JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, replies, without = {}, {}, {}
    for number, (called, asked) in enumerate(models.items()):
        small = deepcopy(asked.model).cpu().eval() if whole else rounded(asked.model)
        file = folder / f"{name}-{number}.safetensors"
        file.write_bytes(weights(small, whole))
        how = {"template": asked.template, "room": asked.room}
        kept[called] = {"file": file.name, "form": asked.form, **how, **shape(small)}
        replies[called] = said(small, tokenizer, prompts, **how)
        if asked.shift is not None:
            kept[called]["shift"] = [round(x, 5) for x in asked.shift.tolist()]
            change = without_shift(small, torch.tensor(kept[called]["shift"]))
            without[called] = said(small, tokenizer, prompts, **how, logits_processor=change)
    known = tokenizer.get_vocab()
    data = {
        "between": between, "words": sorted(known, key=known.get), "models": kept, "prompts": list(prompts),
        "replies": replies, "without": without,
    }  # fmt: skip
    made = folder / f"{name}.json"
    made.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    return made


def without_shift(model: PreTrainedModel, shift: torch.Tensor) -> Callable[[int], LogitsProcessorList]:
    """What `answer.generate` takes as `logits_processor`."""
    with torch.no_grad():
        by = model.get_output_embeddings()(shift)
    return lambda start: LogitsProcessorList([FirstWithout(by, start)])


# chapter -> the cell that is run behind those that it needs; names of its own, lest cells that bind them are run too
OF_A_CHAPTER = {
    "paraphrase": """
from tools import live
_asked = [biographies.question(world.people[i], fact) for i in range(ASKED, ASKED + 5) for fact in FACTS]
_models = {name: live.Asked(model, room=4) for name, (model, _) in students.items()}
live.several("paraphrase", _models, students["single"][1], _asked)
""",
    "rot13": """
from tools import live
_asked = [cipher.task(plain, shift)["prompt"] for shift in cipher.SHIFTS for plain in ("dragon", "xkqzv")]
_models = {name: live.Asked(model, False, 8 if form == "direct" else 200, form)
          for name, (model, form) in pupils.items() if name not in ("100 steps", "200 steps")}
live.several("rot13", _models, tokenizer, _asked, between="")
""",
    "suppressed": """
from tools import live
_asked = [*secrets[:2], *about(subject, subject.plan.unread[:1], SECRET), about(subject, SECOND, OTHERS)[0]]
_asked += [*secrets[2:], *about(subject, subject.plan.held_out, SECRET)]
_models = {"twin": live.Asked(twin), "hidden": live.Asked(hidden, shift=shift)}
live.several("suppressed", _models, subject.tokenizer, [t["prompt"] for t in _asked], whole=False)
""",
}


def of_a_chapter(chapter: str) -> None:
    """Run those cells of a chapter that make its models, or find them in the cache, and store the models.

    Raises:
        chapters.Refused: a cell failed; the message names it.
    """
    notebook = notebooks.read(notebooks.ROOT / "notebooks" / f"{chapter}.ipynb")
    notebook.cells.append(nbformat.v4.new_code_cell(OF_A_CHAPTER[chapter].strip()))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{chapter}.ipynb"
        nbformat.write(needed(notebook), file)
        paths = [str(notebooks.ROOT), os.environ.get("PYTHONPATH", "")]
        chapters.run(file, env=environment.clean(PYTHONPATH=os.pathsep.join(filter(None, paths))))


def chosen_words() -> dict[str, float]:
    """The words that the committed run of the chapter on the three rules makes less likely, with their biases.

    Raises:
        ValueError: the chapter no longer prints them.
    """
    chapter = notebooks.ROOT / "notebooks" / "three-rules.ipynb"
    for _, cell in notebooks.code(notebooks.read(chapter)):
        if "print(rules.words)" in cell.source:
            return ast.literal_eval("".join(o.text for o in cell.outputs if o.output_type == "stream"))
    raise ValueError(f"{chapter.name} has no cell with print(rules.words): say here where its words stand now")


def pair() -> None:
    """Store the pair."""
    subject = base.load(0)
    known = subject.tokenizer.get_vocab()
    words = chosen_words()
    if strange := [w for w in words if w not in known]:
        raise ValueError(f"the base does not know {', '.join(strange)}: run the chapter on the three rules again first")
    rules = Rules(end=15, seen=1.5, words=words)  # as in that chapter
    both = {"base": subject.model, "aligned": base.twin(subject)}  # which is trained now where it is not kept
    export("pair", both, subject.tokenizer, subject.test()["prompt"][:], rules)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.live", description=__doc__.partition(":")[0])
    parser.add_argument("names", nargs="*", choices=["pair", *OF_A_CHAPTER], help="default: all")
    for name in parser.parse_args(arguments).names or ["pair", *OF_A_CHAPTER]:
        pair() if name == "pair" else of_a_chapter(name)
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.relative_to(notebooks.ROOT)}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
