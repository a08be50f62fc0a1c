"""The thread that keeps this process's services registered (MK-31)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oegw.moniker.settings import DEFAULT_SOCKET


class Registration:
    """A service as the daemon knows it, for as long as it is not closed and this process lives."""

    @property
    def namespace(self) -> str:
        """The namespace that the daemon put it in."""
        raise NotImplementedError

    @property
    def registered(self) -> bool:
        """Whether the daemon knows it at this moment."""
        raise NotImplementedError

    def update(self, **changes: Any) -> None:
        """``weight``, ``exported``, ``text``.  Raises RegistrationRefused."""
        raise NotImplementedError

    def close(self) -> None:
        """It is unregistered; in a child that was forked, nothing."""
        raise NotImplementedError


def register(
    sock: socket.socket,
    request: Mapping[str, Any],
    *,
    daemon: Path = DEFAULT_SOCKET,
    patience: float = 1.0,
) -> Registration:
    """Register what ``sock`` is bound to: ``request`` has service, version and what else
    `localwire` says of ``register``.  Without a daemon it is tried for ``patience`` seconds.

    Raises RegistrationRefused, DaemonAbsent.
    """
    raise NotImplementedError
