"""Bases to download: found by what makes them, used only with the bytes that the library's own list has."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from alignlab.experiment import base, bases
from alignlab.models import cache, download, source
from safetensors.torch import save

TINY = base.Plan(people=12, read=8, width=32, depth=1, steps=2)
SEEDS = (0, 1)
# Another process that fetches two tiny bases: from where, and by which list, stands in its arguments.
FETCHES = """
import sys
from pathlib import Path
from alignlab.experiment import base, bases

bases.LISTED = Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
raise SystemExit(len(bases.fetch(sys.argv[1], (0, 1), [base.Plan(people=12, read=8, width=32, depth=1, steps=2)])))
"""


def in_this_process(run, *columns):
    for call in zip(*columns, strict=True):
        run(*call)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with two tiny bases, and the list of the library that speaks of them. Do not change it."""
    place = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNLAB_CACHE", str(place / "cache"))
        patch.setattr(bases, "LISTED", place / "list.json")
        patch.setattr(base, "side_by_side", in_this_process)
        bases.write(place / "files", SEEDS, [TINY])
        models = [base.load(s, TINY).model for s in SEEDS]
    return place, models


@pytest.fixture
def folder(written, tmp_path, monkeypatch):
    """A copy of that folder, its list in force, and an empty cache."""
    shutil.copytree(written[0] / "files", tmp_path / "files")
    shutil.copy(written[0] / "list.json", tmp_path / "list.json")
    monkeypatch.setattr(bases, "LISTED", tmp_path / "list.json")
    monkeypatch.setattr(base, "side_by_side", in_this_process)
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "files"


def fetch(where):
    return bases.fetch(str(where), SEEDS, [TINY])


def relist(change, seed=0):
    """Change what the library's list says of one base."""
    listed = json.loads(bases.LISTED.read_text())
    change(listed["bases"][bases.file_of(TINY, seed)])
    bases.LISTED.write_text(json.dumps(listed))


def kept():
    """Everything in the cache folder but locks, drafts too: path -> when it was written."""
    files = [f for f in cache.folder().rglob("*") if f.is_file() and f.suffix != ".lock"]
    return {f: f.stat().st_mtime_ns for f in files if f.name != cache.MANIFEST}


def same(a, b):
    return all(
        torch.equal(x.detach().cpu(), y.detach().cpu()) for x, y in zip(a.parameters(), b.parameters(), strict=True)
    )


def first(folder):
    return folder / bases.file_of(TINY, 0)


# ---- written, and fetched


def test_what_was_written_is_fetched_and_loaded_without_training(written, folder, capsys):
    assert fetch(folder) == []
    there = kept()
    assert sum(f.suffix == ".safetensors" for f in there) == 2
    for seed, model in zip(SEEDS, written[1], strict=True):
        found = base.load(seed, TINY)
        assert (
            same(found.model, model)
            and found.model.get_output_embeddings().weight is found.model.model.embed_tokens.weight
        )
        assert found.tokenizer.chat_template and len(found.tokenizer) == model.config.vocab_size
    assert kept() == there  # a base that was trained would be one more
    said = capsys.readouterr()
    assert f"2 fetched from {folder}, 0 in the cache already, 0 to be trained" in said.out
    assert "Trained with " in said.out and ", as here\n" in said.out and said.err == ""


def test_what_is_in_the_cache_stays_and_nothing_is_asked_for(folder, tmp_path, capsys):
    base.load(0, TINY)
    before = kept()
    first(folder).unlink()
    assert fetch(folder) == []
    assert before.items() <= kept().items()
    assert "1 fetched" in (said := capsys.readouterr().out) and "1 in the cache already" in said
    shutil.rmtree(folder)
    folder.mkdir()
    assert fetch(folder) == [] and "0 fetched" in capsys.readouterr().out


def test_the_same_bases_give_the_same_bytes(folder, tmp_path, monkeypatch, capsys):
    fetch(folder)  # not the entries that they were written from
    listed = bases.LISTED.read_bytes()
    again = bases.write(tmp_path / "again", SEEDS, [TINY])
    assert [f.read_bytes() for f in again] == [(folder / f.name).read_bytes() for f in again]
    assert {f.name for f in (tmp_path / "again").iterdir()} == {f.name for f in again} | {bases.INDEX}
    assert bases.LISTED.read_bytes() == listed == (tmp_path / "again" / bases.INDEX).read_bytes()


