"""A connection to a service, or from a client: the application sees no port (MK-4, MK-5)."""

from __future__ import annotations

import socket
from types import TracebackType

from oegw.moniker.names import ServiceName


class Session:
    """``service``: its name.  ``peer``: the host at the other end, without a port.  ``encrypted``:
    whether the question for it was.  ``path``: of the URI."""

    service: ServiceName
    peer: str
    encrypted: bool
    path: str

    def send(self, octets: bytes) -> int:
        """All octets; returns their number, as the paper's calls do."""
        raise NotImplementedError

    def recv(self, size: int) -> bytes:
        """At most ``size`` octets; none: the other end is done."""
        raise NotImplementedError

    def recv_exactly(self, size: int) -> bytes:
        """``size`` octets.  Raises EOFError if the other end is done before."""
        raise NotImplementedError

    def settimeout(self, seconds: float | None) -> None:
        raise NotImplementedError

    def fileno(self) -> int:
        raise NotImplementedError

    def detach(self) -> socket.socket:
        """The socket below, which knows its ports; the session is closed."""
        raise NotImplementedError

    def reveal_port(self) -> int:
        """The far port, for those who must know."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
