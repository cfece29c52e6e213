"""Models of the hub: what its local cache holds, and a download from a mirror here. The hub itself is never reached."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from alignlab.models import hub, real
from alignlab.models.answer import reply
from huggingface_hub import constants

from tests.library.subwords import PAIRS, said

NOT_HERE = "a/b: its weights are not on this machine"
FETCHED = "a/b: its files are fetched, once. This can take minutes.\n"
GATED = "and the hub wants an account that may read it (hf auth login)"
LEFT_OUT = ". This part is left out.\n"


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """An empty cache of the hub, in a folder whose name not every code page has."""
    place = tmp_path / "模型"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    return place


def kept(place, folder):
    """The files of `folder` as the hub's library keeps those of a/b."""
    (place / "models--a--b" / "refs").mkdir(parents=True)
    (place / "models--a--b" / "refs" / "main").write_text("0" * 40)
    return shutil.copytree(folder, place / "models--a--b" / "snapshots" / ("0" * 40))


def test_half_a_model_in_the_cache_is_not_taken_for_whole(folders, place, capfd):
    folder = kept(place, folders[1])
    assert real.load("a/b") is not None
    line = f"a/b: {hub.LACKS}{LEFT_OUT}"
    shards = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    for index in (json.dumps(shards), "{", "[]"):
        (folder / "model.safetensors.index.json").write_text(index)
        assert real.load("a/b") is None and said(capfd) == line


def test_a_folder_holds_the_same_by_its_path_and_in_the_cache(folders, place, tmp_path):
    """Whole, a half, one GGUF file, two: one answer each."""
    cases = {"none": [], "gguf": ["x.gguf"], "two": ["x.gguf", "y.gguf"], "no weights": ["config.json"]}
    cases |= {"no tokenizer": ["config.json", "model.safetensors"], "bin": ["config.json", "x.bin", "vocab.json"]}
    answers = {}
    for case, files in cases.items():
        folder = tmp_path / case
        folder.mkdir()
        for file in files:
            (folder / file).write_text("{}")
        shutil.rmtree(place, ignore_errors=True)
        kept(place, folder)
        both = []
        for name in (str(folder), "a/b"):
            try:
                both.append(real._place(name, download=False)[1])
            except hub.NotHere as e:
                both.append(str(e))
        assert both[0] == both[1]
        answers[case] = both[0]
    assert answers == {
        "none": "it is not a folder with a model",
        "gguf": "x.gguf",
        "two": "the folder has 2 files in GGUF format: name one of them",
        "no weights": hub.LACKS,
        "no tokenizer": hub.LACKS,
        "bin": None,
    }


def test_nothing_is_asked_of_the_hub_unless_it_is_allowed(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(hub.subprocess, "run", lambda *_, **__: pytest.fail("the hub was asked"))
    assert real.load("a/b") is None and said(capfd) == NOT_HERE + LEFT_OUT
    assert real.load(tmp_path / "b", download=True) is None  # no name of the hub
    assert said(capfd).endswith(f"b: its weights are not on this machine{LEFT_OUT}")
    monkeypatch.setenv("ALIGNLAB_DOWNLOAD", "1")
    assert real.load("a/b", download=False) is None and said(capfd) == NOT_HERE + LEFT_OUT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert real.load("a/b", download=True) is None and said(capfd) == NOT_HERE + LEFT_OUT


def test_a_cache_that_cannot_be_read_is_named(monkeypatch, capfd):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "refs/main")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    assert real.load("a/b") is None
    assert said(capfd).startswith("a/b: the hub's cache cannot be read (PermissionError: [Errno 13] Permission denied")


# ---- a mirror of the hub on this machine


