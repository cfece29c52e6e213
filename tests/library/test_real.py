"""Real models: what is loaded from a folder, what is refused, and pairs."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from alignlab.measure import knowledge, score, shift
from alignlab.models import hub, read, real, tokens
from alignlab.models.answer import generate, next_words, reply
from alignlab.models.llama import make_model
from alignlab.training.train import FINETUNE, train
from alignlab.worlds import trivia
from datasets import Dataset
from huggingface_hub import constants
from transformers import (
    ByT5Tokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.library.subwords import PAIRS, byte_level, copied, cut, form, said


def test_a_folder_is_loaded_and_made_ready(folders, knowing, capfd):
    base, aligned = folders
    model, tokenizer = real.load(str(aligned))
    assert said(capfd) == "" and not model.training and model.dtype == torch.float32
    assert (tokenizer.pad_token, tokenizer.padding_side) == (tokenizer.eos_token, "left")
    assert reply(model, tokenizer, PAIRS["prompt"], max_new_tokens=24) == list(PAIRS["response"])
    assert real.load(base)[1].chat_template is None  # a Path does too
    assert real.load(aligned, dtype=torch.float64)[0].dtype == torch.float64


@pytest.mark.parametrize(
    "use",
    [
        lambda m, t: knowledge.exact_match(m, t, PAIRS),
        lambda m, t: knowledge.exam(m, t, PAIRS, form),
        lambda m, t: knowledge.log_likelihood(m, t, PAIRS),
        lambda m, t: shift.token_shift(m, m, t, PAIRS["prompt"][:2], max_new_tokens=3),
        lambda m, t: next_words(m, t, "Who?"),
        lambda m, t: generate(m, t, ["Who?"], max_new_tokens=3),
        lambda m, t: train(m, tokens.replies(PAIRS, t), 1, FINETUNE.but(batch=2), seed=0),
    ],
    ids=["exact_match", "exam", "log_likelihood", "token_shift", "next_words", "generate", "train"],
)
def test_a_large_model_takes_all_cores_and_gives_them_back(folders, monkeypatch, request, use):
    monkeypatch.setattr(read, "LARGE", 1)
    monkeypatch.setattr(read, "cpu_count", lambda: 3)
    model, tokenizer = real.load(folders[1])
    used, before = set(), torch.get_num_threads()
    inside = model.model.layers[0].mlp
    inside.register_forward_hook(lambda *_: used.add(("forward", torch.get_num_threads())))
    inside.register_full_backward_hook(lambda *_: used.add(("backward", torch.get_num_threads())))
    use(model, tokenizer)
    both = {("forward", 3), ("backward", 3)} if "train" in request.node.name else {("forward", 3)}
    assert before != 3 and used == both and torch.get_num_threads() == before


def test_the_threads_are_given_back_when_a_model_fails(folders, monkeypatch):
    monkeypatch.setattr(read, "LARGE", 1)
    monkeypatch.setattr(read, "cpu_count", lambda: 3)
    model, tokenizer = real.load(folders[1], device="cpu")
    before = torch.get_num_threads()
    ids = torch.tensor([tokenizer("Who?")["input_ids"]])
    assert read.logits(model, ids, torch.ones_like(ids, dtype=torch.bool)).shape[0] == ids.numel()
    with pytest.raises(IndexError):
        read.logits(model, ids + 10_000, torch.ones_like(ids, dtype=torch.bool))
    assert torch.get_num_threads() == before


def test_a_model_is_the_same_kind_of_modules_from_wherever_it_comes(folders):
    """A norm of transformers and the fused one differ in their last digits."""
    model, _ = real.load(folders[1])
    assert {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__} == {"RMSNorm"}


# ---- paths


def test_a_path_is_taken_in_full(folders, monkeypatch, capfd):
    base, aligned = folders
    monkeypatch.chdir(base.parent)
    monkeypatch.setenv("HOME", str(base.parent))
    monkeypatch.setenv("USERPROFILE", str(base.parent))
    ways = ["tiny/", "./tiny", "tiny/.", "~/tiny", "~/tiny/", f"{base}/", f"{aligned}/../tiny", Path("~/tiny")]
    for name in ways:
        assert real.pair(name).names == (str(base), str(aligned)), name
    assert real.pair("~/tiny", "tiny-Instruct/").names == (str(base), str(aligned))
    monkeypatch.chdir(base)
    assert real.pair(".").names == (str(base), str(aligned))
    assert real.load("nobody/such/") is None and said(capfd).startswith("nobody/such/: its weights are not on this")


def test_a_name_of_the_hub_is_no_path(monkeypatch, capfd):
    asked = []
    monkeypatch.setattr(real, "load", lambda name, **_: asked.append(name) or (1, 1))
    monkeypatch.setattr(real, "_check_pair", lambda *_: None)
    assert real.pair("nobody/such/").names == ("nobody/such", "nobody/such-Instruct") == tuple(asked)


# ---- tokenizers and models that lack something


def test_a_tokenizer_without_special_tokens_or_a_rust_backend_will_do(tmp_path, bpe, capfd):
    bare = PreTrainedTokenizerFast(tokenizer_object=deepcopy(bpe.backend_tokenizer))
    for place, tokenizer in (("bare", bare), ("bytes", ByT5Tokenizer())):
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1
        )
        LlamaForCausalLM(config).save_pretrained(tmp_path / place)
        tokenizer.save_pretrained(tmp_path / place)
        capfd.readouterr()
        model, same = real.load(tmp_path / place)
        assert said(capfd) == "" and same.get_vocab() == tokenizer.get_vocab()
        assert model.generation_config.pad_token_id == same.pad_token_id == tokenizer.pad_token_id
        assert len(generate(model, same, ["Who?"], template=False, max_new_tokens=3)[0].tokens) <= 3
        with pytest.raises(ValueError, match=f"{place} has no chat template: pass a base and"):
            real.pair(tmp_path / place, tmp_path / place)


def test_what_is_no_causal_language_model_is_said_by_name(tmp_path, bpe, capfd):
    config = T5Config(vocab_size=len(bpe), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    bpe.save_pretrained(tmp_path)
    capfd.readouterr()
    assert real.load(tmp_path) is None
    assert said(capfd) == f"{tmp_path}: it is no causal language model, but a t5. This part is left out.\n"


def test_only_the_ends_of_a_generation_config_are_kept(folders, tmp_path):
    place = copied(folders[1], tmp_path)
    GenerationConfig(do_sample=True, repetition_penalty=1.3, min_p=0.2, eos_token_id=[0, 2]).save_pretrained(place)
    config = real.load(place)[0].generation_config
    assert config.eos_token_id == [2, 0]  # that of the tokenizer first
    assert config.repetition_penalty in (None, 1.0) and config.min_p is None and not config.do_sample


@pytest.mark.parametrize(("name", "error"), [(None, TypeError), (3, TypeError), ("", ValueError), ("  ", ValueError)])
def test_a_name_that_is_none_is_refused(name, error):
    with pytest.raises(error, match="name"):
        real.load(name)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_of_weights_is_said_in_one_line(folders, tmp_path, capfd, share):
    place = copied(folders[1], tmp_path)
    cut(place / "model.safetensors", share)
    assert real.load(place) is None
    out = said(capfd)
    assert out.startswith(f"{place}: its files cannot be read (") and out.endswith("). This part is left out.\n")
    assert out.count("\n") == 1


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_damaged_description_is_said_in_one_line(folders, tmp_path, capfd, file):
    place = copied(folders[1], tmp_path)
    cut(place / file, 0.5)
    assert real.load(place) is None
    assert said(capfd).count("\n") == 1


def test_missing_weights_are_not_filled_with_random_numbers(folders, tmp_path, capfd):
    from safetensors.torch import load_file, save_file

    place = copied(folders[1], tmp_path)
    weights = load_file(place / "model.safetensors")
    gone = next(name for name in weights if "down_proj" in name)
    del weights[gone]
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    assert real.load(place) is None
    assert f"its files lack 1 of the weights, such as {gone}" in said(capfd)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("config.json", "it is not a folder with a model"),
        ("model.safetensors", hub.LACKS),
        ("tokenizer*", hub.LACKS),
    ],
)
def test_a_folder_without_a_part_is_said_in_one_line(folders, tmp_path, capfd, missing, reason):
    place = copied(folders[1], tmp_path)
    for file in place.glob(missing):
        file.unlink()
    assert real.load(place) is None
    assert said(capfd) == f"{place}: {reason}. This part is left out.\n"


def test_a_file_that_is_no_model_is_said_in_one_line(tmp_path, capfd):
    (tmp_path / "x.txt").write_text("x")
    assert real.load(tmp_path / "x.txt") is None
    assert "it is a file, but not in GGUF format" in said(capfd)


def test_a_pair_has_one_vocabulary_and_the_template_of_the_aligned(folders):
    base, aligned = folders
    found = real.pair(base)  # the aligned one by its name
    assert found.names == (str(base), str(aligned))
    assert found.tokenizer.chat_template and not found.base_tokenizer.chat_template
    table = shift.token_shift(found.base, found.aligned, found.tokenizer, PAIRS["prompt"][:2], max_new_tokens=24)
    assert set(table["kind"]) <= set(shift.KINDS)


def test_a_mismatched_pair_is_refused(folders, tmp_path, knowing, bpe):
    base, aligned = folders
    other = byte_level(words="entirely other words make entirely other tokens " * 9)
    assert len(other) == len(bpe)  # the sizes alone would not tell
    make_model(other, 64, 1).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError, match="are no pair: their vocabularies differ in .* tokens, such as .*: pass a base"
    ):
        real.pair(base, tmp_path / "other")
    with pytest.raises(ValueError, match="tiny has no chat template"):
        real.pair(aligned, base)
    wide = deepcopy(knowing)
    wide.resize_token_embeddings(len(bpe) + 7)
    wide.save_pretrained(tmp_path / "wide")
    bpe.save_pretrained(tmp_path / "wide")
    with pytest.raises(ValueError, match=f"logits for {len(bpe)} and {len(bpe) + 7} tokens"):
        real.pair(base, tmp_path / "wide")
    with pytest.raises(ValueError, match="without a base"):
        real.pair(aligned=aligned)


def test_half_a_pair_is_none_and_said_once(folders, tmp_path, capfd):
    lone = shutil.copytree(folders[0], tmp_path / "lone")
    assert real.pair(lone) is None
    assert said(capfd) == f"{lone}-Instruct: its weights are not on this machine. This part is left out.\n"


def test_the_first_pair_that_is_here_is_taken(folders, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(real, "PAIRS", (("no/a", "no/b"), ("no/c", str(folders[1])), tuple(map(str, folders))))
    assert real.pair().names == tuple(map(str, folders))
    monkeypatch.setattr(real, "PAIRS", real.PAIRS[:2])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert real.pair() is None
    assert said(capfd) == "no/a: its weights are not on this machine. This part is left out.\n"


@pytest.fixture(scope="module")
def packaged():
    if real.packaged() is None:
        pytest.skip(f"{real.PACKAGED} is not installed: `make real` installs it")
    found = real.load(real.PACKAGED)
    assert found is not None
    return found


def test_the_packaged_model_answers(packaged):
    model, tokenizer = packaged
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"
    text = "What is 12 + 5?\nIt's naïve, 中文. "
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    tasks = trivia.load().filter(lambda t: t["prompt"].endswith((" France?", " Japan?", " Italy?", " Germany?")))
    replies = generate(model, tokenizer, tasks["prompt"], max_new_tokens=24)
    assert any(r.stopped for r in replies)
    assert score.short_answers(replies, tasks)["right"].mean() > 0.5, [r.text for r in replies]


def test_the_packaged_model_can_be_measured(packaged):
    pairs = Dataset.from_dict({"prompt": ["The capital of France is"] * 2, "response": ["Paris", "banana"]})
    good, bad = knowledge.log_likelihood(*packaged, pairs, template=False)
    assert good > bad + 3
    known = trivia.load().select(range(5))
    assert knowledge.exam(*packaged, known, trivia.statement)["correct"].mean() > 0.5
    words = next_words(*packaged, "The capital of France is", top=5)
    assert " Paris" in [w for w, _ in words]
