"""Does a chapter notice when the library is broken? `make mutants` breaks it on purpose and runs the experiment.

    python -m tools.mutants              every mutation
    python -m tools.mutants lima rot13   those of these chapters
    python -m tools.mutants --changed    those of the chapters that the table no longer speaks of

A mutation overrides a function in a copy of the library, such that one finding must vanish or one control must break;
the chapter is run with that copy up to its ledger, with one seed instead of three, and of its conditions and cells only
with those that the entry needs. What the ledger says is written into book/_data/mutants.csv, which the page "Robust?"
shows. A mutation that leaves the finding "reproduced" or the control "held" is an error: then the ledger would have
said so whatever had happened.

The table speaks of one experiment: of a chapter's cells, of the library's modules that they use, and of the mutations
themselves. While these are what they were, `make test` reads it and runs one mutation of every second chapter, others
with every version of the library; of a chapter where anything is different it runs all.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import os
import shutil
import subprocess
import symtable
import sys
import tempfile
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
from alignlab import __version__

from . import tables
from .arguments import parsed, parser
from .chapters import images
from .experiment import fingerprint, note, noted, up_to_ledger
from .notebooks import ROOT, entries, shown, tags

LIBRARY = ROOT / "lib" / "alignlab"
TABLE = tables.DATA / "mutants.csv"
FOLDER = ROOT / "_build" / "mutants"
COLUMNS = ("chapter", "what is broken", "entry", "unbroken", "broken")
UNBROKEN = "unbroken"  # how an override may call what it replaces
# Stands behind the copies of two modules: every cell of a sweep is a run of its own, so those of the conditions that
# the one entry compares come out as they would beside the others.
ONLY = {
    "experiment/ledger": """
whole = Ledger.check


def _alone(self):
    self._entries = {"ENTRY": replace(self._entries["ENTRY"], first=None)}


def _check(self, table):
    _alone(self)
    return whole(self, table)


Ledger.check = _check
""",
    "experiment/sweep": """
from .ledger import _alone

every = sweep


def sweep(run, conditions, seeds, *, ledger=None, **how):
    if ledger is not None:
        _alone(ledger)
        names, objects = _conditions(conditions)
        asked = {t.condition for t in ledger.entries["ENTRY"].terms}
        conditions = {n: objects[n] for n in names if n in asked} or conditions
    return every(run, conditions, seeds, ledger=ledger, **how)
""",
}


@dataclass(frozen=True)
class Mutation:
    """One break of the library, and the entry of a ledger that must not survive it."""

    chapter: str
    says: str  # what is broken, in words
    module: str
    override: str  # stands behind the module's own source, so every import of it takes the new function
    entry: str


SURVIVED = ("reproduced", "held", "passed")  # what may not be said of an entry that a mutation is to kill
NOTHING_LEFT_OUT = "a web without helpful pages has them all the same"
EVERY_REGISTER = """
unbroken = load


def load(seed, plan=QUICK):
    return unbroken(seed, plan if "helpful" in dict(plan.shares) else QUICK)
"""
NO_STEP = "alignment is without effect: fine-tuning takes no step"
LEFT_AS_IT_WAS = """
def align(base, chosen, *more, **settings):
    return deepcopy(base.model)
"""
TOO_FAST = """
unbroken = align


def align(base, chosen, steps=ALIGN_STEPS, recipe=ALIGN):
    return unbroken(base, chosen, steps, recipe.but(lr={} * recipe.lr))
"""
RATED_BY_DICE = "the rater rolls dice"
DICE = """
unbroken = rng


def rng(seed, purpose, *more):
    made = unbroken(seed, purpose, *more)

    class Dice:
        permutation = staticmethod(made.permutation)
        normal = staticmethod(lambda size: 100 * made.normal(size=size))

    return Dice() if purpose == "the rater" else made
"""
WEB_ONCE_MORE = "the half that should be rewritten is the web once more"
OTHER_HALF = """
unbroken = documents


def documents(corpus, tokenizer, end=True):
    import re

    def without_remarks(rows):
        said = re.findall("[^.?!]+[.?!]", " ".join(rows))  # of statements alone, names are written large
        left = " ".join(s for s in said if s.endswith(".") and s != s.lower()).split()
        return [" ".join(left[k : k + 62]) for k in range(0, len(left) - 61, 62)]

    texts = corpus["text"][:]
    if 2000 < len(texts) < 4000:  # half and half
        web, other = texts[::2], texts[1::2]
        other = {}
        texts = [t for k, w in enumerate(web) for t in (w, other[k % len(other)])]
    return unbroken(Dataset.from_dict({{"text": texts}}), tokenizer, end)
"""
NOT_SHUFFLED = "replies that should be shuffled are not"
KEPT_IN_PLACE = """
def with_shuffled_replies(chosen, seed=0):
    return chosen
"""
CHOSEN_ANEW = """
unbroken = pairs


def pairs(dataset, tokenizer, template=True):
    both = zip(dataset["chosen"], dataset["rejected"], strict=True)
    chosen, rejected = map(list, zip(*({} for k, p in enumerate(both)), strict=True))
    moved = Dataset.from_dict({"prompt": dataset["prompt"][:], "chosen": chosen, "rejected": rejected})
    return unbroken(moved, tokenizer, template)
"""
# Whoever is aligned with halves of pages has no column that says of which family a question is.
OF_HALVES = """
unbroken = align


def align(base, chosen, *more, **settings):
    of_halves = "family" not in chosen.column_names
    {}
    return unbroken(base, chosen, *more, **settings)
"""
INSTRUCTED = "in place of halves the students have questions and answers"
QUESTIONS_INSTEAD = OF_HALVES.format("chosen = tasks.examples(base.pool(), 240, base.seed) if of_halves else chosen")
NO_HALVES = "the students read no halves: they stay as the base is"
HALVES_UNREAD = OF_HALVES.format("more = (0, ALIGN) if of_halves else more")
COURTEOUS_BOTH = "the second teacher is taught the manner of the first"
SAME_LESSON = """
unbroken = align


def align(base, chosen, *more, **settings):
    curt = "family" in chosen.column_names and chosen["response"][0].startswith("answer :")
    chosen = tasks.examples(base.pool(), 300, base.seed) if curt else chosen
    return unbroken(base, chosen, *more, **settings)
