"""NETLINK_XFRM's messages as octets: numbers, frames and attributes, by pyroute2's nlmsg.

pyroute2 frames messages and walks their attributes; what stands in the structures is read
and written by `state.py`, `policy.py` and `reports.py`.  There is no FLUSHSA or FLUSHPOLICY: they
would take away what is not ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Any, Protocol

from pyroute2.netlink import nlmsg

from oegw.datapath.xfrm import policy, reports, state
from oegw.datapath.xfrm.layout import STATE_NAME
from oegw.datapath.xfrm.state import Attributes


class MessageType(IntEnum):
    """<linux/xfrm.h>; below 16, netlink's own."""

    ERROR = 2
    DONE = 3
    NEWSA = 16
    DELSA = 17
    GETSA = 18
    NEWPOLICY = 19
    DELPOLICY = 20
    GETPOLICY = 21
    ALLOCSPI = 22
    ACQUIRE = 23
    EXPIRE = 24
    UPDPOLICY = 25
    UPDSA = 26
    NEWAE = 30
    GETAE = 31
    MAPPING = 38


class Flag(IntFlag):
    """<linux/netlink.h>."""

    REQUEST = 0x1
    ACK = 0x4
    REPLACE = 0x100
    EXCLUSIVE = 0x200
    CREATE = 0x400
    DUMP = 0x300


class Group(IntEnum):
    """Multicast groups."""

    EXPIRE = 2
    SA = 3
    MAPPING = 8


class Content(Protocol):
    """What a message says."""

    def fields(self) -> tuple[bytes, Attributes]:
        """Its structure and its attributes."""


HEADER = Struct("=IHHII")
_ERROR = Struct("=i")
_EXTENDED_ACK = 0x200  # NLM_F_ACK_TLVS
_CAPPED = 0x100
_NLMSGERR_ATTR_MSG = 1
_ATTRIBUTE = Struct("=HH")


