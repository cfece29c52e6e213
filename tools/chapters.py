"""Run notebooks from start to end and write their outputs so that two runs can be compared.

    python -m tools.chapters paraphrase                         in place
    python -m tools.chapters --all --fresh-cache                every chapter, nothing trained before
    python -m tools.chapters --all --fresh-cache --costs        the same, and what it costs into book/_data
    python -m tools.chapters paraphrase --fresh-cache --costs   one chapter anew, and its line of that table
    python -m tools.chapters paraphrase --inject SEED=100       other settings; result in _build/runs

A notebook that fails is left as it was.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import nbformat
from alignlab import check
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from . import costs, environment, growth, stamp
from .costs import Cost
from .notebooks import MIME, ROOT, code, notebooks, text
from .tables import replace

SVG = "image/svg+xml"
WAITED = re.compile(r"^another process is making .*: waiting for it\n", re.MULTILINE)  # alignlab.models.lock
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE_TAG = "readme-picture"
PICTURE = ROOT / "book" / "_static" / "result.svg"  # what the README shows: never drawn by hand, never out of date
TIMEOUT = 1800  # seconds for one cell


class Refused(Exception):
    """A notebook that cannot be run or whose result must not be written; the message says why."""


def read(file: Path) -> NotebookNode:
    try:
        return nbformat.read(file, as_version=4)
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in file.parent.glob("*.ipynb"))) or "none yet"
        raise Refused(f"there is no {file.name} in {file.parent.name}/: there is {known}") from None
    except (ValueError, AttributeError, KeyError, nbformat.ValidationError) as e:
        raise Refused(f"{file.name} is not a notebook: {e}") from None


def write(notebook: NotebookNode, file: Path) -> None:
    """Write in one step."""
    replace(file, text(notebook).encode())


def picture(notebook: NotebookNode) -> bytes | None:
    """The figure of the cell tagged `readme-picture`, as SVG; None where no cell is."""
    for _, cell in code(notebook):
        if PICTURE_TAG in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if SVG in output.get("data", {}):
                    return output["data"][SVG].encode()
    return None


def inject(notebook: NotebookNode, values: dict[str, object]) -> None:
    """Override variables in the cell tagged `parameters`.

    Raises:
        Refused: there is no such cell, or it does not assign the variable.
    """
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise Refused(f"{len(cells)} cells are tagged `parameters`: a variable can be injected into exactly one")
    lines = cells[0].source.splitlines()
    places = {
        target.id: node
        for node in ast.parse(cells[0].source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for name, value in values.items():
        if name not in places:
            raise Refused(f"the parameters cell sets no {name}: it sets {', '.join(places)}")
        node = places[name]
        comment = lines[node.end_lineno - 1][node.end_col_offset :]
        lines[node.lineno - 1] = f"{name} = {value!r}{comment}"
        for extra in range(node.lineno, node.end_lineno):  # an assignment over several lines becomes one
            lines[extra] = ""
    cells[0].source = "\n".join(lines)


def normalise(notebook: NotebookNode) -> None:
    """Drop what differs between two runs of the same notebook, and what the site cannot use.

    Widgets live only as long as their kernel, so their stored views and state would be dead boxes on the site.
    """
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    notebook.metadata.kernelspec = NotebookNode(display_name="Python 3", language="python", name="python3")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    used: set[str] = set()
    for number, cell in enumerate(notebook.cells, 1):
        if not cell.get("id") or cell.id in used:  # a place in the notebook is stable, a random id is not
            cell.id = f"cell-{number:02}"
        used.add(cell.id)
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = _joined([o for o in map(_still, cell.outputs) if o is not None])
            for output in cell.outputs:
                if SVG in output.get("data", {}):
                    output["data"][SVG] = compact(output["data"][SVG])


def compact(svg: str) -> str:
    """The same picture in two thirds of the letters: coordinates to hundredths of a point, no comments, no metadata."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)  # not in the text between them
    return re.sub(r"\s*\n\s*", "\n", svg).strip() + "\n"


