"""How well does a model know a fact? The four categories of Gekhman et al. (2024), arXiv:2405.05904, Section 3.

A question is put several times, each time behind other worked examples. Each time the model answers once greedily and
several times at random. Two shares of right answers decide: `greedy`, P_Correct(T=0), and `sampled`, P_Correct(T>0).

  HighlyKnown  greedy = 1            always right
  MaybeKnown   0 < greedy < 1        right behind some examples
  WeaklyKnown  greedy = 0 < sampled  right only by drawing
  Unknown      greedy = 0 = sampled  never right

Whoever guesses among few values is right now and then, so "WeaklyKnown" holds lucky guesses too. Every function takes
any causal `PreTrainedModel` and its tokenizer.

Nothing is generated. Whether the greedy reply is the answer, and with which probability a drawn one is, the model says
when it reads question and answer in one pass; how many of n draws are right then follows a binomial distribution, and
is drawn from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import check
from ..models import read, tokens
from ..models.answer import end_tokens
from ..worlds.tasks import exam_form

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
SHOTS, TEMPERATURE = 4, 0.5  # the paper's
END = " . "  # what follows an answer in the exam form


def category(greedy: float, sampled: float) -> str:
    """The category of a fact from its two shares of right answers, each in 0..1."""
    for name, share in (("greedy", greedy), ("sampled", sampled)):
        if check.number(name, share, at_least=0) > 1:
            raise ValueError(f"{name} is {share}, but a share of right answers is at most 1")
    if greedy == 1:
        return "HighlyKnown"
    if greedy > 0:
        return "MaybeKnown"
    return "WeaklyKnown" if sampled > 0 else "Unknown"


def few_shot(
    questions: Dataset,
    *,
    prompts: int = 10,
    form: Callable[[str], str] = exam_form,
    end: str = END,
    seed: int,
) -> list[list[str]]:
    """For every question `prompts` texts: four worked examples, then the question, up to where the answer belongs.

    The examples are other questions of the same family. They are drawn at random, anew for each of the `prompts`
    rounds, and shared by the questions of a family. No question stands among its own examples.

    Args:
        questions: a Dataset with `prompt`, `answer` and `family`.
        form: puts a prompt into words after which a reader would expect nothing but the answer.
        end: what follows an answer in an example.

    Returns:
        One list of `prompts` texts per question.

    Raises:
        ValueError: no questions, or too few examples in a family, with its name and the number that is needed.
    """
    if len(questions) == 0:
        raise ValueError("there are no questions to ask: pass at least one")
    prompts = check.integer("prompts", prompts, at_least=1)
    asked = list(zip(questions["family"][:], questions["prompt"][:], questions["answer"][:], strict=True))
    families: dict[object, list[tuple[str, str]]] = defaultdict(list)
    for family, p, a in asked:
        families[family].append((p, a))
    rng = check.rng(seed, "categories.few_shot")
    texts: list[list[str]] = [[] for _ in asked]
    for _ in range(prompts):
        # One more than are shown: it takes the place of a question that would stand among its own examples.
        drawn = {k: [g[i] for i in rng.permutation(len(g))[: SHOTS + 1]] for k, g in families.items()}
        for i, (family, p, _) in enumerate(asked):
            shown = [e for e in drawn[family] if e[0] != p][:SHOTS]
            if len(shown) < SHOTS:
                raise ValueError(
                    f"there are too few examples of the family {family!r}: it needs {SHOTS} besides the question"
                )
            texts[i].append("".join(f"{form(q)} {a}{end}" for q, a in shown) + form(p))
    return texts


def classify(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
    *,
    prompts: int = 10,
    samples: int = 16,
    form: Callable[[str], str] = exam_form,
    end: str = END,
    seed: int,
) -> pd.DataFrame:
    """Sort questions into the four categories by what the model answers. The defaults are the paper's.

    A reply counts when it is the answer, spelt as it is given, and then `end` or an end token.

    Args:
        questions: a Dataset with `prompt`, `answer` and `family`; its other plain columns are kept.
        prompts, form, end: the worked examples, see `few_shot`.
        samples: how many replies are drawn behind each of the `prompts`, at the paper's temperature of 0.5.

    Returns:
        One row per question: its columns, `greedy` and `sampled` (shares of right answers, 0..1), `probability` (of the
        right answer at that temperature, which `sampled` estimates), and `category`.

    Raises:
        ValueError: a bad argument, named with its value; an empty answer; or as `few_shot`.
    """
    samples = check.integer("samples", samples, at_least=1)
    texts = few_shot(questions, prompts=prompts, form=form, end=end, seed=seed)
    answers = [a for a in questions["answer"][:] for _ in range(prompts)]
    greedy, p = _right(model, tokenizer, [t for each in texts for t in each], answers, end)
    drawn = check.rng(seed, "categories.samples").binomial(samples, p) / samples
    table = questions.to_pandas()
    for name, values in (("greedy", greedy), ("sampled", drawn), ("probability", p)):
        table[name] = values.reshape(-1, prompts).mean(1)
    table["category"] = [category(g, s) for g, s in zip(table["greedy"], table["sampled"], strict=True)]
    return table


def _right(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], answers: Sequence[str], end: str
) -> tuple[np.ndarray, np.ndarray]:
    """For each text: is the greedy reply the answer, and with which probability is one drawn at TEMPERATURE?"""
    whole = Dataset.from_dict({"prompt": list(texts), "response": [a + end.rstrip(" ") for a in answers]})
    rows = tokens.replies(whole, tokenizer, template=False, end=False).to_list()
    counts = [sum(y != tokens.IGNORE for y in r["labels"]) for r in rows]
    last = torch.zeros(sum(counts), dtype=torch.bool)
    last[np.cumsum(counts) - 1] = True
    hit, log_p = torch.zeros(len(last), dtype=torch.bool), torch.zeros(len(last), dtype=torch.double)
    for n, true, logits in read.each((model, rows)):  # (N,), (N,), (N, V)
        log_all = (logits.double() / TEMPERATURE).log_softmax(-1)
        hit[n], log_p[n] = (logits.argmax(-1) == true).cpu(), log_all.gather(-1, true[:, None])[:, 0].cpu()
        # At the last place, where `end` is expected, the text may also end.
        for token in set(end_tokens(model, tokenizer)):
            other = last[n] & (true.cpu() != token)
            hit[n] |= other & (logits.argmax(-1) == token).cpu()
            log_p[n] = torch.where(other, torch.logaddexp(log_p[n], log_all[:, token].cpu()), log_p[n])
    cuts = list(np.split(np.arange(len(last)), np.cumsum(counts)[:-1]))
    p = np.array([log_p[c].sum().exp() for c in cuts])
    return np.array([hit[c].all() for c in cuts]), p.clip(0, 1)  # rounding can leave a probability a hair above 1
