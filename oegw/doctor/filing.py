"""Reads what there is to know of files on the box: ours, and those that others leave for us."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from oegw.doctor.box import Files, Host, Place
from oegw.doctor.fact import Unexamined
from oegw.keys import KeyFileAbsent, KeyFileError, read_private
from oegw.settings import Settings


def place(path: Path, *, space: bool = False) -> Place:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Place(path)
    free = shutil.disk_usage(path).free if space else None
    mode = stat.S_IMODE(status.st_mode)
    return Place(path, mode, status.st_uid, stat.S_ISDIR(status.st_mode), free)


def files(configuration: Path, settings: Settings) -> Files:
    key, fault = settings.gateway.private_key, ""
    try:
        read_private(key)
    except KeyFileAbsent as error:
        if key.exists():
            raise Unexamined(str(error)) from None
    except KeyFileError as error:
        fault = str(error)
    state = settings.gateway.state
    directory = next(each for each in state.parents if each.exists())
    return Files(
        place(configuration), place(key), fault, place(state), place(directory, space=True),
        _state_fault(state),
    )  # fmt: skip


def _state_fault(path: Path) -> str:
    """Read as a reader does, so that a daemon that has it open is not disturbed."""
    import sqlite3

    if not path.exists() or not path.stat().st_size:
        return ""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
        try:
            [(sound,)] = database.execute("PRAGMA quick_check(1)").fetchall()
        finally:
            database.close()
    except sqlite3.OperationalError:
        return ""  # busy, or not ours to read
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if sound == "ok" else str(sound).splitlines()[0]


def host() -> Host:
    units = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
    rules = Path("/etc/nftables.conf")
    enabled = any(Path("/etc/systemd/system").glob("*.wants/nftables.service"))
    try:
        flushes = enabled and any(
            line.strip() == "flush ruleset" for line in rules.read_text().splitlines()
        )
    except OSError:
        flushes = False
    keepers = {
        "systemd-timesyncd": "systemd-timesyncd.service",
        "chrony": "chrony.service",
        "ntpsec": "ntpsec.service",
    }
    return Host(
        any((folder / "oegw.service").exists() for folder in units),
        Path("/run/systemd/system").exists(),
        str(rules) if flushes else "",
        next(
            (name for name, unit in keepers.items() if any((f / unit).exists() for f in units)), ""
        ),
    )