def _still(output: NotebookNode) -> NotebookNode | None:
    """An output without its live widget, or without what hangs on other processes; None when nothing is left of it."""
    if output.output_type == "stream" and output.name == "stderr":
        output.text = WAITED.sub("", output.text)
        return output if output.text else None
    data = output.get("data")
    if data is None or WIDGET not in data:
        return output
    data.pop(WIDGET)
    data.pop("text/plain", None)  # with a widget this is only its repr
    return output if data else None


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Neighbouring pieces of one stream as one output: where a stream was cut depends on timing."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def complaints(notebook: NotebookNode) -> list[str]:
    """Outputs that must not be committed, and figures that are not there: a cell with an alt text shows one."""
    found = []
    for number, cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"{_where(number, cell)} wrote to stderr: {_first(output.text)}")
        if alt(cell) and not images(cell):
            found.append(f"{_where(number, cell)} has an alt text and shows no figure")
    return found


def alt(cell: NotebookNode) -> str:
    """What a figure says to who cannot see it: the metadata mystnb.image.alt of its cell."""
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()


def images(cell: NotebookNode) -> list[NotebookNode]:
    return [o for o in cell.outputs if any(kind.startswith("image/") for kind in o.get("data", {}))]


def run(
    file: Path,
    values: dict[str, object] | None = None,
    timeout: int = TIMEOUT,
    cost: Cost | None = None,
    env: Mapping[str, str] | None = None,
) -> NotebookNode:
    """Execute a notebook in its own folder and return it, normalised. The file is not touched.

    Args:
        cost: is filled with what the run took.
        env: of the kernel; default: `environment.clean()`.

    Raises:
        Refused: naming notebook, cell number, first source line and error.
    """
    notebook = read(file)
    if values:
        inject(notebook, values)
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", record_timing=cost is not None,
        resources={"metadata": {"path": str(file.parent)}}, extra_arguments=["--log-level=40"],
    )  # fmt: skip
    start = time.perf_counter()
    try:
        with costs.memory(cost) if cost else nullcontext():
            client.execute(env=dict(environment.clean() if env is None else env))
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
        # The cell that failed is the last one that has been started; later ones hold the outputs of an older run.
        started = client.code_cells_executed
        number, cell = _failed(notebook, started)
        error = _error(cell) or (_first(str(e)) if str(e) else type(e).__name__)
        if isinstance(e, CellTimeoutError):
            error = f"took more than {timeout} s"
        raise Refused(f"{file.name}, {_where(number, cell)} failed: {error}") from None
    if cost:
        cost.seconds = time.perf_counter() - start
        cost.divide(notebook)
    normalise(notebook)
    found = complaints(notebook)
    if found:
        raise Refused(f"{file.name}: " + "; ".join(found))
    nbformat.validate(notebook)
    return notebook


def _failed(notebook: NotebookNode, started: int) -> tuple[int, NotebookNode]:
    cells = [(n, c) for n, c in code(notebook) if c.source.strip()]
    for n, c in cells:
        if any(o.output_type == "error" for o in c.outputs):
            return n, c
    return cells[min(max(started - 1, 0), len(cells) - 1)]


def _error(cell: NotebookNode) -> str:
    errors = [f"{o.ename}: {_ends(o.evalue)}" for o in cell.outputs if o.output_type == "error"]
    return errors[0] if errors else ""


def _ends(message: str) -> str:
    """The first and the last line: an error of a sweep names its cell first, and last what went wrong in the worker."""
    first, last = _first(message), _first("\n".join(reversed(message.splitlines())))
    return first if first == last else f"{first} {last}"


def _where(number: int, cell: NotebookNode) -> str:
    return f"code cell {number} ({_first(cell.source)!r})"