@pytest.fixture
def mirror(folders, monkeypatch):
    """It has one model, a/b, and answers as its fields say."""
    state = SimpleNamespace(folder=folders[1], cut_off=False, refused={}, xet=False, asked=[])

    class Mirror(BaseHTTPRequestHandler):
        def answer(self, body):
            state.asked.append(self.path)
            file = state.folder / self.path.rsplit("/", 1)[-1]
            for path, (status, code) in state.refused.items():
                if self.path.startswith(path):
                    return self.send(status, b"{}", {"X-Error-Code": code}, body)
            if self.path.startswith("/api/models/a/b"):
                here = sorted(state.folder.iterdir())
                tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in here]
                model = {"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": f.name} for f in here]}
                return self.send(200, json.dumps(tree if "/tree/" in self.path else model).encode(), {}, body)
            if not self.path.startswith("/a/b/resolve/") or not file.is_file():
                return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            data = file.read_bytes()
            headers = {"X-Repo-Commit": "0" * 40, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            if state.xet:
                headers |= {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": "/api/models/a/b/xet-read-token/" + "0" * 40}
            return self.send(200, data, headers, body, cut_off=state.cut_off and file.suffix == ".safetensors")

        def send(self, status, data, headers, body, cut_off=False):
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) // 2] if cut_off else data)

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield state
    server.shutdown()
    server.server_close()


def test_a_model_comes_from_a_mirror_once(mirror, monkeypatch, capfd):
    """Also where the cache's path cannot be written in the code page, and from a mirror that announces xet."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    mirror.xet = True
    model, tokenizer = real.load("a/b", download=True)
    assert said(capfd) == FETCHED
    assert reply(model, tokenizer, PAIRS["prompt"][:1], max_new_tokens=24) == ["It is Paris."]
    asked = len(mirror.asked)
    assert asked and not any("xet" in path for path in mirror.asked)
    assert real.load("a/b") and real.load("a/b", download=True)
    assert len(mirror.asked) == asked  # from the cache


def test_a_download_that_is_cut_off_is_no_model_until_it_is_finished(mirror, monkeypatch, capfd):
    monkeypatch.setattr(hub, "FETCH_SECONDS", 8)  # the hub's library tries again and again
    mirror.cut_off = True
    assert real.load("a/b", download=True) is None
    assert said(capfd).startswith(f"{FETCHED}{NOT_HERE}, and the ")
    assert real.load("a/b") is None
    assert said(capfd) in (f"a/b: {hub.LACKS}{LEFT_OUT}", NOT_HERE + LEFT_OUT)
    mirror.cut_off = False
    monkeypatch.setattr(hub, "FETCH_SECONDS", 60)
    assert real.load("a/b", download=True) is not None


@pytest.mark.parametrize(
    ("path", "answer", "line"),
    [
        ("/api", (404, "RepoNotFound"), f"{NOT_HERE}, and the hub has no such model"),
        ("/api", (403, "GatedRepo"), f"{NOT_HERE}, {GATED}"),
        # as the hub does it: everybody may see what a gated model consists of
        ("/a/b", (403, "GatedRepo"), f"{FETCHED}{NOT_HERE}, {GATED}"),
    ],
)
def test_what_the_mirror_says_reaches_the_reader(mirror, capfd, path, answer, line):
    mirror.refused = {path: answer}
    assert real.load("a/b", download=True) is None
    assert said(capfd) == line + LEFT_OUT


def test_a_mirror_that_is_not_there(monkeypatch, capfd):
    monkeypatch.setenv("ALIGNLAB_DOWNLOAD", "1")
    assert real.load("a/b") is None
    out = said(capfd)
    assert out.startswith(f"{NOT_HERE}, and the hub cannot be reached (ConnectError: ") and out.count("\n") == 1


def test_a_mirror_that_never_answers_is_not_waited_for(monkeypatch, capfd):
    monkeypatch.setattr(hub, "ASK_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert real.load("a/b", download=True) is None
    assert said(capfd) == f"{NOT_HERE}, and the hub is silent{LEFT_OUT}"


def test_a_process_that_dies_is_said_with_its_last_words(tmp_path, monkeypatch, capfd):
    """Such as one without memory, or one whose packages cannot be imported."""
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('broken 包')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert real.load("a/b", download=True) is None
    broken = "the process that asks the hub broke off (ImportError: broken 包)"
    assert said(capfd) == f"{NOT_HERE}, and {broken}{LEFT_OUT}"


# ---- what the process that asks is told, and says, without starting it


@pytest.mark.parametrize(
    ("endpoint", "xet", "wanted"),
    [("http://m", None, "1"), ("http://m", "0", "0"), ("", None, None), (None, None, None), (None, "1", "1")],
)
def test_a_mirror_is_not_asked_for_xet_unless_the_reader_says_so(monkeypatch, place, endpoint, xet, wanted):
    told = {}
    for name, value in (("HF_ENDPOINT", endpoint), ("HF_HUB_DISABLE_XET", xet)):
        monkeypatch.delenv(name) if value is None and name in os.environ else None
        monkeypatch.setenv(name, value) if value is not None else None
    monkeypatch.setattr(hub.subprocess, "run", lambda *_, env, **__: told.update(env) or SimpleNamespace(stdout=b'""'))
    hub.fetch("a/b")
    assert told.get("HF_HUB_DISABLE_XET") == wanted
    assert told["HF_HUB_CACHE"] == str(place)


@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin", "x.gguf"], "*.safetensors"),
        (["config.json", "pytorch_model.bin"], "*.bin"),
        (["x.gguf", "README.md"], "*.gguf"),
        (["x.Q4.gguf", "x.Q8.gguf"], "the hub has it in 2 files in GGUF format: fetch one of them and pass its path"),
        (["README.md"], "the hub has no weights of it that can be read here"),
        ([], "the hub has no weights of it that can be read here"),
    ],
)
def test_one_format_of_the_weights_is_fetched(monkeypatch, files, fetched):
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=f) for f in files])
    got = []
    monkeypatch.setattr(hub, "HfApi", lambda: SimpleNamespace(model_info=lambda *_, **__: info))
    monkeypatch.setattr(hub, "snapshot_download", lambda _, allow_patterns: got.extend(allow_patterns))
    why = hub.main("ask", "a/b")
    assert not got and why == hub.main("get", "a/b")
    assert fetched == (why or got[-1])


def test_a_full_disk_is_named(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename="x.safetensors")])
    monkeypatch.setattr(hub, "HfApi", lambda: SimpleNamespace(model_info=lambda *_, **__: info))
    monkeypatch.setattr(hub, "snapshot_download", full)
    assert hub.main("get", "a/b") == "the download broke off (OSError: [Errno 28] No space left on device)"
