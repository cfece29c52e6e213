"""The setup cell: from the library's wheel, where the library is not, with another one in the way, without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tools import setup_cell

ROOT = Path(__file__).resolve().parents[2]
PIP = "installed.append(pip.format(HOME=HOME, version=version))"


def cell(folder: Path, before: str = "") -> str:
    """The cell as a program of plain Python, where `%pip` notes what it is asked and then does `before`."""
    lines = ['PROFILE, SEED, installed = "quick", 0, []', *setup_cell.source("owner/name", "1.2.3").splitlines()]
    for n, line in enumerate(lines):
        start, magic, asked = line.partition("%pip ")
        if magic:
            lines[n] = f"{start}pip = {asked!r}; {PIP}; {before or 'pass'}"
    file = folder / "cell.py"
    file.write_text("\n".join([*lines, "print(installed, lab.seeds, notebook.__file__)"]), "utf-8")
    return str(file)


def run(file: str, *paths: Path | str) -> subprocess.CompletedProcess:
    """Run a program that finds modules in its own folder, in the standard library, and in `paths`; nowhere else."""
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run([sys.executable, "-S", file], env=settings, capture_output=True, text=True)


@pytest.fixture(scope="module")
def third_party(tmp_path_factory):
    """A folder with everything that is installed here but this library."""
    place = tmp_path_factory.mktemp("packages")
    for there in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for item in Path(there).iterdir():
            if "alignlab" not in item.name.lower() and not (place / item.name).exists() and item.suffix != ".pth":
                (place / item.name).symlink_to(item)
    return place


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The library as pip installs it from its wheel, alone."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: a build leaves folders behind
    for name in ("lib", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (source).mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    shutil.rmtree(source / "lib" / "alignlab.egg-info", ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("alignlab-*.whl")
    there = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(there), str(wheel)], check=True)
    return wheel, there


def test_the_wheel_holds_every_module_and_every_table(installed):
    wheel, there = installed
    assert f"alignlab-{setup_cell.version()}-" in wheel.name
    library = ROOT / "lib"
    files = [f for f in (library / "alignlab").rglob("*") if f.is_file() and f.suffix != ".pyc"]
    wanted = {f.relative_to(library).as_posix() for f in files}
    assert wanted == {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("alignlab/")}
    assert all((there / name).read_bytes() == (library / name).read_bytes() for name in wanted)


def test_a_notebook_starts_from_the_wheel_and_every_module_can_be_imported(installed, third_party, tmp_path):
    _, there = installed
    files = [f.relative_to(there).with_suffix("") for f in (there / "alignlab").rglob("*.py")]
    modules = ", ".join(".".join(f.parts).removesuffix(".__init__") for f in files)
    file = Path(cell(tmp_path))
    file.write_text(f"{file.read_text('utf-8')}\nimport {modules}\n", "utf-8")
    done = run(str(file), there, third_party)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"[] (0, 1, 2) {there}")


def test_what_is_not_there_is_installed_at_the_tag(third_party, tmp_path):
    """As on Colab, also beside an unrelated folder of that name; `%pip` is played by a change of the path."""
    (tmp_path / "alignlab").mkdir()
    file = cell(tmp_path, f"import sys; sys.path.insert(0, {str(ROOT / 'lib')!r})")
    done = run(file, third_party)
    assert done.returncode == 0, done.stderr
    said, result = done.stdout.splitlines()
    assert said == "alignlab is not here: installing it alone, v1.2.3 of https://github.com/owner/name"
    asked = """['install -q --no-deps "alignlab @ git+https://github.com/owner/name@v1.2.3"'] (0, 1, 2)"""
    assert result.startswith(asked)


def test_where_the_tag_is_not_there_the_branch_is_installed_and_said(third_party, tmp_path):
    late = f"import sys; sys.path[:0] = [{str(ROOT / 'lib')!r}] * (len(installed) - 1)"
    done = run(cell(tmp_path, late), third_party)
    assert done.returncode == 0, done.stderr
    assert "main of https://github.com/owner/name" in done.stdout and "name@main" in done.stdout


def test_an_installation_that_failed_is_said(tmp_path):
    done = run(cell(tmp_path))
    assert done.returncode and "ImportError: alignlab could not be installed: see what pip says above" in done.stderr


@pytest.mark.parametrize("inside", [{}, {"experiment/__init__.py": ""}], ids=["package", "with the same floor"])
def test_a_package_that_is_in_the_way_is_named(third_party, tmp_path, inside):
    for name, text in {"__init__.py": "", **inside}.items():
        (tmp_path / "alignlab" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "alignlab" / name).write_text(text)
    done = run(cell(tmp_path), third_party, ROOT / "lib")
    where = tmp_path / "alignlab" / "__init__.py"
    assert done.returncode and f"ImportError: {where} is not this library: rename or uninstall it" in done.stderr


def test_the_package_that_is_missing_is_named(tmp_path):
    (tmp_path / "numpy").mkdir()
    done = run(cell(tmp_path), ROOT / "lib")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: this kernel has no ") and "make lab" in last and "alignlab" not in last


def test_a_kernel_without_torch_says_so(third_party, tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    for item in third_party.iterdir():
        if item.name.partition("-")[0] not in ("torch", "functorch", "torchgen"):
            (packages / item.name).symlink_to(item.resolve())
    done = run(cell(tmp_path), ROOT / "lib", packages)
    assert "ImportError: this kernel has no torch: use that of `make lab`, or pip install it" in done.stderr
