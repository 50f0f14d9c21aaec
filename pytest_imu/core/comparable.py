"""The numbers of a test that are compared with another run's, and what makes them comparable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pytest_imu.core.model import SOURCES, Measurement, Source

PEAK, DELTA = "peak", "delta"
NO_COUNTS: Mapping[str, float | None] = {}
SIZES: Mapping[str, Callable[[Numbers], int | None]] = {
    PEAK: lambda numbers: numbers.peak_bytes,
    DELTA: lambda numbers: numbers.delta_bytes,
}


class Numbers(NamedTuple):
    """What of a test's call is compared with another run's, and what makes it comparable."""

    peak_bytes: int | None
    delta_bytes: int | None
    reusable_bytes: int | None
    source: Source
    tracer: str | None = None
    isolated: bool = False
    counted_by: str | None = None
    """"perf", or "callgrind" with the caches that it simulates."""
    counts: Mapping[str, float | None] = NO_COUNTS
    clean: Numbers | None = None
    """What one more run of the test measured, alone in a clean process, where one has decided."""

    @classmethod
    def of(cls, call: Measurement, *, isolated: bool, counted_by: str | None) -> Numbers:
        """Return the numbers of a measurement."""
        return cls(
            peak_bytes=call.peak_bytes,
            delta_bytes=call.delta_bytes,
            reusable_bytes=call.reusable_bytes,
            source=call.source,
            tracer=call.tracer,
            isolated=isolated,
            counted_by=told_apart(counted_by, user_only=any(one.user_only for one in call.counters)),
            counts={reading.event: reading.value for reading in call.counters},
        )

    def size_bytes(self, subject: str) -> int | None:
        """Return the peak or the delta."""
        return SIZES[subject](self)

    def value(self, subject: str) -> float | None:
        """Return the number that a subject is about."""
        return self.size_bytes(subject) if subject in SIZES else self.counts.get(subject)

    def with_clean(self, sizes: Mapping[str, int]) -> Numbers:
        """Return the same with what one more run measured in a clean process: peak, delta or both."""
        if not sizes:
            return self
        clean = self._replace(
            peak_bytes=sizes.get(PEAK),
            delta_bytes=sizes.get(DELTA),
            reusable_bytes=0,  # in a clean process all that is free is filled
            isolated=True,
            counted_by=None,
            counts={},
        )
        return self._replace(clean=clean)

    def clean_for(self, subject: str) -> Numbers | None:
        """Return what has the number as it is in a clean process; None where that is not known."""
        if self.isolated:
            return self
        known = self.clean is not None and self.clean.value(subject) is not None
        return self.clean if known else None

    def to_plain(self) -> dict[str, Any]:
        """Return it in plain form."""
        return self._asdict() | {"clean": self.clean and self.clean.to_plain()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Numbers:
        """Rebuild it from its plain form, as it goes to an xdist worker."""
        clean = plain["clean"] and cls.from_plain(plain["clean"])
        return cls(**{**plain, "source": SOURCES[plain["source"]], "clean": clean})


def told_apart(counted_by: str | None, *, user_only: bool) -> str | None:
    """Return what counted, with whether it left the kernel's own share out."""
    return f"{counted_by}, user space only" if counted_by and user_only else counted_by
