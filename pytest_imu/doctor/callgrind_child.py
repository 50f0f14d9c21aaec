"""What runs under callgrind in the doctor's trial. A program, not a module."""

from __future__ import annotations

import sys

WORK_BYTES = 2**20


def main(package_folder: str, event: str) -> None:
    """Print how often the event happened while 1 MiB was read, or why that is not known."""
    sys.path.insert(0, package_folder)
    from pytest_imu.core.counters.callgrind.counts import Callgrind

    work = bytes(WORK_BYTES)
    window = Callgrind([event]).open()
    work.count(1)
    window.end()
    [reading] = window.read(0)
    print(reading.reason if reading.value is None else reading.value)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