def _first(source: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", source)
    return next((line.strip() for line in plain.splitlines() if line.strip()), "")[:200]


def verdicts(notebook: NotebookNode) -> list[str]:
    lines = []
    for _, cell in code(notebook):
        for output in cell.outputs:
            for entry in output.get("data", {}).get(MIME, {}).get("entries", []):
                lines.append(f"   {entry['kind']:8}{entry['id']:32}{entry['mean']:+.2f}  {entry['verdict']}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="chapters, such as paraphrase")
    parser.add_argument("--all", action="store_true", help="all chapters in the order of _toc.yml")
    parser.add_argument("--fresh-cache", action="store_true", help="use an empty cache, removed afterwards")
    parser.add_argument("--inject", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here and leave the notebook as it is")
    parser.add_argument("--timeout", type=int, default=TIMEOUT, metavar="SECONDS", help="for one cell")
    parser.add_argument("--costs", action="store_true", help="write time and memory into the table and the chapter")
    options = parser.parse_args(arguments)

    try:
        values = settings(options.inject)
        if options.all == bool(options.names):
            raise ValueError("name the chapters to run, or say --all")
        files = list(notebooks(ROOT).values()) if options.all else [_file(n) for n in options.names]
        if options.out and len(files) != 1:
            raise ValueError("--out is for one chapter")
        if options.timeout < 1:
            raise ValueError(f"--timeout is {options.timeout}: a cell needs a second at least")
        if options.costs and (values or options.out or any(f.parent != ROOT / "notebooks" for f in files)):
            raise ValueError("--costs is for chapters as they are committed: without --inject and --out")
        for file in files:
            _check(file, values)
    except (TypeError, ValueError, FileNotFoundError, Refused) as e:
        parser.error(str(e))

    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this interpreter, whatever else is installed
    status = 0
    with tempfile.TemporaryDirectory(prefix="alignlab-cache-") as empty:
        env = environment.clean(**({"ALIGNLAB_CACHE": empty} if options.fresh_cache else {}))
        if options.all and options.fresh_cache:
            status = _bases(env, options.costs)
        for file in files:
            out = options.out or (_aside(file, values) if values else file)
            print(f"== {file.stem}", *[f"{k}={v}" for k, v in values.items()], flush=True)
            start = time.perf_counter()
            cost = Cost() if options.costs else None
            try:
                notebook = run(file, values, options.timeout, cost, env)
            except Refused as e:
                print(f"   FAILED after {time.perf_counter() - start:.0f} s: {e}", flush=True)
                status = 1
                continue
            if cost:
                shared = any(costs.shares_bases(c) for _, c in code(notebook))
                costs.say(notebook, costs.sentence(costs.record(file.stem, cost), shared))
            write(notebook, out)
            if cost:
                stamp.stamp(ROOT, stamp.configured(ROOT), [ROOT / "README.md"])  # its list says minutes too
                growth.derive()
            if out == file and file.parent == ROOT / "notebooks" and (image := picture(notebook)):
                replace(PICTURE, image)
            print(*verdicts(notebook), sep="\n", end="\n" if verdicts(notebook) else "")
            print(f"   {time.perf_counter() - start:.0f} s, written to {_short(out)}", flush=True)
    return status


def _bases(env: dict[str, str], note: bool) -> int:
    """Train the base models that chapters share, all in one pool: between the chapters a core would wait."""
    cost = Cost()
    with costs.memory(cost) if note else nullcontext():
        start = time.perf_counter()
        status = subprocess.run([sys.executable, "-m", "alignlab.experiment.base"], cwd=ROOT, env=env).returncode
        cost.seconds = cost.bases = time.perf_counter() - start
    print(f"== {costs.SHARED}: {cost.seconds:.0f} s", flush=True)
    if note and not status:
        costs.record(costs.SHARED, cost)
    return status


def settings(pairs: list[str]) -> dict[str, object]:
    """NAME=VALUE pairs as values to inject.

    Raises:
        ValueError: a pair of another form, a name twice, an unknown profile, or a seed that is none.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--inject {pair!r}: write NAME=VALUE, such as SEED=100")
        if name in values:
            raise ValueError(f"--inject names {name} twice: say it once")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    if "SEED" in values:
        check.integer("SEED", values["SEED"], at_least=0)
    if "PROFILE" in values:
        from alignlab.experiment.notebook import PROFILES  # loads torch: only where it is asked for

        check.one_of("PROFILE", values["PROFILE"], PROFILES)
    return values


def _check(file: Path, values: dict[str, object]) -> None:
    """Refuse before anything runs what would be refused after the chapters before it have run.

    Raises:
        Refused: no such chapter, or a variable that its parameters cell does not set.
    """
    inject(read(file), values) if values else read(file)


def _file(name: str) -> Path:
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    return ROOT / "notebooks" / f"{Path(name).stem}.ipynb"


def _aside(file: Path, values: dict[str, object]) -> Path:
    settings = "-".join(f"{k}-{v}" for k, v in values.items())
    return ROOT / "_build" / "runs" / f"{file.stem}-{re.sub(r'[^A-Za-z0-9_.-]', '_', settings)}.ipynb"


def _short(file: Path) -> str:
    file = file.resolve()
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


if __name__ == "__main__":
    sys.exit(main())