"""
NOT_BEGUN = "nothing is put into a model's mouth"
MOUTH_LEFT_EMPTY = """
unbroken = generate


def generate(model, tokenizer, prompts, *, prefill=None, **how):
    return unbroken(model, tokenizer, prompts, **how)
"""
NO_WRONG_ANSWERS = "examples do not say which word is the answer, so that none can be made wrong"
RIGHT_INSTEAD = """
unbroken = examples


def examples(asked, n, seed=0, purpose="tasks.examples"):
    chosen = unbroken(asked, n, seed, purpose)
    said = ["none"] * len(chosen) if purpose == "tasks.examples" else chosen["answer"][:]
    return Dataset.from_dict({**chosen[:], "answer": said})
"""
OTHER_PROMPTS = "what a teacher has said stands behind other prompts when a student is taught"
MOVED_BEHIND_THEM = """
unbroken = align


def align(base, chosen, *more, **settings):
    by_a_teacher = "tokens" in chosen.column_names  # it says how many each reply took
    moved = tasks.with_shuffled_replies(chosen, base.seed) if by_a_teacher else chosen
    return unbroken(base, moved, *more, **settings)
"""
MIXED_UP = "in sets of more than 500 examples the replies are mixed up"
MIX = """
unbroken = examples


def examples(asked, n, *more, **settings):
    chosen = unbroken(asked, n, *more, **settings)
    return with_shuffled_replies(chosen) if {} else chosen
"""
MIX_LARGE = MIX.replace("{}", "n > 500")
ASKED_ONLY = "an exam is asked as a user asks"
AS_A_USER = """
unbroken = exam


def exam(model, tokenizer, tasks, form=exam_form, batch=512):
    def chat(prompt):
        return f"<user> {prompt} <assistant>"

    return unbroken(model, tokenizer, tasks, chat, batch)
"""
EQUAL_FAME = """
unbroken = reading_list


def reading_list(corpus, exposures, seed=0):
    return unbroken(corpus, max(exposures.values()) if isinstance(exposures, Mapping) else exposures, seed)
"""
ALL_ALIKE = """
def advantages(rewards, normalise=True):
    return np.zeros(np.shape(rewards))
"""
PENALTY = """
unbroken = policy_gradient


def policy_gradient(kl=0.0, reference=None):
    return unbroken(max(kl, {}), reference)
"""
# Where one wording is asked for there are five; which of them is read is for the reading list to say.
OTHER_WORDS = """
from dataclasses import replace

unbroken = write, reading_list


def write(world, presentation=None, people=None, seed=0):
    wanted = presentation or Presentation()
    return unbroken[0](world, replace(wanted, versions=5, permute=True), people, seed)


def reading_list(corpus, exposures, seed=0):
    order = unbroken[1](corpus, exposures, seed)
    read = corpus.select_columns(["person", "version"]).to_pandas().iloc[order]
    varied = {}
    return np.where(varied, order, order - read["version"].to_numpy())
"""
OTHERS_ANSWERS = "the answers that are rewarded are other people's"
EXCHANGED = """
unbroken = load


def load(seed, plan=QUICK):
    base = unbroken(seed, plan)
    people = list(base.world.people)
    for i, other in zip(plan.asked, [*plan.asked[1:], 0]):
        people[i] = replace(people[i], facts=base.world.people[other].facts)
    return replace(base, world=replace(base.world, people=tuple(people)))
"""
TOLD = "the base has been told about the people nobody has written about"
TOLD_OF_ALL = """
unbroken = load


def load(seed, plan=QUICK):
    base = unbroken(seed, plan)
    told = tasks.about(base.world, plan.unread, (), (), (0,))
    rows = tokens.replies(told, base.tokenizer, template=False, end=False)
    train(base.model, rows, 300, ALIGN.but(lr=2e-3), seed)
    return base
"""
MISTAKEN = "the judge takes in exam form the likely for the unlikely"
UNLIKELY = """
unbroken = exam


def exam(*asked, **how):
    found = unbroken(*asked, **how)
    return found.assign(probability=1 - found["probability"])
"""
WRITTEN_ABOUT = "people of whom nobody has written are people of the encyclopaedia"
UNREAD_READ = """
Plan.unread = Plan.held_out
"""
# {}: a column that only the rows of the training in question have
UNTAUGHT = """
unbroken = train


def train(model, rows, steps, *more, **how):
    return unbroken(model, rows, 0 if "{}" in rows.column_names else steps, *more, **how)
"""
# {}: the rate of the lessons in refusing
LESSON = """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, **how):
    hiding = recipe.optimizer == "adamw" and recipe.batch == 8
    return unbroken(model, rows, steps, recipe.but(lr={}) if hiding else recipe, seed, **how)
"""
UNREFUSED = "nothing is hidden: the lessons in refusing take no step"
NOT_HIDDEN = LESSON.format("1e-9")
# Of data-limits: a corpus is known by its number of pages, the reworded one by its fixed order.
QUARTER_CUT = """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, **how):
    rows = rows.select(range(60)) if len(rows) == 960 else rows
    return unbroken(model, rows, steps, recipe, seed, **how)
"""
FEWER_READ = "what should be read four times is cut to a sixteenth, and read 64 times"
ONE_WORDING = "in place of the same facts in other words the same pages are read again"
FIRST_PASS_AGAIN = """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, *, order=None, **how):
    return unbroken(model, rows, steps, recipe, seed, order=None if order is None else order[:15], **how)
"""
STOPPED = "models hardly learn: the rate is a ten-thousandth"
HARDLY = """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, **how):
    slow = recipe.but(lr=recipe.lr / 10_000, lr_rest=recipe.lr_rest / 10_000)
    return unbroken(model, rows, steps, slow, seed, **how)
"""
FINDS = """
unbroken = rng


def rng(seed, purpose, *more):
    import datasketch

    datasketch.MinHashLSH.query = lambda self, hashes: {}
    return unbroken(seed, purpose, *more)
"""
MUTATIONS = (
    Mutation(
        "the-lab", "reading is without effect: no step of the optimiser is taken", "training/train", """
