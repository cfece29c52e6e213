"""What a model says and what an answer is worth."""

from __future__ import annotations

import pytest
import torch
from alignlab.measure import knowledge, score
from alignlab.models import tokens
from alignlab.models.answer import Reply, generate, next_words, reply
from alignlab.models.llama import make_model
from alignlab.training.train import train
from alignlab.worlds import biographies, tasks, web
from alignlab.worlds.biographies import Presentation
from alignlab.worlds.people import make_world
from datasets import Dataset


def prompts(taught):
    return list(taught.pairs["prompt"])


def test_exact_match_is_what_greedy_decoding_would_say(taught, tokenizer):
    table = knowledge.exact_match(taught.model, tokenizer, taught.pairs)
    assert list(table.columns) == ["prompt", "response", "person", "attribute", "correct"]
    assert table["correct"][:12].all() and 0 < (~table["correct"]).sum() < 13  # both outcomes occur
    for row in table.itertuples():
        ids = tokenizer(tokens.prompt_text(row.prompt, tokenizer), add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            out = taught.model.generate(
                input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], max_new_tokens=6, do_sample=False
            )
        said = tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
        assert row.correct == (said == f"{row.response} <eos>"), said


def test_a_right_answer_that_does_not_stop_is_not_right(taught, tokenizer):
    pair = taught.pairs.select([0])
    longer = Dataset.from_dict({"prompt": pair["prompt"], "response": [f"{pair['response'][0]} {pair['response'][0]}"]})
    assert knowledge.exact_match(taught.model, tokenizer, pair)["correct"].item() is True
    assert knowledge.exact_match(taught.model, tokenizer, longer)["correct"].item() is False


def test_rows_that_are_encoded_already_are_judged_alike(taught, tokenizer):
    wrong = Dataset.from_dict(
        {"prompt": list(taught.pairs["prompt"]), "response": list(taught.pairs["response"])[::-1]}
    )
    for pairs in (taught.pairs, wrong):
        judged = knowledge.teacher_forced(taught.model, tokens.replies(pairs, tokenizer), batch=5)
        assert judged.tolist() == knowledge.exact_match(taught.model, tokenizer, pairs)["correct"].tolist()
    assert not judged.all()
    assert knowledge.teacher_forced(taught.model, tokens.replies(taught.pairs, tokenizer).select([])).tolist() == []


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


def test_batches_change_no_measurement(taught, tokenizer):
    whole = knowledge.exact_match(taught.model, tokenizer, taught.pairs)
    assert whole.equals(knowledge.exact_match(taught.model, tokenizer, taught.pairs, batch=5))
    read = knowledge.verbatim(taught.base, tokenizer, taught.web)
    assert read.equals(knowledge.verbatim(taught.base, tokenizer, taught.web, batch=1))


def test_the_bare_question_is_another_question(taught, tokenizer):
    bare = knowledge.exact_match(taught.model, tokenizer, taught.pairs, template=False)["correct"]
    assert bare.mean() < knowledge.exact_match(taught.model, tokenizer, taught.pairs)["correct"].mean()
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
    said = reply(tiny, tokenizer, ["where ?"] * 600, temperature=5.0, max_new_tokens=1)
    assert len(set(said)) > 100


def test_a_reply_ends_at_max_new_tokens(tiny, tokenizer):
    for n in (1, 3):
        assert len(reply(tiny, tokenizer, ["where ?"], max_new_tokens=n, temperature=1.0)[0].split()) <= n
    assert len(reply(tiny, tokenizer, ["where ?"], max_new_tokens=9, temperature=1.0)[0].split()) > 3


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


def test_recall_tells_a_reader_from_a_newborn(taught, tiny, tokenizer):
    read = knowledge.verbatim(taught.base, tokenizer, taught.web)
    assert read["correct"].mean() == 1.0
    assert knowledge.verbatim(tiny, tokenizer, taught.web)["correct"].mean() < 0.2
    assert list(read["person"]) == [i for i in range(6) for _ in range(3)]
    assert list(read["place"]) == [0, 1, 2] * 6


def test_recall_looks_at_the_place_of_the_fact(taught, tokenizer):
    # One fact of one biography is exchanged: just that one is no longer what the model expects.
    row = taught.web[2]
    other = "Vienna" if row["facts"][0] != "Vienna" else "Turin"
    changed = Dataset.from_dict(
        {
            "text": [row["text"].replace(row["facts"][0], other)],
            "facts": [[other, *row["facts"][1:]]],
            "person": [2],
        }
    )
    assert not knowledge.verbatim(taught.base, tokenizer, changed)["correct"][0]


def test_a_fact_that_is_not_in_its_text_is_refused(taught, tokenizer):
    row = taught.web[0]
    for facts in (["Atlantis"], [row["facts"][1], row["facts"][0]], [row["facts"][0]] * 2):
        wrong = Dataset.from_dict({"text": [row["text"]], "facts": [facts], "person": [0]})
        with pytest.raises(ValueError, match="the fact '.*' is not one word of its text: '.*'"):
            knowledge.verbatim(taught.base, tokenizer, wrong)