def test_the_list_keeps_other_bases_of_the_same_code_and_drops_those_of_another(folder, monkeypatch, capsys):
    names = {bases.file_of(TINY, s) for s in (0, 1, 2)}
    bases.write(folder, [2], [TINY])
    assert set(bases.read_list()["bases"]) == names and set(index(folder)) == {bases.file_of(TINY, 2)}
    assert f"not of them, and still there: {first(folder).name}" in capsys.readouterr().out
    monkeypatch.setattr(bases, "code", lambda: "another")
    [new] = bases.write(folder, [2], [TINY])
    assert set(bases.read_list()["bases"]) == {new.name} and new.name not in names


def index(folder):
    return json.loads((folder / bases.INDEX).read_text())["bases"]


def test_no_seeds_and_bad_ones_are_refused(folder):
    with pytest.raises(ValueError, match="no seeds were given"):
        bases.write(folder, [], [TINY])
    with pytest.raises(ValueError, match="seed is -1"):
        bases.write(folder, [-1], [TINY])


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    before = first(folder).read_bytes()
    base.load(0, TINY)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alignlab.experiment.bases.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        bases.write(folder, [0], [TINY])
    assert first(folder).read_bytes() == before and not list(folder.glob(".draft*"))


# ---- what is not used


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def lengthen(file):
    file.write_bytes(file.read_bytes() + b"more")


def swap(file):
    shutil.copy(file.parent / bases.file_of(TINY, 1), file)


def take_away(file):
    file.unlink()


def be_a_folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("spoil", [flip, truncate, lengthen, swap, take_away, be_a_folder])
def test_a_file_with_other_bytes_is_refused_and_its_base_is_trained(written, folder, capsys, spoil):
    expected, file = bases.read_list()["bases"][first(folder).name], first(folder)
    spoil(file)
    [said] = fetch(folder)
    assert file.name in said and "seed 0" in said and "it is not used, and trained where it is needed. Fetch it" in said
    if file.is_file():
        assert f"expected: {expected['bytes']} bytes, sha256 {expected['sha256']}" in said
        assert "more than" in said if spoil is lengthen else f"Found: {file.stat().st_size} bytes, sha256 " in said
    out, err = capsys.readouterr()
    assert said in err and "1 fetched" in out and "1 to be trained" in out
    assert len({f.parent for f in kept()}) == 1, "something of the refused file is in the cache"
    assert same(base.load(0, TINY).model, written[1][0])  # trained now