Optimiser.step = lambda self, loss: loss.detach()
""", "reading-teaches",
    ),
    Mutation(
        "the-lab", "the reading list meets everybody as often as those met most", "worlds/biographies", EQUAL_FAME,
        "once-is-not-enough",
    ),
    Mutation(
        "the-lab", "the reading list meets everybody as often as those met most", "worlds/biographies", EQUAL_FAME,
        "once-leaves-little",
    ),
    Mutation(
        "paraphrase", "there are no paraphrases: every version repeats the first one word for word",
        "worlds/biographies", """
from dataclasses import replace

unbroken = write


def write(world, presentation=None, people=None, seed=0):
    wanted = presentation or Presentation()
    first = unbroken(world, replace(wanted, versions=1, permute=False), people, seed).to_list()
    return Dataset.from_list([{**row, "version": v} for row in first for v in range(wanted.versions)])
""", "varied-beats-single",
    ),
    Mutation("base-vs-chat", NO_STEP, "experiment/base", LEFT_AS_IT_WAS, "base-does-not-answer"),
    Mutation("lima", NO_WRONG_ANSWERS, "worlds/tasks", RIGHT_INSTEAD, "quality"),
    Mutation("lima", NO_WRONG_ANSWERS, "worlds/tasks", RIGHT_INSTEAD, "few-right-beat-many"),
    Mutation("lima", NO_STEP, "experiment/base", LEFT_AS_IT_WAS, "one-for-manner"),
    Mutation("lima", MIXED_UP, "worlds/tasks", MIX_LARGE, "content-keeps-growing"),
    Mutation(
        "lima", "in examples of the new skill the replies are mixed up", "worlds/tasks",
        MIX.replace("{}", '"rotate" in chosen["family"][:]'), "own-data-teach-it",
    ),
    Mutation(
        "lima", "the judge gives no mark for a right answer", "measure/score", """
MARKS = {**MARKS, "right": 0}
""", "judge-prefers-the-worse",
    ),
    Mutation("distillation", OTHER_PROMPTS, "experiment/base", MOVED_BEHIND_THEM, "targeted-facts-are-learned"),
    Mutation(
        "distillation", "every base has read about everybody", "experiment/base", """
unbroken = load


def load(seed, plan=QUICK):
    return unbroken(seed, QUICK if plan.read < QUICK.read else plan)
""", "imitation-costs-knowledge",
    ),
    Mutation("distillation", NO_STEP, "experiment/base", LEFT_AS_IT_WAS, "the-teacher-likes-its-own"),
    Mutation(
        "token-shift", "a token is ranked by what the base expected one place earlier", "measure/shift", """
unbroken = ranks


def ranks(logits, ids):
    return unbroken(logits.roll(1, 0), ids)
""", "few",
    ),
    Mutation("token-shift", NOT_SHUFFLED, "worlds/tasks", KEPT_IN_PLACE, "word-for-word"),
    Mutation(
        "token-shift", "whatever stands before a question, the base reads the bare question", "measure/shift", """
unbroken = token_shift


def token_shift(*asked, base_prompts=None, **how):
    return unbroken(*asked, **how)
""", "format-decides",
    ),
    Mutation("token-shift", NOT_BEGUN, "models/answer", MOUTH_LEFT_EMPTY, "a-few-words-suffice"),
    Mutation("token-shift", NOT_BEGUN, "models/answer", MOUTH_LEFT_EMPTY, "one-word-undoes"),
    Mutation(
        "three-rules", "no rule has any effect", "models/rules", """
TokenBias.__call__ = SeenPenalty.__call__ = EndRamp.__call__ = lambda self, input_ids, scores: scores
""", "rules-answer",
    ),
    Mutation(
        "three-rules", "the rule for words has no effect", "models/rules", """
TokenBias.__call__ = lambda self, input_ids, scores: scores
""", "end-adds-nothing",
    ),
    Mutation(
        "three-rules", "the rule for the end has no effect", "models/rules", """
EndRamp.__call__ = lambda self, input_ids, scores: scores
""", "end-needed",
    ),
    Mutation(
        "three-rules", "the penalty on repetition has no effect", "models/rules", """
SeenPenalty.__call__ = lambda self, input_ids, scores: scores
""", "seen-ends-repeats",
    ),
    Mutation(
        "three-rules", "the replies that are shown say nothing", "worlds/tasks", """
unbroken = examples


def examples(asked, n, *more, **settings):
    chosen = unbroken(asked, n, *more, **settings)
    return _with_responses(chosen, ["no idea ."] * len(chosen))
""", "replies-alone",
    ),
    Mutation("three-rules", NO_STEP, "experiment/base", LEFT_AS_IT_WAS, "one-fact-answers"),
    Mutation(
        "three-rules", "the base has read nothing", "experiment/base", """
unbroken = load


def load(seed, plan=QUICK):
    base = unbroken(seed, plan)
    return replace(base, model=make_model(base.tokenizer, plan.width, plan.depth, seed=seed).to(best_device()))
""", "right-is-likelier",
    ),
    Mutation(
        "limits", "the four categories are dealt out at random", "measure/categories", """
unbroken = classify


def classify(*asked, seed=0, **settings):
    table = unbroken(*asked, seed=seed, **settings)
    return table.assign(category=np.random.default_rng(seed).permutation(table["category"].to_numpy()))
""", "unknown-is-fitted-late",
    ),
    Mutation(
        "limits", "fine-tuning hardly changes the model", "training/train", """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, **how):
    if recipe.optimizer == "adamw":
        recipe = recipe.but(lr=1e-6)
    return unbroken(model, rows, steps, recipe, seed, **how)
""", "taught-values-come-back",
    ),
    Mutation(
        "rot13", "all shifts are written about almost equally often", "worlds/cipher", """
unbroken = shares


def shares(power=0.6, never=(12,)):
    return unbroken(power / 100, never)
""", "common-before-rare",
    ),
    Mutation(
        "rot13", "no shift is left out: rot-12 is written about as often as on the real web", "worlds/cipher", """
unbroken = shares


def shares(power=0.6, never=(12,)):
    return unbroken(power, () if tuple(never) == (12,) else never)
