"""Removes a folder once the process that uses it has ended, however it did. A program, not a module.

callgrind writes into its folder until the very end of the process that it runs, so that process cannot
remove it. Standard input is a pipe that only that process, and what it forks, holds open.
"""

from __future__ import annotations

import os
import shutil
import sys


def main(folder: str) -> None:
    """Return at once; a process of its own, nobody's child, stays and waits."""
    if os.fork():
        return
    os.setsid()  # so that neither Ctrl-C nor the terminal's end reaches it
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir("/")  # so that it holds no folder of the user's
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
