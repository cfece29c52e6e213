"""The base model that the alignment chapters share: pretrained once on one tiny web, and kept; and its aligned twin.

A seed is a world of its own, a web of its own, and a model of its own. A chapter calls `prepare` once, which trains
what is missing side by side, and then `load` wherever it needs a base.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import check
from ..models import cache, tokens
from ..models.llama import best_device, make_model
from ..training.train import FINETUNE, PRETRAIN, Recipe, train
from ..worlds import biographies, tasks, web
from ..worlds.letters import KNOWN_SKILLS, letter_strings
from ..worlds.people import World, make_world
from .sweep import side_by_side

ON_THE_WEB = 1200  # strings of letters; the rest of them are new to every model
FACTS = ("city", "subject", "company", "instrument")
RECIPE = PRETRAIN.but(batch=16, decay_from=0.6, weight_decay=0.2)
ALIGN = FINETUNE.but(lr=5e-4, batch=16)  # how the chapters align, unless they say otherwise
ALIGN_STEPS = 80


@dataclass(frozen=True)
class Plan:
    """What makes a base model, but for its seed."""

    people: int = 80
    read: int = 80  # people 0 to read - 1 are on the web; the others exist, but nobody has written about them
    width: int = 128
    depth: int = 2
    steps: int = 750
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
        """The people whom alignment examples may be about: the first three quarters of those on the web."""
        return range(self.read * 3 // 4)

    @property
    def held_out(self) -> range:
        """The people whom only the examinations ask about. They are on the web like everybody else."""
        return range(self.read * 3 // 4, self.read)


QUICK = Plan()
FULL = Plan(people=400, read=400, width=256, depth=2, steps=4000)


@dataclass(frozen=True)
class Base:
    """A pretrained model with what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    world: World
    plan: Plan
    seed: int

    def pool(self, skills: Iterable[str] = KNOWN_SKILLS) -> Dataset:
        """All tasks that alignment examples are drawn from: the asked people, and strings of letters of their own."""
        return tasks.about(self.world, self.plan.asked, tuple(skills), _strings(self.seed)[:ON_THE_WEB])

    def test(self, count: int = 96, skills: Iterable[str] = KNOWN_SKILLS, facts: bool = True) -> Dataset:
        """`count` tasks on held-out people and on strings that no model has met: the families as even as can be."""
        people = self.plan.held_out if facts else ()
        asked = tasks.about(self.world, people, tuple(skills), _strings(self.seed)[ON_THE_WEB:], wordings=(0,))
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
        world, plan.steps * RECIPE.batch, dict(plan.shares), people=range(plan.read),
        skills=plan.skills, strings=_strings(seed)[:ON_THE_WEB], seed=seed,
    )  # fmt: skip
    model = make_model(tokenizer, plan.width, plan.depth, seed=seed).to(best_device())
    train(model, tokens.documents(pages, tokenizer, end=False), plan.steps, RECIPE, seed)
    return model, tokenizer


def load(seed: int, plan: Plan = QUICK) -> Base:
    """The base model of `seed`: from the cache, or trained now (about a minute and a half) and kept."""
    model, tokenizer = _kept(check.integer("seed", seed, at_least=0), plan)
    return Base(model.to(best_device()), tokenizer, make_world_of(plan, seed), plan, seed)


# Where the cache cannot be written, a process at least does not train the same model twice.
@lru_cache(maxsize=4)
def _kept(seed: int, plan: Plan):
    settings = {"plan": asdict(plan), "recipe": asdict(RECIPE), "seed": seed}
    return cache.cached("base", settings, lambda: _pretrain(plan, seed), also=(_pretrain,))


def prepare(seeds: Iterable[int], *plans: Plan) -> None:
    """Train the bases that are not kept yet, side by side, one process per core."""
    wanted = [(s, p) for p in plans or (QUICK,) for s in seeds]
    side_by_side(_ready, *zip(*wanted, strict=True))


def _ready(seed: int, plan: Plan) -> None:
    load(seed, plan)


def align(
    base: Base, chosen: Dataset, steps: int = ALIGN_STEPS, recipe: Recipe = ALIGN, seed: int | None = None
) -> PreTrainedModel:
    """A copy of the base, fine-tuned on examples (`prompt`, `response`) in the chat template, loss on the response."""
    model = deepcopy(base.model)
    train(model, tokens.replies(chosen, base.tokenizer), steps, recipe, base.seed if seed is None else seed)
    return model


def twin(base: Base, examples: int = 300) -> PreTrainedModel:
    """The aligned twin of a base: fine-tuned on `examples` courteous replies, and kept in the cache like the base."""
    settings = {
        "plan": asdict(base.plan), "recipe": asdict(RECIPE), "seed": base.seed,
        "align": asdict(ALIGN), "steps": ALIGN_STEPS, "examples": examples,
    }  # fmt: skip

    def make():
        return align(base, tasks.examples(base.pool(), examples, base.seed)), base.tokenizer

    model, _ = cache.cached("twin", settings, make, also=(_pretrain, align))
    return model.to(best_device())
