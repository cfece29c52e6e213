"""Something to play with: plain HTML that responds without a kernel, and a widget for a live one."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from IPython.display import HTML, display

# Shows the section whose number was chosen. Inline, so that it works from a file, without scripts from elsewhere.
_SHOW = (
    "const s=this.closest('.explorer').querySelectorAll('section');"
    "for(let i=0;i&lt;s.length;i++)s[i].hidden=i!==this.selectedIndex"
)


def table(frame: pd.DataFrame) -> str:
    """A DataFrame as a plain HTML table; text only, every cell escaped."""
    head = "".join(f'<th scope="col">{html.escape(str(c))}</th>' for c in frame.columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>" for row in frame.values)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def explorer(label: str, sections: Mapping[str, pd.DataFrame]) -> HTML:
    """A menu over tables that were computed before: it works on the static page, by mouse and by keyboard.

    Raises:
        ValueError: there is no section.
    """
    if not sections:
        raise ValueError("an explorer needs at least one section to choose")
    options = "".join(f"<option>{html.escape(name)}</option>" for name in sections)
    parts = "".join(f"<section{' hidden' if k else ''}>{table(f)}</section>" for k, f in enumerate(sections.values()))
    menu = f'<label>{html.escape(label)} <select onchange="{_SHOW}">{options}</select></label>'
    return HTML(f'<div class="explorer">{menu}{parts}</div>')


def ask(answer: Callable[[str], pd.DataFrame], suggestions: Sequence[str], label: str = "Question") -> None:
    """A box to type into, for a live kernel: `answer(text)` is shown below. Errors are shown as a sentence."""
    import ipywidgets as widgets

    box = widgets.Combobox(value=suggestions[0], options=list(suggestions), description=label, ensure_option=False,
                           layout=widgets.Layout(width="95%"))  # fmt: skip
    out = widgets.Output()

    def show(_=None):
        out.clear_output(wait=True)
        with out:
            try:
                display(HTML(table(answer(box.value))))
            except ValueError as e:
                print(e)

    box.observe(show, names="value")
    show()
    display(widgets.VBox([box, out]))
