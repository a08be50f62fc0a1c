"""What the kernel says of changes that may have taken something of ours away.

Which ones do is not looked at here: the mind compares with what it has put there.  Filters in the
kernel keep away what is certainly none: our own verdicts come and go by the thousand, and so do a
router's routes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence

from oegw.bpf.classic import (
    JUMP_IF_EQUAL,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_WORD,
    RETURN,
    SO_ATTACH_FILTER,
    Instruction,
    attach,
)
from oegw.intercept import netlink
from oegw.powers.orders import KernelChanged

# Specification values: linux/netlink.h.
_ROUTE, _XFRM = 0, 6
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_KIND = 4  # octets before a message's kind

# linux/netfilter/nfnetlink.h, nf_tables.h.
_NFTABLES_GROUP = 7
_NFTABLES = 10 << 8
_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION = (_NFTABLES | kind for kind in (12, 14, 15))
_DELETIONS = frozenset(_NFTABLES | kind for kind in (2, 5, 8, 11, 20))  # table, chain, rule, set
_GENERATION_PROCESS, _GENERATION_NAME = 2, 3
_PROCESS = 16 + 4 + 8 + 4  # octets before the number of who made a generation

# linux/rtnetlink.h: links, addresses, routes and rules of both families.
_ROUTE_GROUPS = (1, 5, 7, 8, 9, 11, 19)
_NEW_LINK, _DELETE_LINK, _DELETE_ADDRESS, _DELETE_ROUTE, _DELETE_RULE = 16, 17, 21, 25, 33
_TABLE = 16 + 4  # octets before the table that a route is in
_LARGE_TABLE = 252  # RT_TABLE_COMPAT: a number that does not fit there; ours is one

# linux/xfrm.h.
_XFRM_GROUPS = (3, 4)
_FLUSH_STATES, _FLUSH_POLICIES = 0x1C, 0x1D

_ADDED, _DELETED = 1, 2

# Our choices.
_PART = 1 << 16  # octets
_PARTS = 64  # of one turn
_BUFFER = 1 << 20  # octets; if there is more, something has happened


class Lookout:
    """Of the network namespace of the thread that makes it.  Raises OSError."""

    def __init__(self, changed: Callable[[KernelChanged], None]) -> None:
        self._changed = changed
        self._sockets: list[socket.socket] = []
        self._disturbed = 0  # by a transaction whose end we have not heard of
        loop = asyncio.get_running_loop()
        try:
            rules = self._opened(netlink.NETFILTER, (_NFTABLES_GROUP,), _rules_filter())
            loop.add_reader(rules, self._rules, rules)
            routing = [self._opened(_ROUTE, _ROUTE_GROUPS, _routing_filter())]
            try:
                routing.append(self._opened(_XFRM, _XFRM_GROUPS, _xfrm_filter()))
            except OSError as error:
                if error.errno != errno.EPROTONOSUPPORT:  # a kernel without IPsec
                    raise
            for each in routing:
                loop.add_reader(each, self._routing, each)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets.clear()

    def _opened(
        self, family: int, groups: Sequence[int], instructions: Sequence[Instruction]
    ) -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
        self._sockets.append(opened)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        attach(opened, SO_ATTACH_FILTER, instructions)
        opened.bind((0, 0))
        for group in groups:
            opened.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        return opened

    def _rules(self, opened: socket.socket) -> None:
        """Transactions that changed more than elements; their ends, which say who made them."""
        ended = dict[int, str]()
        for octets in _parts(opened):
            if octets is None:
                self._disturbed, ended[_DELETED] = 0, ""
                continue
            for kind, _, _, body in netlink.messages(octets):
                if kind == _NEW_GENERATION and self._disturbed:
                    ended[self._disturbed], self._disturbed = _author(body), 0
                elif kind in _DELETIONS:
                    self._disturbed = _DELETED
                elif kind not in (_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION):
                    self._disturbed = self._disturbed or _ADDED
        for what, author in ended.items():
            self._changed(KernelChanged(True, what == _DELETED, author))

    def _routing(self, opened: socket.socket) -> None:
        for _ in _parts(opened):
            pass
        self._changed(KernelChanged(False, True, ""))


def _parts(opened: socket.socket) -> list[bytes | None]:
    """What has come, as far as it is one turn's; None: more than the buffer holds."""
    found: list[bytes | None] = []
    for _ in range(_PARTS):
        try:
            found.append(opened.recv(_PART))
        except BlockingIOError:
            break
        except OSError:  # ENOBUFS
            found.append(None)
    return found


def _author(body: bytes) -> str:
    """Name and number of the process, as the kernel says them of a generation."""
    told = dict(netlink.attributes(body[netlink.NFGENMSG :]))
    name = told.get(_GENERATION_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
    number = int.from_bytes(told.get(_GENERATION_PROCESS, b""), "big")
    return f"{name} (process {number})" if name else ""


# ---------------------------------------------------------------------------------- filters


def _rules_filter() -> list[Instruction]:
    """All but elements, and but generations by this process.

    The kernel joins messages of one transaction, but a generation stands alone.  In a container the
    number may be another one: then the filter lets them by, and they are looked at here.
    """
    return [
        (LOAD_HALF, 0, 0, _KIND),
        (JUMP_IF_EQUAL, 4, 0, _as_loaded(_NEW_ELEMENT)),
        (JUMP_IF_EQUAL, 3, 0, _as_loaded(_DELETE_ELEMENT)),
        (JUMP_IF_EQUAL, 0, 3, _as_loaded(_NEW_GENERATION)),
        (LOAD_WORD, 0, 0, _PROCESS),
        (JUMP_IF_EQUAL, 0, 1, os.getpid()),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, 0xFFFFFFFF),
    ]


def _routing_filter() -> list[Instruction]:
    """What is taken away; of routes, those of tables with large numbers."""
    return [
        (LOAD_HALF, 0, 0, _KIND),
        (JUMP_IF_EQUAL, 6, 0, _as_loaded(_NEW_LINK)),
        (JUMP_IF_EQUAL, 5, 0, _as_loaded(_DELETE_LINK)),
        (JUMP_IF_EQUAL, 4, 0, _as_loaded(_DELETE_ADDRESS)),
        (JUMP_IF_EQUAL, 3, 0, _as_loaded(_DELETE_RULE)),
        (JUMP_IF_EQUAL, 0, 3, _as_loaded(_DELETE_ROUTE)),
        (LOAD_BYTE, 0, 0, _TABLE),
        (JUMP_IF_EQUAL, 0, 1, _LARGE_TABLE),
        (RETURN, 0, 0, 0xFFFFFFFF),
        (RETURN, 0, 0, 0),
    ]


def _xfrm_filter() -> list[Instruction]:
    """That all was taken away; of single ones we hear nothing."""
    return [
        (LOAD_HALF, 0, 0, _KIND),
        (JUMP_IF_EQUAL, 1, 0, _as_loaded(_FLUSH_STATES)),
        (JUMP_IF_EQUAL, 0, 1, _as_loaded(_FLUSH_POLICIES)),
        (RETURN, 0, 0, 0xFFFFFFFF),
        (RETURN, 0, 0, 0),
    ]


def _as_loaded(kind: int) -> int:
    """Filters load numbers in network order; a message's kind is in the machine's."""
    return socket.htons(kind)
