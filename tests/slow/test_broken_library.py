"""No finding and no control survives its mutation: chapters run with a broken library, one seed, up to the ledger.

Run are those that are due: one of every second chapter, and all where the table of mutations no longer speaks of what
is there; tests/book/test_mutants.py reads in the table what became of the others. `make test` runs this after the
notebooks and with their cache, so what a mutation leaves alone is not trained again.
"""

from __future__ import annotations

import pytest

from tools import mutants


@pytest.mark.parametrize("mutation", mutants.due(), ids=lambda m: f"{m.chapter}-{m.entry}")
def test_the_ledger_notices_the_broken_library(mutation):
    entry = mutants.run(mutation)
    assert entry, "the chapter failed: see what it said above"
    assert len(entry["values"]) == 1
    assert entry["verdict"] not in mutants.SURVIVED, f"{mutation.entry} is {entry['verdict']} although {mutation.says}"
