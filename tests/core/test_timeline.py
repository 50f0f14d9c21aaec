"""The samples of one test after another: bounded, in order, and never a fault for the test."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from pytest_imu.core.children.sampler import Memory
from pytest_imu.core.timeline import CHILDREN_EVERY_NS, MOST_SAMPLES, Timeline


def scripted(
    sizes: Callable[[], int], children: tuple[int, ...] = (), *, step_ns: int = CHILDREN_EVERY_NS
) -> Timeline:
    """Return a timeline that no thread samples, whose clock goes on by a step a sample."""
    clock = count(step_ns, step_ns)
    return Timeline(
        1000,
        read_rss=sizes,
        read_children=lambda: [Memory(size, is_pss=True) for size in children],
        clock_ns=lambda: next(clock),
    )


def test_a_test_has_its_own_samples() -> None:
    """What was sampled before is another test's; both ends are sampled."""
    sizes = count(100)
    timeline = scripted(lambda: next(sizes), step_ns=10)
    timeline.begin()
    timeline.sample()
    timeline.begin()
    assert {"interval_ns": 1000, "rss": [[30, 102], [40, 103]], "children": []} == timeline.take()


def test_long_tests_have_fewer_samples() -> None:
    """Where there would be too many each second one goes, the smaller, and the interval doubles."""
    sizes = count(0)
    timeline = scripted(lambda: next(sizes), step_ns=10)
    timeline.begin()
    for _ in range(5 * MOST_SAMPLES):
        timeline.sample()
    taken = timeline.take()
    assert MOST_SAMPLES // 2 <= len(taken["rss"]) < MOST_SAMPLES
    assert taken["interval_ns"] > 1000
    assert sorted(taken["rss"]) == taken["rss"]
    assert [10 * (5 * MOST_SAMPLES + 2), 5 * MOST_SAMPLES + 1] == taken["rss"][-1]
    timeline.begin()
    assert 1000 == timeline.take()["interval_ns"]


def test_children_are_added_up() -> None:
    """They are read less often, and have no samples before the first."""
    timeline = scripted(lambda: 1, (5, 7))
    timeline.begin()
    timeline.sample()
    assert [12, 12, 12] == [size for _, size in timeline.take()["children"]]


def test_a_fault_is_kept() -> None:
    """A reading that fails is left out."""

    def refuse() -> int:
        raise OSError("no")

    timeline = scripted(refuse)
    timeline.begin()
    assert [] == timeline.take()["rss"]
    assert isinstance(timeline.fault, OSError)