class Opened:
    """To unpickle it is to make a folder."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


def pickled(weights):
    return pickle.dumps(Opened())


def torch_saved(weights):
    Path("weights.pt").unlink(missing_ok=True)
    torch.save(Opened(), "weights.pt")
    return Path("weights.pt").read_bytes()


def cut_short(weights):
    return save(weights)[:40]


def narrower(weights):
    return save({n: w[..., :16].contiguous() for n, w in weights.items()})


def rounded(weights):
    return save({n: w.to(torch.bfloat16) for n, w in weights.items()})


def lacking(weights):
    return save(dict(list(weights.items())[1:]))


def with_one_more(weights):
    return save({**weights, "lm_head.weight": torch.zeros(2)})


@pytest.mark.parametrize("made", [pickled, torch_saved, cut_short, narrower, rounded, lacking, with_one_more])
def test_bytes_that_hold_no_such_model_are_refused_also_where_the_list_has_them(written, folder, monkeypatch, made):
    monkeypatch.chdir(folder)
    content = made({n: p.detach().cpu() for n, p in written[1][0].named_parameters()})
    first(folder).write_bytes(content)
    relist(lambda entry: entry.update(bytes=len(content), sha256=bases.hashlib.sha256(content).hexdigest()))
    [said] = fetch(folder)
    assert (
        "not in the format safetensors" if made in (pickled, torch_saved, cut_short) else "of another model"
    ) in said
    assert not (folder / "opened").exists() and len({f.parent for f in kept()}) == 1


def test_the_index_beside_the_files_is_not_believed(folder):
    flip(first(folder))
    digest = bases.hashlib.sha256(first(folder).read_bytes()).hexdigest()
    entry = {**index(folder)[first(folder).name], "sha256": digest}
    (folder / bases.INDEX).write_text(json.dumps({"bases": {first(folder).name: entry, "../../outside": entry}}))
    [said] = fetch(folder)
    assert f"sha256 {digest}; expected" in said


@pytest.mark.parametrize("name", ["../secret", "/etc/hosts", "a/b", "..\\secret", "", ".", ".."])
def test_a_name_that_is_a_path_is_never_opened(folder, name):
    (folder.parent / "secret").write_text("x")
    with pytest.raises(ValueError, match="a name without a folder"):
        download.content(str(folder), name, 1, bases.hashlib.sha256(b"x").hexdigest())


def test_a_file_of_any_size_is_not_read_to_its_end(folder):
    with pytest.raises(ValueError, match="no file here is larger"):
        download.content(str(folder), "base", download.LARGEST + 1, "")


def test_a_base_that_the_list_does_not_have_is_not_asked_for(folder):
    listed = json.loads(bases.LISTED.read_text())
    del listed["bases"][first(folder).name]
    bases.LISTED.write_text(json.dumps(listed))
    [said] = fetch(folder)
    assert "the list of this library (list.json) has no such base" in said
    bases.LISTED.unlink()
    assert len(fetch(folder)) == 1  # the other one is in the cache


def test_a_list_that_is_damaged_is_named(folder, capsys):
    bases.LISTED.write_text("{")
    with pytest.raises(ValueError, match="list.json is damaged"):
        fetch(folder)
    with pytest.raises(SystemExit):
        bases.main(["fetch", str(folder)])
    assert "install the library again, or run make bases" in capsys.readouterr().err


# ---- what makes it, and on what it was made


def test_other_code_another_plan_and_another_seed_are_another_file(monkeypatch):
    names = {bases.file_of(TINY, 0), bases.file_of(TINY, 1), bases.file_of(TINY.without("helpful"), 0)}
    monkeypatch.setattr(bases, "code", lambda: "another")
    assert len(names | {bases.file_of(TINY, 0)}) == 4


def test_code_that_was_changed_in_memory_takes_no_base_of_the_files(folder, monkeypatch):
    monkeypatch.setattr(base, "ON_THE_WEB", 100)
    said = fetch(folder)
    assert len(said) == 2 and all("the code that runs here is not that of its files" in s for s in said) and not kept()


def test_a_world_that_came_out_otherwise_takes_no_base_of_the_other(folder):
    relist(lambda entry: entry.update(world="0" * 20))
    [said] = fetch(folder)
    assert "its world has other people or words" in said


def elsewhere(entry):
    """As if it had been trained with another torch, whose fingerprint is another one."""
    versions = {**entry["trained"]["versions"], "torch": "9.9.9", "python": "3.99"}
    entry["trained"] = {"versions": versions, "machine": {**entry["trained"]["machine"], "capability": "ABACUS"}}
    entry["fingerprint"] = ["0" * 20, versions]


def test_a_base_of_another_torch_is_used_and_said_to_be_one_for_good(written, folder, tmp_path, capsys):
    relist(elsewhere)
    assert fetch(folder) == []
    out = capsys.readouterr().out
    [said] = [line for line in out.splitlines() if "9.9.9" in line]
    assert "python 3.99" in said and "ABACUS" in said and "numbers may differ in their last digits" in said
    assert f"Here: {bases._said(bases._here(TINY, 0)[1])[:20]}" in said and said.count("torch ") == 2
    assert same(base.load(0, TINY).model, written[1][0])
    notes = [json.loads(f.read_text()) for f in cache.folder().glob(f"*/{cache.MANIFEST}")]
    assert sorted(n["trained"]["versions"]["torch"] == "9.9.9" for n in notes) == [False, True]
    assert all(e.made.startswith("fetched: _pretrain(") and not e.other for e in cache.entries())
    bases.write(tmp_path / "again", SEEDS, [TINY])  # it is passed on as what it is
    assert index(tmp_path / "again")[first(folder).name]["trained"]["versions"]["torch"] == "9.9.9"


def library(place, **files):
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / f"{name}.py").write_text(text)
    return functools.partial(source.digest, "a", {"apart"}, place)


def test_what_makes_something_is_its_syntax_and_that_of_all_that_it_imports(tmp_path):
    files = {
        "a": "from . import b\nfrom .apart import x\ndef f(y=None):\n    return f'{y!r:>{b.WIDTH}}'\n",
        "b": "import pkg.c\nfrom pkg.d import z\nWIDTH = 3\n", "c": "import os\n", "d": "from .a import f\nz = 1\n",
        "apart": "x = 1\n", "unused": "x = 1\n",
    }  # fmt: skip
    digest = library(tmp_path / "pkg", **files)
    before = digest()
    for name, text in {
        "a": '"""What it is."""\nfrom . import b  # why\nfrom .apart import x\n\n\n'
        + files["a"].partition("x\n")[2].replace("    return", "    '''Says it.'''\n    return"),
        "apart": "x = 2\n",
        "unused": "x = 2\n",
    }.items():
        library(tmp_path / "pkg", **{name: text})
        assert digest() == before, name
    for name, text in {"b": files["b"].replace("3", "4"), "c": "import sys\n", "d": files["d"] + "z = 2\n"}.items():
        library(tmp_path / "pkg", **{name: text})
        assert digest() != before, name
        library(tmp_path / "pkg", **{name: files[name]})
    assert digest() == before
    with pytest.raises(FileNotFoundError):
        source.digest("none", (), tmp_path / "pkg")


def test_the_digest_of_source_is_the_same_with_every_version_of_python():
    """It was taken with 3.11, 3.12 and 3.13. The text has what their trees or their printing of them differ in."""
    text = "def f[T](a: int, *, b=-1) -> None:\n    return f'{a!r:>{b}}{{' 'x' f\"{'y'}\"\n"
    text = text.replace("[T]", "") + "class C:\n    '''Docs.'''\n    x: int = 0\n\n    def g(self): pass\n"
    assert bases.hashlib.sha256(source._syntax(source.ast.parse(text)).encode()).hexdigest()[:12] == "515e2751aaee"


def test_the_library_lists_all_shared_bases_of_this_code():
    listed = bases.read_list()
    assert listed["code"] == bases.code(), "what makes the bases has changed since the list was written: make bases"
    wanted = {bases.file_of(p, s) for p in base.SHARED for s in bases.SEEDS}
    assert wanted <= set(listed["bases"]), "make bases"
    for file, entry in listed["bases"].items():
        assert (
            len(entry["sha256"]) == 64
            and 0 < entry["bytes"] < 2_000_000
            and entry["of"]
            and file.endswith(".safetensors")
        )
        assert set(entry["trained"]) == {"versions", "machine"} and "torch" in entry["trained"]["versions"]


# ---- from an address


class Answers(SimpleHTTPRequestHandler):
    """Serves a folder; what is asked for is noted; `odd` may answer in a way of its own, and says if it did."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if not (self.server.odd and self.server.odd(self)):
            super().do_GET()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """That somebody hangs up is what some of these tests are about."""


