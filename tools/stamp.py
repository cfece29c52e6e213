"""Carry the repository's address from _config.yml to every place that needs it.

    python -m tools.stamp owner/name     write a new address
    python -m tools.stamp                the same, from GITHUB_REPOSITORY or the git remote `origin`
    python -m tools.stamp --check        name each file that disagrees with _config.yml

Colab opens notebooks from the repository, so the stamped notebooks have to be committed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLUG = r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]*[A-Za-z0-9_-]"
# In these files every GitHub address is the book's own. A chapter may also point at the repositories of papers:
# there, only the line that installs the library is ours.
OWN = ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml", "book/how-to-run.md", "book/index.md")
ANY = re.compile(rf"((?:github\.com|colab\.research\.google\.com/github)/)({SLUG})")
INSTALL = re.compile(rf"(git\+https://github\.com/)({SLUG})")
CONFIG = re.compile(
    rf"(^repository:\s*\n(?:[ \t]+.*\n)*?[ \t]+url:[ \t]*[\"']?https://github\.com/)({SLUG})", re.MULTILINE
)


def configured(root: Path) -> str:
    """owner/name as _config.yml has it."""
    found = CONFIG.search((root / "_config.yml").read_text("utf-8"))
    if not found:
        raise SystemExit("_config.yml has no repository url of the form https://github.com/owner/name")
    return found[2].removesuffix(".git")


def places(root: Path) -> list[tuple[Path, re.Pattern]]:
    """Every file that carries the address, and how it is written there."""
    own = [(root / name, ANY) for name in OWN if (root / name).exists()]
    return own + [(file, INSTALL) for file in sorted((root / "notebooks").glob("*.ipynb"))]


def disagreements(root: Path) -> list[str]:
    """One line for each file whose address is not the configured one, or that should have one and has none."""
    wanted, found = configured(root), []
    for file, pattern in places(root):
        addresses = {m[2].removesuffix(".git") for m in pattern.finditer(file.read_text("utf-8"))}
        name = file.relative_to(root).as_posix()
        found += [f"{name}: has {address}, not {wanted}" for address in sorted(addresses - {wanted})]
        if not addresses and pattern is INSTALL:
            found.append(f"{name}: no setup cell installs the library from https://github.com/{wanted}")
    return found


def stamp(root: Path, slug: str) -> list[str]:
    """Write `slug` everywhere; returns the names of the files that changed."""
    changed = []
    for file, pattern in [(root / "_config.yml", CONFIG), *places(root)]:
        before = file.read_bytes().decode("utf-8")  # bytes: line ends stay as they are
        after = pattern.sub(lambda m: m[1] + slug, before)
        if after != before:
            file.write_bytes(after.encode("utf-8"))
            changed.append(file.relative_to(root).as_posix())
    return changed


def guess(root: Path) -> str | None:
    """owner/name of this checkout, from the environment of a CI run or the remote `origin`."""
    if os.environ.get("GITHUB_REPOSITORY"):
        return os.environ["GITHUB_REPOSITORY"]
    try:
        origin = subprocess.run(
            ["git", "remote", "get-url", "origin"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(rf"github\.com[:/]({SLUG})", origin)
    return found[1].removesuffix(".git") if found else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", nargs="?", metavar="owner/name")
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that disagree")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)  # for the tests
    options = parser.parse_args(arguments)
    if options.check:
        found = disagreements(options.root)
        print("\n".join(found) or f"all places agree on {configured(options.root)}")
        return 1 if found else 0
    slug = options.repository or guess(options.root)
    if slug is None:
        parser.error("which repository? No GITHUB_REPOSITORY, no GitHub remote: say owner/name (REPO=owner/name)")
    slug = slug.removeprefix("https://github.com/").removesuffix("/").removesuffix(".git")
    if not re.fullmatch(SLUG, slug):
        parser.error(f"{slug!r} is not of the form owner/name")
    changed = stamp(options.root, slug)
    print("\n".join(f"stamped {name}" for name in changed) or f"nothing to change: all places say {slug}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
