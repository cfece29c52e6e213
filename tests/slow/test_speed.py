"""Speeds that the library's choices rest on, as ratios measured side by side in one run: `make bench`.

Timings of one machine say little; each test times its two sides in turns and compares the medians. With
ALIGNLAB_RECORD=1, which `make bench` sets, the ratios go into book/_data/speed.csv, with the targets that were set
before; a target that is missed is written down as missed. A test fails only where a choice of the library would be
wrong.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import statistics
import time
from pathlib import Path

import pytest
import torch
from alignlab.experiment import base
from alignlab.experiment.sweep import side_by_side, sweep
from alignlab.models import tokens
from alignlab.models.answer import generate
from alignlab.models.llama import HEAD, make_model, parameters
from alignlab.training.losses import next_token
from alignlab.training.rollouts import rollout
from alignlab.training.train import PRETRAIN, batches, train
from alignlab.worlds import biographies
from alignlab.worlds import web as web_pages
from alignlab.worlds.people import make_world
from torch import nn
from torch.nn import functional as F

from tools import costs, tables

ROOT = Path(__file__).resolve().parents[2]

WIDTH, DEPTH, STEPS, ROUNDS = 128, 2, 40, 3
RECORD = os.environ.get("ALIGNLAB_RECORD") == "1"  # otherwise nothing is written into the tree
COLUMNS = ("measured", "ours", "beside it", "ratio", "target", "met")
measured: dict[str, tuple] = {}


@pytest.fixture(scope="module", autouse=True)
def table():
    """What was measured replaces its rows in the table, if that is wanted; other rows are kept."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    if not RECORD:
        return
    file = tables.DATA / "speed.csv"
    rows = tables.read(file, "measured")
    for name, values in measured.items():
        rows[name,] = dict(zip(COLUMNS, (name, *values), strict=True))
    tables.write(rows.values(), COLUMNS, file)
    tables.replace(file.with_name("speed-machine.md"), f"{costs.machine()}\n".encode())


def note(name: str, ours: str, other: str, ratio: float, target: float) -> None:
    measured[name] = (ours, other, f"{ratio:.2f}", f"{target:.2f}", "yes" if ratio >= target else "no")
    print(f"\n{name}: {ours}, {other}: {ratio:.2f} (target {target:.2f})")


@pytest.fixture(scope="module")
def web():
    world = make_world(people=200, seed=0)
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    corpus = biographies.write(world, biographies.Presentation(versions=5, permute=True), seed=0)
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

    torch.set_num_threads(1)
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
        tokenizer.padding_side = "left"

    a, b = seconds(loop, trainer)
    note("steps per second, AdamW: bare loop against transformers.Trainer", f"{a:.1f} s", f"{b:.1f} s", b / a, 1)
    assert b / a > 0.9, "the bare loop is slower than transformers.Trainer"


def test_rows_by_column(web):
    """A dataset is read before each training: at once, or as it offers itself to a loop."""
    _, rows = web
    rows = rows.select(range(1000))
    a, b = seconds(
        lambda: list(zip(rows["input_ids"][:], rows["labels"][:], strict=True)),
        lambda: list(zip(rows["input_ids"], rows["labels"], strict=True)),
    )
    note("1,000 rows of a dataset: a column at once against row by row", f"{a:.3f} s", f"{b:.3f} s", b / a, 5)
    assert b / a > 2, "a column at once is hardly faster"


class Block(nn.Module):
    """GPT-2's block: LayerNorm, attention, LayerNorm, a hidden layer four times as wide."""

    def __init__(self, width):
        super().__init__()
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, c // HEAD, HEAD).transpose(1, 2) for y in self.qkv(self.one(x)).split(c, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.two(x))


class PlainGPT(nn.Module):
    """A GPT in plain PyTorch, as a textbook writes it, of the same width and depth as ours."""

    def __init__(self, vocabulary, width, depth, positions=512):
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        x = self.norm(self.blocks(self.token(ids) + self.place(torch.arange(ids.shape[1]))))
        return x @ self.token.weight.T


def test_tokens_per_second_against_a_plain_gpt(web):
    """Tokens per second and parameter: the two models differ in size, by SwiGLU and by biases.

    The plain GPT's table of positions does not count: it is looked up and not multiplied with.
    """
    torch.set_num_threads(1)
    tokenizer, rows = web
    recipe = PRETRAIN.but(optimizer="adamw", lr=1e-3)
    plain, ours = PlainGPT(len(tokenizer), WIDTH, DEPTH), make_model(tokenizer, WIDTH, DEPTH)
    drawn = batches(rows, recipe.batch)
    read = [next(drawn)["input_ids"] for _ in range(STEPS)]

    def textbook():
        optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, fused=True)
        for ids in read:
            logits = plain(ids)
            F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    a, b = seconds(lambda: train(ours, rows, STEPS, recipe), textbook)
    ratio = (b / (parameters(plain) - plain.place.weight.numel())) / (a / parameters(ours))
    name = "tokens per second and parameter, AdamW: bare loop against a plain PyTorch GPT"
    note(name, f"{a:.1f} s", f"{b:.1f} s", ratio, 0.95)
    assert ratio > 0.5, "a GPT in plain PyTorch is twice as fast"