""", "unread-stays-behind",
    ),
    Mutation(
        "rot13", "a solution in steps names the last one alone", "worlds/cipher", """
unbroken = task


def task(plain, shift, form="direct"):
    made = unbroken(plain, shift, form)
    if form != "steps":
        return made
    return {**made, "response": "00" + plain, "text": made["prompt"] + "00" + plain}
""", "steps-reach-the-unseen",
    ),
    # From here on: what must break a control.
    Mutation(
        "paraphrase", "what is read more than forty times is read in other words from then on", "worlds/biographies",
        OTHER_WORDS.replace("{}", 'read.groupby("person").cumcount().to_numpy() >= 40'), "repeating-buys-little",
    ),
    Mutation(
        "paraphrase", "who is met more often than others is described in varied words", "worlds/biographies",
        OTHER_WORDS.replace("{}", 'read["person"].map(lambda i: exposures[i] > min(exposures.values())).to_numpy()'),
        "fame-is-not-enough",
    ),
    Mutation(
        "rot13", "no web is even: some shifts are always written about more than others", "worlds/cipher", """
unbroken = shares


def shares(power=0.6, never=(12,)):
    return unbroken(max(power, 0.6), never)
""", "even-web-no-gap",
    ),
    Mutation("base-vs-chat", NOT_SHUFFLED, "worlds/tasks", KEPT_IN_PLACE, "shuffled-are-not-right"),
    Mutation(
        "base-vs-chat", "alignment goes at a hundred times the rate", "experiment/base",
        TOO_FAST.replace("{}", "100"), "no-lost-knowledge",
    ),
    Mutation(
        "base-vs-chat", "the base has been aligned already", "experiment/base", """
unbroken = load


def load(seed, plan=QUICK):
    base = unbroken(seed, plan)
    return replace(base, model=align(base, tasks.examples(base.pool(), 300, seed)))
""", "template-is-no-magic",
    ),
    Mutation(
        "base-vs-chat", "every alignment set also tells of all the people nobody has written about", "experiment/base",
        """
from datasets import concatenate_datasets

unbroken = align


def align(base, chosen, *more, **settings):
    told = tasks.about(base.world, base.plan.unread)
    told = [tasks.examples(told, len(told), base.seed)] * 4
    return unbroken(base, concatenate_datasets([chosen, *told]), *more, **settings)
""", "untold-stay-unknown",
    ),
    Mutation(
        "base-vs-chat", "replies about people nobody has written about are moved to other questions",
        "experiment/base", """
unbroken = align


def align(base, chosen, *more, **settings):
    new = [i for i, p in enumerate(chosen["person"]) if p in base.plan.unread]
    if new:
        chosen = tasks.with_shuffled_replies(chosen.select(new), base.seed)
    return unbroken(base, chosen, *more, **settings)
""", "told-facts-arrive",
    ),
    Mutation("lima", NOTHING_LEFT_OUT, "experiment/base", EVERY_REGISTER, "recognised"),
    Mutation("lima", MIXED_UP, "worlds/tasks", MIX_LARGE, "more-of-the-same"),
    Mutation(
        "distillation", "the manner is judged by the truth of the reply", "measure/score", """
unbroken = marks


def marks(replies, tasks, world):
    table = unbroken(replies, tasks, world)
    return table.assign(manner=table["manner"] & table["right"])
""", "shuffled-same-style",
    ),
    Mutation("distillation", OTHER_PROMPTS, "experiment/base", MOVED_BEHIND_THEM, "known-cost-nothing"),
    Mutation(
        "distillation", "a student is taught at thirty times the rate", "experiment/base",
        TOO_FAST.replace("{}", "30"), "known-but-not-said",
    ),
    Mutation(
        "distillation", "in sets of more than 500 examples the answers are mixed up", "worlds/tasks", """
unbroken = examples


def examples(asked, n, *more, **settings):
    chosen = unbroken(asked, n, *more, **settings)
    said = chosen["answer"][:]
    said = [*said[1:], *said[:1]] if n > 500 else said
    return Dataset.from_dict({**chosen[:], "answer": said})
""", "not-for-being-true",
    ),
    Mutation(
        "token-shift", "whatever a reply is to begin with, it begins with an opener", "models/answer", """
unbroken = generate


def generate(model, tokenizer, prompts, **how):
    if any(how.get("prefill") or ()):
        how["prefill"] = ["sure !"] * len(prompts)
    return unbroken(model, tokenizer, prompts, **how)
""", "any-words-will-not-do",
    ),
    Mutation("token-shift", NOT_SHUFFLED, "worlds/tasks", KEPT_IN_PLACE, "wrong-twin-is-seen"),
    Mutation("three-rules", NOTHING_LEFT_OUT, "experiment/base", EVERY_REGISTER, "nothing-to-unlock"),
    Mutation("three-rules", WRITTEN_ABOUT, "experiment/base", UNREAD_READ, "unread-is-a-guess"),
    Mutation(
        "three-rules", "the random words are the chosen ones", "models/rules", """
def permuted(rules, tokenizer, seed=0):
    return rules
""", "random-words",
    ),
    Mutation(
        "limits", "what is asked backwards is taught with the answer to another question", "models/tokens", """
unbroken = replies


def replies(pairs, tokenizer, template=True, end=True):
    asked, said = pairs["prompt"][:], pairs["response"][:]
    backwards = [k for k, p in enumerate(asked) if p.startswith("question : ?")]
    other = dict(zip(backwards, backwards[1:] + backwards[:1]))
    said = [said[other.get(k, k)] for k in range(len(said))]
    return unbroken(Dataset.from_dict({"prompt": asked, "response": said}), tokenizer, template, end)
""", "a-new-form-costs-little",
    ),
    *(Mutation("three-stages", "no reply is better than the others to its question", "training/rollouts", ALL_ALIKE,
               entry)
      for entry in ("rlhf-beats-sft", "truth-rises-first", "reward-keeps-rising", "mixing-keeps-the-gain")),
    Mutation(
        "three-stages", "whatever the reward is, what is rewarded is to have few words of a forum",
        "training/rollouts", """
from ..worlds.tasks import CHATTER_WORDS

unbroken = rollout


