"""Sampling: its seed, many replies to one prompt, and a model's habits that are not followed."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from alignlab.models import answer, tokens
from alignlab.models.answer import generate, next_words, reply, sample
from alignlab.models.llama import make_model
from alignlab.training.train import FINETUNE, train
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    ByT5Tokenizer,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    LogitsProcessor,
    LogitsProcessorList,
    MambaConfig,
    MistralConfig,
)

ASKED = ["where ?", "where was she born ?", "who ?", "was she born in the city where she studied ?"]  # with padding


def draws(model, tokenizer, prompts=ASKED, k=3, **options):
    said = sample(model, tokenizer, prompts, k, **{"seed": 0, "max_new_tokens": 6} | options)
    return [[r.tokens for r in each] for each in said]


# ---- seeds


def test_sampling_needs_a_seed_and_greedy_none(tiny, tokenizer):
    with pytest.raises(ValueError, match="temperature 0.7 needs a seed: pass one"):
        reply(tiny, tokenizer, ASKED, temperature=0.7)
    with pytest.raises(TypeError, match="seed"):
        sample(tiny, tokenizer, ASKED, 2)
    assert generate(tiny, tokenizer, ASKED) == generate(tiny, tokenizer, ASKED, seed=5)


def test_a_reply_depends_on_its_seed_and_place_and_on_nothing_else(tiny, tokenizer):
    before, options = torch.get_rng_state(), {"temperature": 1.0, "seed": 4, "max_new_tokens": 6}
    said = generate(tiny, tokenizer, ASKED, **options)
    for batch in (1, 3):
        assert generate(tiny, tokenizer, ASKED, batch=batch, **options) == said
    assert generate(tiny, tokenizer, ASKED[:2], **options) == said[:2]
    assert [r.tokens[:3] for r in generate(tiny, tokenizer, ASKED, **options | {"max_new_tokens": 3})] == [
        r.tokens[:3] for r in said
    ]
    assert generate(tiny, tokenizer, ASKED, **options | {"seed": 5}) != said
    same = generate(tiny, tokenizer, ASKED[:1] * 2, **options)
    assert same[0] != same[1]  # one prompt twice is drawn twice
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_draws_nothing(tokenizer):
    model = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    )
    model.train()
    before = torch.get_rng_state()
    assert draws(model, tokenizer) == draws(model, tokenizer)
    assert torch.equal(torch.get_rng_state(), before) and model.training


# ---- many replies


def test_the_first_of_many_replies_is_that_of_generate(tiny, tokenizer):
    three, five = draws(tiny, tokenizer), draws(tiny, tokenizer, k=5)
    assert [len(each) for each in five] == [5] * len(ASKED)
    assert [each[:3] for each in five] == three
    said = generate(tiny, tokenizer, ASKED, temperature=1.0, seed=0, max_new_tokens=6)
    assert [each[0] for each in three] == [r.tokens for r in said]
    assert all(len(set(each)) == 5 for each in five)
    for batch in (1, 7):
        assert draws(tiny, tokenizer, batch=batch) == three


class Always(LogitsProcessor):
    """Whatever the model expects, these tokens are expected with these probabilities."""

    def __init__(self, chances):
        self.chances = chances

    def __call__(self, input_ids, scores):
        scores = torch.full_like(scores, -torch.inf)
        scores[:, list(self.chances)] = torch.tensor(list(self.chances.values())).log()
        return scores


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(tiny, tokenizer, temperature):
    chances = {9: 0.6, 11: 0.3, 30: 0.09, 31: 0.01}
    rule = LogitsProcessorList([Always(chances)])  # rules come before the temperature
    said = draws(tiny, tokenizer, ["where ?"], 2000, temperature=temperature, max_new_tokens=2, logits_processor=rule)
    drawn = np.array(said[0])  # (2000, 2)
    p = np.array(list(chances.values())) ** (1 / temperature)
    p /= p.sum()
    for step in drawn.T:
        found = np.array([(step == i).mean() for i in chances])
        assert np.isin(step, list(chances)).all() and (np.abs(found - p) < 4 * np.sqrt(p * (1 - p) / 2000)).all()
    both = (drawn == 9).all(1).mean()  # the steps of a reply are drawn apart
    assert both == pytest.approx(p[0] ** 2, abs=4 * 0.5 / 2000**0.5)


def test_a_draw_never_falls_on_a_token_that_is_ruled_out():
    scores = torch.full((3, 5), -torch.inf)
    scores[:, 1], scores[:, 3] = 0.0, 0.0
    rule = answer._Draw(1.0, np.array([[0.0], [0.4999], [1 - 2**-53]]), start=2)
    assert rule(torch.zeros(3, 2, dtype=torch.long), scores).argmax(-1).tolist() == [1, 1, 3]
    assert rule(torch.zeros(3, 2, dtype=torch.long), scores).isfinite().sum() == 3


def small(kind, tokenizer):
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32}
    config = {
        "gpt2": lambda: GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
        ),
        "window": lambda: MistralConfig(**size, **heads, sliding_window=4),
        "gemma2": lambda: Gemma2Config(**size, **heads, sliding_window=4),
        "mamba": lambda: MambaConfig(**size, state_size=4),
    }[kind]()
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "window", "gemma2", "mamba"])
def test_a_prompt_that_is_read_once_says_what_it_says_read_each_time(kind, tokenizer, monkeypatch, capfd):
    model = small(kind, tokenizer)
    prompts = [*ASKED, ""]  # of the last, nothing but <bos>: all that is read once of it is padding
    once = draws(model, tokenizer, prompts, template=False)
    assert capfd.readouterr().err.count("right-padding") == 0
    alone = [draws(model, tokenizer, prompts[: i + 1], template=False, batch=1)[-1] for i in range(len(prompts))]
    assert once == alone
    monkeypatch.setattr(answer, "DynamicCache", str)  # no cache is one that can be shared
    assert draws(model, tokenizer, prompts, template=False) == once


def test_a_prompt_is_read_once(tiny, tokenizer):
    read = []
    tiny.model.register_forward_hook(lambda *_: read.append(_[2].last_hidden_state.shape[:2]), with_kwargs=False)
    draws(tiny, tokenizer, ASKED[:2], k=8, max_new_tokens=3)
    width = max(map(len, tokens.prompt_ids(ASKED[:2], tokenizer)))
    assert read == [(2, width - 1), (16, 1), (16, 1), (16, 1)]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"temperature": 0}, ValueError, "temperature is 0, but it must be above 0"),
        ({"k": 0}, ValueError, "k is 0"),
        ({"k": 2.0}, TypeError, "k must be an integer"),
        ({"batch": 0}, ValueError, "batch is 0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"prefill": ["a"]}, ValueError, "1 prefills for 4 prompts"),
    ],
)
def test_wrong_wishes_are_refused(tiny, tokenizer, wrong, error, said):
    with pytest.raises(error, match=said):
        draws(tiny, tokenizer, **wrong)


# ---- what a reply carries


def test_a_reply_and_its_prompt_are_the_row_that_was_read(taught, tokenizer):
    pairs = taught.pairs.select(range(6))
    said = generate(taught.model, tokenizer, pairs["prompt"])
    rows = tokens.replies(pairs, tokenizer)
    assert [[*r.prompt, *r.tokens] for r in said] == rows["input_ids"][:]
    begun = generate(taught.model, tokenizer, pairs["prompt"], prefill=["in"] * 6)
    assert [r.prompt for r in begun] == [(*r.prompt, tokenizer.convert_tokens_to_ids("in")) for r in said]


# ---- habits


HABITS = {
    "no repetition": {"no_repeat_ngram_size": 1},
    "beams": {"num_beams": 5, "length_penalty": -9.0, "early_stopping": True},
    "forbidden": {"bad_words_ids": [[i] for i in range(6, 150)]},
    "suppressed": {"suppress_tokens": list(range(6, 150))},
    "first forbidden": {"begin_suppress_tokens": list(range(6, 150))},
    "forced": {"forced_eos_token_id": 7},
    "longer": {"min_new_tokens": 12},
    "biased": {"sequence_bias": [[[9], 50.0]]},
    "penalties": {"do_sample": True, "repetition_penalty": 9.0, "top_k": 2, "temperature": 9.0},
    "in a hurry": {"max_time": 1e-9},
    "many": {"num_return_sequences": 2, "do_sample": True},
    "a dict": {"return_dict_in_generate": True, "output_scores": True},
}


@pytest.mark.parametrize("habit", HABITS)
def test_no_habit_of_a_foreign_config_is_followed(taught, tokenizer, habit):
    model, asked = deepcopy(taught.base), ["she", " ".join(taught.web["text"][0].split()[:5])]
    own = GenerationConfig(**HABITS[habit], eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.generation_config = own
    plain = {"template": False, "max_new_tokens": 12}
    said = generate(taught.base, tokenizer, asked, **plain)
    # Left to itself the model follows it: a habit that would change nothing here would test nothing.
    left = [model.generate(torch.tensor([r.prompt]), max_new_tokens=12) for r in said]
    assert not all(
        torch.is_tensor(x) and x.tolist() == [[*r.prompt, *r.tokens]] for x, r in zip(left, said, strict=True)
    )
    assert generate(model, tokenizer, asked, **plain) == said
    assert draws(model, tokenizer, asked) == draws(taught.base, tokenizer, asked)
    assert model.generation_config is own


def test_the_models_config_comes_back_after_a_failure(tiny, tokenizer):
    class Broken(LogitsProcessor):
        def __call__(self, input_ids, scores):
            raise RuntimeError("broken")

    own = tiny.generation_config
    tiny.train()
    with pytest.raises(RuntimeError, match="broken"):
        generate(tiny, tokenizer, ASKED, logits_processor=LogitsProcessorList([Broken()]))
    assert tiny.generation_config is own and tiny.training


# ---- tokenizers that lack something


def test_a_tokenizer_without_rust_or_first_token_is_taught_and_asked():
    tokenizer = ByT5Tokenizer(extra_ids=0)
    pairs = Dataset.from_dict({"prompt": ["Peru?", "Japan?"], "response": ["Lima", "Tokyo"]})
    model = make_model(tokenizer, width=32, depth=1, seed=0)
    train(model, tokens.replies(pairs, tokenizer, template=False), 60, FINETUNE.but(batch=2, lr=1e-2))
    said = generate(model, tokenizer, pairs["prompt"], template=False)
    assert [(r.text, r.stopped) for r in said] == [("Lima", True), ("Tokyo", True)]
    assert next_words(model, tokenizer, "Peru? Li", top=1)[0][0] == "m"  # not what follows an <eos> behind the text


def test_without_an_end_token_a_reply_is_cut_off(tokenizer, capfd):
    tokenizer = deepcopy(tokenizer)
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.bos_token = None
    model = make_model(deepcopy(tokenizer), width=32, depth=1, seed=0)
    model.generation_config = GenerationConfig()
    said = generate(model, tokenizer, ASKED, template=False, max_new_tokens=7)
    assert [(len(r.tokens), r.stopped) for r in said] == [(7, False)] * len(ASKED)
    assert draws(model, tokenizer, template=False) == draws(model, tokenizer, template=False, batch=1)
    assert capfd.readouterr().err == ""


def test_a_part_that_was_frozen_in_another_mode_stays_so(tiny, tokenizer):
    tiny.train()
    tiny.model.layers[0].eval()
    generate(tiny, tokenizer, ["where ?"], max_new_tokens=1)
    assert tiny.training and not tiny.model.layers[0].training and not tiny.model.layers[0].mlp.training
    tiny.eval()
