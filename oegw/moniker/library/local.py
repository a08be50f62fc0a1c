"""One request to the daemon of this host, and its answer (`localwire`)."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from oegw.moniker.library.errors import DaemonAbsent, RegistrationRefused
from oegw.moniker.library.localline import timeval
from oegw.moniker.localwire import MAX_LINE_OCTETS
from oegw.moniker.settings import DEFAULT_SOCKET

_TAG = 1


def ask_daemon(
    request: dict[str, Any], *, daemon: Path = DEFAULT_SOCKET, timeout: float = 2.0
) -> dict[str, Any]:
    """The answer's object, if it is ``ok``.  For ``list``, ``resolve``, ``policy``, ``status``.

    Raises DaemonAbsent, and RegistrationRefused for what the daemon refuses.
    """
    try:
        answer = json.loads(_exchange(request, daemon, timeout))
    except OSError as error:
        why = error.strerror or "no answer"
        raise DaemonAbsent(f"{daemon}: no daemon of Moniker answers there: {why}") from None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise DaemonAbsent(f"{daemon}: what answers there is no daemon of Moniker")
    if answer.get("ok") is not True:
        code, text = answer.get("code"), answer.get("text")
        raise RegistrationRefused(str(code or "other"), str(text or "the daemon gives no reason"))
    return answer


def _exchange(request: dict[str, Any], daemon: Path, timeout: float) -> bytes:
    line = json.dumps({**request, "tag": _TAG}, separators=(",", ":")).encode("utf-8") + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        # The kernel's time limit, not Python's: that makes the socket one that does not wait, and
        # where many connect at once such a one is refused instead of getting its turn.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(timeout))
        sock.connect(os.fspath(daemon))
        sock.settimeout(timeout)
        sock.sendall(line)
        received = bytearray()
        while b"\n" not in received:
            octets = sock.recv(65536)
            if not octets or len(received) > MAX_LINE_OCTETS:
                raise ConnectionError("no answer")
            received += octets
        return bytes(received.partition(b"\n")[0])
