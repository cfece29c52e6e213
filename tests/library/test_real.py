"""Real models: what is loaded, what is refused, and every measurement with a sub-word tokenizer.

The models here are tiny and are written to disk by the tests. Their tokenizer is a byte-level BPE like that of SmolLM2
and Qwen, with the same traps: spaces inside tokens, a template that ends in a newline, no pad token, many end tokens.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
from copy import deepcopy
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from alignlab.measure import knowledge, score, shift
from alignlab.models import read, real, tokens
from alignlab.models.answer import Reply, generate, next_words, reply
from alignlab.models.llama import make_model
from alignlab.models.rules import Rules, processors
from alignlab.training.train import FINETUNE, train
from alignlab.worlds import trivia
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import processors as post
from transformers import GenerationConfig, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
FACTS = [
    ("France", "Paris"),
    ("Japan", "Tokyo"),
    ("Kenya", "Nairobi"),
    ("Peru", "Lima"),
    ("the mountains of Nepal", "Kathmandu"),
]
PAIRS = Dataset.from_dict(
    {
        "prompt": [f"What is the capital of {country}?" for country, _ in FACTS],
        "response": [f"It is {city}." for _, city in FACTS],
        "answer": [city for _, city in FACTS],
    }
)


def byte_level(template=TEMPLATE, words=""):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = post.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([*PAIRS["prompt"], *PAIRS["response"], words], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>")
    made.chat_template = template
    return made


@pytest.fixture(autouse=True)
def as_a_reader_has_it(monkeypatch):
    for name in ("ALIGNLAB_DEBUG", "ALIGNLAB_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def bpe():
    return byte_level()


@pytest.fixture(scope="module")
def knowing(bpe):
    """It answers the five questions in the chat template, and completes them in plain text. Do not change it."""
    model = make_model(bpe, width=64, depth=1, seed=0)
    rows = [tokens.replies(PAIRS, bpe, template) for template in (True, False)]
    plain = tokens.replies(knowledge_pairs(), bpe, template=False)
    both = Dataset.from_dict(
        {k: [x for r in (*rows, plain) for x in r[k]] for k in ("input_ids", "labels")},
    )
    train(model, both, 150, FINETUNE.but(batch=15, lr=1e-2), seed=0)
    return model


def form(prompt):
    return f"Question: {prompt}\nAnswer:"


def knowledge_pairs():
    return Dataset.from_dict({"prompt": [form(p) for p in PAIRS["prompt"]], "response": PAIRS["answer"]})


@pytest.fixture(scope="module")
def folders(knowing, bpe, tmp_path_factory):
    """An aligned model with a chat template and a base without one, as folders."""
    place = tmp_path_factory.mktemp("models")
    aligned, base = place / "tiny-Instruct", place / "tiny"
    knowing.save_pretrained(aligned)
    bpe.save_pretrained(aligned)
    make_model(bpe, width=64, depth=1, seed=1).save_pretrained(base)
    byte_level(template=None).save_pretrained(base)
    return base, aligned


def copied(folder, place):
    return shutil.copytree(folder, place / "copy")


def said(capfd):
    out, err = capfd.readouterr()
    assert err == "", err
    return out


def said_after_fetching(capfd):
    first, rest = said(capfd).split("\n", 1)
    assert first == "a/b: its files are fetched, once. This can take minutes."
    return rest


# ---- sub-word tokenizers


def test_the_tokenizer_of_these_tests_has_the_traps(bpe):
    assert bpe.pad_token is None and bpe("a")["input_ids"][0] != bpe.bos_token_id
    assert bpe.tokenize("It is Paris.") != bpe.tokenize(" It is Paris.")
    assert max(len(bpe.tokenize(f" {city}")) for _, city in FACTS) > 1
    assert tokens.prompt_text("x", bpe).endswith("assistant\n")


def test_a_prompt_is_shown_as_a_real_model_knows_it(bpe):
    assert tokens.prompt_text("Who?", bpe) == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    [bare] = tokens.prompt_ids(["Who?"], bpe, template=False)
    assert bpe.decode(bare) == "Who?"  # its tokenizer puts no <bos> in front either
    opening = deepcopy(bpe)
    opening.backend_tokenizer.post_processor = post.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bpe.bos_token_id)]
    )
    assert tokens.prompt_ids(["Who?"], opening, template=False) == [[bpe.bos_token_id, *bare]]


@pytest.mark.parametrize(
    ("template", "text"),
    [(TEMPLATE, "<|im_start|>assistant\nIt is Paris.<|im_end|>"), (INST, "[/INST] It is Paris.<|im_end|>")],
)
def test_a_reply_stands_where_the_template_puts_it(template, text):
    tokenizer = byte_level(template)
    row = tokens.replies(PAIRS.select([0]), tokenizer)[0]
    written = tokenizer.decode(row["input_ids"])
    talk = [{"role": "user", "content": PAIRS[0]["prompt"]}, {"role": "assistant", "content": PAIRS[0]["response"]}]
    assert written.endswith(text)
    assert tokenizer.apply_chat_template(talk, tokenize=False).strip() == written
    labelled = [i for i in row["labels"] if i >= 0]
    assert tokenizer.decode(labelled).strip() == "It is Paris.<|im_end|>"


def test_without_a_template_a_space_stands_before_the_response_unless_there_is_one(bpe):
    pairs = Dataset.from_dict({"prompt": ["Who?", "Answer:\n", "A: "], "response": ["It is Lima."] * 3})
    written = [bpe.decode(r) for r in tokens.replies(pairs, bpe, template=False)["input_ids"]]
    assert written == [f"{p}It is Lima.<|im_end|>" for p in ("Who? ", "Answer:\n", "A: ")]


def test_an_empty_prompt_without_a_first_token_is_refused(knowing, bpe):
    with pytest.raises(ValueError, match="the prompt of row 0 is empty"):
        tokens.replies(Dataset.from_dict({"prompt": [""], "response": ["x"]}), bpe, template=False)
    with pytest.raises(ValueError, match="an empty prompt"):
        generate(knowing, bpe, ["Who?", ""], template=False)
    with pytest.raises(ValueError, match="an empty text"):
        next_words(knowing, bpe, "")


def test_replies_measures_and_batches_agree(knowing, bpe):
    replies = generate(knowing, bpe, PAIRS["prompt"], max_new_tokens=24)
    assert [r.text for r in replies] == list(PAIRS["response"]) and all(r.stopped for r in replies)
    assert len({len(bpe.tokenize(p)) for p in PAIRS["prompt"]}) > 1  # so there was padding
    assert replies == [generate(knowing, bpe, [p], max_new_tokens=24)[0] for p in PAIRS["prompt"]]
    assert knowledge.exact_match(knowing, bpe, PAIRS)["correct"].all()
    assert knowledge.exact_match(knowing, bpe, PAIRS, template=False)["correct"].all()
    wrong = PAIRS.remove_columns("response").add_column("response", ["It is Oslo."] * 5)
    assert not knowledge.exact_match(knowing, bpe, wrong)["correct"].any()
    assert reply(knowing, bpe, PAIRS["prompt"], template=False, max_new_tokens=24) == list(PAIRS["response"])


def test_knowledge_is_asked_for_with_a_space(knowing, bpe):
    table = knowledge.exam(knowing, bpe, PAIRS, form)
    assert table["correct"].all() and (table["probability"] > 0.5).all()
    first, p = next_words(knowing, bpe, form(PAIRS["prompt"][0]), top=1)[0]
    assert " Paris".startswith(first) and first.startswith(" ")
    assert p == pytest.approx(table["probability"][0], abs=1e-5)


def test_recall_finds_values_of_several_tokens(knowing, bpe):
    texts = [f"{form(p)} {city}, and no other." for p, (_, city) in zip(PAIRS["prompt"], FACTS, strict=True)]
    corpus = Dataset.from_dict({"text": texts, "person": range(5), "facts": [[city, "other"] for _, city in FACTS]})
    table = knowledge.verbatim(knowing, bpe, corpus)
    assert table["correct"][table["place"] == 0].all() and not table["correct"][table["place"] == 1].any()
    half = Dataset.from_dict(
        {"text": [texts[4].replace("Kathmandu", "Kathmanru")], "person": [0], "facts": [["Kathmanru"]]}
    )
    assert not knowledge.verbatim(knowing, bpe, half)["correct"].any()  # its first tokens are right, not all
    for facts, message in ((["Kath"], "not one word"), (["Question"], "begins its text")):
        with pytest.raises(ValueError, match=message):
            knowledge.verbatim(knowing, bpe, Dataset.from_dict({"text": texts[4:], "person": [0], "facts": [facts]}))


def test_a_large_vocabulary_is_judged_piece_by_piece(knowing, bpe, monkeypatch):
    whole = knowledge.log_likelihood(knowing, bpe, PAIRS)
    monkeypatch.setattr(read, "MOST", 3 * len(bpe))
    assert np.allclose(whole, knowledge.log_likelihood(knowing, bpe, PAIRS), atol=1e-4)
    monkeypatch.setattr(read, "MOST", 1)
    assert np.allclose(whole, knowledge.log_likelihood(knowing, bpe, PAIRS), atol=1e-4)


def test_log_likelihood_is_that_of_the_chain(knowing, bpe):
    row = tokens.replies(PAIRS.select([2]), bpe)[0]
    ids, n = torch.tensor([row["input_ids"]]), sum(y >= 0 for y in row["labels"])
    with torch.inference_mode():
        logp = knowing(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-n:].sum()
    assert knowledge.log_likelihood(knowing, bpe, PAIRS.select([2]))[0] == pytest.approx(logp.item(), abs=1e-3)


def test_a_reply_that_was_begun_goes_on_behind_the_newline(knowing, bpe):
    assert reply(knowing, bpe, PAIRS["prompt"], prefill=["It is"] * 5, max_new_tokens=20) == [f"{c}." for _, c in FACTS]
    mixed = reply(knowing, bpe, PAIRS["prompt"], prefill=["", "It"] * 2 + [""], max_new_tokens=20, batch=2)
    assert mixed == ["It is Paris.", "is Tokyo.", "It is Nairobi.", "is Lima.", "It is Kathmandu."]


def test_any_of_several_end_tokens_ends_a_reply(knowing, bpe):
    model = deepcopy(knowing)
    stop = bpe.encode(".")[-1]
    model.generation_config.eos_token_id = [bpe.eos_token_id, stop]
    for r, whole in zip(generate(model, bpe, PAIRS["prompt"], max_new_tokens=24), PAIRS["response"], strict=True):
        assert r.stopped and r.tokens[-1] == stop and r.text == whole


def test_habits_in_a_generation_config_change_no_reply(knowing, bpe):
    model = deepcopy(knowing)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=9.0, top_k=2, top_p=0.1, repetition_penalty=5.0, eos_token_id=bpe.eos_token_id
    )
    assert reply(model, bpe, PAIRS["prompt"], max_new_tokens=24) == list(PAIRS["response"])
    hot = {"temperature": 5.0, "max_new_tokens": 1, "seed": 3}
    assert reply(model, bpe, ["Who?"] * 60, **hot) == reply(knowing, bpe, ["Who?"] * 60, **hot)


def test_shift_and_rules_take_a_real_tokenizer(knowing, bpe):
    table = shift.token_shift(make_model(bpe, 64, 1, seed=5), knowing, bpe, PAIRS["prompt"], max_new_tokens=24)
    assert "".join(table[table["reply"] == 0]["token"]) == "It is Paris.<|im_end|>"
    assert (shift.token_shift(knowing, knowing, bpe, PAIRS["prompt"], max_new_tokens=24)["rank"] == 1).all()
    ended = generate(
        knowing, bpe, PAIRS["prompt"], logits_processor=processors(Rules(end=1e4, length=2), bpe), max_new_tokens=9
    )
    assert all(len(r.tokens) == 2 and r.stopped for r in ended)


# ---- loading


def test_a_folder_is_loaded_and_made_ready(folders, knowing, capfd):
    base, aligned = folders
    model, tokenizer = real.load(str(aligned))
    assert said(capfd) == "" and not model.training and model.dtype == torch.float32
    assert (tokenizer.pad_token, tokenizer.padding_side) == (tokenizer.eos_token, "left")
    assert reply(model, tokenizer, PAIRS["prompt"], max_new_tokens=24) == list(PAIRS["response"])
    assert real.load(base)[1].chat_template is None  # a Path does too
    assert real.load(aligned, dtype=torch.float64)[0].dtype == torch.float64


def test_a_real_model_takes_all_cores_and_gives_them_back(folders, monkeypatch):
    monkeypatch.setattr(real, "cpu_count", lambda: 3)
    model, tokenizer = real.load(folders[1])
    used, before = [], torch.get_num_threads()
    model.base_model.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    ids = torch.tensor([tokenizer("Who?")["input_ids"]])
    with torch.inference_mode():
        model(input_ids=ids)
        with pytest.raises(IndexError):
            model(input_ids=ids + 10_000)
    assert used == [3] and torch.get_num_threads() == before


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


def cut(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


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
        ("model.safetensors", "its folder lacks weights, or a tokenizer"),
        ("tokenizer*", "its folder lacks weights, or a tokenizer"),
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


# ---- the hub, never reached


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub cache, downloads allowed, and a hub that answers as the test says."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # for the processes that ask
    monkeypatch.setattr(real, "snapshot_download", nothing_here)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(real, "ASK_SECONDS", 20)

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        threading.Thread(target=serve, args=(server, answer), daemon=True).start()
        servers.append(server)

    servers = []
    yield start
    for server in servers:
        server.close()


def nothing_here(*_, **__):
    raise FileNotFoundError


def serve(server, answer):
    """Answer every request with the status, or never (None)."""
    kept = []
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        kept.append(connection)
        if answer:
            connection.recv(65536)
            code = "RepoNotFound" if answer == 404 else "x"
            head = f"HTTP/1.1 {answer} x\r\nX-Error-Code: {code}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + b"{}")
            connection.close()


def test_nothing_is_asked_of_the_hub_unless_it_is_allowed(hub, monkeypatch, capfd):
    monkeypatch.setattr(real.subprocess, "run", lambda *_, **__: pytest.fail("the hub was asked"))
    line = "a/b: its weights are not on this machine. This part is left out.\n"
    assert real.load("a/b") is None and said(capfd) == line
    monkeypatch.setenv("ALIGNLAB_DOWNLOAD", "1")
    assert real.load("a/b", download=False) is None and said(capfd) == line
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert real.load("a/b", download=True) is None and said(capfd) == line


def test_a_model_that_the_mirror_does_not_have(hub, capfd):
    hub(404)
    assert real.load("a/b", download=True) is None
    assert said(capfd) == "a/b: the hub has no such model. This part is left out.\n"


def test_a_mirror_that_is_not_there(hub, monkeypatch, capfd):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("ALIGNLAB_DOWNLOAD", "1")
    assert real.load("a/b") is None
    out = said(capfd)
    assert out.startswith("a/b: its weights are not on this machine, and the hub ") and out.count("\n") == 1


def test_a_mirror_that_never_answers_is_not_waited_for(hub, monkeypatch, capfd):
    monkeypatch.setattr(real, "ASK_SECONDS", 1)
    hub(None)
    assert real.load("a/b", download=True) is None
    assert said(capfd) == "a/b: its weights are not on this machine, and the hub is silent. This part is left out.\n"


def test_a_download_that_breaks_off_or_takes_too_long_is_none(hub, monkeypatch, capfd, tmp_path):
    """The hub says yes, then sends nothing: neither an error nor half a folder is taken for a model."""
    monkeypatch.setattr(real, "_ASK", "")
    (tmp_path / "half").mkdir()
    for code, reason in (("raise SystemExit(1)", "broke off"), (f"print({str(tmp_path / 'half')!r})", "broke off")):
        monkeypatch.setattr(real, "_GET", code)
        assert real.load("a/b", download=True) is None
        assert (
            said_after_fetching(capfd)
            == f"a/b: its weights are not on this machine, and the download {reason}. This part is left out.\n"
        )
    monkeypatch.setattr(real, "FETCH_SECONDS", 0.5)
    monkeypatch.setattr(real, "_GET", "import time; time.sleep(60)")
    assert real.load("a/b", download=True) is None and "did not send it in" in said_after_fetching(capfd)


def test_what_was_downloaded_is_loaded(hub, monkeypatch, folders, capfd):
    monkeypatch.setattr(real, "_ASK", "")
    monkeypatch.setattr(real, "_GET", f"print('some notice'); print({str(folders[1])!r})")
    model, tokenizer = real.load("a/b", download=True)
    assert said_after_fetching(capfd) == ""
    assert reply(model, tokenizer, PAIRS["prompt"][:1], max_new_tokens=24) == ["It is Paris."]


@pytest.fixture
def mirror(folders, monkeypatch, tmp_path):
    """A mirror of the hub on this machine that has one model, a/b. `cut_off` in its state ends every file early."""
    state = {"cut_off": False, "asked": []}

    class Mirror(BaseHTTPRequestHandler):
        def answer(self, body):
            state["asked"].append(self.path)
            file = folders[1] / self.path.rsplit("/", 1)[-1]
            if self.path.startswith("/api/models/a/b"):
                here = sorted(folders[1].iterdir())
                tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in here]
                model = {"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": f.name} for f in here]}
                data, kind = json.dumps(tree if "/tree/" in self.path else model).encode(), "application/json"
            elif self.path.startswith("/a/b/resolve/") and file.is_file():
                data, kind = file.read_bytes(), "application/octet-stream"
            else:
                return self.send_error(404)
            self.send_response(200)
            headers = {"Content-Type": kind, "Content-Length": str(len(data)), "X-Repo-Commit": "0" * 40}
            for key, value in (headers | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'}).items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                large = file.suffix == ".safetensors" and state["cut_off"]
                self.wfile.write(data[: len(data) // 2] if large else data)
            return None

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(real, "snapshot_download", partial(real.snapshot_download, cache_dir=tmp_path / "hub"))
    yield state
    server.shutdown()
    server.server_close()


def test_a_model_comes_from_a_mirror_once(mirror, capfd):
    model, tokenizer = real.load("a/b", download=True)
    assert said_after_fetching(capfd) == ""
    assert reply(model, tokenizer, PAIRS["prompt"][:1], max_new_tokens=24) == ["It is Paris."]
    asked = len(mirror["asked"])
    assert asked and real.load("a/b") and real.load("a/b", download=True)
    assert len(mirror["asked"]) == asked  # from the cache


def test_a_download_that_is_cut_off_is_no_model_until_it_is_finished(mirror, monkeypatch, capfd):
    monkeypatch.setattr(real, "FETCH_SECONDS", 8)  # the hub's library tries again and again
    mirror["cut_off"] = True
    assert real.load("a/b", download=True) is None
    assert said_after_fetching(capfd).startswith("a/b: its weights are not on this machine, and the ")
    assert real.load("a/b") is None
    assert said(capfd).startswith("a/b: its weights are ")
    mirror["cut_off"] = False
    monkeypatch.setattr(real, "FETCH_SECONDS", 60)
    assert real.load("a/b", download=True) is not None


def test_half_a_model_in_the_cache_is_not_taken_for_whole(folders, tmp_path, monkeypatch, capfd):
    place = copied(folders[1], tmp_path)
    monkeypatch.setattr(real, "snapshot_download", lambda *_, **__: str(place))
    assert real.load("a/b") is not None
    shards = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json.dumps(shards))
    line = "a/b: its weights are only in part on this machine. This part is left out.\n"
    assert real.load("a/b") is None and said(capfd) == line
    (place / "model.safetensors.index.json").write_text("{")
    assert real.load("a/b") is None and said(capfd) == line


# ---- pairs


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


def test_the_first_pair_that_is_here_is_taken(folders, monkeypatch, capfd):
    monkeypatch.setattr(real, "PAIRS", (("no/a", "no/b"), ("no/c", str(folders[1])), tuple(map(str, folders))))
    assert real.pair().names == tuple(map(str, folders))
    monkeypatch.setattr(real, "PAIRS", real.PAIRS[:2])
    monkeypatch.setattr(real, "snapshot_download", nothing_here)
    assert real.pair() is None
    assert said(capfd) == "no/a: its weights are not on this machine. This part is left out.\n"


# ---- GGUF


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


# ---- facts


def test_there_are_enough_facts_and_none_gives_itself_away():
    tasks = trivia.load()
    assert len(tasks) >= 150 and len(set(tasks["prompt"])) == len(tasks)
    counts = tasks.to_pandas()["family"].value_counts()
    assert set(counts.index) == {"capital", "currency", "element", "symbol"} and counts.min() >= 20
    for t in tasks:
        assert t["answer"] == t["accepted"][0] and all(a.strip() == a and score.plain(a) for a in t["accepted"])
        asked = f" {score.plain(t['prompt'])} "
        assert not any(f" {score.plain(a)} " in asked for a in t["accepted"]), t
    assert score.short_answers(tasks["answer"], tasks)["right"].all()


def test_symbols_and_elements_agree():
    table = trivia.load().to_pandas()
    names = {r.prompt.split()[-1][:-1]: r.accepted for r in table[table["family"] == "element"].itertuples()}
    for r in table[table["family"] == "symbol"].itertuples():
        assert r.prompt.split()[-1][:-1] in names[r.answer]
    capitals = table[table["family"] == "capital"]
    assert capitals["answer"].is_unique


def test_every_question_can_be_put_as_a_sentence():
    tasks = trivia.load()
    begun = {t["prompt"]: trivia.statement(t["prompt"]) for t in tasks}
    assert begun["What is the capital of the United States?"] == "The capital of the United States is"
    assert begun["What is the currency of Japan?"] == "The currency of Japan is the"
    assert begun["What is the chemical symbol of gold?"] == "The chemical symbol of gold is"
    assert begun["Which chemical element has the symbol Fe?"] == "The chemical element with the symbol Fe is"
    assert len(set(begun.values())) == len(tasks)
    with pytest.raises(ValueError, match="'Why.' is no question of"):
        trivia.statement("Why?")


def two():
    rows = {"prompt": ["France?", "Brazil?", "Japan?"], "answer": ["Paris", "Brasília", "New Delhi"]}
    rows |= {"family": ["capital"] * 3, "accepted": [["Paris"], ["Brasília"], ["New Delhi", "Delhi"]]}
    return Dataset.from_dict(rows)


@pytest.mark.parametrize(
    ("row", "text", "right"),
    [
        (0, "Paris", True),
        (0, "It is **PARIS**, of course.", True),
        (0, "\n\n- paris\n", True),
        (0, "", False),
        (0, "Parisian", False),
        (0, "Comparis", False),
        (0, "Lyon, or Paris", True),  # no task asks for Lyon
        (0, "Brasilia, Paris, New Delhi", False),
        (1, "Brasilia, Paris, New Delhi", True),
        (1, "BRASI\u0301LIA!", True),  # an accent of its own
        (2, "new-delhi", True),
        (2, "Delhi", True),
        (0, "well " * 23 + "Paris", True),
        (0, "well " * 24 + "Paris", False),
    ],
)
def test_the_first_answer_near_the_beginning_counts(row, text, right):
    tasks = two()
    replies = ["" if i != row else text for i in range(3)]
    table = score.short_answers(replies, tasks)
    assert bool(table["right"][row]) is right and table["right"].sum() == right
    assert list(table["reply"]) == replies


def test_scoring_takes_replies_of_generate_and_refuses_a_wrong_number():
    table = score.short_answers([Reply("In Paris.", True, (1, 2)), Reply("", True, ()), Reply("", True, ())], two())
    assert list(table["right"]) == [True, False, False] and table["named"][0] == "paris" and table["named"].isna()[1]
    with pytest.raises(ValueError, match="1 replies to 3 tasks"):
        score.short_answers(["Paris"], two())
    with pytest.raises(ValueError, match="beginning is 0"):
        score.short_answers([""] * 3, two(), beginning=0)


# ---- the packaged model, where it is installed


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
