"""Models on disk: found again, made again when damaged, never half written, made once by two processes."""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from alignlab.models import cache, tokens
from alignlab.models.llama import make_model

SETTINGS = {"width": 32, "seed": 1}
# A program that wants one model from the cache and takes a while to make it.
WANTS = """
import sys, time
from pathlib import Path
from alignlab import cache, tokens
from alignlab.model import make_model

def make():
    with open(sys.argv[1], "a") as f:
        f.write("made\\n")
    time.sleep(float(sys.argv[2]))
    tokenizer = tokens.make_tokenizer(["a", "b"])
    return make_model(tokenizer, width=32, depth=1, seed=5), tokenizer

print("ready", flush=True)
model, _ = cache.cached("base", {"seed": 5}, make)
print(sum(p.double().sum().item() for p in model.parameters()))
"""


class Maker:
    """Counts how often a model was really made."""

    def __init__(self, seed=1):
        self.calls, self.seed = 0, seed

    def __call__(self):
        self.calls += 1
        tokenizer = tokens.make_tokenizer(["red", "green"])
        return make_model(tokenizer, width=32, depth=1, seed=self.seed), tokenizer


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALIGNLAB_CACHE", str(folder))
    return folder


@pytest.fixture
def make():
    return Maker()


def kept(place):
    """What is in the cache folder, locks aside."""
    return sorted(p.name for p in place.iterdir() if p.suffix != ".lock")


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def get(make, settings=None, name="base"):
    """`cached`, which must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return cache.cached(name, settings or SETTINGS, make)


# ---- hits and misses


def test_the_second_time_the_same_model_is_loaded(make):
    model, tokenizer = get(make)
    again, tokenizer_again = get(make)
    assert make.calls == 1 and again is not model and equal(model, again)
    ids = tokenizer("red green", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    assert tokenizer_again("red green")["input_ids"] == ids[0].tolist()
    assert not again.training and tokenizer_again.chat_template == tokenizer.chat_template


@pytest.mark.parametrize("change", [{"seed": 2}, {"width": 32.5}, {"extra": None}])
def test_other_settings_are_another_entry(make, change):
    get(make)
    get(make, SETTINGS | change)
    assert make.calls == 2


def test_the_order_of_settings_does_not_matter_and_the_name_does(make):
    get(make)
    get(make, dict(reversed(SETTINGS.items())))
    assert make.calls == 1
    get(make, name="other")
    assert make.calls == 2


@pytest.mark.parametrize("module", cache.MODULES)
def test_a_changed_module_is_another_entry(make, monkeypatch, module):
    get(make)
    source = inspect.getsource

    def edited(thing):
        return source(thing) + ("\n# edited" if getattr(thing, "__name__", "") == f"alignlab.{module}" else "")

    monkeypatch.setattr("alignlab.cache.inspect.getsource", edited)
    get(make)
    assert make.calls == 2


def test_the_modules_that_shape_a_model_are_in_the_key(monkeypatch):
    assert set(cache.MODULES) >= {"world", "text", "tokens", "model", "train"}
    before = cache.key(SETTINGS)
    assert cache.key(SETTINGS, also=[kept]) != before
    monkeypatch.setattr(torch, "__version__", "0.0.1")
    assert cache.key(SETTINGS) != before


def test_settings_that_are_no_plain_values_are_refused(make):
    with pytest.raises(TypeError, match="plain values .*Maker"):
        get(make, {"maker": make})
    assert make.calls == 0


def test_the_folder_can_be_chosen_and_has_a_default(monkeypatch, place, tmp_path):
    assert cache.folder() == place
    monkeypatch.delenv("ALIGNLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "alignlab"


# ---- damage


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "one bit of the weights": (lambda e: flip(e / "model.safetensors"), "model.safetensors has changed"),
    "weights cut short": (lambda e: os.truncate(e / "model.safetensors", 100), "model.safetensors has changed"),
    "a missing tokenizer": (lambda e: (e / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "a changed config": (lambda e: flip(e / "config.json"), "config.json has changed"),
    "a manifest cut short": (lambda e: os.truncate(e / cache.MANIFEST, 40), f"no readable {cache.MANIFEST}"),
    "an empty manifest": (lambda e: os.truncate(e / cache.MANIFEST, 0), f"no readable {cache.MANIFEST}"),
    "no manifest": (lambda e: (e / cache.MANIFEST).unlink(), f"no readable {cache.MANIFEST}"),
    "a manifest of another kind": (lambda e: (e / cache.MANIFEST).write_text("[1]"), f"no readable {cache.MANIFEST}"),
    "an empty one": (lambda e: (e / cache.MANIFEST).write_text('{"files": {}}'), "manifest.json names no files"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_reported_and_made_again(make, place, how):
    model, _ = get(make)
    (entry,) = kept(place)
    damage, said = DAMAGE[how]
    damage(place / entry)
    with pytest.warns(UserWarning, match=f"cache entry {entry} is damaged \\({said}.*made again"):
        again, _ = cache.cached("base", SETTINGS, make)
    assert make.calls == 2 and equal(model, again)
    get(make)
    assert make.calls == 2  # the new entry is whole


def test_loading_a_damaged_entry_says_which_file(make, place):
    get(make)
    (entry,) = kept(place)
    (place / entry / "config.json").unlink()
    with pytest.raises(cache.DamagedEntry, match="config.json is missing"):
        cache.load(place / entry)


# ---- a folder that cannot be used, and makes and saves that fail


def test_a_folder_that_cannot_be_made_is_done_without(make, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "file" / "cache"))
    for calls in (1, 2):
        with pytest.warns(UserWarning, match="file/cache cannot be used .* Set ALIGNLAB_CACHE"):
            model, _ = cache.cached("base", SETTINGS, make)
        assert make.calls == calls and equal(model, Maker()()[0])


def as_somebody_who_may_not_write(log):
    """Run WANTS without root's right to write where nobody may."""
    command = [sys.executable, "-c", WANTS, str(log), "0"]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere, and there is no setpriv to give that up")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(os.name == "nt", reason="folders have other rights on Windows")
