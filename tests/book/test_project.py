"""The project's files agree with each other: versions, addresses, commands; nothing of one machine is in them."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools import chapters, costs, environment, stamp, tables

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [Requirement(text) for group in (PROJECT["dependencies"], *EXTRAS.values()) for text in group]
# installed by `make real` only, or by whoever wants to compare losses
ON_DEMAND = {Requirement(text).name for text in (*EXTRAS["real"], *EXTRAS["trl"])}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines if line and line[0] != "#"]
    assert all(found), "a line of constraints.txt is no exact public version, name==1.2.3"
    names = [canonicalize_name(m[1]) for m in found]
    assert len(set(names)) == len(names), "a name is pinned twice"
    return dict(zip(names, [m[2] for m in found], strict=True))


def same(installed: str, pin: str) -> bool:
    return Version(Version(installed).public) == Version(pin)  # 2.13.0+cpu is a build of 2.13.0


@pytest.mark.parametrize("wanted", WANTED, ids=lambda w: w.name)
def test_a_dependency_is_pinned_within_its_bounds_and_installed_so(wanted):
    pin = pins().get(canonicalize_name(wanted.name))
    assert pin, f"{wanted.name} is not in constraints.txt"
    assert pin in wanted.specifier, f"{wanted.name}: {pin} is outside of {wanted.specifier}"
    try:
        installed = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        assert wanted.name in ON_DEMAND, f"{wanted.name} is not installed"
        return
    assert same(installed, pin), f"{wanted.name} {installed} is installed"


def test_the_data_of_the_library_are_installed_with_it():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    listed = tool["package-data"].items()
    patterns = [f"{package.replace('.', '/')}/{pattern}" for package, some in listed for pattern in some]
    data = [f for f in (ROOT / "lib" / "alignlab").rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert data and all(any(f.match(p) for p in patterns) for f in data)


def test_everything_installed_is_at_its_pin():
    known = pins()
    wrong = {
        d.name: d.version
        for d in metadata.distributions()
        if canonicalize_name(d.name) in known and not same(d.version, known[canonicalize_name(d.name)])
    }
    assert not wrong, f"installed, but not as constraints.txt says: {wrong}"


def test_the_library_has_lower_bounds_only():
    for text in PROJECT["dependencies"]:
        operators = {s.operator for s in Requirement(text).specifier}
        assert operators == {">="}, f"{text}: an upper bound breaks hosted notebooks when their runtime moves on"


def test_conda_environment_shares_the_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert environment["name"] == "dragon-eyes" and environment["channels"] == ["conda-forge"]
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == ["-c constraints.txt", "-e .[book,test]"], "pip must install the library under the shared constraints"
    python = next(d for d in conda if d.startswith("python="))
    assert re.fullmatch(r"python=3\.\d+", python) and Version(python[7:]) in Requirement(
        "python" + PROJECT["requires-python"]
    ).specifier
    for pinned in (d for d in conda if "=" in d and d is not python):
        name, version = re.split("=+", pinned)
        assert pins().get(canonicalize_name(name)) == version, f"{pinned} disagrees with constraints.txt"


def test_the_address_is_the_same_everywhere():
    run = subprocess.run([sys.executable, "-m", "tools.stamp", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.fixture
def copy(tmp_path):
    """The files that are stamped, and what is stamped into them; one chapter of the book, and one of two cells."""
    for name in (
        "_config.yml", "lib/alignlab/__init__.py", "book/_data/costs.csv", "notebooks/lima.ipynb", *stamp.OWN,
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "_toc.yml").write_text("root: README\nchapters:\n- file: notebooks/lima\n- file: notebooks/toy\n")
    toy = new_notebook(cells=[
        new_markdown_cell("# Toys\n\nSee https://github.com/someone/else"),
        new_code_cell("import alignlab", metadata={"tags": ["setup"]}, outputs=[new_output("stream", text="kept\n")]),
    ])  # fmt: skip
    chapters.write(toy, tmp_path / "notebooks" / "toy.ipynb")
    stamp.stamp(tmp_path, stamp.configured(ROOT))
    return tmp_path


def test_a_disagreement_is_found(copy, capsys):
    assert stamp.main(["--check", "--root", str(copy)]) == 0
    readme = copy / "README.md"
    readme.write_text(readme.read_text("utf-8").replace(stamp.configured(copy), "ana/other", 1), "utf-8")
    notebook = copy / "notebooks" / "toy.ipynb"
    notebook.write_text(notebook.read_text("utf-8").replace(stamp.configured(copy), "ben/other"), "utf-8")
    capsys.readouterr()
    assert stamp.main(["--check", "--root", str(copy)]) == 1
    said = capsys.readouterr().out
    assert "README.md: has ana/other" in said and "notebooks/toy.ipynb: the setup cell is not as" in said


LIMA = tables.read(costs.TABLE, "chapter")["lima",]


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("README.md", f"| {costs.own(LIMA):.1f} |", "| 77.7 |"),
        ("README.md", "Toys", "Tools"), ("CITATION.cff", "0.", "7."),
        ("book/_data/costs.csv", f"lima,{LIMA[costs.MINUTES]}", "lima,99.9"),
        ("lib/alignlab/__init__.py", '"0.', '"7.'),
        ("_toc.yml", "- file: notebooks/toy\n", ""),
    ],
)  # fmt: skip
def test_what_is_typed_by_hand_or_out_of_date_is_found_and_written_again(copy, name, old, new):
    file = copy / name
    assert old in file.read_text("utf-8")
    file.write_text(file.read_text("utf-8").replace(old, new, 1), "utf-8")
    assert stamp.disagreements(copy)
    stamp.stamp(copy, stamp.configured(copy))
    assert stamp.disagreements(copy) == []


def test_stamping_carries_a_new_address_everywhere(copy, capsys):
    assert stamp.main(["ana/the.fork", "--root", str(copy)]) == 0
    assert stamp.configured(copy) == "ana/the.fork" and stamp.disagreements(copy) == []
    notebook = (copy / "notebooks" / "toy.ipynb").read_text("utf-8")
    assert 'HOME = \\"https://github.com/ana/the.fork\\"' in notebook and "kept" in notebook
    assert "https://github.com/someone/else" in notebook, "the address of another project must stay"
    old = stamp.configured(ROOT)
    assert not [f for f in copy.rglob("*") if f.is_file() and old in f.read_text("utf-8")]


def test_a_notebook_without_the_address_is_named(copy):
    before = (copy / "README.md").read_bytes()
    chapters.write(new_notebook(), copy / "notebooks" / "bare.ipynb")
    assert any("bare.ipynb: 0 cells are tagged `setup`" in line for line in stamp.disagreements(copy))
    with pytest.raises(ValueError, match=r"bare.ipynb"):
        stamp.stamp(copy, "ana/other")
    assert (copy / "README.md").read_bytes() == before


def test_a_bad_address_is_refused(copy, capsys):
    with pytest.raises(SystemExit):
        stamp.main(["no-slash", "--root", str(copy)])
    assert "'no-slash' is not of the form owner/name" in capsys.readouterr().err


ADDRESSES = {
    "ssh://git@ssh.github.com:443/owner/name.git": "owner/name",
    "https://user:token@github.com/owner/name.git": "owner/name",
    "git@github.com:owner/name.git": "owner/name",
    "ssh://git@github.com/owner/name": "owner/name",
    "https://github.com/owner/na.me/": "owner/na.me",
    "https://GitHub.com/owner/name\n": "owner/name",
    "owner/name": "owner/name",
    "https://gitlab.com/owner/name.git": None,
    "https://example.org/github.com/owner/name": None,
    "https://github.com.example.org/owner/name": None,
    "ssh://git@github.com:port/owner/name": None,
    "git@ssh.github.com:443/owner/name.git": None,
    "https://github.com/owner": None,
    "https://github.com/owner/name/tree": None,
    "-owner/name": None,
    "owner-/name": None,
    "/srv/github.com/owner/name.git": None,
    "file:///srv/owner/name": None,
}


@pytest.mark.parametrize("address, slug", ADDRESSES.items())
def test_an_address_is_parsed_and_not_searched(tmp_path, monkeypatch, address, slug):
    assert stamp.owner_and_name(address) == slug
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "remote", "add", "origin", "--", address.strip()], cwd=tmp_path, check=True)
    assert stamp.guess(tmp_path) == slug


def test_readme_names_the_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    for command in ("make book", "make test", "make chapter NAME=", "python make.py book"):
        assert command in readme, f"README.md does not name `{command}`"
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme):
        assert (ROOT / picture).exists(), f"README.md shows {picture}, which is missing"


@pytest.mark.parametrize(
    "words, says",
    [
        ("chapter NAME=lima SEDE=100", "unknown setting 'SEDE=100': make chapter takes NAME=..., PROFILE=..., SEED="),
        ("chapter NAME=lima NAME=rot13", "NAME is given twice"),
        ("reproduce NAME=lima", "make reproduce takes no setting"),
        ("test PART=libary", "unknown part 'libary': choose from lint, library"),
        ("chapter NAME=lima COSTS=yes", "COSTS is 'yes'"),
        ("chapter NAME=lima SEED=", "SEED is empty"),
        ("chaptre", "unknown target 'chaptre'"),
    ],
)
@pytest.mark.parametrize("front", ["python", "make"])
def test_an_unknown_setting_is_refused_before_anything_is_done(tmp_path, front, words, says):
    if front == "make" and (not shutil.which("make") or "twice" in says or "target" in says):
        pytest.skip("there is no make here, or it takes the last of two values, or says this in its own words")
    for name in ("make.py", "Makefile"):  # a tree without an environment: it would take minutes to make one
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", f"PYTHON={sys.executable}"] if front == "make" else [sys.executable, "make.py"]
    how = {"cwd": tmp_path, "env": environment.clean(), "capture_output": True, "text": True}
    run = subprocess.run([*command, *words.split()], **how)
    assert run.returncode and says in run.stderr, run.stderr
    assert {p.name for p in tmp_path.iterdir()} <= {"make.py", "Makefile", "__pycache__"}


def test_plain_pytest_leaves_out_what_is_slow():
    asked = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    plain = subprocess.run([*asked, "tests/slow", "tests/site"], cwd=ROOT, capture_output=True, text=True)
    assert plain.returncode == 5 and "no tests collected" in plain.stdout, plain.stdout
    files = ["tests/slow/test_broken_library.py", "tests/site/test_site.py"]  # all were collected once, to be left out
    every = subprocess.run([*asked, *files, "-m", ""], cwd=ROOT, capture_output=True, text=True)
    assert every.returncode == 0 and "test_broken_library.py" in every.stdout and "test_site.py" in every.stdout


def test_make_passes_on_what_stands_on_its_command_line_and_nothing_else(tmp_path):
    if not shutil.which("make"):
        pytest.skip("there is no make here")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "make.py").write_text("import sys; print(sys.argv[1:])")
    plain = environment.clean()
    title = "TITLE=What's \"it\"; $HOME"
    run = subprocess.run(
        ["make", "--no-print-directory", f"PYTHON={sys.executable}", "new", "NAME=dpo", title.replace("$", "$$")],
        cwd=tmp_path, env={**plain, "PROFILE": "full", "SEED": "9"}, capture_output=True, text=True,
    )  # fmt: skip
    said = ast.literal_eval(run.stdout)
    assert said[0] == "new" and set(said[1:]) == {"NAME=dpo", title.replace("$", "$$")}, run.stderr


def test_make_knows_every_target_of_make_py():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.search(r"^TARGETS := (.*)$", makefile, re.MULTILINE)[1].split()
    said = subprocess.run([sys.executable, "make.py", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert targets and {line.split()[0] for line in said.stdout.splitlines()} == set(targets)


def tracked() -> list[Path]:
    """Files that are or would be in the repository."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def test_nothing_of_one_machine_is_in_the_files():
    # [-] and [_] match what they hold: so written, the pattern is not itself such a setting.
    index = re.compile(r"--(?:extra-)?index[-]url|--find[-]links|\bPIP[_]INDEX", re.IGNORECASE)
    folder = re.compile(r"(?<![\w./~-])/(?:home|Users|root|work|private)/[\w.-]+")
    found, binary = [], {".png", ".ico", ".safetensors"}
    for file in tracked():
        if file.suffix in binary or file.name in {"test_project.py", "test_contract.py", "contract.py"}:
            continue
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            hit = index.search(line) or folder.search(line)
            if hit:
                found.append(f"{file.relative_to(ROOT)}:{number}: {hit[0]}")
    assert not found, found


