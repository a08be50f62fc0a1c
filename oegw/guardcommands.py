"""`oegw guard`: what holds back protected traffic without a gateway, and how it is taken away.

A configuration with faults does not stop it: who opens a box in distress has no time to mend one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from oegw import config
from oegw.arguments import Arguments, Command
from oegw.control import ControlError, NoDaemonError, request
from oegw.exitcodes import FAILED, FINE, NOT_PERMITTED, Failure
from oegw.guardfile import COMPLETE
from oegw.intercept.interface import OWN_TABLE, InterceptError
from oegw.intercept.nft import Nft, NftError
from oegw.settings import GatewaySettings, Settings
from oegw.sst.plane.settings import OWN_TABLE as PORTS_TABLE

_TABLES = (OWN_TABLE, PORTS_TABLE)
_LOOK_SECONDS = 5.0
_QUEUES = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")


def _guard(arguments: Arguments) -> int:
    if os.geteuid() != 0:
        raise Failure(NOT_PERMITTED, "oegw guard reads packet rules: be root")
    gateway, queue = _gateway(arguments.config)
    if arguments.socket is not None:
        socket: Path = arguments.socket
    else:
        socket = gateway.control_socket
    runs = _answers(socket) or _listens(queue)
    try:
        nft = Nft()
        if not arguments.remove:
            print("\n".join(_told(nft, gateway.guard, runs=runs)))
            return FINE
        if runs:
            raise Failure(FAILED, "the gateway runs, and is the guard: systemctl stop oegw first")
        for name in _TABLES:  # nft before 1.0.7 has no destroy
            nft.run(f"add table inet {name}\ndelete table inet {name}\n")
    except InterceptError as error:
        raise Failure(FAILED, str(error)) from error
    gateway.guard.unlink(missing_ok=True)
    print("open: nothing is held back until the next start of the gateway")
    return FINE


def _gateway(path: Path) -> tuple[GatewaySettings, int]:
    """As configured, as far as that can be understood; and the number of its packet queue."""
    try:
        settings = config.examine(path)[0]
    except config.ConfigError:
        settings = Settings()
    return settings.gateway, settings.intercept.queue


def _answers(socket: Path) -> bool:
    """Whether a gateway runs.  One that is too busy to answer counts as well."""
    try:
        for _ in request(socket, {"command": "status"}, _LOOK_SECONDS):
            return True
    except NoDaemonError as error:
        return isinstance(error.__cause__, TimeoutError)
    except ControlError:
        return True  # something answers
    return False


def _listens(queue: int) -> bool:
    """Whether somebody takes the packets of our queue: a gateway whose socket we don't know, for
    the configuration that names it is another one, or can't be read any more."""
    try:
        rows = _QUEUES.read_text(encoding="ascii").splitlines()
    except OSError:  # no queue was ever opened
        return False
    return any(row.split()[:1] == [str(queue)] for row in rows)


def _told(nft: Nft, path: Path, *, runs: bool) -> Iterator[str]:
    standing = [name for name in _TABLES if _stands(nft, name)]
    if runs:
        yield "now: the gateway runs, and is the guard"
    elif standing:
        yield f"now: the nft tables {', '.join(standing)} hold back what is protected"
    else:
        yield "now: nothing is held back"
    try:
        complete = path.read_text(encoding="utf-8").endswith(COMPLETE)
        saved = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(path.stat().st_mtime))
    except FileNotFoundError:
        yield f"at a boot: nothing, for {path} is not there"
    except (OSError, UnicodeError) as error:
        yield f"at a boot: all is closed but ssh, for {path} can't be read: {error}"
    else:
        damaged = ", which is damaged: all is closed but ssh"
        yield f"at a boot: {path}, of {saved}{'' if complete else damaged}"


def _stands(nft: Nft, table: str) -> bool:
    try:
        nft.run(f"list table inet {table}")
    except NftError as refusal:
        if not refusal.missing:
            raise
        return False
    return True


COMMANDS: dict[str, Command] = {"guard": _guard}
