"""How well does a model know a fact? The four categories of Gekhman et al. (2024), arXiv:2405.05904, Section 3.

A question is put several times, each time behind other worked examples. Each time the model answers once greedily and
several times at random. Two shares of right answers decide: `greedy`, P_Correct(T=0), and `sampled`, P_Correct(T>0).

  HighlyKnown  greedy = 1            always right
  MaybeKnown   0 < greedy < 1        right behind some examples
  WeaklyKnown  greedy = 0 < sampled  right only by drawing
  Unknown      greedy = 0 = sampled  never right

Whoever guesses among few values is right now and then, so "WeaklyKnown" holds lucky guesses too. Every function takes
any causal `PreTrainedModel` and its tokenizer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from .. import check
from ..models import tokens
from ..worlds.tasks import exam_form

CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
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
    examples: Dataset | None = None,
    prompts: int = 10,
    shots: int = 4,
    by: str | None = "family",
    form: Callable[[str], str] = exam_form,
    end: str = END,
    seed: int = 0,
) -> list[list[str]]:
    """For every question `prompts` texts: `shots` worked examples, then the question, up to where the answer belongs.

    The examples are drawn at random, anew for each of the `prompts` rounds, and shared by the questions of a group.
    No question stands among its own examples.

    Args:
        questions: a Dataset with `prompt` and `answer`.
        examples: a Dataset of the same columns to draw the examples from; default: the questions themselves.
        by: the column that says which questions are of one kind; examples are of the kind of the question. None: all
            are of one kind.
        form: puts a prompt into words after which a reader would expect nothing but the answer.
        end: what follows an answer in an example.

    Returns:
        One list of `prompts` texts per question.

    Raises:
        ValueError: no questions, or too few examples of a kind, with the kind and the number that is needed.
    """
    if len(questions) == 0:
        raise ValueError("there are no questions to ask: pass at least one")
    prompts = check.integer("prompts", prompts, at_least=1)
    shots = check.integer("shots", shots, at_least=0)
    pool = questions if examples is None else examples
    groups: dict[object, list[tuple[str, str]]] = defaultdict(list)
    for kind, p, a in zip(_kinds(pool, by), pool["prompt"][:], pool["answer"][:], strict=True):
        groups[kind].append((p, a))
    rng = check.rng(seed, "categories.few_shot")
    texts: list[list[str]] = [[] for _ in range(len(questions))]
    asked = list(zip(_kinds(questions, by), questions["prompt"][:], strict=True))
    for _ in range(prompts):
        # One more than are shown: it takes the place of a question that would stand among its own examples.
        drawn = {k: [g[i] for i in rng.permutation(len(g))[: shots + 1]] for k, g in groups.items()}
        for i, (kind, p) in enumerate(asked):
            shown = [e for e in drawn.get(kind, []) if e[0] != p][:shots]
            if len(shown) < shots:
                raise ValueError(
                    f"there are too few examples of the kind {kind!r}: {shots} shots need {shots} besides the question"
                )
            texts[i].append("".join(f"{form(q)} {a}{end}" for q, a in shown) + form(p))
    return texts


def _kinds(pairs: Dataset, by: str | None) -> list:
    if by is None:
        return [None] * len(pairs)
    check.one_of("by", by, pairs.column_names)
    return pairs[by][:]


def classify(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
    examples: Dataset | None = None,
    *,
    prompts: int = 10,
    shots: int = 4,
    samples: int = 16,
    temperature: float = 0.5,
    by: str | None = "family",
    form: Callable[[str], str] = exam_form,
    end: str = END,
    one_token: bool = False,
    max_new_tokens: int | None = None,
    seed: int = 0,
    batch: int = 256,
) -> pd.DataFrame:
    """Sort questions into the four categories by what the model answers. The defaults are the paper's.

    An answer counts when the text up to `end` is the right answer, but for case and spaces.

    With `one_token` nothing is generated: one forward pass gives the distribution of the first token; the greedy answer
    is its mode, and the number of right ones among `samples` draws is drawn from the binomial distribution that the
    draws follow. That is exactly sampling, where a first token is always a whole answer: with the word-level tokenizer
    of this book and one-word answers. Where a token can begin a longer answer it would be too kind, so it is never
    chosen unasked.

    Args:
        questions: a Dataset with `prompt` and `answer`; its other plain columns are kept.
        examples, prompts, shots, by, form, end: the worked examples, see `few_shot`.
        samples: how many answers are drawn behind each of the `prompts`, at `temperature`.
        max_new_tokens: default: two more than the longest answer has; what goes on longer is wrong anyway.
        batch: prompts at once; a quarter of it when generating, where continuations part.

    Returns:
        One row per question: its columns, `greedy` and `sampled` (shares of right answers, 0..1), `category`, and with
        `one_token` also `probability`: the mean probability of the right answer at `temperature`, which `sampled`
        estimates.

    Raises:
        ValueError: with `one_token` an answer that is not one token; or a bad argument, named with its value.
    """
    samples = check.integer("samples", samples, at_least=1)
    temperature = check.number("temperature", temperature, above=0)
    batch = check.integer("batch", batch, at_least=1)
    texts = few_shot(questions, examples, prompts, shots, by, form, end, seed)
    heads = tokens.prompt_ids([t for each in texts for t in each], tokenizer, template=False)
    answers = questions["answer"][:]
    pairs = Dataset.from_dict({"prompt": questions["prompt"][:], "response": answers})
    encoded = tokens.replies(pairs, tokenizer, template=False, end=False)[:]  # labels: the answer
    tails = [[y for y in labels if y != tokens.IGNORE] for labels in encoded["labels"]]
    if one_token:
        long = next((a for a, t in zip(answers, tails, strict=True) if len(t) != 1), None)
        if long is not None:
            raise ValueError(
                f"the answer {long!r} is not one token: leave one_token=False, so that answers are generated"
            )
        greedy, p = _first_token(model, heads, [t[0] for t in tails for _ in range(prompts)], temperature, batch)
        drawn = check.rng(seed, "categories.first_token").binomial(samples, p) / samples
    else:
        most = max(len(t) for t in tails) + 2 if max_new_tokens is None else max_new_tokens
        most = check.integer("max_new_tokens", most, at_least=1)
        wanted = [a for a in answers for _ in range(prompts)]
        right = _generated(model, tokenizer, heads, wanted, samples, temperature, end, most, seed, batch)
        greedy, drawn = right[:, 0], right[:, 1:].mean(1)
    table = questions.to_pandas()
    table["greedy"] = greedy.reshape(-1, prompts).mean(1)
    table["sampled"] = drawn.reshape(-1, prompts).mean(1)
    if one_token:
        table["probability"] = p.reshape(-1, prompts).mean(1)
    table["category"] = [category(g, s) for g, s in zip(table["greedy"], table["sampled"], strict=True)]
    return table


def _batches(heads: Sequence[list[int]], batch: int) -> Iterator[tuple[list[int], int]]:
    """Batches of row numbers, all of one length, and how many first tokens a batch has in common.

    One length means no padding, so the same numbers as one by one, with any model. What is common is read only once:
    the questions of a kind stand behind the same worked examples.
    """
    alike: list[list[int]] = []
    for i in sorted(range(len(heads)), key=lambda i: (len(heads[i]), heads[i])):
        first = heads[alike[-1][0]] if alike else []
        if len(first) == len(heads[i]) and 2 * _common(first, heads[i]) >= len(first):
            alike[-1].append(i)
        else:
            alike.append([i])
    others = defaultdict(list)  # too few to be worth a batch of their own
    for rows in alike:
        if len(rows) < 8:
            others[len(heads[rows[0]])] += rows
    for rows in [*(r for r in alike if len(r) >= 8), *others.values()]:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            # Sorted: what the first and the last have in common, all have. The last token is left to be read.
            yield part, min(_common(heads[part[0]], heads[part[-1]]), len(heads[part[0]]) - 1)


def _common(a: list[int], b: list[int]) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def _read(model: PreTrainedModel, heads: list[list[int]], common: int) -> tuple[torch.Tensor, DynamicCache]:
    """Logits (B, V) of the token after each of the prompts, of which the first `common` tokens agree."""
    ids = torch.tensor(heads, device=model.device)
    cache = DynamicCache(config=model.config)
    if common:
        _, cache = _next(model, ids[:1, :common], cache)
        cache.batch_repeat_interleave(len(ids))
    return _next(model, ids[:, common:], cache)


def _next(model: PreTrainedModel, ids: torch.Tensor, cache: DynamicCache) -> tuple[torch.Tensor, DynamicCache]:
    """Logits (B, V) of the token after `ids` (B, T), and the cache with `ids` in it."""
    out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1].float(), out.past_key_values


@torch.inference_mode()
def _first_token(model, heads, wanted, temperature, batch) -> tuple[np.ndarray, np.ndarray]:
    """For each prompt: is the wanted token the likeliest, and what is its probability at `temperature`?"""
    hit, p = np.empty(len(heads), dtype=bool), np.empty(len(heads))
    for rows, common in _batches(heads, batch):
        logits, _ = _read(model, [heads[i] for i in rows], common)
        true = torch.tensor([wanted[i] for i in rows], device=model.device)
        hit[rows] = (logits.argmax(-1) == true).cpu().numpy()
        p[rows] = (logits / temperature).softmax(-1).gather(1, true[:, None])[:, 0].double().cpu().numpy()
    return hit, p.clip(0, 1)  # rounding can leave a probability a hair above 1


@torch.inference_mode()
def _generated(model, tokenizer, heads, answers, samples, temperature, end, most, seed, batch) -> np.ndarray:
    """Right or not, (prompts, 1 + samples): the greedy continuation of each prompt, and the drawn ones.

    Continuations that have said the same so far are one row of the batch until they part: their next tokens are drawn
    from one distribution. One that can no longer become the answer is dropped, and one that says `end` is done: neither
    changes what is counted. So a model of 49,000 tokens is asked for some two rows per prompt, not for 1 + samples.
    """
    right = np.zeros((len(heads), 1 + samples), dtype=bool)
    generator = torch.Generator(device=model.device).manual_seed(check.derived_seed(seed, "categories.samples"))
    for rows, common in _batches(heads, max(1, batch // 4)):
        logits, cache = _read(model, [heads[i] for i in rows], common)
        # The open rows: the prompt, what has been said, and which continuations have said it (0 is the greedy one).
        open_rows = [(who, (), range(1 + samples)) for who in rows]
        for step in range(most):
            best = logits.argmax(-1).tolist()
            p = (logits / temperature).softmax(-1)
            drawn = torch.multinomial(p, samples, replacement=True, generator=generator).tolist()
            parts: dict[tuple[int, int], list[int]] = defaultdict(list)  # (row, token) -> continuations
            for k, (_, _, draws) in enumerate(open_rows):
                for draw in draws:
                    parts[k, drawn[k][draw - 1] if draw else best[k]].append(draw)
            last, rows_on, come_from = step == most - 1, [], []
            for (k, token), draws in parts.items():
                who, said = open_rows[k][0], (*open_rows[k][1], token)
                done, fits = _judge(tokenizer, said, answers[who], end)
                right[who, draws] = fits == "whole" and (done or last)
                if not (done or last or fits == "no"):
                    rows_on.append((who, said, draws))
                    come_from.append(k)
            if not rows_on:
                break
            open_rows = rows_on
            cache.batch_select_indices(torch.tensor(come_from, device=model.device))
            chosen = torch.tensor([[said[-1]] for _, said, _ in open_rows], device=model.device)
            logits, cache = _next(model, chosen, cache)
    return right


def _judge(tokenizer, said: tuple[int, ...], answer: str, end: str) -> tuple[bool, str]:
    """Has it come to an end, and is it the "whole" answer, a "part" of it (its beginning), or "no" answer?"""
    done = tokenizer.eos_token_id in said
    text = tokenizer.decode(said, skip_special_tokens=True)
    mark = end.strip(" ")
    if mark and mark in text:
        done, text = True, text.split(mark, 1)[0]
    text, answer = _plain(text), _plain(answer)
    if text == answer:
        return done, "whole"
    return done, "part" if answer.startswith(text.rstrip("\ufffd")) else "no"  # a token may end within a character


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
