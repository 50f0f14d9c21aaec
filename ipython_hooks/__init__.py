"""The IPython extension of pytest-imu: `%load_ext ipython_hooks` reports what each command used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

MAGICS = "ImuMagics"


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Begin to report after each command, and say how to stop it."""
    from ipython_hooks import commands
    from ipython_hooks.arguments import CommandError
    from ipython_hooks.magics import ImuMagics
    from pytest_imu.core.counters.callgrind.command import (
        running_under_callgrind,
    )

    unload_ipython_extension(ipython)  # who calls this by hand, twice, gets one report, not two
    magics = ImuMagics(ipython)
    ipython.register_magics(magics)
    ipython.input_transformers_cleanup.append(magics.with_await)
    magics.session.start()
    magics.session.cell_lines.start()
    perf = magics.perf or ("on" if running_under_callgrind() else "")
    if perf:
        try:
            commands.run(magics.session, f"perf {perf}")
        except CommandError as error:  # a slip in a config file takes no more than its option
            magics.session.say([f"c.ImuMagics.perf: {error}"])
    if magics.live and not magics.session.in_kernel:
        magics.session.show_live(on=True)
    if magics.session.style == "off":
        return
    magics.session.say(["reporting after each command; %imu off stops it, %imu? explains the rest"])


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """End and undo everything: events, toolbar, threads, perf, limit, magics, names."""
    manager = ipython.magics_manager
    magics = manager.registry.pop(MAGICS, None)
    if magics is None:
        return
    magics.session.close()
    ipython.configurables.remove(magics)
    if magics.with_await in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.remove(magics.with_await)
    for kind, names in {"line": ("imu", "imu_start", "imu_stop"), "cell": ("imu",)}.items():
        for name in names:
            # Another extension may have put its own in their place, ipython_memory_usage for one.
            if getattr(manager.magics[kind].get(name), "__self__", None) is magics:
                del manager.magics[kind][name]