def test_a_read_only_cache_is_read_and_done_without_where_it_is_empty(tmp_path, place):
    log = tmp_path / "log"
    before = subprocess.run([sys.executable, "-c", WANTS, str(log), "0"], capture_output=True, text=True, timeout=120)
    entry = next(p for p in place.iterdir() if p.is_dir())
    away = tmp_path / "away"
    for lock in place.glob("*.lock"):
        lock.unlink()
    try:
        place.chmod(0o555)
        found = as_somebody_who_may_not_write(log)
        assert found.stdout == before.stdout and log.read_text() == "made\n"  # by the first run only
        assert "Warning" not in found.stderr
        place.chmod(0o755)
        entry.rename(away)
        place.chmod(0o555)
        made = as_somebody_who_may_not_write(log)
        assert made.stdout == before.stdout and log.read_text() == "made\nmade\n"
        assert "cannot be used" in made.stderr and "Set ALIGNLAB_CACHE" in made.stderr
    finally:
        place.chmod(0o755)
    assert kept(place) == []


def test_a_make_that_fails_leaves_nothing_and_blocks_nobody(make, place):
    def fails():
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        get(fails)
    assert kept(place) == []
    get(make)
    assert make.calls == 1 and len(kept(place)) == 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_a_save_that_is_interrupted_leaves_nothing(make, place, monkeypatch, interrupt):
    model, tokenizer = make()

    def stop(*_, **__):
        raise interrupt

    monkeypatch.setattr(type(tokenizer), "save_pretrained", stop)
    with pytest.raises(interrupt):
        get(lambda: (model, tokenizer))
    assert kept(place) == []
    monkeypatch.undo()


