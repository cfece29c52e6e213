"""Models on disk: found again, made again when damaged, never half written, made once by two processes."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from alignlab.models import cache, fingerprint, llama, lock, tokens
from alignlab.models.llama import make_model
from filelock import FileLock
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

# A program that wants one model from the cache and takes a while to make it.
WANTS = """
import os, sys, time
from alignlab.models import cache, tokens
from alignlab.models.llama import make_model

def make(seed):
    with open(os.environ["MADE"], "a") as f:
        f.write("made\\n")
    time.sleep(float(os.environ["SECONDS"]))
    tokenizer = tokens.word_tokenizer(["a", "b"])
    return make_model(tokenizer, width=32, depth=1, seed=seed), tokenizer

print("ready", flush=True)
model, _ = cache.cached("base", make, 5)
print(sum(p.double().sum().item() for p in model.parameters()))
"""


def make(seed=1, words=("red", "green")):
    """Makes a model, and notes so where no key sees it: by a name that stands in the environment."""
    with open(os.environ["MADE"], "a") as f:
        f.write("made\n")
    tokenizer = tokens.word_tokenizer(words)
    return make_model(tokenizer, width=32, depth=1, seed=seed), tokenizer


def calls():
    """How often a model was really made."""
    log = Path(os.environ["MADE"])
    return log.read_text().count("made") if log.exists() else 0


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALIGNLAB_CACHE", str(folder))
    monkeypatch.setenv("MADE", str(tmp_path / "made"))
    monkeypatch.setenv("SECONDS", "0")
    return folder


def kept(place):
    """What is in the cache folder, locks aside."""
    return sorted(p.name for p in place.iterdir() if p.suffix != ".lock")


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k].cpu(), b[k].cpu()) for k in a)


def get(*arguments, name="base", by=make):
    """`cached`, which must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return cache.cached(name, by, *arguments)


# ---- hits and misses


def test_the_second_time_the_same_model_is_loaded():
    model, tokenizer = get()
    again, tokenizer_again = get()
    assert calls() == 1 and again is not model and equal(model, again)
    ids = tokenizer("red green", return_tensors="pt")["input_ids"]
    said = [m(input_ids=ids.to(m.device)).logits.cpu() for m in (again, model)]
    torch.testing.assert_close(*said, rtol=1e-4, atol=1e-5)
    assert tokenizer_again("red green")["input_ids"] == ids[0].tolist()
    assert not again.training and tokenizer_again.chat_template == tokenizer.chat_template


def test_other_arguments_another_name_and_another_function_are_other_entries():
    get(1), get(2), get(1, ("red",)), get(1, name="twin"), get(by=partial(make, seed=3)), get(1, by=lambda s: make(s))
    assert calls() == 6
    get(1), get(2), get(1, ("red",)), get(1, name="twin"), get(by=partial(make, seed=3)), get(1, by=lambda s: make(s))
    assert calls() == 6


def test_what_the_function_calls_is_in_the_key(monkeypatch):
    get()
    monkeypatch.setattr(llama, "HEAD", 16)
    get()
    assert calls() == 2


@pytest.mark.parametrize("what", ["device", "capability", "threads", "torch", "transformers", "tokenizers"])
def test_another_machine_and_other_versions_make_their_own(monkeypatch, what):
    get()
    if what in ("device", "capability", "threads"):
        here = fingerprint.machine()
        monkeypatch.setattr(fingerprint, "machine", lambda: here | {what: "another"})
    else:
        installed(monkeypatch, what)
    get()
    assert calls() == 2


def installed(monkeypatch, package, version="0.0.1"):
    before = fingerprint._version
    monkeypatch.setattr(fingerprint, "_version", lambda name: version if name == package else before(name))


def test_the_machine_is_what_torch_says(monkeypatch):
    before, threads = fingerprint.machine(), torch.get_num_threads()
    assert before["capability"] == torch.backends.cpu.get_cpu_capability() and before["threads"] == str(threads)
    try:
        torch.set_num_threads(threads + 1)
        assert fingerprint.machine() != before
    finally:
        torch.set_num_threads(threads)


