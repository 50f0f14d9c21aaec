"""The IPython extension of pytest-imu: `%load_ext ipython_hooks`.

The report after every command is not there yet; loading the extension says so and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:  # noqa: ARG001 - IPython passes it
    """Say that the report is not there yet; nothing is registered."""
    print(  # noqa: T201 - an extension speaks to the person at the prompt
        "ipython_hooks: the report after every command is not there yet in this version of "
        "pytest-imu. Until then: `from pytest_imu import measure`, then `with measure() as m: ...` "
        "and `m.measurement`."
    )
