"""The model and its training."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain

import numpy as np
import pytest
import torch
from alignlab.measure.knowledge import exact_match
from alignlab.models import read, tokens
from alignlab.models.llama import make_model, parameters
from alignlab.models.tokens import IGNORE
from alignlab.training import train as training
from alignlab.training.losses import next_token
from alignlab.training.train import FINETUNE, PRETRAIN, Optimiser, Recipe, _rate, batches, train
from alignlab.worlds import biographies
from alignlab.worlds.biographies import Presentation
from datasets import Dataset
from small_models import small_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

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


def test_gradients_are_clipped(tiny, rows):
    seen = []
    for clip in (1e9, 0.01):
        optimiser = Optimiser(tiny, SGD_LIKE.but(clip=clip), 1)
        optimiser.optimizers[0].register_step_pre_hook(
            lambda o, *_: seen.append(torch.cat([p.grad.flatten() for p in o.param_groups[0]["params"]]).norm().item())
        )
        optimiser.step(next_token(tiny, next(batches(rows, 4))))
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

    def spy(model, batch):
        modes.append(model.training)
        return next_token(model, batch)

    train(tiny, rows, 3, PRETRAIN.but(batch=4), loss=spy, at={0: lambda m: None, 2: lambda m: m.eval()})
    assert modes == [True] * 3


def read_by(model, rows, steps, **more):
    """The numbers of the rows in every batch of a training."""
    known, seen = {tuple(r): i for i, r in enumerate(rows["input_ids"])}, []

    def spy(model, batch):
        seen.append([known[tuple(t for t in r if t)] for r in batch["input_ids"].tolist()])  # 0 is the padding
        return next_token(model, batch)

    train(model, rows, steps, PRETRAIN.but(batch=4), loss=spy, **more)
    return seen


def test_a_reading_list_is_followed_and_begins_again(tiny, rows):
    order = np.array([3, 1, 4, 1, 5, 0])
    assert read_by(tiny, rows, 3, order=order) == [[3, 1, 4, 1], [5, 0, 3, 1], [4, 1, 5, 0]]


def test_a_reading_list_of_one_row_never_shows_another(tiny, rows):
    assert read_by(tiny, rows, 2, order=np.array([0])) == [[0] * 4, [0] * 4]


def test_without_a_list_every_pass_is_whole_and_in_a_new_order(tiny, rows):
    n = len(rows)
    assert n == 24
    seen = list(chain.from_iterable(read_by(tiny, rows, 2 * n // 4, seed=1)))
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


def test_a_gradient_that_is_not_finite_changes_nothing_in_the_very_last_step_either(tokenizer):
    model = make_model(tokenizer, 32, 1)
    before = weights(model)
    optimiser = Optimiser(model, FINETUNE, steps=1)
    loss = (next(model.parameters()) * 0).square().sum().sqrt()  # 0, and it has no slope there
    with pytest.raises(ValueError, match="the gradient's norm is nan at step 0: lower the learning rate"):
        optimiser.step(loss)
    assert same(before, weights(model))


@pytest.mark.parametrize("broken_at", [0, 2, 3])
def test_a_loss_that_is_not_finite_changes_nothing(tiny, rows, broken_at):
    kept = {}

    def loss(model, batch):
        kept[len(kept)] = weights(model)
        return next_token(model, batch) * (float("nan") if len(kept) > broken_at else 1)

    with pytest.raises(ValueError, match=f"loss is nan at step {broken_at}: lower the learning rate"):
        train(tiny, rows, 4, PRETRAIN.but(batch=4), loss=loss)
    assert same(kept[broken_at], weights(tiny))


def test_fine_tuning_teaches_eight_questions(tiny, world, tokenizer):
    pairs = biographies.questions(world).select(range(8))
    assert exact_match(tiny, tokenizer, pairs)["correct"].mean() < 0.5
    train(tiny, tokens.replies(pairs, tokenizer), 160, FINETUNE.but(batch=8, lr=3e-3))
    assert exact_match(tiny, tokenizer, pairs)["correct"].mean() == 1.0


# ---- the optimiser, in a loop of one's own


def test_a_loop_of_ones_own_is_the_training(tiny, rows):
    other, recipe = deepcopy(tiny), PRETRAIN.but(batch=4, decay_from=0.5)
    losses = train(tiny, rows, 5, recipe, seed=2)
    optimiser, reading = Optimiser(other, recipe, 5), batches(rows, 4, seed=2)
    assert [optimiser.step(next_token(other, next(reading))).item() for _ in range(5)] == losses
    assert same(weights(tiny), weights(other))


def test_more_steps_than_were_planned_are_refused(tiny, rows):
    optimiser, batch = Optimiser(tiny, FINETUNE, 1), next(batches(rows, 4))
    optimiser.step(next_token(tiny, batch))
    with pytest.raises(ValueError, match="made for 1 steps, and all are made"):
        optimiser.step(next_token(tiny, batch))


def test_a_loss_without_gradient_or_with_a_shape_is_refused(tiny, rows):
    optimiser, batch = Optimiser(tiny, PRETRAIN, 1), next(batches(rows, 4))
    with pytest.raises(ValueError, match=r"loss has the shape \(2,\)"):
        optimiser.step(next_token(tiny, batch).expand(2))
    with pytest.raises(ValueError, match="loss does not depend on the model"):
        optimiser.step(torch.tensor(1.0))


@pytest.mark.parametrize("recipe", [PRETRAIN, SGD_LIKE], ids=["muon", "adamw"])
def test_with_a_frozen_body_only_the_rest_is_trained(tiny, rows, recipe):
    tiny.model.layers.requires_grad_(False)
    before = weights(tiny)
    train(tiny, rows, 3, recipe.but(batch=4))
    moved = {k for k, v in weights(tiny).items() if not torch.equal(v, before[k])}
    assert moved == {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}  # the first two are one


def test_a_model_that_is_all_frozen_is_refused(tiny, rows):
    with pytest.raises(ValueError, match="every parameter of the model is frozen: set requires_grad"):
        train(tiny.requires_grad_(False), rows, 1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_only_matrices_inside_the_blocks_go_to_muon(family):
    small = {"gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}}.get(
        family, {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    )
    config = AutoConfig.for_model(family, vocab_size=20, tie_word_embeddings=False, **small)
    model = AutoModelForCausalLM.from_config(config)
    muon = {id(p) for p in Optimiser(model, PRETRAIN, 1).optimizers[0].param_groups[0]["params"]}
    inside = {"gpt2": 4, "llama": 7, "gpt_neox": 4}[family]
    names = {n for n, p in model.named_parameters() if id(p) in muon}
    assert len(names) == inside and all(".0." in n and n.endswith("weight") for n in names)
    flat = {n for n, p in model.named_parameters() if p.ndim == 2} - names
    assert (
        flat
        == {
            "gpt2": {"transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"},
            "llama": {"model.embed_tokens.weight", "lm_head.weight"},
            "gpt_neox": {"gpt_neox.embed_in.weight", "lm_head.weight"},
        }[family]
    )


def test_all_cores_of_a_large_model_take_the_gradient_too(tiny, rows, monkeypatch):
    monkeypatch.setattr(read, "LARGE", 1)
    monkeypatch.setattr(read, "cpu_count", lambda: 3)
    seen = []
    tiny.model.norm.register_full_backward_hook(lambda *_: seen.append(torch.get_num_threads()))
    train(tiny, rows, 1, PRETRAIN.but(batch=4))
    assert seen == [3] and torch.get_num_threads() == 1


# ---- batches


def test_a_batch_carries_every_column(rows):
    more = rows.add_column("weight", [i / 2 for i in range(len(rows))]).add_column("text", ["a"] * len(rows))
    more = more.add_column("half", [r[: len(r) // 2] for r in rows["input_ids"]])
    batch = next(batches(more, 3, order=np.array([2, 0, 1])))
    assert set(batch) == {"input_ids", "labels", "weight", "half"}  # no model reads a text
    assert batch["weight"].tolist() == [1, 0, 0.5]
    for k in ("input_ids", "half"):
        wanted = [more[i][k] for i in (2, 0, 1)]
        assert batch[k].shape == (3, max(map(len, wanted)))
        assert [r[: len(w)] for r, w in zip(batch[k].tolist(), wanted, strict=True)] == wanted
    assert (batch["labels"] == IGNORE).sum() == (batch["input_ids"] == 0).sum() > 0


@pytest.mark.parametrize("labels", [[IGNORE] * 3, [5, IGNORE, IGNORE]], ids=["none", "on the first token"])
def test_a_row_that_teaches_nothing_is_refused_with_its_number(tiny, labels):
    made = Dataset.from_dict({"input_ids": [[5, 6, 7]] * 2, "labels": [[5, 6, 7], labels]})
    with pytest.raises(ValueError, match="row 1 has no label behind its first token in 'labels': leave it out"):
        train(tiny, made, 1)


def test_muon_is_told_which_matrices_are_stored_turned(monkeypatch):
    """GPT-2 keeps its weights as (inputs, outputs): taken for (outputs, inputs), steps would have another size."""
    told = {}

    class Listening(training.Muon):
        def __init__(self, params, *settings, turned=(), **more):
            told["turned"] = {id(p) for p in turned}
            super().__init__(params, *settings, turned=turned, **more)

    monkeypatch.setattr(training, "Muon", Listening)
    model = small_model("gpt2")
    training.Optimiser(model, Recipe(), 1)
    stored = {id(m.weight) for m in model.modules() if isinstance(m, Conv1D)}
    assert stored and told["turned"] == stored
