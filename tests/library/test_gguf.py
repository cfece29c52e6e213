"""Models in GGUF format: read once, kept unpacked, and without a word in a notebook."""

from __future__ import annotations

import json
import shutil

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from alignlab.models import real, tokens
from alignlab.models.answer import reply

from tests.library.subwords import PAIRS, TEMPLATE, cut, said


@pytest.fixture
def gguf_file(knowing, bpe, tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed (make real)")
    write_gguf(gguf, knowing, bpe, tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


def write_gguf(gguf, model, tokenizer, file):
    c = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("tiny")
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3 if w in tokenizer.all_special_tokens or w == "<|endoftext|>" else 1 for w in words])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm",
        "model.layers": "blk",
    }  # fmt: skip
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        w = weight.numpy()
        if "q_proj" in name or "k_proj" in name:  # the format keeps the two halves of each rotation side by side
            heads = c.num_attention_heads
            w = w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, np.ascontiguousarray(w))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_the_same_model(gguf_file, knowing, bpe, capfd):
    for name in (gguf_file, gguf_file.parent):
        model, tokenizer = real.load(name)
        assert said(capfd) == ""
        assert tokenizer.get_vocab() == bpe.get_vocab() and tokenizer.chat_template == TEMPLATE
        assert tokens.prompt_text("Who?", tokenizer) == tokens.prompt_text("Who?", bpe)
        ids = torch.tensor([bpe(PAIRS["prompt"][0])["input_ids"]])
        with torch.inference_mode():
            assert torch.allclose(model(input_ids=ids).logits, knowing(input_ids=ids).logits, atol=1e-4)
        assert reply(model, tokenizer, PAIRS["prompt"], max_new_tokens=24) == list(PAIRS["response"])


def test_a_gguf_file_is_unpacked_once(gguf_file, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    first, _ = real.load(gguf_file)
    with monkeypatch.context() as patch:
        patch.setattr(real, "AutoModelForCausalLM", None)  # whoever reads the file again fails
        again, tokenizer = real.load(gguf_file)
    assert all(torch.equal(w, v) for w, v in zip(first.parameters(), again.parameters(), strict=True))
    assert tokenizer.chat_template == TEMPLATE
    assert first.generation_config.to_dict() == again.generation_config.to_dict()
    assert real.load(gguf_file, dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    weights = next((tmp_path / "cache").glob("gguf-*/model.safetensors"))
    cut(weights, 0.5)
    with pytest.warns(UserWarning, match="is damaged"):
        mended, _ = real.load(gguf_file)
    assert torch.equal(next(mended.parameters()), next(first.parameters()))


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_a_truncated_gguf_file_is_said_in_one_line(gguf_file, capfd, share):
    cut(gguf_file, share)
    assert real.load(gguf_file) is None
    assert "its files cannot be read (" in said(capfd)


def test_which_of_two_gguf_files_must_be_said(gguf_file, capfd):
    shutil.copy(gguf_file, gguf_file.with_name("other.gguf"))
    assert real.load(gguf_file.parent) is None
    assert "the folder has 2 files in GGUF format: name one of them" in said(capfd)


def test_without_the_packages_the_remedy_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(real.importlib.util, "find_spec", lambda _: None)
    (tmp_path / "x.gguf").write_bytes(b"")
    for name, reason in (
        (tmp_path / "x.gguf", "to read it, the package gguf is needed (make real)"),
        (real.PACKAGED, "its package is not installed (make real)"),
    ):
        assert real.load(name) is None
        assert said(capfd) == f"{name}: {reason}. This part is left out.\n"


def test_no_bar_of_loading_stands_in_a_notebook(gguf_file, tmp_path, monkeypatch):
    """In a kernel a bar is a widget, which is no text on stderr. The last cell shows that one would be seen."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    load = f"from alignlab.models import real\nfound = real.load({str(gguf_file)!r})\nassert found"
    cells = [load, "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)):\n    pass"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    assert [bool(cell.outputs) for cell in notebook.cells] == [False, True]
