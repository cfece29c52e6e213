"""The menus over the scoreboard, and their script: what is chosen stands in the address."""

from __future__ import annotations

import html

from tools.notebooks import VERDICTS

# The menus are hidden until the script runs: without it they would do nothing.
FILTERS = """<form class="board-filters" aria-label="Filter the scoreboard" autocomplete="off" hidden>
<label>Verdict <select name="verdict">{verdicts}</select></label>
<label>Chapter <select name="chapter">{chapters}</select></label>
<label>Kind <select name="kind">{kinds}</select></label>
<button type="reset">Show all</button>
<p role="status"></p>
</form>"""
SCRIPT = """<script>
(() => {
  const form = document.querySelector(".board-filters");
  const rows = [...document.querySelectorAll("table.scoreboard tbody tr")];
  const classes = { verdict: "is-", chapter: "of-", kind: "kind-" };
  const show = () => {
    const chosen = [...form.querySelectorAll("select")].filter(s => s.value);
    const wanted = chosen.map(s => classes[s.name] + s.value);
    for (const row of rows) row.hidden = !wanted.every(name => row.classList.contains(name));
    const left = rows.filter(row => !row.hidden).length;
    for (const part of document.querySelectorAll("section.board-chapter"))
      part.hidden = !part.querySelector("tbody tr:not([hidden])");
    document.querySelector("section.board-exceptions")?.toggleAttribute("hidden", wanted.length > 0);
    form.querySelector("[role=status]").textContent = left
      ? `${left} of ${rows.length} lines shown` : "No line of the ledgers is like this.";
  };
  // What is chosen stands in the address: it can be sent to somebody, and comes back with the page.
  const restore = () => {
    const asked = new URLSearchParams(location.search);
    for (const s of form.querySelectorAll("select")) {
      const value = asked.get(s.name) ?? "";
      s.value = [...s.options].some(o => o.value === value) ? value : "";
    }
    show();
  };
  const remember = () => {
    const chosen = [...form.querySelectorAll("select")].filter(s => s.value).map(s => [s.name, s.value]);
    const search = new URLSearchParams(chosen).toString();
    history.replaceState(null, "", (search ? `?${search}` : location.pathname) + location.hash);
    show();
  };
  form.addEventListener("change", remember);
  form.addEventListener("reset", () => setTimeout(remember));
  addEventListener("pageshow", restore);
  form.hidden = false;
  restore();
})();
</script>"""


def css(verdict: str) -> str:
    """A verdict as a class of CSS and in an address."""
    return verdict.replace(" ", "-")


def filters(rows: list[tuple[str, dict, dict]]) -> str:
    """The three menus over the table. Every verdict can be chosen, also one that nobody got."""
    entries = [entry for _, _, entry in rows]
    chapters = {ledger["chapter"]: ledger["title"] for _, ledger, _ in rows}
    return FILTERS.format(
        verdicts=options(
            "any verdict",
            {css(v): (v, sum(e["verdict"] == v for e in entries)) for vs in VERDICTS.values() for v in vs},
        ),
        chapters=options(
            "all chapters",
            {c: (title, sum(ledger["chapter"] == c for _, ledger, _ in rows)) for c, title in chapters.items()},
        ),
        kinds=options("all kinds", {k: (k + "s only", sum(e["kind"] == k for e in entries)) for k in VERDICTS}),
    )


def options(everything: str, choices: dict[str, tuple[str, int]]) -> str:
    lines = [f'<option value="">{everything}</option>']
    for value, (text, count) in choices.items():
        lines.append(f'<option value="{html.escape(value)}">{html.escape(text)} ({count})</option>')
    return "".join(lines)