class XfrmMessage(nlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """The attributes that all messages share.  Keys pass through here: it shows nothing."""

    __slots__ = ()
    body = ""

    nla_map = tuple(
        (f"XFRMA_{name}", "cdata")
        for name in (
            "UNSPEC", "ALG_AUTH", "ALG_CRYPT", "ALG_COMP", "ENCAP", "TMPL", "SA", "POLICY",
            "SEC_CTX", "LTIME_VAL", "REPLAY_VAL", "REPLAY_THRESH", "ETIMER_THRESH", "SRCADDR",
            "COADDR", "LASTUSED", "POLICY_TYPE", "MIGRATE", "ALG_AEAD", "KMADDRESS",
            "ALG_AUTH_TRUNC", "MARK", "TFCPAD", "REPLAY_ESN_VAL", "SA_EXTRA_FLAGS", "PROTO",
            "ADDRESS_FILTER", "PAD", "OFFLOAD_DEV", "SET_MARK", "SET_MARK_MASK", "IF_ID",
            "MTIMER_THRESH",
        )
    )  # fmt: skip

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


def _shape(name: str, size: int) -> type[XfrmMessage]:
    """A message class whose structure has ``size`` octets."""
    return type(name, (XfrmMessage,), {"__slots__": (), "fields": (("body", f"{size}s"),)})


_StateMessage = _shape("StateMessage", state.INFO.size)
_StateNameMessage = _shape("StateNameMessage", STATE_NAME.size)
_PolicyMessage = _shape("PolicyMessage", policy.INFO.size)
_PolicyNameMessage = _shape("PolicyNameMessage", policy.NAME.size)
_AccountMessage = _shape("AccountMessage", reports.ACCOUNT.size)

SHAPES: Mapping[int, tuple[type[XfrmMessage], Any]] = {
    MessageType.NEWSA: (_StateMessage, state.State),
    MessageType.UPDSA: (_StateMessage, state.State),
    MessageType.DELSA: (_StateNameMessage, state.StateName),
    MessageType.GETSA: (_StateNameMessage, state.StateName),
    MessageType.NEWPOLICY: (_PolicyMessage, policy.Policy),
    MessageType.UPDPOLICY: (_PolicyMessage, policy.Policy),
    MessageType.DELPOLICY: (_PolicyNameMessage, policy.PolicyName),
    MessageType.GETPOLICY: (_PolicyNameMessage, policy.PolicyName),
    MessageType.ALLOCSPI: (_shape("SpiMessage", reports.SPI_REQUEST.size), reports.SpiRequest),
    MessageType.ACQUIRE: (_shape("AcquireMessage", reports.ACQUIRE.size), reports.Acquired),
    MessageType.EXPIRE: (_shape("ExpireMessage", reports.EXPIRE.size), reports.Expired),
    MessageType.NEWAE: (_AccountMessage, reports.Account),
    MessageType.GETAE: (_AccountMessage, reports.Account),
    MessageType.MAPPING: (_shape("MappingMessage", reports.MAPPING.size), reports.Mapped),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; ``octets`` is all of it, header included, and shows nothing of itself."""

    kind: int
    flags: int
    sequence: int
    octets: bytes

    def __repr__(self) -> str:
        return f"Frame({self.kind}, {self.flags:#x}, {self.sequence}, {len(self.octets)} octets)"

    def raw(self) -> tuple[bytes, Attributes]:
        """Structure and attributes.  Raises ValueError if it is none of XFRM's, or broken."""
        shape = SHAPES.get(self.kind)
        if shape is None:
            raise ValueError(f"a message of type {self.kind}")
        message = shape[0](self.octets)
        try:
            message.decode()
            attributes = {str(name): bytes(value) for name, value in message["attrs"]}
        except Exception as error:  # whatever pyroute2 raises at octets that it can't read
            raise ValueError(f"type {self.kind}: {type(error).__name__}") from None
        return message["body"], attributes

    def content(self) -> Any:
        """What it says: a `State`, `Policy`, `Expired`, ...  Raises ValueError."""
        return SHAPES[self.kind][1].parse(*self.raw())

    def error(self) -> tuple[int, str]:
        """Of an ERROR or DONE: the error's number, 0 if there is none, and the kernel's words."""
        if len(self.octets) < HEADER.size + _ERROR.size:
            return 0, ""
        [number] = _ERROR.unpack_from(self.octets, HEADER.size)
        return -number, self._words() if self.flags & _EXTENDED_ACK else ""

    def _words(self) -> str:
        offset = HEADER.size + _ERROR.size
        if self.kind == MessageType.ERROR:  # the header of the request, or all of it
            if len(self.octets) < offset + HEADER.size:
                return ""
            [length] = Struct("=I").unpack_from(self.octets, offset)
            offset += HEADER.size if self.flags & _CAPPED else length
        while offset + _ATTRIBUTE.size <= len(self.octets):
            length, kind = _ATTRIBUTE.unpack_from(self.octets, offset)
            if length < _ATTRIBUTE.size:
                break
            if kind == _NLMSGERR_ATTR_MSG:
                text = self.octets[offset + _ATTRIBUTE.size : offset + length]
                return text.rstrip(b"\0").decode(errors="replace")
            offset += length + 3 & ~3
        return ""


def serialize(kind: MessageType, flags: int, sequence: int, content: Content) -> bytes:
    """The octets of one message."""
    body, attributes = content.fields()
    message = SHAPES[kind][0]()
    message["header"]["type"] = int(kind)
    message["header"]["flags"] = int(flags)
    message["header"]["sequence_number"] = sequence
    message["header"]["pid"] = 0
    message["body"] = body
    message["attrs"] = list(attributes.items())
    message.encode()
    return bytes(message.data)


def dump(kind: MessageType, sequence: int) -> bytes:
    """The request for all states (GETSA) or all policies (GETPOLICY)."""
    size = {MessageType.GETSA: STATE_NAME.size, MessageType.GETPOLICY: policy.NAME.size}[kind]
    flags = Flag.REQUEST | Flag.DUMP
    return HEADER.pack(HEADER.size + size, kind, flags, sequence, 0) + bytes(size)


def frames(octets: bytes) -> Iterator[Frame]:
    """The messages in one datagram.  Raises ValueError if it is cut off."""
    offset = 0
    while offset < len(octets):
        if len(octets) - offset < HEADER.size:
            raise ValueError("a netlink message without a header")
        length, kind, flags, sequence, _ = HEADER.unpack_from(octets, offset)
        if not HEADER.size <= length <= len(octets) - offset:
            raise ValueError("a netlink message that is cut off")
        yield Frame(kind, flags, sequence, octets[offset : offset + length])
        offset += length + 3 & ~3
