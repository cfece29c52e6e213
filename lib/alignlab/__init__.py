"""alignlab: tiny worlds, tiny language models and honest measurements.

Data flows one way: world, text, tokens, web, cipher, model, train, answer, measure, shift, rules, slick, sweep, ledger,
plot, panel, cache, base, real, notebook. A module imports from those before it, never from those after it; `check`
serves all.
"""

import os

# Threads that wait for each other spin by default. Where two programs share the cores, each then waits for threads that
# the other one keeps from running: two models of 135 million parameters at a time took 43 s instead of 6 (two cores).
# It is read when torch is loaded, so it stands before every import of it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
