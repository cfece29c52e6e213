"""A ledger as a reader sees it: text and HTML made of its entries and its results; nothing is measured here."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence

from .. import check
from .claims import VERDICTS, Entry

UNSETTLED = "unsettled: seen to differ with the seeds or the processor"


def lines(results: Iterable[dict], unsettled: Collection[str] = ()) -> str:
    """One line per entry of `Ledger.results` that noise cannot change unless the verdict changes.

    The verdict under a first form is left out: many a form was changed because that verdict hung on luck.

    Args:
        unsettled: ids of entries whose verdict was seen to differ with other seeds or on another processor. Their lines
            say so instead of naming one; the table of the ledger shows what this run gave.

    Raises:
        ValueError: an id that no entry has.
    """
    out, results = [], list(results)
    for id in unsettled:
        check.one_of("an unsettled entry", id, [e["id"] for e in results])
    for e in results:
        if e["id"] in unsettled:
            out.append(f"{e['kind']:8}{e['id']:31} {UNSETTLED}")
            continue
        n = len(e["values"])
        count = f" ({n} of {n} seeds)" if e["verdict"] in ("reproduced", "opposite", "held") else ""
        out.append(f"{e['kind']:8}{e['id']:31} {e['verdict']}{count}")
    return "\n".join(out)


def plain(entries: Iterable[Entry], results: Sequence[dict] = ()) -> str:
    """The entries as text: what they require, and with results what came."""
    if not results:
        return "\n".join(f"{e.kind:8}{e.id:31} {e.expect} {e.unit}" for e in entries)
    return "\n".join(
        f"{r['kind']:8}{r['id']:31} {r['mean']:+.2f} [{_every(r)}] {r['expect']}: {r['verdict']}{_first(r)}"
        for r in results
    )


def table(entries: Iterable[Entry], results: Sequence[dict] = ()) -> str:
    """The entries as an HTML table; with results, rows have an id to be linked to."""
    head = ["Kind", "Statement", "Paper", "Required here"]
    text = html.escape
    rows = {e.id: [text(t) for t in (e.kind, e.statement, e.paper, f"{e.expect} {e.unit}")] for e in entries}
    if results:
        head += ["Ours: mean [every seed]", "Verdict"]
    for r in results:
        rows[r["id"]] += [f"<b>{r['mean']:+.2f}</b> [{_every(r)}]", badge(r["verdict"]) + changed(r)]
    body = ""
    for id, row in rows.items():
        row[1] += f' <a class="claim-id" href="#claim-{id}">{id}</a>'
        cells = (f'<td data-label="{h}">{c}</td>' for h, c in zip(head, row, strict=True))
        here = f' id="claim-{id}"' if results else ""  # a page shows the claims first, and then again
        body += f"<tr{here}>" + "".join(cells) + "</tr>"
    return (
        '<div class="ledger-box"><table class="ledger"><thead><tr>'
        + "".join(f'<th scope="col">{h}</th>' for h in head)
        + f"</tr></thead><tbody>{body}</tbody></table></div>"
    )  # fmt: skip


def changed(line: dict) -> str:
    """Of an entry that was changed after somebody had looked: the verdict under its first form, and what changed."""
    if "first" not in line:
        return ""
    was = line["first"]
    asked = f", {was['expect']}" if "expect" in was else ""
    return (
        f'<div class="first-form">As first written{asked}: <b>{was["verdict"]}</b>. '
        f"<details><summary>Before</summary>{html.escape(line['since'])}</details></div>"
    )


def badge(verdict: str) -> str:
    """A verdict as a small label; the word carries the meaning, the colour only repeats it."""
    check.one_of("verdict", verdict, [v for vs in VERDICTS.values() for v in vs])
    return f'<span class="verdict verdict-{verdict.replace(" ", "-")}">{verdict}</span>'


def _first(line: dict) -> str:
    return f"; as first written: {line['first']['verdict']}" if "first" in line else ""


def _every(line: dict) -> str:
    return ", ".join(f"{v:+.2f}" for v in line["values"])
