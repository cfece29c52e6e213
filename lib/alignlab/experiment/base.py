"""The base model that the alignment chapters share: pretrained once on one tiny web, and kept; and its aligned twin.

A seed is a world of its own, a web of its own, and a model of its own. A chapter calls `prepare` once, which trains
what is missing side by side, and then `load` wherever it needs a base. `prepare_all` trains what any chapter needs:

    python -m alignlab.experiment.base            the bases of all chapters, for the seeds 0, 1 and 2
    python -m alignlab.experiment.base 100 101    for other seeds
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import check
from ..models import cache, tokens
from ..models.llama import best_device, make_model, parameters
from ..training.train import FINETUNE, PRETRAIN, Recipe, train
from ..worlds import biographies, tasks, web
from ..worlds.letters import KNOWN_SKILLS, letter_strings
from ..worlds.people import World, make_world
from .sweep import side_by_side, threads, with_threads  # a base is the same in a script as in a worker of `prepare`

ON_THE_WEB = 1200  # strings of letters; the rest of them are new to every model
FACTS = ("city", "subject", "company", "instrument")
RECIPE = PRETRAIN.but(batch=16, decay_from=0.6, weight_decay=0.2)
ALIGN = FINETUNE.but(lr=5e-4, batch=16)  # how the chapters align, unless they say otherwise
ALIGN_STEPS = 80
OPTIMISERS = {"muon": "Muon for the matrices in the layers, AdamW for embeddings and norms", "adamw": "AdamW"}


@dataclass(frozen=True)
class Plan:
    """What makes a base model, but for its seed."""

    people: int = 100
    read: int = 80  # people 0 to read - 1 are on the web; the others exist, but nobody has written about them
    width: int = 128
    depth: int = 2
    steps: int = 1100
    shares: tuple[tuple[str, float], ...] = field(default_factory=lambda: tuple(web.SHARES.items()))
    skills: tuple[str, ...] = KNOWN_SKILLS

    def __post_init__(self):
        check.integer("people", self.people, at_least=8)
        check.integer("read", self.read, at_least=1, at_most=self.people)
        check.integer("steps", self.steps, at_least=0)

    def without(self, *registers: str) -> Plan:
        """The same plan on a web that lacks `registers`; the others take their place in proportion."""
        shares = dict(self.shares)
        for name in registers:
            check.one_of("register", name, shares)
            del shares[name]
        return Plan(**{**self.__dict__, "shares": tuple(shares.items())})

    @property
    def asked(self) -> range:
        """The people whom the web's questions and answers are about, and alignment examples may be: the first three
        quarters of those on the web."""
        return range(self.read * 3 // 4)

    @property
    def held_out(self) -> range:
        """The people whom only the examinations ask about: they have their entries in the web's encyclopaedia, and
        nowhere else is anything said of them."""
        return range(self.read * 3 // 4, self.read)

    @property
    def unread(self) -> range:
        """The people about whom nobody has written: whatever a model says of them, it has guessed."""
        return range(self.read, self.people)


QUICK = Plan()
FULL = Plan(people=500, read=400, width=256, depth=2, steps=4000)
# What the chapters ask for in the profile "quick".
SHARED = (
    QUICK,
    QUICK.without("helpful"),
    replace(QUICK, read=QUICK.read // 2),
    replace(QUICK, width=QUICK.width // 2),
)


@dataclass(frozen=True)
class Base:
    """A pretrained model with what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    world: World
    plan: Plan
    seed: int

    def pool(self, skills: Iterable[str] | None = None) -> Dataset:
        """All tasks that alignment examples are drawn from: the asked people, and the web's strings of letters.

        Args:
            skills: default: those that the web shows, as everywhere here.
        """
        skills = self.plan.skills if skills is None else tuple(skills)
        return tasks.about(self.world, self.plan.asked, skills, _strings(self.seed)[:ON_THE_WEB])

    def card(self) -> dict[str, str]:
        """What was read by this model, for how long and how, in words, as a model's card has it."""
        plan, recipe = self.plan, RECIPE
        rows = plan.steps * recipe.batch
        shares, seen = dict(plan.shares), rows * web.LENGTH
        parts = ", ".join(f"{name} {share / sum(shares.values()):.0%}" for name, share in shares.items())
        size = parameters(self.model)
        decay = "constant" if recipe.decay_from >= 1 else f"constant, from {recipe.decay_from:.0%} of the steps to 0"
        return {
            "people with an entry": f"{plan.read}",
            "of these, asked about": f"{len(plan.asked)}: all other registers are about them only",
            "people without": f"{len(plan.unread)}: they exist, and nobody has written about them",
            "strings of letters": f"{ON_THE_WEB}, of 3 or 4 letters; skills: {', '.join(plan.skills)}",
            "pages": f"{rows:,} rows of {web.LENGTH} tokens, none read twice: {seen:,} tokens",
            "registers": parts,
            "model": f"Llama, {plan.depth} layers of width {plan.width}, {size:,} parameters, "
            f"{len(self.tokenizer)} words",
            "training": f"{plan.steps} steps of {recipe.batch} rows: {seen / size:.1f} tokens per parameter",
            "optimiser": OPTIMISERS[recipe.optimizer],
            "rate": f"{recipe.lr}, {decay}; weight decay {recipe.weight_decay}",
        }

    def test(self, count: int = 96, skills: Iterable[str] | None = None, facts: bool = True) -> Dataset:
        """`count` tasks on held-out people and on strings that no model has met: the families as even as can be.

        Args:
            facts: False leaves the people out.

        Raises:
            ValueError: there are fewer: says how many.
        """
        people = self.plan.held_out if facts else ()
        skills = self.plan.skills if skills is None else tuple(skills)
        asked = tasks.about(self.world, people, skills, _strings(self.seed)[ON_THE_WEB:], wordings=(0,))
        if check.integer("count", count, at_least=1) > len(asked):
            raise ValueError(f"count is {count}, but there are {len(asked)} tasks for a test: ask for at most so many")
        return tasks.examples(asked, count, self.seed, purpose="base.test")


