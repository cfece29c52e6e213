"""The digest of what makes something: nothing that could matter is left out, and nothing else is in it."""

from __future__ import annotations

import base64
import enum
import functools
import json
import os
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from alignlab.experiment import base
from alignlab.models import cache, fingerprint, llama
from alignlab.training import muon, train
from alignlab.worlds import biographies, letters, tasks, web
from alignlab.worlds.biographies import Presentation
from datasets import Dataset

try:
    import cloudpickle
except ImportError:  # older versions of joblib bring their own
    from joblib.externals import cloudpickle

TINY = base.Plan(people=12, read=8, width=32, depth=1, steps=2)


def digest(*things):
    return fingerprint.of(*things)[0]


def written(source, name="make", **variables):
    """The function `name` of a notebook whose cell holds `source`."""
    space = {"__name__": "__main__", **variables}
    exec(compile(textwrap.dedent(source), "<cell>", "exec"), space)
    return space[name]


# ---- what a function says

PLAIN = """
def helper(x):
    return x + 1

def make(n, scale=2.0):
    for i in range(n):
        if i in {"a", "b"}:
            return helper(i) * scale
    return [helper(k) for k in range(3)]
"""
SAME = {
    "comments, white space and lines": """
# what it does


def helper(x):  # one more
    return (x +
            1)
def make(n, scale=2.0):

    # a loop
    for i in range(n):
        if i in {"b", "a"}:
            return helper(i) * scale
    return [helper(k) for k in range(3)]
""",
    "docstrings": PLAIN.replace("(x):\n", '(x):\n    """Adds."""\n').replace("2.0):\n", '2.0):\n    """Makes."""\n'),
    "something that is not named": "OTHER = 3\n" + PLAIN + "\ndef another():\n    return make",
}
OTHER = {
    "a constant": ("range(3)", "range(4)"),
    "an integer that equals a float": ("x + 1", "x + 1.0"),
    "an operation": ("x + 1", "x - 1"),
    "a name": ("range(3)", "reversed(3)"),
    "a default": ("scale=2.0", "scale=2.5"),
    "what a called function does": ("return x + 1", "return x + 1 if x else 0"),
    "an element of a constant": ('{"a", "b"}', '{"a", "c"}'),
    "an order of operations": ("helper(i) * scale", "scale * helper(i)"),
}


@pytest.mark.parametrize("change", SAME)
def test_remarks_change_nothing(change):
    assert digest(written(SAME[change])) == digest(written(PLAIN))


@pytest.mark.parametrize("change", OTHER)
def test_whatever_a_function_says_counts(change):
    old, new = OTHER[change]
    assert PLAIN.count(old) == 1
    assert digest(written(PLAIN.replace(old, new))) != digest(written(PLAIN))


def test_a_docstring_of_a_class_in_a_function_is_a_remark():
    source = "def make():\n    class A:\n        {}\n        x = 1\n    return A"
    one, two = (digest(written(source.format(doc))) for doc in ('"""One."""', '"""Another."""'))
    assert one == two != digest(written(source.format('"""One."""').replace("x = 1", "x = 2")))


def test_remarks_in_a_class_change_nothing_and_its_methods_count():
    source = """
    class Thing:
        def size(self):
            return 3
    def make():
        return Thing().size()
    """
    one = digest(written(source))
    assert one == digest(written(source.replace("class Thing:", 'class Thing:\n        """A thing."""')))
    assert one != digest(written(source.replace("return 3", "return 4")))


# ---- what it names, closes over and is given


SINGLE = Presentation()


@dataclass(frozen=True)
class Arm:
    share: float = 0.5
    how: dict = field(default_factory=lambda: {13: 0.3})
    shown: Presentation = SINGLE


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


