"""What `approve` is asked for, what it takes from a run, and what becomes of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pytest_imu.core.budgets import LEAK_NAME
from pytest_imu.core.growth import LIMIT_NAME
from pytest_imu.core.invalid import RefusedError
from pytest_imu.core.units import printable
from pytest_imu.history.headroom import HEADROOM_PERCENT
from pytest_imu.history.source import Edit, SourceFile


class ChangedError(RefusedError):
    """A file that is not what it was in the run; the text is the whole line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user asked for."""

    headroom_percent: float = HEADROOM_PERCENT
    tighten: bool = False
    add: bool = False
    only: str | None = None
    min_mib: float = 5.0

    def covers(self, nodeid: str) -> bool:
        """Tell whether a test is one of those that shall be changed."""
        return self.only is None or fnmatchcase(nodeid, self.only) or self.only in nodeid


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What of one attempt at a test decides about its limits."""

    nodeid: str
    peak_bytes: int | None
    budgets: Sequence[Mapping[str, Any]]
    doubt: str | None
    """Why its numbers are not taken."""
    may_be_reuse: bool

    @property
    def names(self) -> list[str]:
        """The names behind the file's, without the parameters."""
        return self.nodeid.partition("::")[2].partition("[")[0].split("::")

    @property
    def parameters(self) -> str:
        """What stands in brackets."""
        return self.nodeid.partition("::")[2].partition("[")[2].removesuffix("]")


def measured_of(test: Mapping[str, Any], *_: object) -> Measured:
    """Return what is kept of one of a document's tests."""
    call, outcome = test["phases"]["call"], test["outcome"]
    doubt = None
    if call is None:
        doubt = f"the test was {outcome}"
    elif outcome not in ("passed", "xpassed") and not test["failed_by_budget"]:
        doubt = f"the test itself {outcome}" if outcome == "failed" else f"the test was {outcome}"
    elif call["source"] == "sampled":
        doubt = "its number is sampled, a lower bound"
    return Measured(
        nodeid=test["nodeid"],
        peak_bytes=None if call is None else call["peak_bytes"],
        budgets=[one for one in test["budgets"] if one["name"] not in (LIMIT_NAME, LEAK_NAME)],
        doubt=doubt,
        may_be_reuse=call is not None and call["reusable_bytes"] != 0,
    )


@dataclass(slots=True, kw_only=True)
class Plan:
    """What would be changed, and what would not."""

    files: dict[Path, tuple[SourceFile, list[Edit]]] = field(default_factory=dict)
    left_alone: dict[str, None] = field(default_factory=dict)
    """A line each, without repetitions."""

    def leave(self, nodeid: str, why: str) -> None:
        """Note what is not changed, and why."""
        self.left_alone[f"left alone: {printable(nodeid)}: {printable(why)}"] = None
