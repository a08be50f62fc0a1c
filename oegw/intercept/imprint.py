"""What an nftables table is made of, as a short text: another text, and somebody else changed it.

Of the kernel are asked the table's own number, how many chains and sets it has, and the numbers
of its rules, which it never gives twice.  What is in its sets is not: that changes with each
verdict.  Netlink, and not libnftables, which would read all of the sets to list the rules.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from typing import Protocol

from oegw.intercept import netlink
from oegw.intercept.interface import InterceptError
from oegw.powers import elsewhere

NONE = ""
"""Of a table that is not there."""

# Specification values: linux/netfilter/nf_tables.h.
_NFTABLES = 10 << 8
_GETTABLE, _GETRULE = _NFTABLES | 1, _NFTABLES | 7
_TABLE_NAME = 1  # NFTA_TABLE_NAME, NFTA_RULE_TABLE
_TABLE_TOLD = (2, 3, 4)  # NFTA_TABLE_FLAGS, _USE, _HANDLE
_RULE_TOLD = (3,)  # NFTA_RULE_HANDLE
_FAMILIES = {"inet": 1, "ip": 2, "netdev": 5, "ip6": 10}

# Our choices.
_PART = 1 << 17  # octets of an answer
_TRIES = 5  # to read rules that nobody changes meanwhile
_PATIENCE = 5.0  # seconds for an answer that is always there at once


class Imprints(Protocol):
    """What `KernelImprints` is; it may be in another process."""

    def taken(self, family: str, table: str) -> str: ...
    def close(self) -> None: ...


def imprints() -> Imprints:
    """Of this process, or of the one that has the rights.  Raises InterceptError."""
    kernel = elsewhere.kernel()
    return KernelImprints() if kernel is None else _Elsewhere(kernel)


class _Elsewhere:
    def __init__(self, kernel: elsewhere.Kernel) -> None:
        self._kernel = kernel

    def taken(self, family: str, table: str) -> str:
        return self._kernel.imprint(family, table)

    def close(self) -> None:
        pass


class KernelImprints:
    """By a socket of the network namespace of the thread that makes it.  Raises InterceptError."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETFILTER)
            self._socket.bind((0, 0))
            self._socket.settimeout(_PATIENCE)
        except OSError as error:
            raise InterceptError(f"netlink can't be opened: {error.strerror}") from None
        self._number = 0

    def taken(self, family: str, table: str) -> str:
        """The table's imprint, or `NONE`.  Raises InterceptError."""
        try:
            for _ in range(_TRIES):
                taken = self._taken(_FAMILIES[family], table)
                if taken is not None:
                    return taken
        except OSError as error:
            if error.errno == errno.ENOENT:
                return NONE
            reason = error.strerror or str(error)
            raise InterceptError(f"table {family} {table} can't be read: {reason}") from None
        raise InterceptError(f"table {family} {table} can't be read: it keeps changing")

    def close(self) -> None:
        self._socket.close()

    def _taken(self, family: int, table: str) -> str | None:
        """None: somebody changed it meanwhile.  Raises OSError."""
        digest = hashlib.blake2b(digest_size=16)
        body = bytes((family, 0, 0, 0)) + netlink.attribute(_TABLE_NAME, table.encode() + b"\0")
        for kind, flags, told in (
            (_GETTABLE, 0, _TABLE_TOLD),
            (_GETRULE, netlink.DUMP, _RULE_TOLD),
        ):
            for interrupted, content in self._asked(kind, flags, body):
                if interrupted:
                    return None
                for found, value in netlink.attributes(content):
                    if found in told:
                        digest.update(value)
        return digest.hexdigest()

    def _asked(self, kind: int, flags: int, body: bytes) -> Iterator[tuple[bool, bytes]]:
        """The attributes of each message of the answer, and whether it was interrupted.

        Raises OSError.
        """
        self._number = self._number + 1 & 0xFFFFFFFF
        self._socket.send(netlink.message(kind, netlink.REQUEST | flags, self._number, body))
        while True:
            for found, flagged, number, content in netlink.messages(self._socket.recv(_PART)):
                if number != self._number:
                    continue
                interrupted = bool(flagged & netlink.INTERRUPTED)
                if found == netlink.ERROR:
                    [code] = netlink.CODE.unpack_from(content)
                    raise OSError(-code, os.strerror(-code))
                if found == netlink.DONE:
                    if interrupted:
                        yield True, b""
                    return
                yield interrupted, content[netlink.NFGENMSG :]
                if not flags:
                    return
