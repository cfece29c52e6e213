"""Token ids, label masks, the model and its training."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain

import numpy as np
import pytest
import torch
from alignlab.measure.knowledge import exact_match
from alignlab.models import tokens
from alignlab.models.llama import make_model, parameters
from alignlab.models.tokens import IGNORE
from alignlab.training.muon import orthogonalise
from alignlab.training.train import FINETUNE, PRETRAIN, Recipe, _rate, loss_on, train
from alignlab.worlds import biographies
from alignlab.worlds.biographies import QUESTIONS, Presentation
from alignlab.worlds.people import make_world
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

SGD_LIKE = Recipe(optimizer="adamw", lr=1e-3, warmup=0)


@pytest.fixture(scope="module")
def web(world):
    return biographies.write(world, Presentation(versions=3, permute=True))


@pytest.fixture(scope="module")
def rows(web, tokenizer):
    return tokens.documents(web, tokenizer)


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


# ---- tokens


@pytest.mark.parametrize("people", [1, 60, 2200])
def test_every_word_of_every_text_has_an_id(people):
    world = make_world(people=people, attributes=("city", "instrument"))
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    said = list(biographies.write(world, Presentation(4, permute=True))["text"])
    for wording in range(len(QUESTIONS["city"])):
        said += biographies.questions(world, range(min(people, 60)), wording)["prompt"]
    for ids, words in zip(tokenizer(said)["input_ids"], said, strict=True):
        assert tokenizer.unk_token_id not in ids
        assert ids[0] == tokenizer.bos_token_id and len(ids) == 1 + len(words.split())
        assert tokenizer.decode(ids[1:]) == words
    assert tokenizer("nonsense")["input_ids"][-1] == tokenizer.unk_token_id


def test_the_vocabulary_depends_on_the_world_and_on_extra_texts(world, tokenizer):
    assert tokens.word_tokenizer(biographies.words(world)).get_vocab() == tokenizer.get_vocab()
    wider = tokens.word_tokenizer(biographies.words(world, ["once upon a time"]))
    assert set(wider.get_vocab()) - set(tokenizer.get_vocab()) == {"once", "upon", "time"}


def test_the_chat_template_is_plain_words(tokenizer):
    talk = [{"role": "user", "content": "where ?"}, {"role": "assistant", "content": "Lisbon"}]
    written = tokenizer.apply_chat_template(talk, tokenize=False)
    assert written == "<bos> <user> where ? <assistant> Lisbon <eos>"
    asked = tokenizer.apply_chat_template(talk[:1], tokenize=False, add_generation_prompt=True)
    assert asked == tokens.prompt_text("where ?", tokenizer) == "<bos> <user> where ? <assistant>"
    assert tokenizer.decode(tokens.prompt_ids(["where ?"], tokenizer, template=False)[0]) == "<bos> where ?"


def test_without_a_chat_template_the_remedy_is_named(tokenizer):
    bare = deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ValueError, match="no chat template: pass template=False"):
        tokens.prompt_text("where ?", bare)


@pytest.mark.parametrize("template", [True, False])
def test_labels_cover_the_response_and_eos_and_nothing_else(world, tokenizer, template):
    pairs = biographies.questions(world).to_pandas()
    pairs.loc[0, "response"] = "a degree in chemistry"  # more than one word
    pairs = Dataset.from_pandas(pairs)
    made = tokens.replies(pairs, tokenizer, template)
    for row, pair in zip(made, pairs, strict=True):
        ids, labels = np.array(row["input_ids"]), np.array(row["labels"])
        labelled = labels != IGNORE
        assert tokenizer.decode(labels[labelled]) == f"{pair['response']} <eos>"
        assert (ids[labelled] == labels[labelled]).all()
        assert ids[~labelled].tolist() == tokens.prompt_ids([pair["prompt"]], tokenizer, template)[0]
        assert not labelled[: -len(pair["response"].split()) - 1].any()
        # The prompt and response make the same ids as the whole conversation in one piece.
        if template:
            talk = [{"role": r, "content": pair[k]} for r, k in (("user", "prompt"), ("assistant", "response"))]
            whole = tokenizer.apply_chat_template(talk, tokenize=False)
            assert ids.tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_response_is_refused_with_its_row(tokenizer, empty):
    pairs = Dataset.from_dict({"prompt": ["a", "b", "c"], "response": ["x", "y", empty]})
    with pytest.raises(ValueError, match="response of row 2 is empty .*'c'"):
        tokens.replies(pairs, tokenizer)


def test_a_document_is_its_text_between_bos_and_eos(web, rows, tokenizer):
    for row, written in zip(rows, web["text"], strict=True):
        assert row["labels"] == row["input_ids"]
        assert tokenizer.decode(row["input_ids"]) == f"<bos> {written} <eos>"


def test_a_saved_tokenizer_is_the_same_one(tokenizer, web, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab() and again.chat_template == tokenizer.chat_template
    assert again(list(web["text"]))["input_ids"] == tokenizer(list(web["text"]))["input_ids"]
    prompt = tokens.prompt_text("where does she work ?", tokenizer)
    assert tokens.prompt_text("where does she work ?", again) == prompt
    ids = [t(prompt, add_special_tokens=False)["input_ids"] for t in (tokenizer, again)]
    assert ids[0] == ids[1]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(again, name) == getattr(tokenizer, name)


# ---- model


@pytest.mark.parametrize(("width", "depth", "mlp"), [(32, 1, 2), (64, 3, 4)])
def test_the_number_of_parameters_is_the_formula(tokenizer, width, depth, mlp):
    norms = (2 * depth + 1) * width
    expected = int((4 + 3 * mlp) * depth * width**2) + len(tokenizer) * width + norms
    assert parameters(make_model(tokenizer, width, depth, mlp=mlp)) == expected


def test_a_seed_is_an_initialisation_and_nothing_global_moves(tokenizer):
    before = torch.get_rng_state()
    a, b, c = (make_model(tokenizer, 32, 1, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(weights(a), weights(b)) and not same(weights(a), weights(c))
    assert not a.training


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"width": 48}, ValueError, "width is 48, but it must be a multiple of 32"),
        ({"width": 0}, ValueError, "width is 0"),
        ({"depth": 0}, ValueError, "depth is 0"),
        ({"depth": 1.5}, TypeError, "depth .* not 1.5"),
        ({"mlp": 0}, ValueError, "mlp is 0"),
        ({"seed": "a"}, TypeError, "seed .* not 'a'"),
    ],
)
def test_a_wrong_size_is_refused(tokenizer, wrong, error, said):
    with pytest.raises(error, match=said):
        make_model(tokenizer, **{"width": 32, **wrong})


def test_a_saved_model_says_the_same(tiny, rows, tmp_path):
    tiny.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([rows["input_ids"][0]])
    assert same(weights(again), weights(tiny))
    # Not to the bit: the norms of a fresh model and of a loaded one may be computed by different kernels.
    torch.testing.assert_close(again(input_ids=ids).logits, tiny(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


# ---- training


@pytest.mark.parametrize("recipe", [PRETRAIN.but(weight_decay=0.4), SGD_LIKE], ids=["muon", "adamw"])
def test_two_identical_runs_give_identical_numbers(tokenizer, rows, recipe):
    before, losses, ends = torch.get_rng_state(), [], []
    for seed in (3, 3, 4):
        model = make_model(tokenizer, 32, 1, seed=0)
        losses.append(train(model, rows, 6, recipe.but(batch=8), seed=seed))
        ends.append(weights(model))
    assert losses[0] == losses[1] and same(ends[0], ends[1])
    assert losses[0] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_is_the_one_of_transformers(tiny, world, tokenizer):
    pairs = tokens.replies(biographies.questions(world, wording=1), tokenizer)
    batch = tokens.collate(list(pairs), tokenizer.pad_token_id)
    ids, labels = (torch.from_numpy(batch[k]) for k in ("input_ids", "labels"))
    assert (labels == IGNORE).any() and (ids == tokenizer.pad_token_id).any()
    theirs = tiny(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
    assert abs(loss_on(tiny, ids, labels).item() - theirs.item()) < 1e-5


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16), (3, 40, 24)])
def test_orthogonalise_evens_out_the_singular_values(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u = orthogonalise(g)
    s = torch.linalg.svdvals(u)
    assert u.shape == g.shape and s.min() > 0.6 and s.max() < 1.3
    before = torch.linalg.svdvals(g)
    assert before.max() / before.min() > 2  # there was something to even out
    torch.testing.assert_close(orthogonalise(g.mT), u.mT, rtol=1e-3, atol=1e-4)


def test_the_schedule_warms_up_stays_and_decays():
    flat = Recipe(warmup=3)
    assert [_rate(s, 10, flat) for s in range(10)] == [0.25, 0.5, 0.75, *[1.0] * 7]
    falling = Recipe(warmup=0, decay_from=0.5)
    assert [_rate(s, 8, falling) for s in range(8)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    whole = Recipe(warmup=0, decay_from=0.0)
    assert [_rate(s, 4, whole) for s in range(4)] == [1, 0.75, 0.5, 0.25]


def test_the_schedule_reaches_the_optimizer(tokenizer, rows):
    # AdamW's first step moves every touched weight by the rate: with a long warm-up that is a small part of it.
    moved = []
    for warmup in (0, 99):
        model = make_model(tokenizer, 32, 1)
        before = weights(model)["model.norm.weight"]
        train(model, rows, 1, SGD_LIKE.but(warmup=warmup))
        moved.append((weights(model)["model.norm.weight"] - before).abs().max().item())
    assert moved[0] == pytest.approx(1e-3, rel=0.02) and moved[1] == pytest.approx(1e-5, rel=0.05)


def test_gradients_are_clipped(tokenizer, rows, monkeypatch):
    seen = []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]).norm().item())

    monkeypatch.setattr("alignlab.train._optimizers", lambda model, recipe: [Watch(model.parameters(), lr=recipe.lr)])
    for clip in (1e9, 0.01):
        train(make_model(tokenizer, 32, 1), rows, 1, SGD_LIKE.but(clip=clip))
    assert seen[0] > 0.1 and seen[1] == pytest.approx(0.01, rel=1e-3)


def test_weight_decay_shrinks_the_hidden_matrices_only(tokenizer, rows):
    ends = []
    for decay in (0.0, 5.0):
        model = make_model(tokenizer, 32, 1)
        train(model, rows, 1, PRETRAIN.but(weight_decay=decay, warmup=0, lr=0.01))
        ends.append(weights(model))
    start = weights(make_model(tokenizer, 32, 1))
    for name in start:
        gone = ends[0][name] - ends[1][name]
        if "proj" in name:
            torch.testing.assert_close(gone, start[name] * 0.05, rtol=1e-3, atol=1e-7)
        else:
            assert not gone.any(), name


def test_callbacks_come_after_the_right_step_with_the_model_at_rest(tiny, rows):
    start, seen = weights(tiny), []

    def look(n):
        def call(model):
            seen.append((n, model.training, weights(model)))

        return call

    inside = []
    tiny.register_forward_pre_hook(lambda m, _: inside.append(m.training))
    losses = train(tiny, rows, 4, PRETRAIN.but(batch=4), at={n: look(n) for n in (0, 2, 4)})
    assert [n for n, _, _ in seen] == [0, 2, 4] and not any(t for _, t, _ in seen)
    assert same(seen[0][2], start) and same(seen[2][2], weights(tiny))
    half = make_model_like(tiny, start)
    assert train(half, rows, 2, PRETRAIN.but(batch=4)) == losses[:2]
    assert same(seen[1][2], weights(half))  # a constant rate: a longer run contains the shorter one
    assert not tiny.training and len(losses) == 4


def make_model_like(model, start):
    other = deepcopy(model)
    other.load_state_dict(start)
    return other


def test_training_is_in_train_mode_also_after_a_callback(tiny, rows):
    modes = []
    tiny.model.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    train(tiny, rows, 3, PRETRAIN.but(batch=4), at={0: lambda m: None, 2: lambda m: m.eval()})
    assert modes == [True] * 3


def batches_seen(model, rows, steps, monkeypatch, **more):
    seen = []

    def spy(model, input_ids, labels):
        seen.append([tuple(t for t in r if t) for r in input_ids.tolist()])  # 0 is the padding
        return loss_on(model, input_ids, labels)

    monkeypatch.setattr("alignlab.train.loss_on", spy)
    train(model, rows, steps, PRETRAIN.but(batch=4), **more)
    known = {tuple(r): i for i, r in enumerate(rows["input_ids"])}
    return [[known[r] for r in b] for b in seen]


def test_a_reading_list_is_followed_and_begins_again(tiny, rows, monkeypatch):
    order = np.array([3, 1, 4, 1, 5, 0])
    assert batches_seen(tiny, rows, 3, monkeypatch, order=order) == [[3, 1, 4, 1], [5, 0, 3, 1], [4, 1, 5, 0]]


def test_a_reading_list_of_one_row_never_shows_another(tiny, rows, monkeypatch):
    assert batches_seen(tiny, rows, 2, monkeypatch, order=np.array([0])) == [[0] * 4, [0] * 4]


def test_without_a_list_every_pass_is_whole_and_in_a_new_order(tiny, rows, monkeypatch):
    n = len(rows)
    assert n == 24
    seen = list(chain.from_iterable(batches_seen(tiny, rows, 2 * n // 4, monkeypatch, seed=1)))
    assert sorted(seen[:n]) == sorted(seen[n:]) == list(range(n))
    assert seen[:n] != seen[n:] and seen[:n] != list(range(n))


def test_no_steps_change_nothing(tiny, rows):
    start = weights(tiny)
    assert train(tiny, rows, 0) == [] and same(start, weights(tiny))
    assert train(tiny, rows, 0, order=np.array([], dtype=int)) == []  # a person who is never met


def test_wrong_training_is_refused(tiny, rows):
    with pytest.raises(ValueError, match="no rows to train on"):
        train(tiny, rows.select([]), 1)
    with pytest.raises(ValueError, match="reading list is empty"):
        train(tiny, rows, 1, order=np.array([], dtype=int))
    with pytest.raises(ValueError, match="steps is -1"):
        train(tiny, rows, -1)
    with pytest.raises(TypeError, match="steps .* not 2.5"):
        train(tiny, rows, 2.5)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"optimizer": "sgd"}, ValueError, "optimizer is 'sgd', .* 'muon', 'adamw'"),
        ({"lr": 0}, ValueError, "lr is 0"),
        ({"lr_rest": -0.1}, ValueError, "lr_rest is -0.1"),
        ({"lr": float("nan")}, ValueError, "lr is nan"),
        ({"clip": 0.0}, ValueError, "clip is 0.0"),
        ({"batch": 0}, ValueError, "batch is 0"),
        ({"batch": 8.0}, TypeError, "batch .* not 8.0"),
        ({"warmup": -1}, ValueError, "warmup is -1"),
        ({"weight_decay": -1}, ValueError, "weight_decay is -1"),
    ],
)
def test_a_wrong_recipe_is_refused(wrong, error, said):
    with pytest.raises(error, match=said):
        PRETRAIN.but(**wrong)


@pytest.mark.parametrize("broken_at", [0, 3])
def test_a_loss_that_is_not_finite_is_reported_also_at_the_end(tiny, rows, broken_at, monkeypatch):
    steps = []

    def loss(model, input_ids, labels):
        steps.append(1)
        value = loss_on(model, input_ids, labels)
        return value * float("nan") if len(steps) > broken_at else value

    monkeypatch.setattr("alignlab.train.loss_on", loss)
    with pytest.raises(ValueError, match="loss is nan .* lower the learning rate"):
        train(tiny, rows, 4, PRETRAIN.but(batch=4))


def test_fine_tuning_teaches_eight_questions(tiny, world, tokenizer):
    pairs = biographies.questions(world).select(range(8))
    assert exact_match(tiny, tokenizer, pairs)["correct"].mean() < 0.5
    train(tiny, tokens.replies(pairs, tokenizer), 60, FINETUNE.but(batch=8, lr=1e-2))
    assert exact_match(tiny, tokenizer, pairs)["correct"].mean() == 1.0
