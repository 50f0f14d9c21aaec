"""One document of several: the shards of a CI matrix, the machines of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pytest_imu.core.document import encode
from pytest_imu.core.units import printable
from pytest_imu.history.load import Run

DECISIVE = ("peak_source", "trim", "counter_source", "python", "implementation", "machine")
"""What numbers depend on, so that it shall be the same in all shards."""
HEAD = re.compile(r'(\{"nodeid": "(?:[^"\\]|\\.)*", "attempt": )\d+, "worker": (?:null|"[^"\\]*"), ')
"""How each test begins, as we write it."""
FAILURES = ("failed", "error", "crashed", "killed")


class Attempt(NamedTuple):
    """One attempt at a test, as JSON: as a dict it would take ten times as much memory."""

    nodeid: str
    outcome: str
    peak_bytes: int
    """-1 where it is not known."""
    text: str

    @property
    def weight(self) -> tuple[bool, int]:
        """Which of several machines' attempts counts: one that failed, else the largest peak."""
        return self.outcome in FAILURES, self.peak_bytes


def attempt_of(test: Mapping[str, Any], _environment: object, text: str | None) -> Attempt:
    """Return what is kept of one of a document's tests; its *text* is JSON already."""
    call = test["phases"]["call"]
    peak_bytes = None if call is None else call["peak_bytes"]
    return Attempt(
        nodeid=test["nodeid"],
        outcome=test["outcome"],
        peak_bytes=-1 if peak_bytes is None else peak_bytes,
        text=text if text is not None and text.isascii() else encode(test),
    )


def merged(runs: Sequence[Run[Attempt]]) -> Iterator[str]:
    """Return each test as JSON; one that is in several files keeps all attempts, what counts last."""
    by_nodeid: dict[str, list[list[Attempt]]] = {}
    for run in runs:
        own: dict[str, list[Attempt]] = {}
        for attempt in run.tests:
            own.setdefault(attempt.nodeid, []).append(attempt)
        for nodeid, attempts in own.items():
            by_nodeid.setdefault(nodeid, []).append(attempts)
    for files in by_nodeid.values():
        if len(files) == 1:
            yield from (attempt.text for attempt in files[0])
        else:
            yield from _renumbered(files)


def _renumbered(files: list[list[Attempt]]) -> Iterator[str]:
    """Return the attempts of several files, with the last of each behind those that were made again."""
    again = [attempt for attempts in files for attempt in attempts[:-1]]
    last = sorted((attempts[-1] for attempts in files), key=lambda attempt: attempt.weight)
    for number, attempt in enumerate([*again, *last], start=1):
        yield _numbered(attempt, number)


def _numbered(attempt: Attempt, number: int) -> str:
    """Return an attempt as JSON with another number, and of no worker."""
    begin = HEAD.match(attempt.text)
    if begin is not None:
        return f'{begin[1]}{number}, "worker": null, {attempt.text[begin.end() :]}'
    import json

    return encode({**json.loads(attempt.text), "attempt": number, "worker": None})


def joined_environment(runs: Sequence[Run[Any]]) -> dict[str, Any]:
    """Return what the numbers of several runs depend on: the first's, and the worst noise of all."""
    environments = [run.environment for run in runs]
    joined = dict(environments[0])
    for key in ("noise_floor_bytes", "peak_resolution_bytes"):
        known = [one[key] for one in environments if one.get(key) is not None]
        joined[key] = max(known, default=None)
    sources = dict.fromkeys(one["counter_source"] for one in environments if one.get("counter_source"))
    joined["counter_source"] = "; ".join(sources) or None
    joined["sources"] = _joined_sources(environments)
    return joined


def _joined_sources(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return each test file's digest; none of one that was not the same everywhere."""
    found: dict[str, set[str]] = {}
    for environment in environments:
        for name, digest in environment.get("sources", {}).items():
            found.setdefault(name, set()).add(str(digest))
    return {name: digests.pop() for name, digests in found.items() if len(digests) == 1}


def disagreements(runs: Sequence[Run[Any]]) -> list[str]:
    """Return in what shards differ that their numbers depend on, and which: a line each."""
    lines = []
    for key in DECISIVE:
        found: dict[str, list[str]] = {}
        for run in runs:
            value = run.environment.get(key)
            if key != "counter_source" or value is not None:
                text = value if isinstance(value, str) else encode(value)
                found.setdefault(printable(text), []).append(run.name)
        if len(found) > 1:
            parts = (f"{text} in {_named(names)}" for text, names in found.items())
            lines.append(f"{key.replace('_', ' ')} differs: {'; '.join(parts)}")
    return lines


def _named(names: Sequence[str]) -> str:
    shown_names = ", ".join(names[:2])
    return shown_names if len(names) <= len(names[:2]) else f"{shown_names} and {len(names) - 2} more"
