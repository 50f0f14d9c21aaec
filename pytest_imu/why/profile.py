"""What is known of the lines of one run: frozen records with a plain form."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCost:
    """What one line needed, with all that it called."""

    file: str
    line: int
    hits: int
    has_more_hits: bool
    """Whether it had more that were not counted: it was switched off, for it moved no memory."""
    kept_bytes: int
    """What all hits together kept; may be negative."""
    most_kept_bytes: int
    """What the hit kept that kept most."""
    shared_bytes: int
    """What came or went while it and its neighbours were too short to be read one by one."""
    peak_bytes: int
    """What the hit needed on top of what was there that needed most."""
    total_bytes: int
    """The process's RSS when it was last read at the line's end, without the profiler's own memory."""
    text: str = ""
    """The line as it stands in its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineProfile:
    """The lines of one run, and where its peak was reached."""

    label: str
    """How peaks are known: "kernel high-water mark", or "sampled" with the reason."""
    is_exact: bool
    start_bytes: int
    peak_bytes: int
    """What the whole run needed on top of what was there."""
    kept_bytes: int
    chain: tuple[LineCost, ...]
    """The lines that were running at the peak, outermost first, with the peak of that hit."""
    is_chain_at_peak: bool
    """Whether that is where it was reached, and not between these lines."""
    lines: tuple[LineCost, ...]
    """All lines that were run, by file and number."""
    fault: str | None = None
    """Why a reading failed, if one did: numbers are then missing."""
    held: Mapping[str, Any] | None = None
    """What memray told of the peak, in plain form: `holders.Holders.plain()`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        plain = asdict(self)
        return plain | {"chain": [*plain["chain"]], "lines": [*plain["lines"]]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> LineProfile:
        """Rebuild from the plain form."""
        lines = {name: tuple(LineCost(**one) for one in plain[name]) for name in ("chain", "lines")}
        return cls(**{**plain, **lines})


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCount:
    """How often an event happened in one line, with all that it called."""

    file: str
    line: int
    hits: int
    has_more_hits: bool
    count: float
    """In all hits together."""
    most: float
    """In the hit that had most."""
    shared: float
    """What was counted while it and its neighbours were too short to be read one by one."""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountProfile:
    """The lines of one run, and how often an event happened in each."""

    event: str
    label: str
    count: float
    """In the whole run."""
    lines: tuple[LineCount, ...]
    fault: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        plain = asdict(self)
        return plain | {"lines": [*plain["lines"]]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> CountProfile:
        """Rebuild from the plain form."""
        return cls(**{**plain, "lines": tuple(LineCount(**one) for one in plain["lines"])})


def text_of(file: str, line: int) -> str:
    """Return a line of a file, or of a notebook's cell, without its indentation."""
    return linecache.getline(file, line).strip()
