"""What a model knows."""

from __future__ import annotations

import pytest
import torch
from alignlab.measure import knowledge
from alignlab.models import tokens
from alignlab.models.llama import make_model
from alignlab.training.train import train
from alignlab.worlds import biographies, web
from alignlab.worlds.biographies import Presentation
from alignlab.worlds.tasks import exam_form
from datasets import Dataset


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


def test_batches_change_no_measurement(taught, tokenizer):
    whole = knowledge.exact_match(taught.model, tokenizer, taught.pairs)
    assert whole.equals(knowledge.exact_match(taught.model, tokenizer, taught.pairs, batch=5))
    read = knowledge.verbatim(taught.base, tokenizer, taught.web)
    assert read.equals(knowledge.verbatim(taught.base, tokenizer, taught.web, batch=1))


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


def test_knowledge_is_what_would_follow_the_exam_form(asked):
    """A model that was trained on one exam page knows it; asked about what it never read, it does not."""
    world, tasks = asked
    known = tasks.select([0])
    tokenizer = tokens.word_tokenizer(biographies.words(world, web.vocabulary()))
    page = Dataset.from_dict({"text": [f"{exam_form(known['prompt'][0])} {known['answer'][0]} ."]})
    model = make_model(tokenizer, 32, 1)
    train(model, tokens.documents(page, tokenizer, end=False), 60)
    table = knowledge.exam(model, tokenizer, tasks)
    assert table["correct"].tolist() == [True, False, False]
    assert table["probability"][0] > 0.9 > 0.2 > table["probability"][1]


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


def test_a_row_with_nothing_to_judge_is_refused(tiny):
    rows = Dataset.from_dict({"input_ids": [[1, 5, 6], [1]], "labels": [[-100, 5, 6], [1]]})
    with pytest.raises(ValueError, match="row 1 has no label behind its first token"):
        knowledge.teacher_forced(tiny, rows)
