"""Speeds that the library's choices rest on, as ratios measured side by side in one run: `make bench`.

Timings of one machine say little; each test times its two sides in turns and compares the medians.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from alignlab import text, tokens
from alignlab.model import make_model, parameters
from alignlab.sweep import sweep
from alignlab.train import PRETRAIN, train
from alignlab.world import make_world

WIDTH, STEPS, ROUNDS = 128, 40, 3


@pytest.fixture(scope="module")
def web():
    world = make_world(people=200, seed=0)
    tokenizer = tokens.world_tokenizer(world)
    corpus = text.biographies(world, text.Presentation(versions=5, permute=True), seed=0)
    return tokenizer, tokens.documents(corpus, tokenizer)


def seconds(*sides):
    """Median seconds of each side; the sides take turns, so that a slow moment of the machine meets both."""
    taken = [[] for _ in sides]
    for _ in range(ROUNDS):
        for k, side in enumerate(sides):
            start = time.perf_counter()
            side()
            taken[k].append(time.perf_counter() - start)
    return [statistics.median(t) for t in taken]


def test_bare_loop_against_trainer(web, tmp_path):
    pytest.importorskip("accelerate", reason="transformers.Trainer needs the package accelerate")
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer, rows = web
    recipe = PRETRAIN.but(optimizer="adamw", lr=1e-3, decay_from=0.0)

    def loop():
        train(make_model(tokenizer, WIDTH), rows, STEPS, recipe)

    def trainer():
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=STEPS, per_device_train_batch_size=recipe.batch, learning_rate=1e-3,
            report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no", use_cpu=True,
            optim="adamw_torch_fused", dataloader_pin_memory=False,
        )  # fmt: skip
        collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=tokens.IGNORE)
        tokenizer.padding_side = "right"
        Trainer(make_model(tokenizer, WIDTH), arguments, train_dataset=rows, data_collator=collator).train()

    a, b = seconds(loop, trainer)
    print(
        f"\nbare loop {a:.2f} s, transformers.Trainer {b:.2f} s: the loop does {b / a:.2f} times the steps per second"
    )
    assert b / a > 0.9, "the bare loop is slower than transformers.Trainer"


def test_muon_against_adamw_in_steps_and_seconds(web):
    tokenizer, rows = web
    recipes = {
        "muon": PRETRAIN,
        "adamw 2e-3": PRETRAIN.but(optimizer="adamw", lr=2e-3),
        "adamw 5e-3": PRETRAIN.but(optimizer="adamw", lr=5e-3),
    }
    steps, goal, reached = 400, 1.0, {}
    for name, recipe in recipes.items():
        start = time.perf_counter()
        losses = train(make_model(tokenizer, 64), rows, steps, recipe)
        per_step = (time.perf_counter() - start) / steps
        smooth = [statistics.mean(losses[max(0, i - 9) : i + 1]) for i in range(steps)]
        at = next((i + 1 for i, v in enumerate(smooth) if v < goal), None)
        reached[name] = (at or float("inf")) * per_step
        print(f"\n{name}: loss {goal} after {at or f'more than {steps}'} steps, {per_step * 1e3:.0f} ms a step", end="")
    best = min(v for k, v in reached.items() if k != "muon")
    print(
        f"\nmuon needs {reached['muon'] / best:.2f} times the seconds of the better AdamW (0.00: AdamW never got there)"
    )
    assert reached["muon"] < best, "AdamW reaches the loss sooner: choose it"


def cell(condition, seed):
    world = make_world(people=100, seed=seed)
    tokenizer = tokens.world_tokenizer(world)
    rows = tokens.documents(text.biographies(world, seed=seed), tokenizer)
    return {"loss": train(make_model(tokenizer, 64, seed=seed), rows, 60, seed=seed)[-1]}


def test_two_workers_against_one():
    one, two = seconds(
        lambda: sweep(cell, ["a", "b"], [0, 1, 2], workers=1), lambda: sweep(cell, ["a", "b"], [0, 1, 2], workers=2)
    )
    print(
        f"\nsix cells: {one:.1f} s in turn with one thread, {two:.1f} s in two workers: {one / two:.2f} times as fast"
    )
    assert one / two > 1.2, "two workers are hardly faster than one"


def test_share_of_the_matrix_peak(web):
    tokenizer, rows = web
    torch.set_num_threads(2)
    model = make_model(tokenizer, WIDTH)
    size = sum(len(r) for r in rows["input_ids"]) / len(rows) * PRETRAIN.batch * STEPS
    a = torch.randn(1024, 1024)
    used, peak = seconds(lambda: train(model, rows, STEPS), lambda: [a @ a for _ in range(20)])
    rate, peak = 6 * parameters(model) * size / used / 1e9, 20 * 2 * 1024**3 / peak / 1e9
    print(f"\ntraining does {rate:.0f} GFLOP/s of a matrix-product peak of {peak:.0f}: {rate / peak:.0%}")
    assert rate / peak > 0.2, "training runs far below the machine's peak"
