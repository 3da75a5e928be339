"""The pages that have tables of results, how these are written, and how they get there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from result_file import write

ROOT = Path(__file__).parents[1]
#: Each section stands between its markers on one of these.
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Rows of cells below a header; the last `numbers` columns are set to the right."""
    lines = [header, ["---"] * (len(header) - numbers) + ["---:"] * numbers, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rewrite(pages: Sequence[Path], sections: dict[str, str]) -> None:
    """Puts each section between its markers, in the place of what is there; they are on one of the pages."""
    texts = {page: page.read_text() for page in pages}
    for name, section in sections.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        places = [page for page in pages if 0 <= texts[page].find(begin) < texts[page].find(end)]
        if len(places) != 1 or texts[places[0]].count(begin) != 1:
            names = ", ".join(page.name for page in pages)
            raise ValueError(
                f"one of {names} must have the lines {begin.strip()} and {end.strip()}, in this order, once"
            )
        (page,) = places
        before, _, rest = texts[page].partition(begin)
        texts[page] = f"{before}{begin}\n{section}\n{end}{rest.partition(end)[2]}"
    for page, text in texts.items():
        write(page, text)