GOAL = 1.0  # nats per token, on the biographies of `web`


def steps_to(goal: float, losses: list[float]) -> float:
    smooth = [statistics.mean(losses[max(0, i - 9) : i + 1]) for i in range(len(losses))]
    return next((i + 1 for i, v in enumerate(smooth) if v < goal), math.inf)


def trained(optimizer: str, lr: float, steps: int, seed: int) -> list[float]:
    """Train one model of width 64 on the biographies; module level, so that a worker process can run it."""
    world = make_world(people=200, seed=0)
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    varied = biographies.write(world, biographies.Presentation(versions=5, permute=True), seed=0)
    rows = tokens.documents(varied, tokenizer)
    recipe = PRETRAIN if optimizer == "muon" else PRETRAIN.but(optimizer="adamw", lr=lr)
    return train(make_model(tokenizer, 64, seed=seed), rows, steps, recipe, seed=seed)


@pytest.fixture(scope="module")
def needed():
    """How many steps each optimiser needs to the goal, AdamW at the best of three rates."""
    torch.set_num_threads(1)
    muon = steps_to(GOAL, trained("muon", 0, 400, 0))
    adamw = {lr: steps_to(GOAL, trained("adamw", lr, 700, 0)) for lr in (2e-3, 5e-3, 1e-2)}
    best = min(adamw, key=adamw.get)
    assert math.isfinite(muon) and math.isfinite(adamw[best]), f"no run reached {GOAL}: muon {muon}, AdamW {adamw}"
    return muon, best, adamw[best]


def test_muon_against_adamw_to_a_loss(needed):
    torch.set_num_threads(1)
    muon, lr, adamw = needed
    a, b = seconds(lambda: trained("muon", 0, muon, 0), lambda: trained("adamw", lr, adamw, 0))
    name = f"time to {GOAL} nats, one thread: Muon against AdamW at its best rate"
    note(name, f"{muon} steps, {a:.1f} s", f"{adamw} steps, {b:.1f} s", b / a, 1)
    assert b / a > 1, "AdamW reaches the loss sooner: choose it"


def test_our_way_against_adamw_with_two_threads(needed):
    """Two models to the same loss: side by side with Muon and a thread each, and in turn with AdamW and two threads."""
    muon, lr, adamw = needed

    def in_turn():
        torch.set_num_threads(2)
        for seed in (0, 1):
            trained("adamw", lr, adamw, seed)

    a, b = seconds(lambda: side_by_side(trained, ["muon"] * 2, [0] * 2, [muon] * 2, [0, 1]), in_turn)
    name = f"two models to {GOAL} nats: Muon in two processes against AdamW with two threads in one"
    note(name, f"{a:.1f} s", f"{b:.1f} s", b / a, 2.2)
    assert b / a > 1, "one process with two threads and AdamW is faster"


def cell(condition, seed):
    world = make_world(people=100, seed=seed)
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    rows = tokens.documents(biographies.write(world, seed=seed), tokenizer)
    return {"loss": train(make_model(tokenizer, 64, seed=seed), rows, 60, seed=seed)[-1]}


def test_two_workers_against_one():
    one, two = seconds(
        lambda: sweep(cell, ["a", "b"], [0, 1, 2], workers=1), lambda: sweep(cell, ["a", "b"], [0, 1, 2], workers=2)
    )
    note("a sweep of six cells: two workers against one", f"{two:.1f} s", f"{one:.1f} s", one / two, 1.5)
    assert one / two > 1.2, "two workers are hardly faster than one"


def test_replies_in_a_batch_against_one_by_one(web):
    torch.set_num_threads(1)
    tokenizer, _ = web
    model = make_model(tokenizer, WIDTH, DEPTH)
    prompts = [f"where was {p.name} born ?" for p in make_world(people=200, seed=0).people[:64]]
    options = {"max_new_tokens": 24, "template": False}
    a, b = seconds(
        lambda: generate(model, tokenizer, prompts, **options),
        lambda: [generate(model, tokenizer, [p], **options) for p in prompts],
    )
    note("64 replies of 24 tokens: in a batch against one by one", f"{a:.1f} s", f"{b:.1f} s", b / a, 5)
    assert b / a > 2, "a batch is hardly faster than one reply after the other"