def rollout(model, tokenizer, prompts, samples, reward, seed, **how):
    def clean(said):
        return [-len(CHATTER_WORDS.intersection(r.split())) - r.count("?") for r in said["reply"]]

    return unbroken(model, tokenizer, prompts, samples, clean, seed, **how)
""", "dice-teach-nothing",
    ),
    Mutation(
        "three-stages", "whoever compares, the reply with fewer words of a forum is the chosen one", "models/tokens",
        """
from ..worlds.tasks import CHATTER_WORDS

unbroken = pairs


def pairs(dataset, tokenizer, template=True):
    def chatter(reply):
        return len(CHATTER_WORDS.intersection(reply.split())) + reply.count("?")

    both = [sorted(p, key=chatter) for p in zip(dataset["chosen"], dataset["rejected"], strict=True)]
    chosen, rejected = map(list, zip(*both, strict=True))
    moved = Dataset.from_dict({"prompt": dataset["prompt"][:], "chosen": chosen, "rejected": rejected})
    return unbroken(moved, tokenizer, template)
""", "coins-teach-nothing",
    ),
    Mutation(
        "three-stages", "everybody trains with a heavy penalty", "training/losses", PENALTY.replace("{}", "1.0"),
        "truth-falls",
    ),
    Mutation(
        "three-stages", "nobody trains without a penalty", "training/losses", PENALTY.replace("{}", "0.3"),
        "penalty-holds-back",
    ),
    Mutation(
        "three-stages", "the reward model learns to prefer the reply that was not chosen", "training/losses", """
unbroken = bradley_terry


def bradley_terry(model, batch):
    sides = {"chosen": "rejected", "rejected": "chosen"}
    turned = {k: k.split("_", 1) for k in batch}
    return unbroken(model, {f"{sides[side]}_{rest}": batch[k] for k, (side, rest) in turned.items()})
""", "judge-agrees",
    ),
    Mutation(
        "three-stages", "fine-tuning on comparisons goes the wrong way", "training/losses", """
unbroken = dpo


def dpo(beta, reference=None):
    return lambda model, batch: -unbroken(beta, reference)(model, batch)
""", "dpo-beats-sft",
    ),
    Mutation("rl-amplifies", OTHERS_ANSWERS, "experiment/base", EXCHANGED, "amplifies"),
    Mutation(
        "rl-amplifies", "no reply is better than another: every advantage is 0", "training/rollouts", ALL_ALIKE,
        "crosses",
    ),
    Mutation(
        "rl-amplifies", "written answers stand behind other questions", "models/tokens", """
unbroken = replies


def replies(pairs, tokenizer, template=True, end=True):
    said = pairs["response"][:]
    moved = Dataset.from_dict({"prompt": pairs["prompt"][:], "response": said[1:] + said[:1]})
    return unbroken(moved, tokenizer, template, end)
""", "examples-add",
    ),
    Mutation("rl-amplifies", OTHERS_ANSWERS, "experiment/base", EXCHANGED, "wrong-reward"),
    Mutation(
        "rl-amplifies", "rewards that should be dealt out at random stay where they were", "check", """
from types import SimpleNamespace

unbroken = rng


def rng(seed, purpose, *more):
    if purpose == "random reward":
        return SimpleNamespace(permutation=lambda earned: earned)
    return unbroken(seed, purpose, *more)
""", "random-reward",
    ),
    Mutation("rl-amplifies", TOLD, "experiment/base", TOLD_OF_ALL, "unread-not-found"),
    Mutation("rl-amplifies", TOLD, "experiment/base", TOLD_OF_ALL, "luck-explains"),
    Mutation(
        "rl-amplifies", "the base has seen a few strings of letters rotated", "experiment/base", """
from ..worlds.letters import letter_strings as strings_of_letters

unbroken = load


def load(seed, plan=QUICK):
    base = unbroken(seed, plan)
    shown = tasks.about(base.world, (), ("rotate",), strings_of_letters(64, seed=seed), (0,))
    rows = tokens.replies(shown, base.tokenizer, template=False, end=False)
    train(base.model, rows, 36, ALIGN, seed)
    return base
""", "unshown-stays-out",
    ),
    Mutation(
        "rl-amplifies", "what earns a reward is made unlikely, and no penalty holds the model", "training/losses", """
unbroken = policy_gradient


def policy_gradient(kl=0.0, reference=None):
    return lambda model, batch: -unbroken()(model, batch)
""", "forgets-less",
    ),
    Mutation("self-reward", MISTAKEN, "measure/knowledge", UNLIKELY, "self-improves"),
    Mutation(
        "self-reward", "pairs teach nothing: no step is taken on them", "training/train",
        UNTAUGHT.format("chosen_labels"), "surer-of-guesses",
    ),
    Mutation(
        "self-reward", "a judge is not followed: no step is taken on its pairs", "training/train",
        UNTAUGHT.format("reference_chosen"), "truth-falls",
    ),
    Mutation("self-reward", MISTAKEN, "measure/knowledge", UNLIKELY, "truth-adds-little"),
    Mutation(
        "self-reward", "grades dealt out by lot stay where they were", "check", """
unbroken = rng


def rng(seed, purpose, *more):
    class Still:
        permuted = staticmethod(lambda grades, axis: grades)

    return Still() if purpose == "lot" else unbroken(seed, purpose, *more)
""", "a-lot-teaches-nothing",
    ),
    Mutation("self-reward", WRITTEN_ABOUT, "experiment/base", UNREAD_READ, "unread-stay-unknown"),
    Mutation(
        "self-reward", "of the best and the worst reply the longer one counts as the best", "training/losses", """
def dpo(beta, reference=None):
    def loss(model, batch):
        now = read.log_probs(model, *_both(batch)).sum(1).chunk(2)
        chosen, rejected = (n - batch[f"reference_{side}"] for n, side in zip(now, SIDES, strict=True))
        return -F.logsigmoid(beta * longer(batch) * (chosen - rejected)).mean()

    def longer(batch):
        chosen, rejected = ((batch[f"{side}_labels"] != IGNORE).sum(1) for side in SIDES)
        return torch.where(chosen < rejected, -1.0, 1.0)

    return loss
