"""What holds for every run of pytest inside these tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def only_named_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load what a run names and nothing else that happens to be installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):  # on CI pytest's summary is another one
        monkeypatch.delenv(name, raising=False)