def test_arguments_without_a_value_are_refused():
    with pytest.raises(TypeError, match="argument 1 is a TextIOWrapper, which has no value"):
        get(sys.__stderr__)
    assert calls() == 0


@pytest.mark.parametrize("name", ["", "3/4 celebrities", "../base", ".hidden", "a b", "base\n"])
def test_a_name_that_is_no_name_of_a_folder_is_refused(name):
    with pytest.raises(ValueError, match="the name of a cache entry is .*: use letters, digits"):
        get(name=name)
    assert calls() == 0


def test_a_model_that_a_run_came_by_is_found_as_if_it_had_been_made():
    made = make(3)
    cache.keep("rot13", made, make, 3)
    assert equal(get(3, name="rot13")[0], made[0]) and calls() == 1
    cache.keep("rot13", make(4), make, 3)  # what is there stays
    assert equal(get(3, name="rot13")[0], made[0])


def test_a_key_of_ones_own_is_all_there_is_but_for_versions(monkeypatch):
    for content, times in (("abc", 1), ("abc", 1), ("abd", 2)):
        cache.kept("gguf", content, make, {"made": "from a file"})
        assert calls() == times
    installed(monkeypatch, "transformers")
    cache.kept("gguf", "abc", make)
    assert calls() == 3


def test_no_progress_bar_is_shown_and_the_readers_setting_stays(capfd):
    logging.enable_progress_bar()
    try:
        get(), get()
        assert capfd.readouterr() == ("", "") and logging.is_progress_bar_enabled()
    finally:
        logging.disable_progress_bar()


@pytest.mark.parametrize("said", ["~/kept", "{home}/./a/../kept", "{home}/kept/"])
def test_the_folder_is_expanded_and_normalised(monkeypatch, tmp_path, said):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("ALIGNLAB_CACHE", said.format(home=tmp_path))
    assert cache.folder() == tmp_path / "kept"


def test_a_folder_without_a_root_is_meant_from_here_and_has_a_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNLAB_CACHE", "here")
    assert cache.folder() == Path.cwd() / "here"
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
def test_a_damaged_entry_is_reported_and_made_again(place, how):
    model, _ = get()
    (entry,) = kept(place)
    damage, said = DAMAGE[how]
    damage(place / entry)
    with pytest.warns(UserWarning, match=f"cache entry {entry} is damaged \\({said}.*made again"):
        again, _ = cache.cached("base", make)
    assert calls() == 2 and equal(model, again)
    get()
    assert calls() == 2  # the new entry is whole


def test_loading_a_damaged_entry_says_which_file(place):
    get()
    (entry,) = kept(place)
    (place / entry / "config.json").unlink()
    with pytest.raises(cache.DamagedEntry, match="config.json is missing"):
        cache.load(place / entry)
    with pytest.raises(FileNotFoundError):
        cache.load(place / "another")


# ---- a folder that cannot be used, and makes and saves that fail


def test_a_folder_that_cannot_be_made_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "file" / "cache"))
    for times in (1, 2):
        with pytest.warns(UserWarning, match="file/cache cannot be used .* Set ALIGNLAB_CACHE") as said:
            model, _ = cache.cached("base", make)
        assert calls() == times and len(said) == 1
    assert equal(model, make()[0])


def as_another(program, *arguments):
    """What `program(*arguments)` returns to somebody with another user's id and a usual umask."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(54321)
            os.setuid(54321)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                program(*arguments)
            os.write(write, "\n".join(str(w.message) for w in said).encode())
            os._exit(0)
        except BaseException as e:
            os.write(write, repr(e).encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said
    return said


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A cache folder that every user of the machine can reach."""
    if torch.cuda.is_available():
        pytest.skip("a process that uses a GPU cannot be forked")
    if not hasattr(os, "fork") or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        log = Path(folder) / "made"
        log.touch()
        log.chmod(0o666)
        monkeypatch.setenv("MADE", str(log))
        monkeypatch.setenv("ALIGNLAB_CACHE", f"{folder}/cache")
        before = os.umask(0o022)
        try:
            yield Path(folder) / "cache"
        finally:
            os.umask(before)