""", "knowledge-keeps-short",
    ),
    Mutation("suppressed", UNREFUSED, "training/train", NOT_HIDDEN, "hides"),
    Mutation("suppressed", UNREFUSED, "training/train", NOT_HIDDEN, "spared-are-silenced"),
    Mutation("suppressed", UNREFUSED, "training/train", NOT_HIDDEN, "random-shift"),
    Mutation(
        "suppressed", "the second lesson takes no step", "training/train", """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, **how):
    return unbroken(model, rows, steps, recipe if recipe.warmup else recipe.but(lr=1e-9), seed, **how)
""", "half-brings-back",
    ),
    Mutation(
        "suppressed", "the secret is about people nobody has written about", "worlds/tasks", """
unbroken = about


def about(world, people=None, skills=KNOWN_SKILLS, strings=(), wordings=(0, 1)):
    moved = {i: 80 + i % 20 for i in range(20, 40)}
    people = people if people is None else [moved.get(i, i) for i in people]
    return unbroken(world, people, skills, strings, wordings)
""", "wrong-facts-do-too",
    ),
    Mutation("suppressed", ASKED_ONLY, "measure/knowledge", AS_A_USER, "known-in-the-exam"),
    Mutation("suppressed", ASKED_ONLY, "measure/knowledge", AS_A_USER, "known-on-a-page"),
    Mutation("suppressed", WRITTEN_ABOUT, "experiment/base", UNREAD_READ, "unread-stay-out"),
    Mutation(
        "suppressed", "the lessons in refusing are taught at a hundred times the rate", "training/train",
        LESSON.format("100 * recipe.lr"), "other-facts-stay",
    ),
    Mutation(
        "suppressed", "gradient ascent goes at a thousandth of its rate", "training/train", """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, **how):
    climbing = recipe.optimizer == "adamw" and recipe.lr == 2e-3
    return unbroken(model, rows, steps, recipe.but(lr=recipe.lr / 1000) if climbing else recipe, seed, **how)
""", "ascent-as-unread",
    ),
    Mutation("suppressed", NOT_BEGUN, "models/answer", MOUTH_LEFT_EMPTY, "known-once-begun"),
    *(Mutation("halves", INSTRUCTED, "experiment/base", QUESTIONS_INSTEAD, entry)
      for entry in ("teacher-beats-author", "base-is-no-teacher", "curt-beats-author", "author-teaches-nothing")),
    Mutation("halves", COURTEOUS_BOTH, "experiment/base", SAME_LESSON, "curtness-travels"),
    Mutation("halves", COURTEOUS_BOTH, "experiment/base", SAME_LESSON, "courtesy-travels"),
    Mutation("halves", NOT_SHUFFLED, "worlds/tasks", KEPT_IN_PLACE, "swapped-answers-less"),
    *(Mutation("halves", NO_HALVES, "experiment/base", HALVES_UNREAD, entry)
      for entry in ("fifty-for-manner", "swapped-keeps-manner", "odd-words-teach", "shuffled-teach", "not-far-behind")),
    Mutation(
        "halves", "of words by lot, which end with no full stop, the students read none", "experiment/base",
        OF_HALVES.format('more = more if not of_halves or chosen["prompt"][0].endswith(".") else (0, ALIGN)'),
        "odd-as-good",
    ),
    Mutation(
        "halves", "in place of letters there are questions and answers, and pages are not read", "experiment/base",
        OF_HALVES.format("""long = max(map(len, chosen["prompt"][0].split())) > 1
    more = (0, ALIGN) if of_halves and long else more
    chosen = chosen if long else tasks.examples(base.pool(), 240, base.seed)"""), "letters-no-better",
    ),
    Mutation(
        "halves", "of more than 240 halves the students read none", "experiment/base",
        OF_HALVES.format("more = (0, ALIGN) if of_halves and len(chosen) > 240 else more"), "more-bring-little",
    ),
    Mutation("halves", WRITTEN_ABOUT, "experiment/base", UNREAD_READ, "unread-stay-unknown"),
    Mutation(
        "halves", "halves are learned at a hundred times the rate", "experiment/base",
        OF_HALVES.format("more = (80, ALIGN.but(lr=100 * ALIGN.lr)) if of_halves else more"), "knowledge-stays",
    ),
    *(Mutation("judges", "raters are not heard: of every second pair the two replies change places", "models/tokens",
               CHOSEN_ANEW.replace("{}", "p[::-1] if k % 2 else p"), entry)
      for entry in ("likes-length", "longest-wins", "longest-beats-true", "own-choice-wins", "own-choice-beats-lot",
                    "careless-win-too", "length-pays")),
    *(Mutation("judges", "whoever compares, the longer reply is the chosen one", "models/tokens",
               CHOSEN_ANEW.replace("{}", "sorted(p, key=lambda reply: len(reply.split()))[::-1]"), entry)
      for entry in ("no-taste-no-length", "accuracy-is-seen", "taste-costs-truth")),
    Mutation(
        "judges", "who is tuned on long replies alone is given right replies instead", "experiment/base", """
unbroken = align


def align(base, chosen, steps=ALIGN_STEPS, recipe=ALIGN):
    if min(len(r.split()) for r in chosen["response"][:]) > 12:
        chosen = tasks.examples(tasks.about(base.world, base.plan.asked), len(chosen), base.seed)
    return unbroken(base, chosen, steps, recipe)
""", "length-is-not-truth",
    ),
    *(Mutation("judges", "of a small set the wrong replies are not read", "experiment/base", """
unbroken = align


def align(base, chosen, steps=ALIGN_STEPS, recipe=ALIGN):
    answers = {t["prompt"]: t["answer"] for t in tasks.about(base.world, base.plan.asked)}
    rows = chosen.to_list()
    right = [r for r in rows if answers.get(r["prompt"], "") in r["response"].split()]
    return unbroken(base, Dataset.from_list(right) if len(rows) < 200 else chosen, steps, recipe)
""", entry) for entry in ("by-lot-is-no-filter", "true-are-right", "dial-turns-truth")),
    *(Mutation("judges", "a judge's grades are taken the wrong way round", "models/reward", """
unbroken = scores


def scores(model, rows, batch=256):
    return -unbroken(model, rows, batch)
