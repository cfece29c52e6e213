"""What a model says."""

from __future__ import annotations

import pytest
import torch
from alignlab.measure import knowledge
from alignlab.models import tokens
from alignlab.models.answer import generate, next_words, reply
from alignlab.models.llama import make_model
from alignlab.training.train import train
from alignlab.worlds import biographies
from datasets import Dataset


def prompts(taught):
    return list(taught.pairs["prompt"])


def test_replies_agree_with_exact_match(taught, tokenizer):
    said = reply(taught.model, tokenizer, prompts(taught), max_new_tokens=4)
    correct = knowledge.exact_match(taught.model, tokenizer, taught.pairs)["correct"]
    assert [s == r for s, r in zip(said, taught.pairs["response"], strict=True)] == list(correct)
    assert not any("<" in s for s in said)


def test_company_in_the_batch_changes_no_reply(taught, tokenizer, world):
    asked = [*prompts(taught), *biographies.questions(world, wording=2)["prompt"], "who ?"]
    assert len({len(p.split()) for p in asked}) > 2  # so there is padding
    alone = [reply(taught.base, tokenizer, [p], max_new_tokens=5)[0] for p in asked]
    assert reply(taught.base, tokenizer, asked, max_new_tokens=5) == alone
    assert reply(taught.base, tokenizer, asked, max_new_tokens=5, batch=7) == alone
    assert len(set(alone)) > 3


def test_the_bare_question_is_another_question(taught, tokenizer):
    bare = knowledge.exact_match(taught.model, tokenizer, taught.pairs, template=False)["correct"]
    lessons = taught.pairs.select(range(12))  # in the chat template
    alone, asked = (knowledge.log_likelihood(taught.model, tokenizer, lessons, t) for t in (False, True))
    assert alone.mean() < 10 * asked.mean()  # nats, below 0: what it was taught, it was taught in the template
    said = reply(taught.model, tokenizer, prompts(taught), template=False, max_new_tokens=4)
    assert [s == r for s, r in zip(said, taught.pairs["response"], strict=True)] == list(bare)


def test_sampling_follows_its_seed_and_moves_nothing_global(tiny, tokenizer):
    before = torch.get_rng_state()
    one, two, other = (
        reply(tiny, tokenizer, ["where ?"] * 3, temperature=1.0, seed=s, max_new_tokens=8) for s in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert one == two and one != other
    assert len(set(one)) == 3  # the prompts of a batch are sampled apart


def test_sampling_reaches_the_whole_distribution(tiny, tokenizer):
    # An untrained model is nearly uniform over some 200 words: a silent top-k of 50 could not show more than 50.
    said = reply(tiny, tokenizer, ["where ?"] * 600, temperature=5.0, seed=0, max_new_tokens=1)
    assert len(set(said)) > 100


def test_a_reply_ends_at_max_new_tokens(tiny, tokenizer):
    for n in (1, 3):
        assert len(reply(tiny, tokenizer, ["where ?"], max_new_tokens=n, temperature=1.0, seed=0)[0].split()) <= n
    assert len(reply(tiny, tokenizer, ["where ?"], max_new_tokens=9, temperature=1.0, seed=0)[0].split()) > 3


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"prompts": []}, ValueError, "no prompts to answer"),
        ({"temperature": -0.5}, ValueError, "temperature is -0.5"),
        ({"temperature": "hot"}, TypeError, "temperature .* not 'hot'"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens is 0"),
    ],
)
def test_wrong_requests_are_refused(tiny, tokenizer, wrong, error, said):
    with pytest.raises(error, match=said):
        reply(tiny, tokenizer, **{"prompts": ["where ?"], **wrong})


def test_next_words_are_the_likeliest_first(taught, tokenizer):
    written = taught.web["text"][0]
    name = " ".join(written.split()[:2])
    words = next_words(taught.base, tokenizer, name, top=len(tokenizer))
    chances = [p for _, p in words]
    assert sum(chances) == pytest.approx(1, abs=1e-4) and chances == sorted(chances, reverse=True)
    assert next_words(taught.base, tokenizer, name, top=1) == words[:1]
    assert words[0][0] == written.split()[2]
    with pytest.raises(ValueError, match="top is 0"):
        next_words(taught.base, tokenizer, name, top=0)


def test_a_reply_says_whether_it_ended_by_itself(asked):
    world, _ = asked
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    pairs = Dataset.from_dict({"prompt": ["where was she born ?"], "response": ["she studied"]})
    model = make_model(tokenizer, 32, 1)
    train(model, tokens.replies(pairs, tokenizer), 60)
    [whole] = generate(model, tokenizer, pairs["prompt"], max_new_tokens=8)
    assert (whole.text, whole.stopped, whole.tokens[-1]) == ("she studied", True, tokenizer.eos_token_id)
    [cut] = generate(model, tokenizer, pairs["prompt"], max_new_tokens=2)
    assert (cut.text, cut.stopped, len(cut.tokens)) == ("she studied", False, 2)