def test_bibliography_is_consistent():
    from pybtex.database import parse_file

    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    assert len(entries) > 30
    numbers = [e.fields["eprint"] for e in entries.values() if "eprint" in e.fields]
    assert len(set(numbers)) == len(numbers), "an arXiv number stands twice"
    for key, item in entries.items():
        assert item.fields.get("title") and item.persons.get("author"), f"{key} lacks a title or authors"
        assert re.fullmatch(r"\d{4}\.\d{5}", item.fields.get("eprint", "0000.00000")), f"{key}: not an arXiv number"
        surname = re.sub("[^a-z]", "", "".join(item.persons["author"][0].last_names).lower())
        assert key.startswith(surname[:8]), f"{key} is not named after {surname}"
        posted = item.fields.get("eprint")
        if posted:
            assert int("20" + posted[:2]) <= int(item.fields["year"]), f"{key}: appeared before it was posted"


def test_the_picture_of_the_readme_is_the_figure_of_a_committed_run():
    found = [chapters.picture(chapters.read(f)) for f in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert len([f for f in found if f]) == 1, f"one cell must be tagged {chapters.PICTURE_TAG}"
    assert chapters.PICTURE.read_bytes() in found, "the picture is of another run: make chapter NAME=paraphrase"
    assert chapters.PICTURE.relative_to(ROOT).as_posix() in (ROOT / "README.md").read_text("utf-8")


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [f for f in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if f.name != "config.yml"]


def test_the_workflows_run_commands_of_the_book():
    runs = {
        file.name: [step.get("run") for job in read(file)["jobs"].values() for step in job["steps"] if "run" in step]
        for file in WORKFLOWS
    }
    (tag,) = runs.pop("tag.yml")
    assert runs == {"ci.yml": [".ci/run"], "pages.yml": ["make book"], "mutants.yml": ["make mutants"]}
    assert not re.search(r"\b(make|python3?|pip|bash|sh)\b|\./", tag), "the job that may write runs code of the tree"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111, ".ci/run cannot be run"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda f: f.name)
