"""Something to play with: plain HTML that responds without a kernel, and a widget for a live one."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import pandas as pd
from IPython.display import HTML, display

from ..measure.shift import KINDS

# Shows the section whose number was chosen. Inline, so that it works from a file, without scripts from elsewhere.
_SHOW = (
    "const s=this.closest('.explorer').querySelectorAll('section');"
    "for(let i=0;i&lt;s.length;i++)s[i].hidden=i!==this.selectedIndex"
)


# Shows the section that belongs to the places of all sliders together, and says each slider's value.
_SLIDE = (
    "const b=this.closest('.explorer');let at=0;for(const i of b.querySelectorAll('input')){"
    "const v=i.dataset.values.split('|')[i.value];i.setAttribute('aria-valuetext',v);"
    "i.nextElementSibling.textContent=v;at+=i.value*i.dataset.stride}"
    "const s=b.querySelectorAll('section');for(let i=0;i&lt;s.length;i++)s[i].hidden=i!==at"
)

# The kind of a token is in its colour, in the line under it, and, where it matters, in the rank above it.
_TOKENS = """<style>
.explorer .tokens { line-height: 2.6; overflow-wrap: anywhere; margin: 0.4rem 0; }
.explorer .tokens span, .explorer .tokens ruby { padding: 0.1em 0.2em; border-bottom: 3px none; color: inherit; }
.explorer .tokens .marginal { background: rgba(86, 180, 233, 0.22); border-bottom: 3px dotted #56B4E9; }
.explorer .tokens .shifted { background: rgba(213, 94, 0, 0.22); border-bottom: 3px double #D55E00; }
.explorer .tokens rt { font-size: 0.72em; color: inherit; }
</style>"""


# The number is in every box: the shade is not needed to read the map.
_HEAT = """<style>
.explorer .heat { display: grid; gap: 3px; grid-template-columns: repeat(auto-fill, minmax(3.3rem, 1fr)); }
.explorer ul.heat { list-style: none; margin: 0.4rem 0; padding: 0; }
.explorer .heat li { background: rgba(0, 114, 178, calc(var(--share) * 0.45)); border: 1px solid rgba(0, 114, 178, 0.5);
  line-height: 1.25; margin: 0; padding: 0.2em 0; text-align: center; }
</style>"""


def table(frame: pd.DataFrame) -> str:
    """A DataFrame as a plain HTML table; text only, every cell escaped."""
    # Not DataFrame.to_html: it rounds, shortens long texts, and leaves out which way a heading looks.
    head = "".join(f'<th scope="col">{html.escape(str(c))}</th>' for c in frame.columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>" for row in frame.values)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def explorer(label: str, sections: Mapping[str, pd.DataFrame]) -> HTML:
    """A menu over tables that were computed before: it works on the static page, by mouse and by keyboard.

    Raises:
        ValueError: there is no section.
    """
    return _choice(label, {name: table(frame) for name, frame in sections.items()})


def _choice(label: str, sections: Mapping[str, str], head: str = "") -> HTML:
    """A menu over pieces of HTML; `head` stands in front of the menu."""
    if not sections:
        raise ValueError("an explorer needs at least one section to choose")
    options = "".join(f"<option>{html.escape(name)}</option>" for name in sections)
    parts = "".join(f"<section{' hidden' if k else ''}>{part}</section>" for k, part in enumerate(sections.values()))
    # autocomplete: a browser that comes back to the page would keep the choice, but show the first section.
    menu = f'<label>{html.escape(label)} <select autocomplete="off" onchange="{_SHOW}">{options}</select></label>'
    return HTML(f'<div class="explorer">{head}{menu}{parts}</div>')


def sliders(axes: Mapping[str, Sequence], cells: Mapping[tuple, pd.DataFrame]) -> HTML:
    """Sliders over tables that were computed before, one for every place of all sliders: no kernel is needed.

    Args:
        axes: the label of each slider and its values from left to right; each begins at its first value.
        cells: a table for each combination of values, in the order of the axes.

    Raises:
        ValueError: an axis has fewer than two values, or a combination has no table.
    """
    places = list(product(*axes.values()))
    for place in places:
        if place not in cells:
            raise ValueError(
                f"there is no table for {dict(zip(axes, place, strict=True))}: compute one for every place"
            )
    return _slid(axes, [table(cells[p]) for p in places])


def _slid(axes: Mapping[str, Sequence], pieces: Sequence[str], head: str = "") -> HTML:
    """Sliders over pieces of HTML, one for every place; `head` stands in front of them."""
    for name, values in axes.items():
        if len(values) < 2:
            raise ValueError(f"the slider {name!r} has {len(values)} value: give it at least two, or leave it out")
    controls, stride = "", len(pieces)
    for name, values in axes.items():
        stride //= len(values)
        shown = html.escape("|".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values))
        first = html.escape(f"{values[0]:g}" if isinstance(values[0], float) else str(values[0]))
        controls += (
            f'<label>{html.escape(name)} <input type="range" min="0" max="{len(values) - 1}" step="1" value="0" '
            f'autocomplete="off" data-stride="{stride}" data-values="{shown}" aria-valuetext="{first}" '
            f'oninput="{_SLIDE}"> <output>{first}</output></label> '
        )
    parts = "".join(f"<section{' hidden' if k else ''}>{piece}</section>" for k, piece in enumerate(pieces))
    return HTML(f'<div class="explorer">{head}{controls}{parts}</div>')


def heat_maps(label: str, moments: Mapping[object, pd.Series]) -> HTML:
    """A slider over heat maps that were computed before: each value in a box, the darker the larger, its name above.

    Args:
        label: of the slider, such as "Steps".
        moments: the slider's value, from left to right -> shares, 0..1, by name.

    Raises:
        ValueError: there are fewer than two moments, or a share lies outside 0..1.
    """
    pieces = []
    for moment, values in moments.items():
        wrong = values[~values.between(0, 1)]
        if len(wrong):
            raise ValueError(f"{wrong.index[0]} is {wrong.iloc[0]} at {moment}: a heat map shows shares, 0 to 1")
        boxes = "".join(
            f'<li style="--share:{v:.2f}"><b>{html.escape(str(k))}</b><br>{v:.2f}</li>' for k, v in values.items()
        )
        pieces.append(f'<ul class="heat">{boxes}</ul>')
    return _slid({label: list(moments)}, pieces, _HEAT)


def shift_viewer(tokens: pd.DataFrame, prompts: Sequence[str], label: str = "Question:") -> HTML:
    """The aligned model's replies, each token marked by its shift against the base; works on the static page.

    A marginal or shifted token carries its rank above it and a line under it, so that colour is not needed; hovering
    shows rank and probability of any token, and the same numbers stand in a table that can be unfolded.

    Args:
        tokens: of `shift.token_shift`.
        prompts: what was asked there, one for each reply.

    Raises:
        ValueError: not one prompt per reply.
    """
    if tokens["reply"].nunique() != len(prompts):
        raise ValueError(f"there are {len(prompts)} prompts to {tokens['reply'].nunique()} replies: pass one per reply")
    sections: dict[str, str] = {}
    for (_, rows), prompt in zip(tokens.groupby("reply"), prompts, strict=True):
        name = prompt if prompt not in sections else f"{prompt} ({len(sections) + 1})"
        numbers = rows[["token", "kind", "rank", "p_base", "p_aligned", "instead"]].round(3)
        numbers.columns = ["token", "kind", "rank under the base", "p (base)", "p (aligned)", "the base's first choice"]
        said = " ".join(_token(t) for t in rows.itertuples())
        sections[name] = (
            f'<p class="tokens">{said}</p>'
            f"<details><summary>The numbers of this reply</summary>{table(numbers)}</details>"
        )
    key = " ".join(
        f'<span class="{k}">{k} ({what})</span>' for k, what in zip(KINDS, ("rank 1", "2 or 3", "above 3"), strict=True)
    )
    return _choice(label, sections, f'{_TOKENS}<p class="tokens">Rank under the base: {key}</p>')


def _token(t) -> str:
    word = html.escape(t.token.strip() or repr(t.token))
    hover = html.escape(f"{t.kind}: rank {t.rank} under the base, probability {t.p_base:.3f}")
    if t.kind == KINDS[0]:
        return f'<span title="{hover}">{word}</span>'
    return f'<ruby class="{t.kind}" title="{hover}">{word}<rp> (</rp><rt>{t.rank}</rt><rp>)</rp></ruby>'


def ask(
    answer: Callable[..., pd.DataFrame],
    suggestions: Sequence[str],
    label: str = "Question",
    dial: tuple[str, int, int, int] | None = None,
) -> None:
    """A box to type into, for a live kernel: `answer(text)` is shown below. Errors are shown as a sentence.

    With `dial`, (label, first, last, start), there is a slider too, and what is shown is `answer(text, its value)`.
    """
    import ipywidgets as widgets

    box = widgets.Combobox(value=suggestions[0], options=list(suggestions), description=label, ensure_option=False,
                           layout=widgets.Layout(width="95%"))  # fmt: skip
    out = widgets.Output()

    def show(_=None):
        out.clear_output(wait=True)
        with out:
            try:
                display(HTML(table(answer(*(w.value for w in moved)))))
            except ValueError as e:
                print(e)

    moved = [box]
    if dial:
        name, first, last, start = dial
        moved.append(widgets.IntSlider(value=start, min=first, max=last, description=name, continuous_update=False))
    for widget in moved:
        widget.observe(show, names="value")
    show()
    display(widgets.VBox([*moved, out]))


def dials(answer: Callable[..., pd.DataFrame], ranges: Mapping[str, tuple[float, float, float]]) -> None:
    """Sliders for a live kernel: `answer(first=..., second=...)` is shown below. Errors are shown as a sentence.

    Args:
        ranges: name of an argument -> smallest value, largest value, step; each begins at its smallest value.
    """
    import ipywidgets as widgets

    made = {
        name: widgets.FloatSlider(value=low, min=low, max=high, step=step, description=name, continuous_update=False)
        for name, (low, high, step) in ranges.items()
    }
    out = widgets.Output()

    def show(_=None):
        out.clear_output(wait=True)
        with out:
            try:
                display(HTML(table(answer(**{name: slider.value for name, slider in made.items()}))))
            except ValueError as e:
                print(e)

    for slider in made.values():
        slider.observe(show, names="value")
    show()
    display(widgets.VBox([*made.values(), out]))
