"""Which machine this is, as far as it explains figures."""

from __future__ import annotations

import os
import platform
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.accounts import machine_busy
from tests.interop.processes import call


def described(root: Path) -> dict[str, str]:
    """A line for each fact."""
    cpus = os.cpu_count() or 1
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    kibibytes = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    revision = call(None, "git", "-C", str(root), "describe", "--always", "--dirty", check=False)
    return {
        "CPUs": f"{cpus} of {model.group(1) if model else platform.machine()}",
        "memory": f"{int(kibibytes.group(1)) / 2**20:.1f} GiB" if kibibytes else "unknown",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "revision": revision.stdout.strip() or "unknown",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "busy with other things before": f"{busy():.0%}",
    }


def busy(seconds: float = 1.0) -> float:
    """What part of all its CPUs the machine uses, whatever it is that it does."""
    before = machine_busy()
    time.sleep(seconds)
    return (machine_busy() - before) / seconds / (os.cpu_count() or 1)
