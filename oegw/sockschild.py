"""The SOCKS server beside a running gateway."""

from __future__ import annotations

from pathlib import Path

from oegw import config
from oegw.applyrecord import in_use
from oegw.childprocess import ChildProcess, Door, Program
from oegw.socks5.settings import SocksSettings, restart_notes
from oegw.sockslisteners import settings_of
from oegw.socksstatus import status
from oegw.trace import Trace


def socks_child(
    path: Path,
    trace: Trace,
    outside: tuple[str, ...] = (),
    door: Door | None = None,
) -> ChildProcess[SocksSettings]:
    """Its process, as long as the configuration at ``path`` has ``[socks]``.

    ``outside``: the gateway's outside interfaces, which default routes may leave meanwhile.
    """
    return ChildProcess(PROGRAM, path, trace, outside, door)


def _refusal(_: SocksSettings, path: Path) -> str | None:
    """What is wrong on this box only."""
    try:
        settings_of(in_use(path).settings)
    except config.ConfigError as error:
        return str(error)
    return None


PROGRAM = Program(
    "socks", "the SOCKS server", "oegw.socksprocess", SocksSettings(), status, restart_notes,
    _refusal,
)  # fmt: skip
