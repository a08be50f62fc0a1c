"""The sockets to the kernel's XFRM: requests, dumps, and what it reports by itself.

The kernel carries out a request while it is sent, so its answer is there when ``send`` returns:
a request takes tens of microseconds, and nothing else of ours comes between.  Dumps are read in
parts, with the event loop's turn between them.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from oegw.datapath.interface import DatapathError
from oegw.datapath.xfrm import messages
from oegw.datapath.xfrm.messages import Content, Flag, Frame, Group, MessageType

# Linux, <linux/netlink.h>, <asm/socket.h>; Python does not name them.
_NETLINK_XFRM = 6
_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
_CAP_ACK = 10  # a refusal does not repeat the request, which has keys in it
_EXT_ACK = 11
_SO_RCVBUFFORCE = 33

# Our choices.
_TIMEOUT = 5.0  # seconds for an answer that is always there at once
_PART = 65536  # octets of a dump between two turns of the event loop
_EVENT_BUFFER = 2**20  # octets: a thousand SAs that expire at once; of more, we ask


class XfrmError(DatapathError):
    """The kernel refused a request; ``number`` is the errno, ``answer`` what it said."""

    def __init__(self, request: str, number: int, words: str = "") -> None:
        name = errno.errorcode.get(number, str(number))
        detail = f": {words}" if words else ""
        super().__init__(f"{request}: {os.strerror(number)} ({name}){detail}")
        self.number = number
        self.answer = f"{words or os.strerror(number)} ({name})"


class Xfrm(Protocol):
    """What the datapath needs of the kernel."""

    def ask(self, kind: MessageType, content: Content, flags: int = 0) -> Frame | None:
        """Make a request.  The answer of one that gets something, else None.  Raises XfrmError,
        and then the kernel has done nothing."""

    def dump(self, kind: MessageType) -> AsyncIterator[Frame]:
        """All states or policies.  Raises XfrmError."""

    def close(self) -> None: ...


def open_netlink(*groups: Group, blocking: bool = False) -> socket.socket:
    """A socket that hears ``groups``.  Raises XfrmError."""
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM)
    except OSError as error:
        raise XfrmError("a NETLINK_XFRM socket", error.errno or errno.EIO) from None
    try:
        netlink.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK):
            netlink.setsockopt(_SOL_NETLINK, option, 1)
        if groups:
            netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENT_BUFFER)
        for group in groups:
            netlink.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        if blocking:
            netlink.settimeout(_TIMEOUT)
        else:
            netlink.setblocking(False)
    except OSError as error:
        netlink.close()
        raise XfrmError("a NETLINK_XFRM socket", error.errno or errno.EIO) from None
    return netlink


class Netlink:
    """`Xfrm` by netlink sockets.  Raises XfrmError if the kernel has none."""

    def __init__(self) -> None:
        self._socket = open_netlink(blocking=True)
        self._numbers = itertools.count(1)

    def ask(self, kind: MessageType, content: Content, flags: int = 0) -> Frame | None:
        number = next(self._numbers) & 0xFFFFFFFF
        flags |= Flag.REQUEST | Flag.ACK
        octets = messages.serialize(kind, flags, number, content)
        answer: Frame | None = None
        try:
            self._socket.send(octets)
            while True:
                for frame in messages.frames(self._socket.recv(_PART)):
                    if frame.sequence != number:
                        continue
                    if frame.kind != MessageType.ERROR:
                        answer = frame
                        continue
                    code, words = frame.error()
                    if code:
                        raise XfrmError(described(kind, content), code, words)
                    return answer
        except OSError as error:
            code = error.errno or errno.ETIMEDOUT
            raise XfrmError(described(kind, content), code) from None
        except ValueError as error:
            raise XfrmError(described(kind, content), errno.EBADMSG, str(error)) from None

    async def dump(self, kind: MessageType) -> AsyncIterator[Frame]:
        loop = asyncio.get_running_loop()
        with open_netlink() as part_by_part:
            try:
                part_by_part.send(messages.dump(kind, 1))
                while True:
                    octets = await loop.sock_recv(part_by_part, _PART)
                    for frame in messages.frames(octets):
                        if frame.kind in (MessageType.ERROR, MessageType.DONE):
                            code, words = frame.error()
                            if code:
                                raise XfrmError(f"a dump by {kind.name}", code, words)
                            return
                        yield frame
                    await asyncio.sleep(0)  # sock_recv does not wait if there is something
            except OSError as error:
                raise XfrmError(f"a dump by {kind.name}", error.errno or errno.EIO) from None
            except ValueError as error:
                raise XfrmError(f"a dump by {kind.name}", errno.EBADMSG, str(error)) from None

    def close(self) -> None:
        self._socket.close()


def described(kind: MessageType, content: Content) -> str:
    """A request, for an error's text: never a key."""
    spi = getattr(content, "spi", None)
    if spi is not None:
        return f"{kind.name} of SPI {spi:#010x} to {getattr(content, 'destination', '')}"
    selectors = getattr(content, "selectors", None)
    if selectors is not None:
        source, destination = selectors
        return f"{kind.name} {source.network} -> {destination.network}"
    return kind.name


class Reports:
    """Listens to what the kernel says by itself: ``heard`` gets each message, ``missed`` is
    called when there were more than the buffer holds."""

    def __init__(self, heard: Callable[[Frame], None], missed: Callable[[], None]) -> None:
        self._heard = heard
        self._missed = missed
        self._socket = open_netlink(Group.EXPIRE, Group.MAPPING)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            octets = self._socket.recv(_PART)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._missed()
                return
            raise
        try:
            for frame in messages.frames(octets):
                self._heard(frame)
        except ValueError:
            self._missed()  # the kernel never does that: look for ourselves


def removed_state(before: socket.socket, wanted: Callable[[Frame], bool]) -> Frame | None:
    """Of the DELSA reports that wait at ``before``, a socket of group SA, the wanted one."""
    try:
        while True:
            for frame in messages.frames(before.recv(_PART)):
                if frame.kind == MessageType.DELSA and wanted(frame):
                    return frame
    except (OSError, ValueError):
        return None  # BlockingIOError: that was all
