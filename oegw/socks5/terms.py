"""What all parts of the SOCKS server speak of, as values.

Apart from `interface.py`, which knows sockets: the cores do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from oegw.socks5.codes import ReplyCode
from oegw.socks5.wire import IPAddress, SocksError

TCP, UDP = "tcp", "udp"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose an ADDRESS ID is (SK-15): a client's address, and the user that it is.

    ``user``: empty without authentication.  ``lineage``: the number of the TCP connection where the
    settings ask for that (``scope = "connection"``), else None.
    """

    address: IPAddress
    user: str = ""
    lineage: int | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What a flow must fulfil.  ``encrypted``: it leaves by no outside interface in clear."""

    encrypted: bool = False


class Refused(SocksError):  # noqa: N818  (it names the fact)
    """``code``: what the client is told.  ``reason``: a word for trace and counters."""

    def __init__(self, code: ReplyCode, reason: str, text: str = "") -> None:
        super().__init__(text or reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Resolved:
    """``addresses``: at least one, in the resolver's order.  ``port``: where the name says it
    itself (a Moniker name), in place of the client's.  ``seconds``: how long that holds."""

    addresses: tuple[IPAddress, ...]
    seconds: float
    port: int | None = None
