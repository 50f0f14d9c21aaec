"""The extension in JupyterLab, as a person sees it: in a headless Chromium, light and dark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PICTURES = Path(__file__).parents[2] / "docs" / "notebook_pictures.py"
LEGIBLE = 4.5
"""The contrast that WCAG asks of small text."""

pytestmark = pytest.mark.needs_lab


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the notebook of the pictures in both themes, and return what was seen."""
    folder = tmp_path_factory.mktemp("pictures")
    command = [sys.executable, str(PICTURES), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    for theme in found:
        assert folder.joinpath(f"notebook_{theme}.png").read_bytes().startswith(b"\x89PNG")
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_can_be_read(seen: dict[str, Any], theme: str) -> None:
    """The line under a cell has a contrast of 4.5 to 1 at least; the picture has the page's colour."""
    assert LEGIBLE <= seen[theme]["contrast"]
    expected = {"light": "rgba(0, 0, 0, 0.87)", "dark": "rgb(255, 255, 255)"}
    assert expected[theme] == seen[theme]["plot"]


@pytest.mark.needs_kernel_peaks
def test_what_is_saved_in_the_notebook(seen: dict[str, Any]) -> None:
    """A cell that moves a MiB has one output of ours, with its numbers and the cell's id in it, and the
    others have none.
    """
    assert [1, 1, 1, 0, 1, 1, 1, 2, 1, 1] == seen["light"]["outputs"]
    rows = [(command, used) for command, used, is_its_own in seen["light"]["rows"] if is_its_own]
    assert [
        *(("a = np.ones(40_000_000)", 305.2), ("b = a * 2", 305.2)),
        *(("d = np.add(a * b, b)", 305.2), ("del d", -305.2)),
    ] == rows[1:5]
