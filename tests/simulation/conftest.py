"""What all tests of `--imu-simulate` start from."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def few_plugins(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no other plugin, which takes seconds under valgrind; keep temporary files in one place."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    temporary = pytester.path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
