"""Where the relay of a scenario stands, and how it is told what to do."""

from __future__ import annotations

import sys
from pathlib import Path

from lablib import relay, whole
from lablib.errors import LabError
from lablib.run import Run

ADDRESS = "192.1.1.55"  # on host dns
MODES = ("plain", "slow", "dead", "strip", "lie")


def start(run: Run, server: str, mode: str) -> None:
    """A relay at ADDRESS in front of ``server``."""
    set_mode(run, mode)
    added = run.call("dns", ["ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0"])
    if added.returncode:
        raise LabError(f"relay: {added.stderr}")
    arguments = [str(Path(relay.__file__)), ADDRESS, server, str(run.directory / "relay.mode")]
    run.start("relay", "dns", [sys.executable, *arguments]).await_text("relaying")


def set_mode(run: Run, mode: str) -> None:
    """From now on it does what ``mode`` says: see `relay`."""
    if mode.split()[0] not in MODES:
        raise LabError(f"relay: {mode!r} is none of {', '.join(MODES)}")
    whole.put(run.directory / "relay.mode", mode)
