"""Transactions of nf_tables by netlink, beside those that libnftables makes of text."""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct

from oegw.powers import elsewhere
from oegw.powers.orders import NfMessage
from oegw.sst.interface import SstError
from oegw.sst.plane.wire import Message, transaction

# Specification values: linux/netlink.h.
_NETFILTER = 12
_HEADER = Struct("=IHHII")
_CODE = Struct("=i")
_ERROR = 2

_BUFFER = 1 << 20  # octets: room for the messages and answers of one transaction


class RefusedError(SstError):
    """The kernel did not do a transaction, none of it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"nf_tables refused: {os.strerror(code)}")
        self.code = code

    @property
    def exists(self) -> bool:
        return self.code == errno.EEXIST

    @property
    def missing(self) -> bool:
        return self.code == errno.ENOENT

    @property
    def full(self) -> bool:
        return self.code == errno.ENFILE


class NfTables:
    """A socket of the network namespace of the thread that makes it, or of the process that has
    the rights (`oegw.powers`).  Raises SstError."""

    def __init__(self) -> None:
        self._kernel = elsewhere.kernel()
        self._socket: socket.socket | None = None
        if self._kernel is None:
            self._socket = self._opened()

    @staticmethod
    def _opened() -> socket.socket:
        try:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
            opened.bind((0, 0))
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        except OSError as error:
            raise SstError(f"netlink can't be opened: {error}") from error
        return opened

    def run(self, messages: list[Message]) -> None:
        """Execute as one transaction; the kernel does it while it is sent.  Raises RefusedError."""
        if self._kernel is not None:
            told = tuple(NfMessage(each.kind, each.flags, each.body) for each in messages)
            if code := self._kernel.nf_tables(told):
                raise RefusedError(code)
            return
        assert self._socket is not None
        refusal = 0
        try:
            self._socket.send(transaction(messages))
        except OSError as error:
            raise RefusedError(error.errno or errno.EIO) from error
        while True:
            try:
                answer = self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:  # ENOBUFS: more answers than there is room for
                raise RefusedError(error.errno or errno.EIO) from error
            refusal = refusal or _refusal(answer)
        if refusal:
            raise RefusedError(refusal)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _refusal(answer: bytes) -> int:
    """The first error number among the messages of an answer, 0 if there is none."""
    while len(answer) >= _HEADER.size + _CODE.size:
        length, kind, *_ = _HEADER.unpack_from(answer)
        if kind == _ERROR:
            code: int = -_CODE.unpack_from(answer, _HEADER.size)[0]
            if code:
                return code
        if length < _HEADER.size:
            break
        answer = answer[(length + 3) & ~3 :]
    return 0