def test_rollouts_against_prompt_by_prompt(web):
    """The samples of one step of policy gradient, as three-stages draws them: 8 questions, 8 replies to each."""
    torch.set_num_threads(1)
    tokenizer, _ = web
    model = make_model(tokenizer, WIDTH, DEPTH)
    prompts = [f"where was {p.name} born ?" for p in make_world(people=200, seed=0).people[:8]]

    def asked(some):
        return rollout(model, tokenizer, some, 8, lambda said: range(len(said["reply"])), seed=0, max_new_tokens=40)

    a, b = seconds(lambda: asked(prompts), lambda: [asked([p]) for p in prompts])
    what = "rollouts of a policy-gradient step, 8 samples of 8 prompts: in a batch against prompt by prompt"
    note(what, f"{a:.2f} s", f"{b:.2f} s", b / a, 3)
    assert b / a > 1.5, "a batch is hardly faster than one prompt after the other"


def step_alone(model, batches):
    """Forward and backward, without optimiser, clipping and batching."""
    for ids in batches:
        next_token(model, {"input_ids": ids, "labels": ids}).backward()
        model.zero_grad(set_to_none=True)


def pages_of_a_base(steps):
    """What a shared base reads in `steps` steps, with its tokenizer: `experiment.base`, without the training."""
    plan = base.QUICK
    world = base.make_world_of(plan, 0)
    tokenizer = tokens.word_tokenizer(biographies.words(world, web_pages.vocabulary()))
    pages = web_pages.pages(world, steps * base.RECIPE.batch, dict(plan.shares), seed=0)
    return tokenizer, tokens.documents(pages, tokenizer, end=False)


def test_share_of_the_matrix_peak(web):
    """6 operations per parameter and token, beside the best float32 product of matrices of such widths.

    Beside the training loop as the chapters use it, for a shared base and for short biographies, stands what was tried
    to come nearer to the peak. Attention's own products and padding are not counted as done.
    """
    torch.set_num_threads(1)
    (tokenizer, rows), (for_base, pages) = web, pages_of_a_base(STEPS)
    model, large = make_model(tokenizer, WIDTH), make_model(tokenizer, 2 * WIDTH)
    reader, compiled = make_model(for_base, WIDTH), make_model(tokenizer, WIDTH)
    adamw, wide = PRETRAIN.but(optimizer="adamw", lr=1e-3), PRETRAIN.but(batch=4 * PRETRAIN.batch)
    batch = next(batches(rows, PRETRAIN.batch))["input_ids"]
    size = STEPS * PRETRAIN.batch * statistics.mean(map(len, rows["input_ids"]))  # tokens
    read = sum(map(len, pages["input_ids"]))
    alone = batch.numel() * STEPS
    sides = {  # what is done, by which model, with how many tokens
        "as the chapters use it, a shared base": (lambda: train(reader, pages, STEPS, base.RECIPE), reader, read),
        "as the chapters use it": (lambda: train(model, rows, STEPS), model, size),
        "with AdamW": (lambda: train(model, rows, STEPS, adamw), model, size),
        "four times the rows in a step": (lambda: train(model, rows, STEPS // 4, wide), model, size),
        "twice the width": (lambda: train(large, rows, STEPS), large, size),
        "forward and backward only": (lambda: step_alone(model, [batch] * STEPS), model, alone),
    }
    if shutil.which("g++"):
        compiled.base_model.compile(dynamic=False)
        step_alone(compiled, [batch])  # compiling takes a minute and is not counted
        name = "forward and backward only, with torch.compile"
        sides[name] = (lambda: step_alone(compiled, [batch] * STEPS), compiled, alone)
    products = [(torch.randn(1024, n), torch.randn(n, n)) for n in (WIDTH, 2 * WIDTH, 1024)]
    times = seconds(
        *(side for side, _, _ in sides.values()), *(lambda a=a, b=b: [a @ b for _ in range(50)] for a, b in products)
    )
    peak = max(50 * 2 * a.numel() * b.shape[1] / t for (a, b), t in zip(products, times[len(sides) :], strict=True))
    shares = {}
    for (name, (_, trained, count)), used in zip(sides.items(), times, strict=False):
        done = 6 * parameters(trained) * count / used
        shares[name] = done / peak
        note(
            f"share of the float32 matrix-product peak, one thread: {name}",
            f"{done / 1e9:.0f} GFLOP/s", f"{peak / 1e9:.0f} GFLOP/s", shares[name], 0.55,
        )  # fmt: skip
    assert shares["as the chapters use it"] > 0.2, "training runs far below the machine's peak"


def test_time_of_the_checks():
    """Takes over what the last complete `make test` on this machine has noted."""
    if not RECORD:
        pytest.skip("nothing is to be recorded: ALIGNLAB_RECORD is not 1")
    file = ROOT / "_build" / "checks.csv"
    if not file.exists():
        pytest.skip("no complete `make test` has been run here")
    with file.open(newline="", encoding="utf-8") as f:
        parts = [r["part"] for r in csv.DictReader(f)]
    assert parts[-1] == "all" and "notebooks" in parts
    tables.replace(tables.DATA / "checks.csv", file.read_bytes())