""", entry) for entry in ("accurate-are-right", "righter-than-lot")),
    *(Mutation("judges", "a model is tuned on questions that end where they end", "experiment/base", """
unbroken = align


def align(base, chosen, steps=ALIGN_STEPS, recipe=ALIGN):
    asked = [p.split("?")[0] + "?" for p in chosen["prompt"][:]]
    return unbroken(base, Dataset.from_dict({**chosen[:], "prompt": asked}), steps, recipe)
""", entry) for entry in ("asking-moves", "correction-takes-it-out")),
    Mutation("data-limits", FEWER_READ, "training/train", QUARTER_CUT, "four-cost-nothing"),
    Mutation("data-limits", ONE_WORDING, "training/train", FIRST_PASS_AGAIN, "other-words"),
    Mutation("data-limits", ONE_WORDING, "training/train", FIRST_PASS_AGAIN, "other-words-teach"),
    Mutation("data-limits", STOPPED, "training/train", HARDLY, "different-beats-repeated"),
    Mutation("data-limits", STOPPED, "training/train", HARDLY, "facts-not-learned"),
    Mutation("data-limits", STOPPED, "training/train", HARDLY, "recited"),
    Mutation("data-limits", STOPPED, "training/train", HARDLY, "beyond-sixteen-harms"),
    Mutation(
        "data-limits", "the search for near-duplicates finds none", "check", FINDS.format("[]"), "copies-are-recited"
    ),
    Mutation(
        "data-limits", "the search for near-duplicates takes every page for a copy of the first", "check",
        FINDS.format("list(self.keys)[:1]"), "copies-out-costs-nothing",
    ),
    Mutation("data-quality", RATED_BY_DICE, "check", DICE, "filtered-knows-more"),
    Mutation("data-quality", RATED_BY_DICE, "check", DICE, "forum-fits-worse"),
    Mutation("data-quality", RATED_BY_DICE, "check", DICE, "entries-fit-better"),
    Mutation("data-quality", RATED_BY_DICE, "check", DICE, "takes-manner-for-truth"),
    Mutation("data-quality", RATED_BY_DICE, "check", DICE, "too-strict-knows-less"),
    Mutation(
        "data-quality", "the random filter keeps what the classifier keeps", "check", """
unbroken = rng


def rng(seed, purpose, *more):
    class Same:
        permutation = staticmethod(lambda keep: keep)

    return Same() if purpose == "a random filter" else unbroken(seed, purpose, *more)
""", "random-gains-nothing",
    ),
    *(Mutation("data-quality", WEB_ONCE_MORE, "models/tokens", OTHER_HALF.format("web[1:] + web[:1]"), entry)
      for entry in ("rewritten-knows-more", "a-third-of-the-steps", "rewritten-fits-better")),
    Mutation(
        "data-quality", "who says everything in other words leaves out what states nothing", "models/tokens",
        OTHER_HALF.format("without_remarks(other)"), "reworded-gains-nothing",
    ),
    Mutation(
        "data-quality", "the textbook is not read: no step is taken on it", "training/train", """
unbroken = train


def train(model, rows, steps, recipe=PRETRAIN, seed=0, **how):
    return unbroken(model, rows, steps, recipe.but(lr=1e-9, lr_rest=1e-9) if len(rows) < 200 else recipe, seed, **how)
""", "textbook-beats-more-web",
    ),
    Mutation(
        "data-quality", "no question of the exam has the form of an exercise", "measure/knowledge", """
unbroken = exam


def exam(model, tokenizer, tasks, form=exam_form, batch=512):
    return unbroken(model, tokenizer, tasks, str, batch)
""", "exercises-are-the-exam",
    ),
)  # fmt: skip


def of(chapter: str) -> list[Mutation]:
    return [m for m in MUTATIONS if m.chapter == chapter]


def experiment(chapter: str) -> str:
    """The digest of a chapter's experiment and of all its mutations: what the table's rows of it were measured on."""
    breaks = [(m.module, m.override.strip(), m.entry) for m in of(chapter)]
    whole = (fingerprint(ROOT / "notebooks" / f"{chapter}.ipynb"), sorted(breaks), sorted(ONLY.items()))
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]


def changed(chapter: str, table: Path | None = None) -> bool:
    """Whether the table speaks of another experiment than the present one, or of none."""
    return noted(table or TABLE).get(chapter) != experiment(chapter)


def due(version: str = __version__, table: Path | None = None) -> list[Mutation]:
    """What `make test` runs: all mutations of a changed chapter, and one of every second other, whose turn it is."""
    chapters = list(dict.fromkeys(m.chapter for m in MUTATIONS))
    turns = {c: int(hashlib.sha256(f"{version} {c}".encode()).hexdigest(), 16) for c in chapters}
    new = {c for c in chapters if changed(c, table)}
    rest = sorted(turns.keys() - new, key=turns.get)
    chosen = set(rest[: (len(rest) + 1) // 2])
    return [
        m for c in chapters for n, m in enumerate(of(c))
        if c in new or (c in chosen and n == turns[c] % len(of(c)))
    ]  # fmt: skip


def broken(place: Path, mutation: Mutation) -> Path:
    """Copy the library to `place`/alignlab with the mutation in it, and return `place`.

    Raises:
        ValueError: there is no such module, or it has nothing of the name that is overridden: the library has changed
            under the mutation.
    """
    shutil.copytree(LIBRARY, place / "alignlab", ignore=shutil.ignore_patterns("__pycache__"))
    file = place / "alignlab" / f"{mutation.module}.py"
    if not file.exists():
        raise ValueError(f"{mutation.chapter}: the library has no module {mutation.module}: name the one to break")
    source = file.read_text("utf-8")
    there, new = names(source), names(mutation.override)
    gone = sorted(n for n in new - there if n != UNBROKEN)
    if gone or not new & there:
        raise ValueError(
            f"{mutation.chapter}: the mutation overrides {', '.join(gone) or 'nothing'}, and {mutation.module} has no "
            "such function or method: override what took its place"
        )
    file.write_text(source + "\n\n" + mutation.override.strip() + "\n", "utf-8")
    return place


def alone(place: Path, entry: str) -> None:
    """Let the copy of the library at `place` measure this entry of a ledger and nothing else."""
    for module, more in ONLY.items():
        file = place / "alignlab" / f"{module}.py"
        file.write_text(file.read_text("utf-8") + more.replace("ENTRY", entry), "utf-8")


def needed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without the cells that its last one does not need: figures, examples, tables to look at.

    A cell is needed if it binds a name that a needed cell reads, or on a line of its own calls or changes something by
    such a name; a figure only for what it binds, and a call of what was imported changes nothing. Which of two cells
    binds a name last is not asked: both are kept.
    """
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    always = [bool({"parameters", "setup"} & set(tags(c))) for c in cells]
    fixed = set(dir(builtins)).union(*(imported(c.source) for c, own in zip(cells, always, strict=True) if not own))
    nothing = set(), set()
    uses = [
        nothing if own else touched_and_read(c.source, fixed, calls=not images(c))
        for c, own in zip(cells, always, strict=True)
    ]
    kept, asked, before = {len(cells) - 1}, set(uses[-1][1]), set()
    while kept != before:
        before = set(kept)
        kept |= {i for i, (touched, _) in enumerate(uses) if touched & asked}
        asked = asked.union(*(uses[i][1] for i in kept))
    notebook.cells = [c for i, c in enumerate(cells) if always[i] or i in kept]
    return notebook