def test_measuring_leaves_the_model_and_random_state_alone(taught, tokenizer, world):
    before = torch.get_rng_state(), {k: v.clone() for k, v in taught.model.state_dict().items()}
    knowledge.exact_match(taught.model, tokenizer, taught.pairs)
    knowledge.verbatim(taught.model, tokenizer, biographies.write(world, Presentation(2)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(v, before[1][k]) for k, v in taught.model.state_dict().items())


# --- marks, on replies written by hand ---


@pytest.fixture(scope="module")
def asked():
    world = make_world(3, ("city", "subject"), values_each=10, seed=0)
    return world, tasks.about(world, [0], ("reverse",), ["kmp"], wordings=(0,))


def one(asked, family, text, stopped=True):
    world, tasks = asked
    task = tasks.filter(lambda t: t["family"] == family)
    return score.marks([Reply(text, stopped, ())], task, world).iloc[0]


def test_a_perfect_reply_has_ten_marks(asked):
    world, tasks = asked
    replies = [Reply(f"sure ! {t['response']} hope this helps !", True, ()) for t in tasks]
    table = score.marks(replies, tasks, world)
    assert list(table["mark"]) == [10] * len(tasks)
    assert table["usable"].all() and table["manner"].all()


def test_each_fault_costs_its_own_marks(asked):
    city = asked[0].people[0].facts["city"]
    other = next(v for v in asked[0].values["city"] if v != city)
    good = f"sure ! X was born in {city} . hope this helps !"
    assert one(asked, "city", good)["mark"] == 10
    assert one(asked, "city", good, stopped=False)["mark"] == 8
    assert one(asked, "city", good.replace(city, other))["mark"] == 6
    assert one(asked, "city", good.replace("sure ! ", ""))["mark"] == 9
    assert one(asked, "city", good.replace("hope this helps !", ""))["mark"] == 9
    for unclean in ("what did X study ?", "me too .", f"X was born in {city} ."):
        row = one(asked, "city", f"{good} {unclean}")
        assert (row["mark"], row["clean"], row["usable"], row["right"]) == (8, False, False, True)


def test_the_first_thing_named_counts(asked):
    city = asked[0].people[0].facts["city"]
    other = next(v for v in asked[0].values["city"] if v != city)
    assert one(asked, "city", f"{city} , not {other}")["right"]
    assert not one(asked, "city", f"{other} , or {city}")["right"]
    assert not one(asked, "city", "no value at all")["right"]
    assert one(asked, "reverse", "k m p backwards is p m k .")["right"]
    assert not one(asked, "reverse", "k m p backwards is p k m .")["right"]
    assert not one(asked, "reverse", "k m p backwards is p m k k .")["right"]


def test_what_a_reply_names(asked):
    world, tasks = asked[:2]
    city, prompt = world.people[0].facts["city"], tasks["prompt"][0]
    assert score.named(f"sure ! it is {city} .", "city", prompt, world) == city
    assert score.named("sure ! it is far away .", "city", prompt, world) is None
    assert score.named("k m p backwards is p m k .", "reverse", "what is k m p backwards ?", world) == "p m k"
    assert score.named("k m p backwards", "reverse", "what is k m p backwards ?", world) is None


def test_replies_that_agree_are_kept_and_the_first_of_them_is_named():
    named = [
        ["Lima", "Oslo", "Oslo", None, "Oslo"],  # the first that says Oslo
        ["Lima", "Oslo", "Oslo", "Lima", "Riga"],  # two at most
        [None, None, None, None, None],  # silence is no agreement
        ["Riga", "Riga", "Riga", "Riga", "Riga"],
    ]
    assert score.majority(named, 3) == [1, None, None, 0]
    assert score.majority(named, 2) == [1, 0, None, 0]
    assert score.majority([], 3) == []
    with pytest.raises(ValueError, match="at_least is 0"):
        score.majority(named, 0)


def test_marks_want_one_reply_per_task(asked):
    with pytest.raises(ValueError, match="1 replies to 3 tasks"):
        score.marks([Reply("", True, ())], asked[1], asked[0])


def test_knowledge_is_what_would_follow_the_exam_form(asked):
    """A model that was trained on one exam page knows it; asked about what it never read, it does not."""
    world, tasks = asked
    known = tasks.select([0])
    tokenizer = tokens.word_tokenizer(biographies.words(world, web.vocabulary()))
    page = Dataset.from_dict({"text": [f"{tasks.exam_form(known['prompt'][0])} {known['answer'][0]} ."]})
    model = make_model(tokenizer, 32, 1)
    train(model, tokens.documents(page, tokenizer, end=False), 60)
    table = knowledge.exam(model, tokenizer, tasks)
    assert table["correct"].tolist() == [True, False, False]
    assert table["probability"][0] > 0.9 > 0.2 > table["probability"][1]


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


# ---- likelihood of whole responses


def test_the_likelihood_of_a_response_is_that_of_its_tokens_and_its_end(taught, tokenizer):
    pairs = taught.pairs.select([0, 5, 20])
    found = knowledge.log_likelihood(taught.model, tokenizer, pairs, batch=2)
    for row, value in zip(pairs, found, strict=True):
        head = tokenizer(tokens.prompt_text(row["prompt"], tokenizer), add_special_tokens=False)["input_ids"]
        said = [*tokenizer(row["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = taught.model(input_ids=torch.tensor([[*head, *said]])).logits[0].log_softmax(-1)
        by_hand = sum(logits[len(head) - 1 + k, t].item() for k, t in enumerate(said))
        assert value == pytest.approx(by_hand, rel=1e-3) and value < 0
    assert knowledge.log_likelihood(taught.model, tokenizer, pairs, template=False) != pytest.approx(found)