def test_another_user_reads_what_one_has_made(shared):
    get()
    assert as_another(get) == ""
    assert calls() == 1
    modes = {f.name: oct(f.stat().st_mode & 0o777) for f in shared.rglob("*") if f.is_file()}
    assert set(modes.values()) == {"0o644"}, modes
    assert {oct(f.stat().st_mode & 0o777) for f in shared.rglob("*") if f.is_dir()} == {"0o755"}


def test_who_shares_a_group_may_write_and_who_wants_to_be_alone_is(shared):
    os.umask(0o002)
    get()
    assert {f.stat().st_mode & 0o777 for f in shared.rglob("*") if f.is_file()} == {0o664}
    os.umask(0o077)
    get(2)
    assert {f.stat().st_mode & 0o777 for f in shared.rglob("*.safetensors")} == {0o664, 0o600}


@pytest.mark.parametrize("hide", ["an entry", "a file", "the folder", "a folder above"])
def test_what_may_not_be_read_is_made_anew_with_one_line(shared, monkeypatch, hide):
    get()
    hidden = next(shared.glob("base-*[!k]"))
    what = {"an entry": hidden, "a file": hidden / "model.safetensors", "the folder": shared}.get(hide, shared.parent)
    what.chmod(0o700 if what.is_dir() else 0o600)
    if hide == "a folder above":
        monkeypatch.setenv("MADE", os.devnull)
    said = as_another(cache.cached, "base", make)
    assert "cannot be used" in said and "Set ALIGNLAB_CACHE" in said and said.count("\n") == 0
    assert hidden.exists()


def test_where_one_may_only_read_what_is_missing_is_made_with_one_line(shared):
    get()
    said = as_another(cache.cached, "base", make, 2)
    assert "cannot be used" in said and said.count("\n") == 0 and calls() == 2
    assert len(kept(shared)) == 1


def test_a_make_that_fails_leaves_nothing_and_blocks_nobody(place):
    def fails():
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        get(by=fails)
    assert kept(place) == []
    get()
    assert calls() == 1 and len(kept(place)) == 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_a_save_that_is_interrupted_leaves_nothing(place, monkeypatch, interrupt):
    def stop(*_, **__):
        raise interrupt

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", stop)
    with pytest.raises(interrupt):
        get()
    assert kept(place) == []


