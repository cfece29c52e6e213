"""The same sweep on a Dask cluster: the table is that of this machine, also when a worker dies half-way."""

from __future__ import annotations

import os

import joblib
import pytest
from alignlab.experiment.sweep import CellError, sweep
from alignlab.models import tokens
from alignlab.models.llama import make_model
from alignlab.training.train import train
from alignlab.worlds import biographies
from alignlab.worlds.people import make_world

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")


@pytest.fixture(scope="module")
def cluster():
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as made, distributed.Client(made):
        yield made


def trained(condition, seed):
    world = make_world(people=8, seed=seed)
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    rows = tokens.documents(biographies.write(world, seed=seed), tokenizer)
    losses = train(make_model(tokenizer, 32, depth=1, seed=seed), rows, condition, seed=seed)
    return {"first": losses[0], "last": losses[-1]}


def test_a_cluster_gives_the_table_of_this_machine(cluster):
    grid = {"few steps": 3, "more steps": 8}, [0, 1, 2]
    here = sweep(trained, *grid, workers=1)
    with joblib.parallel_config(backend="dask"):
        there = sweep(trained, *grid)
    assert there.equals(here)


def test_a_sweep_outlives_a_worker(cluster, tmp_path):
    killed = tmp_path / "killed"

    def cell(condition, seed):
        if condition == "b" and seed == 1 and not killed.exists():
            killed.touch()
            os._exit(9)  # as when the machine is lost: nothing is said, nothing is cleaned up
        return {"process": os.getpid(), "value": 10 * seed + len(condition)}

    before = set(cluster.scheduler.workers)
    with joblib.parallel_config(backend="dask"):
        table = sweep(cell, ["a", "b", "c"], [0, 1, 2])
    assert killed.exists() and set(cluster.scheduler.workers) != before
    values = table[table["metric"] == "value"]
    assert values["value"].tolist() == [1, 11, 21] * 3
    assert list(zip(values["condition"], values["seed"], strict=True)) == [(c, s) for c in "abc" for s in range(3)]
    assert os.getpid() not in set(table.loc[table["metric"] == "process", "value"])


def test_an_error_on_a_cluster_names_its_cell(cluster):
    def cell(condition, seed):
        return {"value": 1 / (seed - 1)}

    with joblib.parallel_config(backend="dask"), pytest.raises(CellError, match="condition 'a', seed 1 failed"):
        sweep(cell, ["a"], [0, 1, 2])