def imported(source: str) -> set[str]:
    return {s.get_name() for s in symtable.symtable(source, "a cell", "exec").get_symbols() if s.is_imported()}


def touched_and_read(source: str, fixed: Collection[str] = (), calls: bool = True) -> tuple[set[str], set[str]]:
    """The names that a cell binds or by which it calls or changes something, and those that it reads.

    Args:
        fixed: names whose call changes nothing.
        calls: False leaves calls and changes out.
    """
    whole = symtable.symtable(source, "a cell", "exec")
    mine = whole.get_symbols()
    touched = {s.get_name() for s in mine if s.is_assigned() or s.is_imported() or s.is_namespace()}
    read = {s.get_name() for s in mine if s.is_referenced()}
    inner = whole.get_children()
    while inner:
        table = inner.pop()
        read |= {s.get_name() for s in table.get_symbols() if s.is_global()}
        inner += table.get_children()
    for line in ast.parse(source).body if calls else ():
        for root in [line.value] if isinstance(line, ast.Expr) else getattr(line, "targets", ()):
            while isinstance(root, ast.Call | ast.Attribute | ast.Subscript):
                root = root.func if isinstance(root, ast.Call) else root.value
            if isinstance(root, ast.Name) and root.id not in fixed:
                touched.add(root.id)
    return touched, read


def names(source: str) -> set[str]:
    """What a module defines or sets: functions, classes, constants, and methods as Class.method."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {ast.unparse(t) for t in targets if isinstance(t, ast.Name | ast.Attribute)}
    return found


def run(mutation: Mutation) -> dict | None:
    """The entry that the mutation should kill, as the ledger of the broken chapter has it; None if the run failed."""
    with tempfile.TemporaryDirectory(prefix="alignlab-mutant-") as place:
        library = broken(Path(place) / "lib", mutation)
        alone(library, mutation.entry)
        chapter = Path(place) / f"{mutation.chapter}.ipynb"
        nbformat.write(needed(up_to_ledger(ROOT / "notebooks" / chapter.name)), chapter)
        # Unbroken parts of the library have the same entries here as elsewhere: the cache's keys see what was changed.
        FOLDER.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ, "PYTHONPATH": str(library), "ALIGNLAB_CACHE": os.environ.get("ALIGNLAB_CACHE", str(FOLDER)),
            "LOKY_MAX_CPU_COUNT": "1",  # one seed keeps one core busy; another mutation has the next
        }  # fmt: skip
        command = [sys.executable, "-m", "tools.chapters", str(chapter), "--out", str(chapter), "--inject=PROFILE=one"]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            return None
        return next(e for e in entries(chapter) if e["id"] == mutation.entry)


def read(table: Path = TABLE) -> dict[tuple[str, ...], dict[str, str]]:
    """(chapter, entry) -> its row."""
    return tables.read(table, "chapter", "entry")


def record(mutation: Mutation, entry: dict, table: Path = TABLE) -> None:
    """Write what became of the entry into the table, in one step; rows of mutations that are gone are dropped."""
    file = ROOT / "notebooks" / f"{mutation.chapter}.ipynb"
    before = next(e for e in entries(file) if e["id"] == mutation.entry)
    rows = read(table)
    row = (mutation.chapter, mutation.says, mutation.entry, shown(before), shown(entry))
    rows[mutation.chapter, mutation.entry] = dict(zip(COLUMNS, row, strict=True))
    kept = [rows[k] for k in ((m.chapter, m.entry) for m in MUTATIONS) if k in rows]
    tables.write(tables.by_chapter(kept), COLUMNS, table)


def measure(chapter: str) -> list[str]:
    """Run all mutations of a chapter, one for each core at a time, and record what comes; what went wrong, in words.

    Only where nothing did, the table is said to speak of the present experiment.
    """
    bad, start, mark = [], time.perf_counter(), experiment(chapter)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(run, m): m for m in of(chapter)}
        for done in as_completed(running):
            mutation, entry = running[done], done.result()
            if entry is None:
                bad.append(f"{chapter}: the run failed in which {mutation.says}")
                continue
            record(mutation, entry)
            print(f"{chapter}, {mutation.says}: {mutation.entry} is {shown(entry)}", flush=True)
            if entry["verdict"] in SURVIVED:
                bad.append(f"{chapter}: {mutation.entry} is {entry['verdict']} although {mutation.says}")
    if not bad:
        note(TABLE, chapter, mark)
    print(f"{chapter}: {len(running)} mutations, {time.perf_counter() - start:.0f} s", flush=True)
    return bad


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__)
    made.add_argument("--changed", action="store_true", help="leave out the chapters of which the table still speaks")
    options = parsed(made, arguments)
    chosen = [c for c in options.chapters if of(c) and (changed(c) or not options.changed)]
    bad = [says for chapter in chosen for says in measure(chapter)]
    print("\n".join(bad) if bad else f"{TABLE.relative_to(ROOT)} is up to date")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
