"""What a source of event counts looks like to those who open windows on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from pytest_imu.core.invalid import InvalidValueError

if TYPE_CHECKING:
    from pytest_imu.core.model import CountedBy, CounterReading

CACHE_MISSES = "cache-misses"
"""What is counted where nobody names an event."""

CounterChoice = Literal["auto", "kernel", "perf", "callgrind"]
"""What may be asked to count; "auto" takes what there is."""

EVENT_EXPECTED = "an event as `perf list` names it"
UNKNOWN_EVENT = "perf does not know the event"
"""How the reason begins where an event is none."""

# What would let events be counted where they are not.
FIX_REFUSED = (
    "sysctl kernel.perf_event_paranoid=2 on the host; in docker also --cap-add PERFMON "
    "(before 20.10.10: --security-opt seccomp=unconfined)"
)
FIX_NO_PMU = (
    "use a machine with hardware counters, such as bare metal or GitHub's arm runners; "
    "most virtual machines hide them"
)

# What perf lets stand in an event: names, modifiers, PMU terms and raw codes. No blanks, no quotes,
# no leading dash that could pass for an option, and no longer than any name is.
_EVENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/=@-]{0,254}")


class CannotCountError(Exception):
    """Nothing can be counted; the text is the reason, in one line, fit to be shown."""


class LostError(CannotCountError):
    """What counted is gone, or cannot be reached any more; another one may be started."""


def is_event(event: object) -> bool:
    """Tell whether this may reach a command line as the name of an event."""
    return isinstance(event, str) and _EVENT.fullmatch(event) is not None


def check_event(event: str) -> str:
    """Return the event if it may reach a command line; raises InvalidValueError."""
    if not is_event(event):
        raise InvalidValueError(event, EVENT_EXPECTED)
    return event


class CounterWindow(Protocol):
    """Counting that is under way."""

    def end(self) -> None:
        """Stop counting; cheap, so that what follows is not counted. Never raises."""

    def read(self, duration_ns: int) -> tuple[CounterReading, ...]:
        """Return what was counted, an event after the other; rates are per second of *duration_ns*.

        Never raises: what could not be counted is None, with its reason.
        """


class CounterSource(Protocol):
    """Something that counts events of this process."""

    label: str
    events: tuple[str, ...]

    def prepare(self) -> None:
        """Start whatever it takes, so that the window's own opening costs nothing. Never raises."""

    def open(self) -> CounterWindow:
        """Begin to count. Never raises."""

    def stop(self) -> None:
        """End whatever was started."""

    def anew(self) -> CounterSource:
        """Return the same for another process: one that was forked from this one, and calls this."""


def uncounted(
    events: Sequence[str], reason: str, *, source: CountedBy = "perf"
) -> tuple[CounterReading, ...]:
    """Return readings that say why nothing was counted, and what would have."""
    from pytest_imu.core.model import CounterReading

    return tuple(
        CounterReading(event=event, value=None, reason=reason, source=source) for event in events
    )
