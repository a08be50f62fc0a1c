"""Moniker's daemon beside a running gateway."""

from __future__ import annotations

from pathlib import Path

from oegw.childprocess import ChildProcess, Door, Program
from oegw.keyfile import KeyFileError
from oegw.moniker.settings import MonikerSettings, restart_notes
from oegw.monikerstatus import status
from oegw.sst.keys import read_private
from oegw.trace import Trace

_STAYS = (
    "[moniker] is gone, and what its firewall denies stays denied (keep): "
    "nft delete table inet oegw_moniker ends that"
)


def moniker_child(
    path: Path, trace: Trace, door: Door | None = None
) -> ChildProcess[MonikerSettings]:
    """Its process, as long as the configuration at ``path`` has ``[moniker]``."""
    return ChildProcess(PROGRAM, path, trace, door=door)


def _refusal(settings: MonikerSettings, _: Path) -> str | None:
    if settings.private_key is not None:
        try:
            read_private(settings.private_key)
        except KeyFileError as error:
            return str(error)
    return None


def _remains(settings: MonikerSettings) -> list[str]:
    return [_STAYS] if settings.firewall.deny and settings.firewall.keep else []


PROGRAM = Program(
    "moniker", "the moniker daemon", "oegw.monikerprocess", MonikerSettings(), status,
    restart_notes, _refusal, _remains,
)  # fmt: skip
