"""What the pages do not use is cut from their style sheets, and nothing else."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import light_pages
import matplotlib
import pytest
from fontTools.ttLib import TTFont
from sphinx.errors import ExtensionError

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        (".there{a:b}", True),
        (".gone{a:b}", False),
        ("#gone .there{a:b}", False),
        (".there:not(.gone){a:b}", True),
        ("p:is(.gone, .there){a:b}", True),
        ('a[href$=".gone"]{a:b}', True),
        (r".col\:there{a:b}", True),
        (".verdict-held{a:b}", True),  # a script makes it of verdict- and a word
        ("html{a:b}", True),
        ("@media print{.there{a:b}}", True),
        ("@media print{.gone{a:b}}", False),
        ("@font-face{font-family:x}", True),
    ],
)
def test_a_rule_stays_if_it_could_match_something(rule, stays):
    assert bool(light_pages.purged(rule, {"there", "col:there", "verdict-"}).strip()) is stays


def test_of_a_list_of_selectors_those_stay_that_could_match():
    assert light_pages.purged(".gone,.there,:is(.a,.there){a:b}", {"there"}) == ".there,:is(.a,.there){a:b}"


def test_names_are_found_on_pages_in_scripts_and_in_handlers():
    page = (
        """<p class="one two" id=three onclick="add('four')"><i class='five'></i><script>x("six-" + y)</script></p>"""
    )
    assert {"one", "two", "four", "five", "six-"} <= light_pages.named(page)
    assert "p" not in light_pages.named(page)


def test_a_font_keeps_the_icons_that_are_drawn():
    assert light_pages.icons(r'.a{content:"\f135"}' + ".b{content:'\uf09b'}") == {0xF135, 0xF09B}
    head, data = light_pages.small_font(FONT, {ord("a"), 0xF135}).split(",")
    assert head == "data:font/woff;base64"
    assert set(TTFont(io.BytesIO(base64.b64decode(data))).getBestCmap()) == {ord("a")}
    assert light_pages.small_font(FONT, {0xF135}) == ""


def site(tmp_path, link='<link rel="stylesheet" type="text/css" href="{}_static/{}?v=1" />\n'):
    static = tmp_path / "_static"
    (static / "deep").mkdir(parents=True)
    (static / "a.css").write_text('@import "deep/c.css";\n.there{background:url(a.png)}')
    (static / "deep" / "c.css").write_text(".gone{a:b}.below{background:url(c.png)}")
    (static / "b.css").write_text(".there{color:red}.built{color:blue}")
    (static / "x.js").write_text("node.classList.add('built')")
    (tmp_path / "sub").mkdir()
    for page, up in (("one.html", ""), ("sub/two.html", "../")):
        links = "".join(link.format(up, name) for name in ("a.css", "b.css"))
        (tmp_path / page).write_text(f'<head>{links}</head><p class="there below"></p>')
    return tmp_path


def test_all_sheets_of_a_page_become_one_in_their_order(tmp_path):
    light_pages.lighten(site(tmp_path))
    for page, up in (("one.html", ""), ("sub/two.html", "../")):
        [(where, name)] = re.findall(r'href="(.*?)_static/(.*?)"', (tmp_path / page).read_text())
        assert where == up
    css = (tmp_path / "_static" / name).read_text()
    order = [css.index(part) for part in ("url(deep/c.png)", "url(a.png)", "color:red", "color:blue")]
    assert order == sorted(order) and "gone" not in css


def test_a_second_build_leaves_no_sheet_of_the_first(tmp_path):
    light_pages.lighten(site(tmp_path))
    [old] = (tmp_path / "_static").glob("book.*.css")
    (tmp_path / "one.html").write_text((tmp_path / "one.html").read_text().replace("there below", "there"))
    for page in ("one.html", "sub/two.html"):
        (tmp_path / page).unlink()
    (tmp_path / "_static" / "b.css").unlink()
    again = tmp_path / "again.html"
    links = '<link rel="stylesheet" href="_static/a.css" /><link rel="stylesheet" href="_static/deep/c.css" />'
    again.write_text(f'<head>{links}</head><p class="there"></p>')
    light_pages.lighten(tmp_path)
    [new] = (tmp_path / "_static").glob("book.*.css")
    assert new != old and new.name in again.read_text()


def test_a_sheet_that_is_not_there_is_named(tmp_path):
    (site(tmp_path) / "_static" / "b.css").unlink()
    with pytest.raises(ExtensionError, match=r"_static/b\.css, which is not there"):
        light_pages.lighten(tmp_path)
