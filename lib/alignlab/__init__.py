"""alignlab: tiny worlds, tiny language models and honest measurements.

Five floors; a floor imports only from those below it, and `check` serves all:

    experiment   from seeds to verdict to figure
    measure      numbers about a model; draws nothing
    training     what changes a model
    models       text to ids, a model over ids, what it says
    worlds       what is true, and every text about it; no torch
"""

import os

# Threads that wait for each other spin by default. Where two programs share the cores, each then waits for threads that
# the other one keeps from running: two models of 135 million parameters at a time took 43 s instead of 6 (two cores).
# It is read when torch is loaded, so it stands before every import of it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.8.0"
