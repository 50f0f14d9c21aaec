"""The kernel's call `perf_event_open`, and what its errors mean."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from pytest_imu.core.counters.kernel.names import ATTR_BYTES, DEVICES
from pytest_imu.core.counters.perf.command import paranoid_level
from pytest_imu.core.counters.source import FIX_NO_PMU, FIX_REFUSED, CannotCountError, LostError
from pytest_imu.core.descriptor import Descriptor

NUMBERS: Mapping[str, int] = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
"""The call's number, for each 64-bit processor."""
CLOSE_ON_EXEC = 8
ASK_ID = 0x80082407
SWITCH_ON, SWITCH_OFF = 0x2400, 0x2401
NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM})
NO_SUCH_EVENT = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV, errno.ENXIO})

Call = Callable[[bytes, int, int], int]
"""Opens an event, by its attr, for a thread and in the group of a descriptor or -1; raises OSError."""


def can_count(machine: str | None = None) -> bool:
    """Whether the call's number is known for this process."""
    return (os.uname().machine if machine is None else machine) in NUMBERS


def perf_event_open(machine: str | None = None) -> Call:
    """Return the call, ready to be made; CannotCountError where it is not known how."""
    # Here and not above: 4 ms, and a Python may have been built without it.
    import ctypes

    machine = os.uname().machine if machine is None else machine
    number = NUMBERS.get(machine)
    if number is None or ctypes.sizeof(ctypes.c_void_p) != ctypes.sizeof(ctypes.c_uint64):
        raise CannotCountError(f"the number of perf_event_open is not known for this {machine} process")
    syscall, get_errno = ctypes.CDLL(None, use_errno=True).syscall, ctypes.get_errno
    syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, *[ctypes.c_long] * 4]
    syscall.restype = ctypes.c_long
    attr_buffer = ctypes.create_string_buffer(ATTR_BYTES)  # the kernel may write into it

    def call(attr: bytes, thread: int, group: int) -> int:
        attr_buffer.raw = attr
        opened: int = syscall(number, attr_buffer, thread, -1, group, CLOSE_ON_EXEC)
        if opened < 0:
            raise OSError(get_errno(), "perf_event_open")
        return opened

    return call


class EventDescriptor(Descriptor):
    """A descriptor of an event, told by the number that the kernel gave the event itself.

    Not by its file: all descriptors without a name have the same one.
    """

    # Bound before any test runs.
    _ioctl: ClassVar[Callable[..., object]] = staticmethod(fcntl.ioctl)
    _read = staticmethod(os.read)

    def switch(self, order: int) -> None:
        """Switch the event, and those of its group, on or off; LostError if it is not ours."""
        self._ioctl(self.number(), order, 0)

    def read(self, size_bytes: int) -> bytes:
        """Return what it counted; LostError if it is not ours."""
        return self._read(self.number(), size_bytes)

    def closed_error(self) -> LostError:
        """Return what is raised where somebody else has closed it."""
        return LostError("the descriptors by which events are counted were closed")

    def _identity_now(self) -> tuple[int, int]:
        event_id = bytearray(8)
        self._ioctl(self._number, ASK_ID, event_id)
        return 0, int.from_bytes(event_id, "little")


def why_refused(number: int, *, in_kernel: bool = False, devices: Path = DEVICES) -> str:
    """Return what an error of the call means, with what would fix it.

    *in_kernel* says of the event that it happens in the kernel alone.
    """
    if number in NOT_ALLOWED:
        level = paranoid_level()
        known = "unknown" if level is None else level
        fix = FIX_REFUSED.replace("paranoid=2", "paranoid=1") if in_kernel else FIX_REFUSED
        return f"not permitted (perf_event_paranoid is {known}): {fix}"
    if number in NO_SUCH_EVENT:
        if (devices / "cpu").exists() or any(devices.glob("*/cpus")):
            return "not supported by this processor"
        return f"not supported by this machine: {FIX_NO_PMU}"
    if number == errno.ENOSYS:
        return f"the kernel has no perf_event_open, or a container hides it: {FIX_REFUSED}"
    return f"perf_event_open says {os.strerror(number)}"
