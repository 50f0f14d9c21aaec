"""README.md, docs/ and the notebook: each link leads somewhere, and each page is in the index."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="an installed package is without docs/")


def links_of(page: Path) -> Iterator[str]:
    """Give what a page links to within the project; code is no link."""
    text = re.sub(r"(?ms)^```.*?^```$|`[^`\n]+`(?!\])", "", page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if "://" not in target:
            yield target


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link leads to a file that is there, and to a heading that is in it."""
    broken = []
    for link in links_of(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert [] == broken


def test_index_names_every_page() -> None:
    """No page of docs/ can only be found by its name."""
    named = {link.partition("#")[0] for link in links_of(DOCS / "README.md")}
    assert {path.name for path in DOCS.glob("*.md")} - {"README.md"} == named


def test_notebook_is_kept_without_outputs() -> None:
    """The example notebook has no outputs and no numbers of runs."""
    notebook = json.loads((ROOT / "examples/memory_in_a_notebook.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [([], None)] * len(code) == [(cell["outputs"], cell["execution_count"]) for cell in code]
