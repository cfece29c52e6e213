"""Carry what is written in one place to every place that needs it: address, version, the list of chapters, minutes.

    python -m tools.stamp owner/name     write a new address, and everything below
    python -m tools.stamp                the same, from GITHUB_REPOSITORY or the git remote `origin`
    python -m tools.stamp --check        name each file that disagrees

The address stands in _config.yml, the version in lib/alignlab/__init__.py, the chapters in _toc.yml, their minutes in
book/_data/costs.csv. Colab opens notebooks from the repository, so the stamped notebooks have to be committed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from . import costs, setup_cell, tables
from .notebooks import ROOT, notebooks, read, text, title

OWNER, NAME = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", r"[A-Za-z0-9._-]*[A-Za-z0-9_-]"
SLUG = rf"{OWNER}/{NAME}"
HOSTS = ("github.com", "www.github.com", "ssh.github.com")  # the last one is for networks that let only port 443 out
# In these files every GitHub address is the book's own. A chapter may also point at the repositories of papers: there,
# only the setup cell is ours.
OWN = ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml", "book/how-to-run.md", "book/index.md")
ANY = re.compile(rf"((?:github\.com|colab\.research\.google\.com/github)/)({SLUG})")
CONFIG = re.compile(
    rf"(^repository:\s*\n(?:[ \t]+.*\n)*?[ \t]+url:[ \t]*[\"']?https://github\.com/)({SLUG})", re.MULTILINE
)
VERSION = re.compile(r"(^version: *)(\S+)", re.MULTILINE)  # of CITATION.cff
LIST = re.compile(r"(<!-- chapters: written by make stamp -->\n)(.*?)(<!-- end of chapters -->)", re.DOTALL)


def owner_and_name(address: str) -> str | None:
    """owner/name of a repository's address on GitHub, as people and git write it; None if it is none.

    `owner/name`, https with or without a user and a token, ssh with or without a port, and the short form of scp.
    """
    address = address.strip()
    short = re.fullmatch(r"(?:[^@/:]+@)?([^@/:]+):(?!/)(.+)", address)  # git@github.com:owner/name.git
    if re.fullmatch(SLUG, address):
        path = address
    elif "://" in address:
        try:
            parts = urlsplit(address)
            host, path = parts.hostname, parts.path
            parts.port  # noqa: B018 - a port that is no number is refused here
        except ValueError:
            return None
        if parts.scheme not in ("https", "http", "ssh", "git", "git+ssh") or host not in HOSTS:
            return None
    elif short and short[1].lower() in HOSTS:
        path = short[2]
    else:
        return None
    path = path.strip("/").removesuffix(".git")
    return path if re.fullmatch(SLUG, path) else None


def configured(root: Path) -> str:
    """owner/name as _config.yml has it."""
    found = CONFIG.search((root / "_config.yml").read_text("utf-8"))
    if not found:
        raise SystemExit("_config.yml has no repository url of the form https://github.com/owner/name")
    return found[2].removesuffix(".git")


def chapter_list(root: Path, slug: str) -> str:
    """The table of README: every chapter with its minutes, and where Colab opens it."""
    rows, measured = ["| chapter | minutes | |", "|---|---|---|"], tables.read(root / "book/_data/costs.csv", "chapter")
    for name, file in notebooks(root).items():
        row = measured.get((file.stem,))
        minutes = f"{costs.own(row):.1f}" if row else "not measured"
        colab = f"[open in Colab](https://colab.research.google.com/github/{slug}/blob/main/{name}.ipynb)"
        rows.append(f"| [{title(read(file).cells)}]({name}.ipynb) | {minutes} | {colab} |")
    return "\n".join(rows) + "\n"


def stamped(file: Path, root: Path, slug: str) -> str:
    """What `file` should be, for the repository `slug`.

    Raises:
        ValueError: a notebook without exactly one setup cell.
    """
    if file.suffix == ".ipynb":
        notebook = read(file)
        found = setup_cell.cells(notebook)
        if len(found) != 1:
            raise ValueError(f"{file.relative_to(root).as_posix()}: {len(found)} cells are tagged `setup`, not one")
        wanted = setup_cell.source(slug, setup_cell.version(root))
        if found[0].source == wanted:
            return decoded(file)
        found[0].source = wanted
        return text(notebook)
    content = decoded(file)
    content = (CONFIG if file.name == "_config.yml" else ANY).sub(lambda m: m[1] + slug, content)
    if file.name == "CITATION.cff":
        content = VERSION.sub(lambda m: m[1] + setup_cell.version(root), content)
    return LIST.sub(lambda m: m[1] + chapter_list(root, slug) + m[3], content)


def decoded(file: Path) -> str:
    return file.read_bytes().decode("utf-8")  # bytes: line ends stay as they are


def places(root: Path) -> list[Path]:
    """Every file in which something is written by this tool."""
    own = [root / name for name in OWN if (root / name).exists()]
    return [root / "_config.yml", *own, *sorted((root / "notebooks").glob("*.ipynb"))]


def disagreements(root: Path) -> list[str]:
    """One line for each file that is not as this tool would write it, with the reason where there is one."""
    wanted, found = configured(root), []
    for file in places(root):
        name = file.relative_to(root).as_posix()
        before = decoded(file)
        pattern = setup_cell.ADDRESS if file.suffix == ".ipynb" else ANY
        others = {m[m.re.groups].removesuffix(".git") for m in pattern.finditer(before)} - {wanted}
        try:
            if others and file.suffix != ".ipynb":
                found += [f"{name}: has {other}, not {wanted}" for other in sorted(others)]
            elif stamped(file, root, wanted) != before:
                what = "the setup cell" if file.suffix == ".ipynb" else "the version or the list of chapters"
                found.append(f"{name}: {what} is not as `make stamp` writes it")
        except ValueError as e:
            found.append(str(e))
    return found


def stamp(root: Path, slug: str, files: Iterable[Path] | None = None) -> list[str]:
    """Write everything for `slug`, in these files or in all; returns the names of those that changed.

    Raises:
        ValueError: a notebook has no setup cell; then nothing is written.
    """
    after = {file: stamped(file, root, slug) for file in files or places(root)}
    changed = [file for file, content in after.items() if content != decoded(file)]
    for file in changed:
        tables.replace(file, after[file].encode("utf-8"))
    return [file.relative_to(root).as_posix() for file in changed]


def guess(root: Path) -> str | None:
    """owner/name of this checkout, from the environment of a CI run or the remote `origin`; None where neither says."""
    if os.environ.get("GITHUB_REPOSITORY"):
        return owner_and_name(os.environ["GITHUB_REPOSITORY"])
    try:
        origin = subprocess.run(
            ["git", "remote", "get-url", "origin"], cwd=root, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return owner_and_name(origin)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("repository", nargs="?", metavar="owner/name")
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that disagree")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)  # for the tests
    options = parser.parse_args(arguments)
    if options.check:
        found = disagreements(options.root)
        print("\n".join(found) or f"all places agree on {configured(options.root)}")
        return 1 if found else 0
    slug = owner_and_name(options.repository) if options.repository else guess(options.root)
    if slug is None and options.repository:
        parser.error(f"{options.repository!r} is not of the form owner/name, nor the address of one on GitHub")
    if slug is None:
        parser.error("which repository? No GITHUB_REPOSITORY, no GitHub remote: say owner/name (REPO=owner/name)")
    try:
        changed = stamp(options.root, slug)
    except ValueError as e:
        parser.error(str(e))
    print("\n".join(f"stamped {name}" for name in changed) or f"nothing to change: all places say {slug}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