def _strings(seed: int) -> list[str]:
    """Three or four letters each; the first `ON_THE_WEB` are on the web, the others are for examinations only."""
    return letter_strings(1320, seed=seed, lengths=(3, 4))


def make_world_of(plan: Plan, seed: int) -> World:
    return make_world(plan.people, FACTS, seed=seed)


def _pretrain(plan: Plan, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    world = make_world_of(plan, seed)
    tokenizer = tokens.word_tokenizer(biographies.words(world, web.vocabulary()))
    pages = web.pages(
        world, plan.steps * RECIPE.batch, dict(plan.shares), people=range(plan.read), asked=plan.asked,
        skills=plan.skills, strings=_strings(seed)[:ON_THE_WEB], seed=seed,
    )  # fmt: skip
    model = make_model(tokenizer, plan.width, plan.depth, seed=seed).to(best_device())
    train(model, tokens.documents(pages, tokenizer), plan.steps, RECIPE, seed)
    return model, tokenizer


def load(seed: int, plan: Plan = QUICK) -> Base:
    """The base model of `seed`: from the cache, or trained now (about two minutes) and kept.

    The model is the caller's own: whatever is done to it changes nothing for anybody else.
    """
    seed = check.integer("seed", seed, at_least=0)
    model, tokenizer = with_threads(threads(), _copied, plan, seed)
    return Base(model.to(best_device()), tokenizer, make_world_of(plan, seed), plan, seed)


def _copied(plan: Plan, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    key, _ = cache.key(_pretrain, plan, seed)
    return deepcopy(_pretrained(cache.folder(), key, plan, seed))


# Reading it again takes longer than a copy; and where the cache cannot be written, it is trained only once.
@lru_cache(maxsize=16)
def _pretrained(folder: Path, key: str, plan: Plan, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return cache.cached("base", _pretrain, plan, seed)


def prepare(seeds: Iterable[int], *plans: Plan) -> None:
    """Train the bases that are not kept yet, side by side, one process per core."""
    seeds = list(seeds)
    if not seeds:
        raise ValueError("no seeds were given: pass at least one, for instance [0, 1, 2]")
    wanted = dict.fromkeys((s, p) for p in plans or (QUICK,) for s in seeds)  # none twice: one would wait for the other
    side_by_side(_ready, *zip(*wanted, strict=True))


def prepare_all(seeds: Iterable[int]) -> None:
    """Train every base that a chapter asks for in the profile "quick", in one pool: no core waits between chapters."""
    prepare(seeds, *SHARED)


def _ready(seed: int, plan: Plan) -> None:
    load(seed, plan)


def align(base: Base, chosen: Dataset, steps: int = ALIGN_STEPS, recipe: Recipe = ALIGN) -> PreTrainedModel:
    """A copy of the base, fine-tuned on examples (`prompt`, `response`) in the chat template, loss on the response."""
    model = deepcopy(base.model)
    train(model, tokens.replies(chosen, base.tokenizer), steps, recipe, base.seed)
    return model


def twin(base: Base, examples: int = 300) -> PreTrainedModel:
    """The aligned twin of a base: fine-tuned on `examples` courteous replies, and kept in the cache like the base.

    It is made from the base as it was pretrained, whatever became of `base.model` since.
    """
    model, _ = with_threads(threads(), cache.cached, "twin", _aligned, base.plan, base.seed, examples)
    return model.to(best_device())


def _aligned(plan: Plan, seed: int, examples: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    base = load(seed, plan)
    return align(base, tasks.examples(base.pool(), examples, seed)), base.tokenizer


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m alignlab.experiment.base", description=prepare_all.__doc__)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2], help="default: 0 1 2")
    prepare_all(parser.parse_args(arguments).seeds)


if __name__ == "__main__":
    from alignlab.experiment import base  # the module that everybody else knows, not a second one named __main__

    base.main()