def test_a_save_that_fails_is_reported_and_the_model_is_not_lost(place, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr("alignlab.models.cache.os.replace", full)
        with pytest.warns(UserWarning, match="could not be kept .*No space left"):
            model, _ = cache.cached("base", make)
    assert calls() == 1 and kept(place) == []
    get()
    assert calls() == 2 and len(kept(place)) == 1 and equal(model, get()[0])


def test_a_full_disk_is_reported_and_the_model_is_not_lost(place):
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # less than the weights
    try:
        with pytest.warns(UserWarning, match="could not be kept"):
            model, _ = cache.cached("base", make)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert equal(model, make()[0]) and kept(place) == []


def test_saving_again_replaces_the_whole_entry(place):
    first, tokenizer = make(1)
    second, _ = make(2)
    place.mkdir()
    for model in (first, second):
        cache.save(place / "entry", model, tokenizer, {"made": "twice"})
        assert equal(cache.load(place / "entry")[0], model)
    assert kept(place) == ["entry"]
    assert json.loads((place / "entry" / cache.MANIFEST).read_text())["made"] == "twice"


# ---- several processes


@contextmanager
def held(file):
    """Another process holds the lock `file`: a second descriptor is as good as one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file):
        yield


def lock_of(*arguments):
    """Where the lock file of `get(*arguments)` is."""
    before = set(cache.folder().glob("*.lock"))
    get(*arguments)
    [file] = set(cache.folder().glob("*.lock")) - before
    return file


def test_who_waits_is_told_for_whom_and_gets_the_model(monkeypatch, capfd):
    file = lock_of()
    monkeypatch.setattr(lock, "SOON", 0.1)
    with held(file):
        waiting = threading.Thread(target=get)
        waiting.start()
        time.sleep(1)
        assert waiting.is_alive()
    waiting.join(60)
    said = capfd.readouterr().err
    assert said == f"another process is making {file.stem} (lock file {file}): waiting for it\n" and calls() == 1


def test_nobody_waits_for_ever(monkeypatch, capfd, place):
    file = lock_of()
    shutil.rmtree(file.with_suffix(""))
    monkeypatch.setattr(lock, "SOON", 0.1)
    monkeypatch.setattr(lock, "LATE", 0.1)
    with held(file), pytest.warns(UserWarning, match=f"another process has held {file} .*: going on without it"):
        cache.cached("base", make)
    assert calls() == 2 and kept(place) == []


def no_locks_as_filelock_3_says_it(*_, **__):
    raise NotImplementedError("FileSystem does not appear to support flock")


def no_locks_as_the_system_says_it(*_, **__):
    raise OSError(errno.ENOLCK, "No locks available")


def no_locks_and_no_word_of_it(*_, **__):
    raise BlockingIOError


@pytest.mark.parametrize(
    "answer", [no_locks_as_filelock_3_says_it, no_locks_as_the_system_says_it, no_locks_and_no_word_of_it]
)
def test_a_file_system_without_locks_is_survived_with_one_line(monkeypatch, place, answer, capfd):
    fcntl = pytest.importorskip("fcntl", reason="files are locked in another way on Windows")
    monkeypatch.setattr(fcntl, "flock", answer)
    with pytest.warns(UserWarning, match="cannot be locked: two processes may make base-.* at the same time") as said:
        cache.cached("base", make)
    assert len(said) == 1 and len(kept(place)) == 1
    get()  # what is there is loaded without a word
    assert calls() == 1 and not list(place.glob(".*"))
    assert capfd.readouterr().err == ""


def start(**environment):
    command = [sys.executable, "-c", WANTS]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **said, env=os.environ | environment)


def test_a_killed_process_leaves_the_cache_usable_and_two_make_a_model_once(place):
    victim = start(SECONDS="600")
    deadline = time.monotonic() + 120
    while not calls() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert calls(), "the first process never began to make its model"
    two = [start(SECONDS="1.5") for _ in range(2)]
    for process in two:
        assert process.stdout.readline() == "ready\n"
    time.sleep(1)  # both are waiting for the one that is about to be killed
    assert calls() == 1 and kept(place) == []
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    said = [p.communicate(timeout=120) for p in two]
    assert [p.returncode for p in two] == [0, 0], said
    assert calls() == 2  # by the killed one, and then by one of the two
    assert said[0][0] == said[1][0] != ""
    assert len(kept(place)) == 1


KILLED_WHILE_SAVING = """
import os, random, signal, sys, time, warnings
import torch
from pathlib import Path
from alignlab.models import cache, tokens
from alignlab.models.llama import make_model

torch.set_num_threads(1)
tokenizer = tokens.word_tokenizer(["a", "b"])
models = [make_model(tokenizer, width=32, depth=1, seed=s) for s in (1, 2, 3)]
dice, seen = random.Random(0), {"draft": 0, "kept": 0, "made": 0}

def equal(a, b):
    return all(
        torch.equal(x.cpu(), y.cpu()) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )

def make():
    seen["made"] += 1
    return models[2], tokenizer

cache.kept("base", "", make)
[place] = cache.folder().glob("base-*[!k]")
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
        found, _ = cache.kept("base", "", make)
    whole = models[2:] if seen["made"] > made else models
    assert any(equal(found, m) for m in whole), f"turn {turn}: a model that nobody saved"
    seen["kept"] += seen["made"] == made
    assert cache.load(place) and not [p for p in place.parent.glob(".draft-*") if seen["made"] > made]
print(seen)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that uses a GPU cannot be forked")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be killed often and soon")
def test_a_process_killed_while_it_saves_leaves_a_whole_entry_or_none():
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = ast.literal_eval(done.stdout)
    assert seen["draft"] > 3, f"hardly any run was killed in the middle: {seen}"
    assert seen["kept"] > 3, f"hardly any entry survived: {seen}"


