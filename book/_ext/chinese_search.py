"""The site's search finds Chinese words too. They stand in a text without spaces between them.

Sphinx takes what stands between two marks for one word. Here every run of two to four Chinese characters is one as
well, so a word is found wherever it stands, without a dictionary of words.
"""

from __future__ import annotations

import re

from sphinx.search.en import SearchEnglish

RUN = re.compile(r"[\u4e00-\u9fff]{2,}")
LENGTHS = (2, 3, 4)


class EnglishAndChinese(SearchEnglish):
    lang = "en-zh"
    language_name = "English and Chinese"

    def split(self, text: str) -> list[str]:
        """The words of a text as Sphinx finds them, and the Chinese ones; longer ones are found as parts of a run."""
        return [*super().split(text), *chinese(text)]


def chinese(text: str) -> list[str]:
    """All runs of two to four Chinese characters."""
    runs = RUN.findall(text)
    return [run[i : i + n] for run in runs for n in LENGTHS for i in range(len(run) - n + 1)]


def setup(app):
    app.add_search_language(EnglishAndChinese)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
