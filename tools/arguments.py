"""How the tools that go through the chapters are called: `python -m tools.NAME [CHAPTER ...]`."""

from __future__ import annotations

import argparse

from .notebooks import known


def parser(description: str, chapters: str = "*") -> argparse.ArgumentParser:
    """A parser that takes names of chapters; more options may be added to it.

    Args:
        description: the tool's docstring.
        chapters: how many names it takes: "*", where none means all that have a ledger, or "+".
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    every = "default: all that have a ledger" if chapters == "*" else None
    made.add_argument("chapters", nargs=chapters, metavar="CHAPTER", help=every)
    return made


def parsed(made: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """What was asked for, with the chapters in `chapters`; leaves with a message where one of them is not known."""
    options = made.parse_args(arguments)
    try:
        options.chapters = known(options.chapters)
    except ValueError as e:
        made.error(str(e))
    return options