VALUES = {
    "a number": (1, 2),
    "a bool and a number": (True, 1),
    "a string": ("a", "b"),
    "a string and its bytes": ("a", b"a"),
    "nested tuples": ((1, (2, 3)), ((1, 2), 3)),
    "a list and a tuple": ([1], (1,)),
    "the order of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "a set": ({1, 2}, {1, 3}),
    "a range": (range(4), range(5)),
    "an array": (np.arange(4), np.array([0, 1, 2, 4])),
    "the type of an array": (np.arange(4), np.arange(4.0)),
    "an array of objects": (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
    "a tensor": (torch.arange(4), torch.arange(4) + 1),
    "a shape": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "a field of a dataclass": (Arm(), Arm(share=0.6)),
    "a dict in a dataclass": (Arm(), Arm(how={13: 0.4})),
    "a dataclass in a dataclass": (Arm(), Arm(shown=Presentation(versions=5))),
    "a plan": (base.QUICK, replace(base.QUICK, read=40)),
    "a recipe": (train.PRETRAIN, train.PRETRAIN.but(clip=0.9)),
    "an enum": (Size.SMALL, Size.LARGE),
    "a dataset": (Dataset.from_dict({"x": [1, 2]}), Dataset.from_dict({"x": [1, 3]})),
    "a partial": (functools.partial(np.add, 1), functools.partial(np.add, 2)),
    "a function": (np.add, np.subtract),
    "a lambda": (lambda x: x + 1, lambda x: x + 2),
    "a method": (Arm().how.get, Arm(how={}).how.get),
    "a model": (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_value_counts_wherever_it_comes_from(what):
    def closure(value):
        return lambda: value

    def default(value):
        return written("def make(x=VALUE): return x", VALUE=value)

    ways = {
        "argument": lambda value: digest(closure, value),
        "closure": lambda value: digest(closure(value)),
        "default": lambda value: digest(default(value)),
        "global": lambda value: digest(written("def make(): return VALUE", VALUE=value)),
        "partial": lambda value: digest(functools.partial(closure, value)),
    }
    one, other = VALUES[what]
    for name, way in ways.items():
        assert way(one) == way(one) != way(other), name


def test_of_a_module_only_what_is_used_counts(monkeypatch):
    make = written("def make(): return web.pages, letters.spell", web=web, letters=letters)
    before = digest(make)
    monkeypatch.setattr(letters, "COUNTS_2", 1, raising=False)
    assert digest(make) == before
    monkeypatch.setattr(letters, "spell", lambda s: s)
    assert digest(make) != before


def test_a_module_that_is_imported_within_a_function_counts(monkeypatch):
    make = written("def make():\n    from alignlab.worlds.letters import spell\n    return spell('a')")
    before = digest(make)
    monkeypatch.setattr(letters, "spell", lambda s: s)
    assert digest(make) != before


def test_functions_that_call_each_other_are_read_to_the_end():
    source = """
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - 1)
    def make(): return even(4), odd(4)
    """
    one = digest(written(source))
    assert one == digest(written(source))
    assert one != digest(written(source.replace("n != 0", "n > 0")))


def test_two_copies_of_functions_that_call_each_other_are_the_same():
    """A worker may hold a second copy: of what came with an argument, beside what came with a function."""
    source = "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n and even(n - 1)"
    first, second = written(source, "even"), written(source, "odd")
    assert digest(first, first.__globals__["odd"]) == digest(first, second)


def test_what_a_decorator_of_a_package_holds_counts():
    def inner(text):
        return contextmanager(written(f"def make():\n    yield {text}"))

    assert digest(inner(1)) == digest(inner(1)) != digest(inner(2))


def test_what_a_function_remembers_does_not_count():
    make = functools.lru_cache(written("def make(x): return x"))
    before = digest(make)
    make(3)
    assert digest(make) == before != digest(functools.lru_cache(written("def make(x): return -x")))


def test_packages_count_by_name_and_version(monkeypatch):
    make = written("def make(): return np.zeros(3)", np=np)
    before, versions = fingerprint.of(make)
    assert set(versions) == {"python", "torch", "transformers", "numpy"}
    version = fingerprint._version
    monkeypatch.setattr(fingerprint, "_version", lambda name: "0.1" if name == "numpy" else version(name))
    assert digest(make) != before
    assert digest(written("def make(): return np.ones(3)", np=np)) != digest(make)


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (sys.__stderr__, "make > THING is a TextIOWrapper"),
        (threading.Lock(), "make > THING is a lock"),
        ((x for x in ()), "make > THING is a generator"),
        ({"a": [sys.__stderr__]}, "make > THING > a is a TextIOWrapper"),
    ],
)
def test_what_has_no_value_is_refused_by_name(thing, said):
    with pytest.raises(TypeError, match=f"{said}, which has no value .*: open or make it inside the function"):
        digest(written("def make(): return THING", THING=thing))


# ---- the library's own

CHANGES = {
    "base.FACTS": lambda m: m.setattr(base, "FACTS", ("city",)),
    "base.ON_THE_WEB": lambda m: m.setattr(base, "ON_THE_WEB", 10),
    "base.RECIPE": lambda m: m.setattr(base, "RECIPE", base.RECIPE.but(clip=2.0)),
    "a sentence": lambda m: m.setitem(biographies.STATEMENTS, "city", biographies.STATEMENTS["city"][:5]),
    "a share of the web": lambda m: m.setitem(web.SHARES, "quiz", 0.16),
    "a remark of the forum": lambda m: m.setattr(web, "CHATTER", web.CHATTER[1:]),
    "a skill": lambda m: m.setitem(letters.SKILLS, "first", letters.SKILLS["last"]),
    "two skills, changed about": lambda m: [
        m.setitem(letters.SKILLS, *pair)
        for pair in [("first", letters.SKILLS["last"]), ("last", letters.SKILLS["first"])]
    ],
    "a function deep down": lambda m: m.setattr(tasks, "courteous", lambda response, rng: response) or m.setattr(
        web, "courteous", lambda response, rng: response),
    "the optimiser": lambda m: m.setattr(muon, "orthogonalise", lambda g, steps=5: g),
    "a method": lambda m: m.setattr(muon.Muon, "step", lambda self: None),
    "the width of a head": lambda m: m.setattr(llama, "HEAD", 16),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_everything_that_makes_a_base_counts(monkeypatch, what):
    before = digest(base._pretrain, TINY, 0)
    CHANGES[what](monkeypatch)
    assert digest(base._pretrain, TINY, 0) != before
    monkeypatch.undo()
    assert digest(base._pretrain, TINY, 0) == before


def edited(module, old, new):
    """The module with other source, as a module of the library."""
    source = Path(module.__file__).read_text("utf-8")
    assert source.count(old) == 1
    other = types.ModuleType(module.__name__)
    other.__dict__.update(__package__=module.__package__, __file__=module.__file__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), other.__dict__)
    return other


EDITS = {
    "coefficients": (muon, "3.714570", "3.714571", "orthogonalise"),
    "the default of a recipe": (train, "clip: float = 1.0", "clip: float = 1.1", "Recipe"),
    "a text": (biographies, "was born in {value}", "was born at {value}", "sentence"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_of_the_source_counts_and_a_comment_does_not(what):
    module, old, new, name = EDITS[what]
    before = digest(getattr(edited(module, old, old), name))
    assert digest(getattr(edited(module, old, new), name)) != before
    first = "from __future__ import annotations\n"
    assert digest(getattr(edited(module, first, f"{first}\n# a remark\n\n"), name)) == before


NOTEBOOK = """
from dataclasses import dataclass, field, replace
from functools import partial
import numpy as np
from alignlab.experiment import base
from alignlab.models import fingerprint, tokens
from alignlab.training.train import PRETRAIN, Recipe, train
from alignlab.worlds import biographies, web
from alignlab.worlds.biographies import Presentation

PEOPLE, FACTS = 160, ("city", "subject")
RECIPE = PRETRAIN.but(weight_decay=0.4)
TABLE = {"a": np.arange(3), "b": {"x", "y", "z"}}

@dataclass(frozen=True)
class Arm:
    everybody: Presentation = Presentation()
    marks: tuple[int, ...] = (1, 40)
    how: dict = field(default_factory=dict)
    recipe: Recipe = RECIPE

    def longer(self):
        return replace(self, marks=(2 * PEOPLE,))

ARMS = {"single": Arm(), "varied": Arm(Presentation(versions=5)), "called": Arm(how={"f": lambda x: x + PEOPLE})}

def known(word):
    return word in {"who", "where", "when"}

def even(n): return n == 0 or odd(n - 1)
def odd(n): return n and even(n - 1)

def study(arm, seed, look):
    pages = biographies.write(base.make_world_of(base.QUICK, seed), arm.everybody)
    look(web.pages, TABLE, known("who"), even, arm.longer())
    train(pages, tokens.documents, PEOPLE, RECIPE, seed)

def made(arm, seed):
    seen = []
    study(arm, seed, lambda *all: seen.append(all))
    return seen

def keys(names):
    rest = [fingerprint.of(partial(made, arm=Arm()), even, Arm)[0]]
    return [fingerprint.of(made, ARMS[name], 0)[0] for name in names] + rest
"""


ELSEWHERE = """
import base64, json, pickle, sys
from alignlab.experiment import base
from alignlab.models import fingerprint
keys, names = pickle.loads(base64.b64decode(sys.argv[1]))
plan = base.Plan(people=12, read=8, width=32, depth=1, steps=2)
before = fingerprint.of(base._pretrain, plan, 0)[0]
base._pretrain(plan, 0)
after = fingerprint.of(base._pretrain, plan, 0)[0]
print(json.dumps([keys(names), before, after, fingerprint.machine()["capability"]]))
"""


def test_a_function_has_one_digest_here_and_in_a_worker_before_and_after_it_runs():
    """A notebook's functions travel without their source, strings hash in another way there, and torch writes into the
    class of an optimiser when the first one is made."""
    keys, names = written(NOTEBOOK, "keys"), ["single", "varied", "called"]
    here = keys(names)
    assert len(set(here)) == 4
    sent = base64.b64encode(cloudpickle.dumps((keys, names))).decode()
    environment = os.environ | {"PYTHONHASHSEED": "17", "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", ELSEWHERE, sent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    there, before, after, capability = json.loads(done.stdout)
    assert there == here
    assert before == after == digest(base._pretrain, TINY, 0)
    assert capability == "DEFAULT"  # not in the digest, but in the cache's key


def test_the_cache_itself_does_not_count(monkeypatch):
    make = written("def make(): return cache.cached('a', len)", cache=cache)
    before = digest(make)
    monkeypatch.setattr(cache, "cached", lambda *_: 1 / 0)
    monkeypatch.setattr(cache, "MANIFEST", "another")
    assert digest(make) != before  # another function in its place is seen, ...
    monkeypatch.undo()
    monkeypatch.setattr(cache, "MANIFEST", "another")
    assert digest(make) == before  # ... but not how this one works


def test_what_is_only_remembered_does_not_count():
    seen = weakref.WeakSet()
    make = written("def make(thing):\n    seen.add(thing)\n    return 1", seen=seen)
    before = digest(make)
    model = torch.nn.Linear(1, 1)
    make(model)
    assert len(seen) == 1 and digest(make) == before
