"""alignlab: tiny worlds, tiny language models and honest measurements.

Data flows one way: world, text, tokens, web, cipher, model, train, answer, measure, shift, rules, slick, sweep, ledger,
plot, panel, cache, base, real, notebook. A module imports from those before it, never from those after it; `check`
serves all.
"""

__version__ = "0.1.0"
