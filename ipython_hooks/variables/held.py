"""What a value holds: pieces of memory, each under a key by which it is known wherever it is met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

COMPARED = 2_000
"""Of many objects so many are compared, to see whether they are different ones."""


@dataclass(slots=True)
class Held:
    """Pieces of memory by their keys: an object's id, or the address of a buffer that no object owns."""

    pieces: dict[Hashable, int] = field(default_factory=dict)
    is_estimate: bool = False
    """Whether a part was reckoned from samples."""
    is_partial: bool = False
    """Whether there was no time to see all of it."""

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return sum(self.pieces.values())

    def take(self, other: Held) -> None:
        """Take in what another value holds; what both hold is counted once."""
        self.pieces.update(other.pieces)
        self.is_estimate |= other.is_estimate
        self.is_partial |= other.is_partial

    def add_many(self, key: Hashable, count: int, samples: Sequence[Held], ids: Iterable[int]) -> None:
        """Add what many objects hold together, of which some were looked at.

        What several of the samples hold is theirs together, and counted once. *ids* are of more of the
        objects: where one comes twice, there are fewer objects than places.
        """
        times = Counter(piece for sample in samples for piece in sample.pieces)
        own_bytes = 0
        for sample in samples:
            for piece, size_bytes in sample.pieces.items():
                if times[piece] > 1:
                    self.pieces[piece] = size_bytes
                else:
                    own_bytes += size_bytes
        self.pieces[key] = round(own_bytes / len(samples) * _different(count, [*ids]))
        self.is_estimate = True


def spread(count: int, wanted: int) -> Sequence[int]:
    """Return so many places of *count*, all over and at uneven distances, always the same ones.

    At even distances a list that repeats itself would show the same element again and again.
    """
    if count <= wanted:
        return range(count)
    draw = Random(0).random  # noqa: S311 - no secret
    return [int((number + draw()) * count / wanted) for number in range(wanted)]


def _different(count: int, ids: Sequence[int]) -> float:
    """Return how many different objects are probably in so many places.

    As with birthdays: the fewer there are, the more of the sampled ids come twice.
    """
    twice = len(ids) - len(set(ids))
    return count if not twice else min(count, len(ids) ** 2 / (2 * twice))
