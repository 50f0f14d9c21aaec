"""What grew with the calls, and whether that is a leak. Numbers in, words out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from pytest_imu.core.units import format_amount

KIB = 1024
ASSUMED_BLOCK_BYTES = 64
"""What a block is taken for where its size is not known; most of Python's objects have 48 to 80."""
COMES_AND_GOES_BYTES = 128
"""What is less a call in the mean, and not in each call, may be a thread that has just ended: the C
library holds 1,072 bytes for it, and 16 calls can end with one more than they began with."""
NO_C_BYTES = "C's bytes are not known here: Python's blocks decided"
NO_SIZES = f"sizes are not known here: each block was taken for {ASSUMED_BLOCK_BYTES} bytes"


class Counts(NamedTuple):
    """What stands at one moment; a negative number is not known."""

    blocks: int
    """Of Python's allocator."""
    block_bytes: int
    c_bytes: int
    """What was asked of C's allocator, and not freed."""
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """By how much each of several calls grew what stands; None for what is not known."""

    warmup: int
    blocks: tuple[int, ...]
    block_bytes: tuple[int, ...] | None
    c_bytes: tuple[int, ...] | None
    descriptors: tuple[int, ...] | None
    threads: tuple[int, ...]
    why: dict[str, Any] | None = None
    """The lines and the kinds of objects behind it, where they were asked for."""

    @classmethod
    def of(cls, counts: Sequence[Counts], *, warmup: int) -> Growth:
        """Return the growth between counts that were taken before the first and after each call."""
        blocks, block_bytes, c_bytes, descriptors, threads = (
            None if min(column) < 0 else tuple(after - before for before, after in pairwise(column))
            for column in zip(*counts, strict=True)
        )
        none = (0,) * (len(counts) - 1)
        return cls(
            warmup=warmup,
            blocks=blocks or none,
            block_bytes=block_bytes,
            c_bytes=c_bytes,
            descriptors=descriptors,
            threads=threads or none,
        )

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return len(self.blocks)

    @property
    def sizes_bytes(self) -> tuple[int, ...]:
        """By how many bytes each call grew, as far as it is known."""
        in_blocks = self.block_bytes
        if in_blocks is None:
            in_blocks = tuple(number * ASSUMED_BLOCK_BYTES for number in self.blocks)
        in_c = self.c_bytes or (0,) * self.calls
        return tuple(map(sum, zip(in_blocks, in_c, strict=True)))

    @property
    def bytes_a_call(self) -> float:
        """The mean of the sizes."""
        return sum(self.sizes_bytes) / self.calls

    @property
    def reason(self) -> str | None:
        """What has to be known of the sizes; None where they are exact."""
        if self.c_bytes is not None and self.block_bytes is not None:
            return None
        return NO_C_BYTES if self.block_bytes is not None else NO_SIZES

    def is_over(self, limit_kib: float) -> bool:
        """Whether it grew by more than the limit in the mean of all calls."""
        return self.bytes_a_call > limit_kib * KIB

    def grew(self, limit_kib: float, *, parts: int = 2) -> int:
        """Return in how many calls it grew, if that is a leak; 0 where it is none.

        It is one where it rose in each of so many *parts* of the calls: by more than the limit a call,
        or in descriptors or threads. A cache that fills once rises in one part, and what comes and goes
        has the same lowest and highest in all.
        """
        sizes = self.sizes_bytes
        # C's bytes may go down and up by a few meanwhile; one object more is one more all the same.
        in_calls = sum(size > 0 or more > 0 for size, more in zip(sizes, self.blocks, strict=True))
        is_sure = in_calls == self.calls or _is_sure(sizes)
        found = [in_calls] if is_sure and self.is_over(limit_kib) and _rises(sizes, parts) else []
        others = (self.descriptors, self.threads)
        found += [_grown(each) for each in others if each and _rises(each, parts)]
        return max(found, default=0)

    def amounts(self) -> str:
        """Return by how much a call grows it: "4.9 KiB and 2 blocks"."""
        in_c = self.c_bytes
        said = [_kib(in_c)] if in_c and _rises(in_c) and _is_sure(in_c) else []
        if _rises(self.blocks):
            in_blocks = self.block_bytes
            size = "" if in_blocks is None or _is_small(in_blocks) else f" ({_kib(in_blocks)})"
            said.append(_number(self.blocks, "block") + size)
        for each, noun in ((self.descriptors, "descriptor"), (self.threads, "thread")):
            if each and _rises(each):
                said.append(_number(each, noun))
        *first, last = said or [_kib(self.sizes_bytes)]
        return f"{', '.join(first)} and {last}" if first else last

    def line(self, limit_kib: float, over: str, *, parts: int = 2) -> str:
        """Return the failure: "grows by 4.9 KiB and 2 blocks a call, over LIMIT: 8 of 8 calls ..."."""
        by = f"grows by {self.amounts()} a call"
        by += f", over {over}" if over and self.is_over(limit_kib) else ""
        of = f"{self.grew(limit_kib, parts=parts)} of {self.calls} calls"
        doubt = "" if self.reason is None else f"; {self.reason}"
        return f"{by}: {of} after {format_amount(self.warmup, 'warm-up')}{doubt}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as it stands in the JSON file."""
        return {
            "warmup": self.warmup,
            "calls": self.calls,
            "bytes_a_call": self.bytes_a_call,
            "reason": self.reason,
            **{name: _list_or_none(getattr(self, name)) for name in Counts._fields},
            "why": self.why,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Growth:
        """Rebuild it from its plain form."""
        series = {name: None if plain[name] is None else tuple(plain[name]) for name in Counts._fields}
        return cls(warmup=plain["warmup"], why=plain["why"], **series)  # type: ignore[arg-type]  # as they were


def _is_sure(sizes: Sequence[int]) -> bool:
    """Whether it is more than what comes and goes by itself."""
    return min(sizes) > 0 or sum(sizes) > COMES_AND_GOES_BYTES * len(sizes)


def _rises(changes: Sequence[int], parts: int = 2) -> bool:
    """Whether each part's lowest and highest are over those of the part before it."""
    levels = list(accumulate(changes))
    size = len(levels) // parts
    first = len(levels) - size * (parts - 1)  # with what is over
    spans = [levels[:first], *(levels[at : at + size] for at in range(first, len(levels), size))]
    highest = [0, *map(max, spans)]
    lowest = [*map(min, spans)]
    return all(before < after for each in (highest, lowest) for before, after in pairwise(each))


def _grown(changes: Sequence[int]) -> int:
    return sum(change > 0 for change in changes)


def _usual(changes: Sequence[int]) -> float:
    """Return what a call adds: the median where each adds something, for one may let a list grow too."""
    if _grown(changes) < len(changes):
        return sum(changes) / len(changes)
    ordered, middle = sorted(changes), len(changes) // 2
    return (ordered[middle] + ordered[~middle]) / 2


def _is_small(sizes: Sequence[int]) -> bool:
    return _usual(sizes) < KIB / 10


def _kib(sizes: Sequence[int]) -> str:
    usual = _usual(sizes)
    return f"{usual:,.0f} bytes" if _is_small(sizes) else f"{usual / KIB:,.1f} KiB"


def _number(changes: Sequence[int], noun: str) -> str:
    return format_amount(_usual(changes), noun)


def _list_or_none(changes: tuple[int, ...] | None) -> list[int] | None:
    return None if changes is None else list(changes)