@contextmanager
def serving(folder, odd=None):
    server = Server(("127.0.0.1", 0), functools.partial(Answers, directory=str(folder)))
    server.asked, server.odd = [], odd
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler, length, content=b""):
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)
    return True


def test_bases_are_fetched_from_an_address(written, folder, capsys):
    with serving(folder) as (address, asked):
        assert fetch(f"{address}/") == []
        assert asked == [f"/{bases.file_of(TINY, s)}" for s in SEEDS]
    assert same(base.load(1, TINY).model, written[1][1]) and len({f.parent for f in kept()}) == 2


def breaks_off(handler):
    content = (Path(handler.directory) / handler.path[1:]).read_bytes()
    answer(handler, len(content), content[: len(content) // 2])
    handler.close_connection = True
    return True


def never_ends(handler):
    answer(handler, 10**12)
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        handler.server.stopped = True
    return True


def has_none(handler):
    handler.send_error(404)
    return True


def sends_on_to(where):
    def answers(handler):
        handler.send_response(302)
        handler.send_header("Location", where)
        handler.end_headers()
        return True

    return answers


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (breaks_off, "is not the file that is expected"),
        (never_ends, "more than"),
        (has_none, "is answered with 404"),
        (sends_on_to("ftp://127.0.0.1/x"), "nothing is fetched from ftp://127.0.0.1/x"),
        (sends_on_to("http://example.org/x"), "nothing is fetched from http://example.org/x"),
        (sends_on_to("file:///etc/hosts"), "url 'file:///etc/hosts' is not allowed"),
    ],
    ids=["breaks off", "never ends", "404", "ftp", "http", "file"],
)
def test_an_address_that_does_not_send_the_file_leaves_nothing(folder, odd, says):
    with serving(folder, lambda h: h.path.endswith(first(folder).name) and odd(h)) as (address, _):
        [said] = fetch(address)
    assert says in said and "trained where it is needed" in said
    assert len({f.parent for f in kept()}) == 1 and not list(cache.folder().glob(".draft*"))