def test_a_workflow_is_pinned_and_may_do_no_more_than_it_needs(file):
    flow = read(file)
    assert flow["permissions"] == {"contents": "read"}, "what the jobs may do by default"
    for name, job in flow["jobs"].items():
        allowed = {"publish": {"pages": "write", "id-token": "write"}, "tag": {"contents": "write"}}.get(name, {})
        assert job.get("permissions", {}) == allowed, name
        assert name == "tag" or not allowed or not any("run" in step for step in job["steps"]), f"{name} runs code"
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", step["uses"]), f"not pinned: {step['uses']}"
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize(
    "version, there, asked, status",
    [
        ("0.2.0", "", ["ref=refs/tags/v0.2.0", "sha=abc"], 0),
        ("0.2.0", "v0.2.0", [], 0),
        ("0.2.0; rm -rf /", "", [], 1),
    ],
)
def test_a_tag_is_set_when_there_is_none_for_the_version(tmp_path, version, there, asked, status):
    """The script of the workflow, with a `gh` that notes what it is asked."""
    if not shutil.which("bash"):
        pytest.skip("there is no bash here")
    (tmp_path / "lib" / "alignlab").mkdir(parents=True)
    (tmp_path / "lib" / "alignlab" / "__init__.py").write_text(f'import os\n\n__version__ = "{version}"\n')
    gh = tmp_path / "gh"
    gh.write_text(
        f'#!/bin/sh\ncase "$2" in */git/ref/tags/{there or "none"}) exit 0;; */git/ref/*) exit 1;; esac\n'
        f'printf "%s\\n" "$@" > {tmp_path}/asked\n'
    )
    gh.chmod(0o755)
    (script,) = [s["run"] for s in read(ROOT / ".github/workflows/tag.yml")["jobs"]["tag"]["steps"] if "run" in s]
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_REPOSITORY": "owner/name", "GITHUB_SHA": "abc"}
    run = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path, env={**os.environ, **settings})
    assert run.returncode == status
    said = (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []
    assert [word for word in said if "=" in word] == asked
    assert not asked or said[1] == "repos/owner/name/git/refs"


def read(file: Path) -> dict:
    return yaml.safe_load(file.read_text("utf-8"))


@pytest.mark.parametrize("file", FORMS, ids=lambda f: f.name)
def test_an_issue_form_is_one_that_github_reads(file):
    form = read(file)
    assert {"name", "description", "body"} <= set(form) <= {"name", "description", "body", "title", "labels"}
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert ids and len(set(ids)) == len(ids)
    for part in form["body"]:
        assert part["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert set(part) <= {"type", "id", "attributes", "validations"}
        assert part["attributes"]["value" if part["type"] == "markdown" else "label"]
        if part["type"] in {"dropdown", "checkboxes"}:
            assert part["attributes"]["options"]


def test_the_form_for_verdicts_asks_for_what_a_chapter_prints():
    assert [f.name for f in FORMS] == ["bug.yml", "idea.yml", "verdict.yml"]
    parts = {part.get("id"): part for part in read(FORMS[-1])["body"]}
    for wanted in ("chapter", "verdicts", "report"):
        assert parts[wanted]["validations"]["required"] is True
    # The example in the form begins each line as the last cell of a chapter does.
    last = chapters.read(ROOT / "notebooks" / "paraphrase.ipynb").cells[-1]
    said = "".join(o.text for o in last.outputs).splitlines()
    for line in parts["report"]["attributes"]["placeholder"].splitlines():
        start = line.split("...")[0].strip()
        assert any(own.startswith(start) for own in said), f"a chapter prints no line {line!r}"
