"""Run notebooks from start to end and write their outputs so that two runs can be compared.

    python -m tools.chapters paraphrase                         in place
    python -m tools.chapters --all --fresh-cache                every chapter, nothing trained before
    python -m tools.chapters --all --fresh-cache --costs        the same, and what it costs into book/_data
    python -m tools.chapters paraphrase --inject SEED=100       other settings; result in _build/runs

A notebook that fails is left as it was.
"""

from __future__ import annotations

import argparse
import ast
import base64
import os
import platform
import re
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from .notebooks import MIME, ROOT, code, notebooks

WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE_TAG = "readme-picture"
PICTURE = ROOT / "book" / "_static" / "result.png"  # what the README shows: never drawn by hand, never out of date
COSTS = ROOT / "book" / "_data"
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
    """Write atomically: whoever reads `file` sees the old notebook or the new one, never half of one."""
    replace(file, text(notebook).encode())


def replace(file: Path, content: bytes) -> None:
    """Put `content` in the place of `file` in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
        os.chmod(draft, file.stat().st_mode & 0o777 if file.exists() else 0o644)
        os.replace(draft, file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def picture(notebook: NotebookNode) -> bytes | None:
    """The figure of the cell tagged `readme-picture`, as PNG; None where no cell is."""
    for _, cell in code(notebook):
        if PICTURE_TAG in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    return None


def text(notebook: NotebookNode) -> str:
    """The file's content: keys sorted, indent 1, one newline at the end."""
    return nbformat.writes(notebook, version=4, indent=1, sort_keys=True, ensure_ascii=False).rstrip("\n") + "\n"


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


def _still(output: NotebookNode) -> NotebookNode | None:
    """An output without its live widget; None when nothing is left of it."""
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
    """Outputs that must not be committed."""
    found = []
    for number, cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"{_where(number, cell)} wrote to stderr: {_first(output.text)}")
    return found


@dataclass
class Cost:
    """What a run took: seconds in all, of these for the shared base models and for real models, and peak memory."""

    seconds: float = 0.0
    bases: float = 0.0
    real: float = 0.0
    gigabytes: float = 0.0


@contextmanager
def _memory(cost: Cost):
    """Note the largest sum of the memory of all processes below this one, the workers of a kernel among them.

    On Linux each process counts its share of what several have in common; elsewhere that is counted more than once.
    """
    import psutil  # it comes with ipykernel; only who measures needs it

    def size(process) -> int:
        try:
            info = process.memory_full_info()
            return getattr(info, "pss", info.rss)
        except psutil.Error:  # it has ended meanwhile
            return 0

    done = threading.Event()

    def watch():
        while not done.wait(0.5):
            cost.gigabytes = max(cost.gigabytes, sum(map(size, psutil.Process().children(recursive=True))) / 1e9)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _took(cell: NotebookNode) -> float:
    """Seconds that a cell ran, by the times that the kernel sent."""
    times = cell.metadata.get("execution", {})
    start, stop = times.get("iopub.execute_input"), times.get("iopub.status.idle")
    return (datetime.fromisoformat(stop) - datetime.fromisoformat(start)).total_seconds() if start and stop else 0.0


def run(
    file: Path, values: dict[str, object] | None = None, timeout: int = TIMEOUT, cost: Cost | None = None
) -> NotebookNode:
    """Execute a notebook in its own folder and return it, normalised. The file is not touched.

    Args:
        cost: is filled with what the run took.

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
        with _memory(cost) if cost else nullcontext():
            client.execute()
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
        cost.bases = sum(_took(c) for _, c in code(notebook) if "base.prepare(" in c.source)
        cost.real = sum(_took(c) for _, c in code(notebook) if "real-model" in c.metadata.get("tags", []))
    normalise(notebook)
    found = complaints(notebook)
    if found:
        raise Refused(f"{file.name}: " + "; ".join(found))
    nbformat.validate(notebook)
    return notebook


def write_costs(costs: dict[str, Cost], folder: Path = COSTS) -> None:
    """Write the table of the page "What it costs", and a line on the machine that it was measured on."""
    lines = ["chapter,minutes,of these: shared base models,of these: real model,memory in GB"]
    for name, c in costs.items():
        lines.append(f"{name},{c.seconds / 60:.1f},{c.bases / 60:.1f},{c.real / 60:.1f},{c.gigabytes:.1f}")
    s, b, r = (sum(getattr(c, k) for c in costs.values()) / 60 for k in ("seconds", "bases", "real"))
    lines.append(f"all,{s:.1f},{b:.1f},{r:.1f},{max(c.gigabytes for c in costs.values()):.1f}")
    replace(folder / "costs.csv", ("\n".join(lines) + "\n").encode())
    replace(folder / "costs-machine.md", f"{machine()}\n".encode())


def machine() -> str:
    """A line on where something was measured, in general terms."""
    import torch

    where = f"{os.cpu_count()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    versions = f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"Measured on {where}, {gpu}, {platform.system()}, {versions}."


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="chapters, such as paraphrase")
    parser.add_argument("--all", action="store_true", help="all chapters in the order of _toc.yml")
    parser.add_argument("--fresh-cache", action="store_true", help="use an empty cache, removed afterwards")
    parser.add_argument("--inject", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here and leave the notebook as it is")
    parser.add_argument("--timeout", type=int, default=TIMEOUT, metavar="SECONDS", help="for one cell")
    parser.add_argument("--costs", action="store_true", help="with --all: write time and memory into book/_data")
    options = parser.parse_args(arguments)

    values: dict[str, object] = {}
    for pair in options.inject:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            parser.error(f"--inject {pair!r}: write NAME=VALUE, such as SEED=100")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    if options.all == bool(options.names):
        parser.error("name the chapters to run, or say --all")
    try:
        files = list(notebooks(ROOT).values()) if options.all else [_file(n) for n in options.names]
    except FileNotFoundError as e:
        parser.error(str(e))
    if options.out and len(files) != 1:
        parser.error("--out is for one chapter")
    if options.costs and not options.all:
        parser.error("--costs is for the whole book: say --all too")

    # The kernel must be this interpreter's, whatever kernels the user has installed elsewhere.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["ALIGNLAB_QUIET"] = "1"  # progress bars are for people: none may reach an output
    status, costs = 0, {}
    with tempfile.TemporaryDirectory(prefix="alignlab-cache-") as empty:
        if options.fresh_cache:
            os.environ["ALIGNLAB_CACHE"] = empty
        for file in files:
            out = options.out or (_aside(file, values) if values else file)
            print(f"== {file.stem}", *[f"{k}={v}" for k, v in values.items()], flush=True)
            start = time.perf_counter()
            cost = Cost() if options.costs else None
            try:
                notebook = run(file, values, options.timeout, cost)
                costs[file.stem] = cost
                write(notebook, out)
                if out == file and file.parent == ROOT / "notebooks" and (image := picture(notebook)):
                    replace(PICTURE, image)
            except Refused as e:
                print(f"   FAILED after {time.perf_counter() - start:.0f} s: {e}", flush=True)
                status = 1
                continue
            print(*verdicts(notebook), sep="\n", end="\n" if verdicts(notebook) else "")
            print(f"   {time.perf_counter() - start:.0f} s, written to {_short(out)}", flush=True)
    if options.costs and not status:
        write_costs(costs)
    return status


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