def test_an_address_may_send_on_to_another_place_of_its_kind(folder):
    with (
        serving(folder) as (there, _),
        serving(folder, lambda h: sends_on_to(f"{there}{h.path}")(h)) as (address, asked),
    ):
        assert fetch(address) == [] and len(asked) == 2


def silence(handler):
    answer(handler, 1000, b"x")
    time.sleep(3)
    return True


def drip(handler):
    answer(handler, 1000)
    for _ in range(60):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(("odd", "limit"), [(silence, "SILENT"), (drip, "SLOW")], ids=["silent", "slow"])
def test_an_address_is_not_waited_for_and_the_others_are_not_asked_for(folder, monkeypatch, capsys, odd, limit):
    monkeypatch.setattr(download, limit, 0.5)
    begun = time.monotonic()
    with serving(folder, odd) as (address, asked):
        failed = fetch(address)
        assert time.monotonic() - begun < 30 and len(asked) == 1
    assert len(failed) == 2 and all(address in s and "cannot be read (TimeoutError" in s for s in failed) and not kept()
    assert capsys.readouterr().err.count("\n") == 1


def test_an_address_where_nobody_answers_is_said_once(folder, capsys):
    with serving(folder) as (address, _):
        pass
    assert len(fetch(address)) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "no more is asked for" in said.err and "2 to be trained" in said.out


@pytest.mark.parametrize(
    "where",
    ["ftp://host/x", "file:///tmp", "http://example.org/x", "https://", "hf://owner/name", "/no/such/folder", ""],
)
def test_what_is_neither_an_address_nor_a_folder_is_refused(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if where:
        with pytest.raises(ValueError, match="an address that begins with https://"):
            download.place(where)
    assert download.place("https://host/x") == "https://host/x" and download.place(".") == str(tmp_path)


def test_two_processes_fetch_each_base_once(folder):
    with serving(folder) as (address, asked):
        command = [sys.executable, "-c", FETCHES, address, str(bases.LISTED)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        two = [subprocess.Popen(command, **pipes) for _ in range(2)]
        assert [p.stdout.readline() for p in two] == ["ready\n"] * 2
        for p in two:
            p.stdin.write("go\n")
            p.stdin.flush()
        said = [p.communicate(timeout=240) for p in two]
        assert [p.returncode for p in two] == [0, 0], said
        assert sorted(asked) == sorted(f"/{bases.file_of(TINY, s)}" for s in SEEDS), said
    assert len({f.parent for f in kept()}) == 2


# ---- a cache that cannot be used, and the command


def test_a_base_that_cannot_be_kept_is_not_called_fetched(folder, monkeypatch, capsys):
    (folder / "file").write_text("in the way")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(folder / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be used"):
        failed = fetch(folder)
    assert len(failed) == 2 and "could not be kept" in failed[0] and "set ALIGNLAB_CACHE" in failed[0]
    assert "0 fetched" in capsys.readouterr().out


def test_the_command_takes_an_argument_or_the_environment_and_says_so(folder, monkeypatch, capsys):
    monkeypatch.setattr(base, "SHARED", (TINY,))
    for unset in (None, ""):
        monkeypatch.delenv("ALIGNLAB_BASES", raising=False)
        if unset is not None:
            monkeypatch.setenv("ALIGNLAB_BASES", unset)
        with pytest.raises(SystemExit) as left:
            bases.main(["fetch"])
        assert left.value.code == 2 and "or set ALIGNLAB_BASES to one" in capsys.readouterr().err
    monkeypatch.setenv("ALIGNLAB_BASES", str(folder / "nowhere"))
    with pytest.raises(SystemExit):
        bases.main(["fetch"])
    flip(first(folder))
    monkeypatch.setenv("ALIGNLAB_BASES", str(folder))
    assert bases.main(["fetch"]) == 1 and "1 fetched" in capsys.readouterr().out
    assert bases.main(["write", str(folder)]) == 0 and set(index(folder)) == {bases.file_of(TINY, s) for s in (0, 1, 2)}
    assert bases.main(["fetch"]) == 0 and "3 in the cache already" in capsys.readouterr().out
