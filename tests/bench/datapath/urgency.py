"""On a machine that does other things as well: what is measured goes before them.

The kernel shares its time between sessions (sched(7), the autogroup feature), so a process's own
niceness counts only beside others of its session.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_MOST = "-20"
_urgent = False


def begin() -> None:
    """From now on, ``hurry`` does what it says; and this session, which sends and counts."""
    global _urgent
    _urgent = True
    hurry(os.getpid())


def hurry(pid: int) -> None:
    """The session of this process gets most of the time that it asks for, if the run is urgent."""
    if _urgent:
        with contextlib.suppress(OSError):  # a kernel without autogroups, or the process has ended
            Path(f"/proc/{pid}/autogroup").write_text(_MOST)