def test_a_save_that_fails_is_reported_and_the_model_is_not_lost(make, place, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr("alignlab.cache.os.replace", full)
        with pytest.warns(UserWarning, match="could not be kept .*No space left"):
            model, _ = cache.cached("base", SETTINGS, make)
    assert make.calls == 1 and equal(model, Maker()()[0]) and kept(place) == []
    get(make)
    assert make.calls == 2 and len(kept(place)) == 1


def test_a_full_disk_is_reported_and_the_model_is_not_lost(make, place):
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # less than the weights
    try:
        with pytest.warns(UserWarning, match="could not be kept"):
            model, _ = cache.cached("base", SETTINGS, make)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert equal(model, Maker()()[0]) and kept(place) == []


def test_saving_again_replaces_the_whole_entry(make, place):
    first, tokenizer = Maker(seed=1)()
    second, _ = Maker(seed=2)()
    place.mkdir()
    for model in (first, second):
        cache.save(place / "entry", model, tokenizer, SETTINGS)
        assert equal(cache.load(place / "entry")[0], model)
    assert kept(place) == ["entry"]
    assert json.loads((place / "entry" / cache.MANIFEST).read_text())["settings"] == SETTINGS


# ---- several processes


def start(log, seconds):
    command = [sys.executable, "-c", WANTS, str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_the_cache_usable_and_two_make_a_model_once(tmp_path, place):
    log = tmp_path / "log"
    victim = start(log, 600)
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert log.exists(), "the first process never began to make its model"
    two = [start(log, 1.5) for _ in range(2)]
    for process in two:
        assert process.stdout.readline() == "ready\n"
    time.sleep(1)  # both are waiting for the one that is about to be killed
    assert log.read_text() == "made\n" and kept(place) == []
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    said = [p.communicate(timeout=120) for p in two]
    assert [p.returncode for p in two] == [0, 0], said
    assert log.read_text() == "made\nmade\n"  # by the killed one, and then by one of the two
    assert said[0][0] == said[1][0] != ""
    assert len(kept(place)) == 1
    shutil.rmtree(place)


KILLED_WHILE_SAVING = """
import os, random, signal, sys, time, warnings
import torch
from pathlib import Path
from alignlab import cache, tokens
from alignlab.model import make_model

torch.set_num_threads(1)
tokenizer = tokens.make_tokenizer(["a", "b"])
models = [make_model(tokenizer, width=32, depth=1, seed=s) for s in (1, 2, 3)]
place, dice, seen = cache.folder() / f"base-{cache.key({})}", random.Random(0), {"draft": 0, "kept": 0, "made": 0}
place.parent.mkdir(parents=True)

def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

def make():
    seen["made"] += 1
    return models[2], tokenizer

for turn in range(30):
    child = os.fork()
    if not child:
        while True:
            for model in models[:2]:
                cache.save(place, model, tokenizer, {})
    time.sleep(dice.uniform(0.005, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen["draft"] += any(place.parent.glob(".draft-*"))
    made = seen["made"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an entry may be damaged when the old one was about to be removed
        found, _ = cache.cached("base", {}, make)
    whole = models[2:] if seen["made"] > made else models
    assert any(equal(found, m) for m in whole), f"turn {turn}: a model that nobody saved"
    seen["kept"] += seen["made"] == made
    assert cache.load(place) and not [p for p in place.parent.glob(".draft-*") if seen["made"] > made]
print(seen)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be killed often and soon")
def test_a_process_killed_while_it_saves_leaves_a_whole_entry_or_none():
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = ast.literal_eval(done.stdout)
    assert seen["draft"] > 3, f"hardly any run was killed in the middle: {seen}"
    assert seen["kept"] > 3, f"hardly any entry survived: {seen}"


def test_a_draft_that_a_killed_run_left_is_cleared_away(make, place):
    stale = place / f".draft-base-{cache.key(SETTINGS)}-left"
    stale.mkdir(parents=True)
    get(make)
    assert kept(place) == [f"base-{cache.key(SETTINGS)}"]


# ---- what other versions left


def test_an_entry_of_another_version_is_told_apart_and_pruned(make, place, monkeypatch, capsys):
    get(make)
    with monkeypatch.context() as m:
        m.setattr(cache.transformers, "__version__", "5.0.0rc9")
        get(make)
    source = inspect.getsource
    with monkeypatch.context() as m:
        m.setattr("alignlab.cache.inspect.getsource", lambda thing: source(thing) + "# edited")
        get(make)
    get(make)
    assert make.calls == 3  # each version made its own, and the first one is still found
    bare = place / "base-of-an-older-alignlab"
    shutil.copytree(next(e.place for e in cache.entries() if not e.stale), bare)
    manifest = json.loads((bare / cache.MANIFEST).read_text())
    del manifest["made_by"]
    (bare / cache.MANIFEST).write_text(json.dumps(manifest))
    (place / "mine").mkdir()
    (place / "mine" / cache.MANIFEST).write_text('{"files": {"a.js": "0"}}')  # not of the cache

    reasons = sorted(e.stale for e in cache.entries())
    assert reasons == [
        "", "made by an older alignlab", "made by another alignlab",
        f"made with transformers 5.0.0rc9, here is {cache.transformers.__version__}",
        cache.FOREIGN,
    ]  # fmt: skip
    assert cache.main([]) == 0
    said = capsys.readouterr().out
    assert "5 there" in said and "3 of these" in said and "--prune removes them" in said
    assert cache.main(["--prune"]) == 0
    assert "3 removed" in capsys.readouterr().out
    assert [p.name for p in cache.folder().iterdir() if p.is_dir() and p.name != "mine"] == [
        f"base-{cache.key(SETTINGS)}"
    ]
    assert (place / "mine" / cache.MANIFEST).exists()  # nobody else's files are touched
    get(make)
    assert make.calls == 3 and cache.prune() == ([], [])


def test_functions_may_come_as_they_are_made(make, place):
    settings = {"modules": iter(["train", "world"]), "also": (f for f in [tokens.pack])}
    cache.cached("base", SETTINGS, make, **settings)
    cache.cached("base", SETTINGS, make, modules=["train", "world"], also=[tokens.pack])
    assert make.calls == 1 and [e.stale for e in cache.entries()] == [""]


def test_a_file_that_is_edited_while_a_model_is_made_is_not_what_made_it(make, monkeypatch):
    source = inspect.getsource

    def edits_meanwhile():
        monkeypatch.setattr("alignlab.cache.inspect.getsource", lambda thing: source(thing) + "# edited")
        return make()

    cache.cached("base", SETTINGS, edits_meanwhile)
    assert [e.stale for e in cache.entries()] == ["made by another alignlab"]


def test_an_empty_cache_is_listed_as_empty(place, capsys):
    assert cache.main([]) == 0
    assert f"{place}: 0 there, 0.0 MB" in capsys.readouterr().out


def test_an_entry_of_a_changed_function_is_stale(make, place, monkeypatch):
    cache.cached("base", SETTINGS, make, also=[tokens.pack, kept])  # one of the library, one of a notebook
    assert [e.stale for e in cache.entries()] == [""]
    cache.cached("twin", SETTINGS, make, also=[tokens.pack])
    source = inspect.getsource
    monkeypatch.setattr(
        "alignlab.cache.inspect.getsource", lambda thing: source(thing) + ("#" if thing is tokens.pack else "")
    )
    assert [e.stale for e in cache.entries()] == ["", "made by another alignlab"]
    monkeypatch.delattr(tokens, "pack")
    assert "made by another alignlab" in {e.stale for e in cache.entries()}


@pytest.mark.parametrize("made", [{"modules": "no_such_module"}, {"modules": 3}, "text", {"modules": "train"}])
def test_a_manifest_of_another_shape_is_stale_and_stops_nothing(make, place, made):
    get(make)
    (entry,) = cache.entries()
    manifest = json.loads((entry.place / cache.MANIFEST).read_text())
    (entry.place / cache.MANIFEST).write_text(json.dumps(manifest | {"made_by": made}))
    assert [e.stale for e in cache.entries()] == ["made by another alignlab"]


def test_what_cannot_be_removed_is_named_and_stays(make, place, monkeypatch, capsys):
    with monkeypatch.context() as m:
        m.setattr(cache.transformers, "__version__", "5.0.0rc9")
        get(make)

    def refuses(*_):
        raise PermissionError("only to be read")

    with monkeypatch.context() as m:
        m.setattr("alignlab.cache.os.replace", refuses)
        assert cache.main(["--prune"]) == 1
    said = capsys.readouterr().out
    assert "could not be removed: only to be read" in said and "0 removed" in said
    assert len(cache.entries()) == 1 and cache.main(["--prune"]) == 0 and not cache.entries()
