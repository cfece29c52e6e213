"""No finding and no control survives its mutation: chapters run with a broken library, one seed, up to the ledger.

`make test` runs this after the notebooks and with their cache, so what a mutation leaves alone is not trained again.
Alone it trains everything: `pytest -m "" tests/slow/test_broken_library.py` takes some ten minutes.
"""

from __future__ import annotations

import pytest

from tools import mutants


@pytest.mark.parametrize("mutation", mutants.MUTATIONS, ids=lambda m: f"{m.chapter}-{m.entry}")
def test_the_ledger_notices_the_broken_library(mutation):
    entry = mutants.run(mutation)
    assert entry, "the chapter failed: see what it said above"
    assert len(entry["values"]) == 1
    assert entry["verdict"] not in mutants.SURVIVED, f"{mutation.entry} is {entry['verdict']} although {mutation.says}"
