'''The setup cell, the same in every chapter: the library at the version of the notebook, and what to do without it.

On Colab the library is installed alone, so torch and numpy stay as they are there. A tag is made of every version
(.github/workflows/tag.yml); a fork that has none yet gets the branch, and is told so. `make stamp` writes the cell.
'''

from __future__ import annotations

import re
from pathlib import Path

from nbformat import NotebookNode

from .notebooks import ROOT, code, tags

TAG, BRANCH = "setup", "main"
TEMPLATE = '''\
from importlib import invalidate_caches, util

HOME = "https://github.com/{slug}"
for version in ("v{version}", "{branch}"):  # the branch only where there is no such tag yet
    if getattr(util.find_spec("alignlab"), "origin", None) is None:  # as on Colab
        print(f"alignlab is not here: installing it alone, {{version}} of {{HOME}}")
        %pip install -q --no-deps "alignlab @ git+{{HOME}}@{{version}}"
        invalidate_caches()
try:
    from alignlab.experiment import notebook
except ImportError as e:
    found = getattr(util.find_spec("alignlab"), "origin", None)
    missing = e.name or str(e)
    if not found:
        remedy = "alignlab could not be installed: see what pip says above"
    elif missing.split(".")[0] == "alignlab":
        remedy = f"{{found}} is not this library: rename or uninstall it, then restart"
    else:
        remedy = f"this kernel has no {{missing}}: use that of `make lab`, "
        remedy += "or pip install it"
    raise ImportError(remedy) from e

lab = notebook.start(PROFILE, SEED)'''
ADDRESS = re.compile(r'^HOME = "https://github\.com/([^"]+)"$', re.MULTILINE)


def version(root: Path = ROOT) -> str:
    """The library's version.

    Raises:
        ValueError: lib/alignlab/__init__.py does not say one.
    """
    found = re.search(r'^__version__ = "([^"]+)"', (root / "lib/alignlab/__init__.py").read_text("utf-8"), re.MULTILINE)
    if not found:
        raise ValueError("lib/alignlab/__init__.py sets no __version__: the setup cells install the library at its tag")
    return found[1]


def source(slug: str, of: str) -> str:
    """The cell for the repository `slug`, owner/name, at the version `of`."""
    return TEMPLATE.format(slug=slug, version=of, branch=BRANCH)


def cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for _, cell in code(notebook) if TAG in tags(cell)]