def test_a_draft_that_a_killed_run_left_is_cleared_away(place):
    get()
    (entry,) = kept(place)
    (place / entry).rename(place / f".draft-{entry}-left")
    get()
    assert kept(place) == [entry]


# ---- what is kept


def test_what_is_kept_is_listed_with_what_made_it_and_what_it_needs(place, capsys):
    get(2, ("red",))
    (entry,) = cache.entries()
    assert entry.made == "make(2, ('red',))" and entry.other == "" and entry.days < 1 and 0 < entry.megabytes < 1
    manifest = json.loads((entry.place / cache.MANIFEST).read_text())
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert manifest["machine"] == fingerprint.machine()
    assert cache.main([]) == 0
    said = capsys.readouterr().out
    assert "make(2, ('red',))" in said and f"{place}: 1 there" in said


def test_an_empty_cache_is_listed_as_empty(place, capsys):
    assert cache.main([]) == 0
    assert f"{place}: 0 there, 0.0 MB" in capsys.readouterr().out


def test_what_other_versions_made_is_pruned_and_nothing_else(place, monkeypatch, capsys):
    with monkeypatch.context() as m:
        installed(m, "transformers", "5.0.0rc9")
        get()
    get()
    old = place / "base-of-an-older-alignlab"
    shutil.copytree(cache.entries()[0].place, old)
    manifest = json.loads((old / cache.MANIFEST).read_text())
    del manifest["versions"]
    (old / cache.MANIFEST).write_text(json.dumps(manifest))
    for name, text in {"mine": '{"files": {"a.js": "0"}}', "odd": "[1]", "cut": '{"fil'}.items():
        (place / name).mkdir()
        (place / name / cache.MANIFEST).write_text(text)
    locks = set(place.glob("*.lock"))
    assert sorted(e.other for e in cache.entries()) == ["", "alignlab an older one", "transformers 5.0.0rc9"]
    assert cache.main(["--prune"]) == 0
    assert "made with transformers 5.0.0rc9" in (said := capsys.readouterr().out) and "2 removed" in said
    assert [e.other for e in cache.entries()] == [""] and {"mine", "odd", "cut"} < set(kept(place))
    assert locks <= set(place.glob("*.lock"))  # somebody may be waiting on one of them
    get()
    assert calls() == 2 and cache.prune() == ([], [])


def test_what_nobody_has_used_for_long_is_pruned(place, capsys):
    get(1), get(2)
    for entry in cache.entries():
        then = time.time() - 40 * 86400
        os.utime(entry.place / cache.MANIFEST, (then, then))
    get(2)  # to load one is to use it
    assert cache.prune(older_than=50) == ([], [])
    assert cache.main(["--prune", "--older-than=20"]) == 0 and "1 removed" in capsys.readouterr().out
    assert [e.made for e in cache.entries()] == ["make(2)"]


def test_what_cannot_be_removed_is_named_and_stays(monkeypatch, capsys):
    with monkeypatch.context() as m:
        installed(m, "transformers", "5.0.0rc9")
        get()

    def refuses(*_):
        raise PermissionError("only to be read")

    with monkeypatch.context() as m:
        m.setattr("alignlab.models.cache.os.replace", refuses)
        assert cache.main(["--prune"]) == 1
    said = capsys.readouterr().out
    assert "could not be removed: only to be read" in said and "0 removed" in said
    assert len(cache.entries()) == 1 and cache.main(["--prune"]) == 0 and not cache.entries()
