"""XFRM states, which are SAs: struct xfrm_usersa_info with its attributes, and what names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Self

from oegw.datapath.interface import IPAddress, Selector, UdpEncapsulation
from oegw.datapath.xfrm.layout import (
    CONSUMED,
    ID,
    LIMITS,
    SELECTOR,
    STATE_NAME,
    family_of,
    or_none,
    or_unlimited,
    pack_address,
    pack_selector,
    unpack_address,
    unpack_selector,
)

Attributes = Mapping[str, bytes]

# Specification values.
ESP = 50

# Linux, <linux/xfrm.h>, <linux/udp.h>.
_MODE_TUNNEL = 1
_FLAG_NOPMTUDISC = 4
_FLAG_AF_UNSPEC = 32
_FLAG_ESN = 128
_UDP_ENCAP_ESPINUDP = 2
LARGEST_REPLAY_WINDOW = 4096  # XFRMA_REPLAY_ESN_MAX
_WORD = 32  # bits, of a replay bitmap

INFO = Struct(f"@{SELECTOR.size}s{ID}16s{LIMITS}{CONSUMED}3IIIHBBB0Q")
"""struct xfrm_usersa_info."""

_ALGORITHM = Struct("@64sI")  # name, key bits
_ALGORITHM_ICV = Struct("@64sII")  # name, key bits, ICV bits
_ENCAPSULATION = Struct("@H2s2s2x16s0I")
_REPLAY = Struct("@6I")
CONSUMED_ONLY = Struct("@" + CONSUMED)
_U32 = Struct("@I")
_U64 = Struct("@Q")


@dataclass(frozen=True, slots=True)
class StateName:
    """struct xfrm_usersa_id: what DELSA and GETSA ask for."""

    destination: IPAddress
    spi: int

    def fields(self) -> tuple[bytes, Attributes]:
        return self.serialize(), {}

    def serialize(self) -> bytes:
        family = family_of(self.destination)
        return STATE_NAME.pack(
            pack_address(self.destination), self.spi.to_bytes(4, "big"), family, ESP
        )

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        destination, spi, family, _ = STATE_NAME.unpack(body)
        return cls(unpack_address(destination, family), int.from_bytes(spi, "big"))


@dataclass(frozen=True, slots=True)
class Algorithm:
    """``icv``: octets of the check value; 0 for a cipher without one."""

    name: str
    key: bytes = field(repr=False)
    icv: int = 0

    def serialize(self) -> bytes:
        name, bits = self.name.encode(), len(self.key) * 8
        if self.icv:
            return _ALGORITHM_ICV.pack(name, bits, self.icv * 8) + self.key
        return _ALGORITHM.pack(name, bits) + self.key

    @classmethod
    def parse(cls, raw: bytes, with_icv: bool) -> Self:
        layout = _ALGORITHM_ICV if with_icv else _ALGORITHM
        name, bits, *icv = layout.unpack_from(raw)
        key = raw[layout.size : layout.size + bits // 8]
        return cls(name.rstrip(b"\0").decode(), key, icv[0] // 8 if icv else 0)


@dataclass(frozen=True, slots=True)
class ReplayState:
    """struct xfrm_replay_state_esn: the last sequence numbers, 64 bits, and who came already.

    The kernel takes it for 32-bit sequence numbers, too; the older structure has room for
    a window of 32 packets only.
    """

    window: int
    sent: int = 0
    received: int = 0
    bitmap: bytes = b""

    def serialize(self) -> bytes:
        words = -(-self.window // _WORD)
        low, high = self.sent & 0xFFFFFFFF, self.sent >> 32
        seen_low, seen_high = self.received & 0xFFFFFFFF, self.received >> 32
        head = _REPLAY.pack(words, low, seen_low, high, seen_high, self.window)
        # Without a bitmap the kernel makes an empty one of the size that the head says.
        return head + (self.bitmap and self.bitmap.ljust(words * _WORD // 8, b"\0"))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        words, low, seen_low, high, seen_high, window = _REPLAY.unpack_from(raw)
        bitmap = raw[_REPLAY.size : _REPLAY.size + words * _WORD // 8]
        if not any(bitmap):
            bitmap = b""
        return cls(window, high << 32 | low, seen_high << 32 | seen_low, bitmap)


@dataclass(frozen=True, slots=True)
class Limits:
    """struct xfrm_lifetime_cfg, as far as we use it; None is no limit."""

    soft_bytes: int | None = None
    hard_bytes: int | None = None
    soft_seconds: int | None = None
    hard_seconds: int | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None

    def values(self) -> tuple[int, ...]:
        """Without a limit, seconds are 0 and all else is XFRM_INF."""
        octets = or_unlimited(self.soft_bytes), or_unlimited(self.hard_bytes)
        packets = or_unlimited(self.soft_packets), or_unlimited(self.hard_packets)
        return (*octets, *packets, self.soft_seconds or 0, self.hard_seconds or 0, 0, 0)

    @classmethod
    def of(cls, values: tuple[int, ...]) -> Self:
        soft_bytes, hard_bytes, soft_packets, hard_packets = (or_none(n) for n in values[:4])
        soft, hard = values[4] or None, values[5] or None
        return cls(soft_bytes, hard_bytes, soft, hard, soft_packets, hard_packets)


@dataclass(frozen=True, slots=True)
class Consumed:
    """struct xfrm_lifetime_cur: octets and packets; seconds since 1970."""

    bytes: int = 0
    packets: int = 0
    added: int = 0
    first_used: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """An ESP SA in tunnel mode.

    ``mark`` is set on outer packets, and its mask.  ``mapping_interval``: at most one MAPPING
    in so many seconds for a peer that stays where it is.
    ``last_used`` comes from the kernel, where it knows: seconds since 1970.
    """

    source: IPAddress
    destination: IPAddress
    spi: int
    selectors: tuple[Selector, Selector] | None
    interface_id: int = 0
    reqid: int = 0
    aead: Algorithm | None = None
    cipher: Algorithm | None = None
    integrity: Algorithm | None = None
    extended: bool = False
    replay: ReplayState | None = None
    encapsulation: UdpEncapsulation | None = None
    limits: Limits = Limits()
    consumed: Consumed = Consumed()
    mark: tuple[int, int] | None = None
    mapping_interval: int = 0
    copy_dont_fragment: bool = True
    last_used: int | None = None

    @property
    def name(self) -> StateName:
        return StateName(self.destination, self.spi)

    def fields(self) -> tuple[bytes, Attributes]:
        """What NEWSA and UPDSA send.  ``consumed`` goes with it if it is not nothing."""
        attributes: dict[str, bytes] = {}
        if self.aead is not None:
            attributes["XFRMA_ALG_AEAD"] = self.aead.serialize()
        if self.cipher is not None:
            attributes["XFRMA_ALG_CRYPT"] = self.cipher.serialize()
        if self.integrity is not None:
            attributes["XFRMA_ALG_AUTH_TRUNC"] = self.integrity.serialize()
        if self.encapsulation is not None:
            attributes["XFRMA_ENCAP"] = _ENCAPSULATION.pack(
                _UDP_ENCAP_ESPINUDP,
                self.encapsulation.source_port.to_bytes(2, "big"),
                self.encapsulation.destination_port.to_bytes(2, "big"),
                b"",
            )
            if self.mapping_interval:
                attributes["XFRMA_MTIMER_THRESH"] = _U32.pack(self.mapping_interval)
        if self.replay is not None:
            attributes["XFRMA_REPLAY_ESN_VAL"] = self.replay.serialize()
        if self.mark is not None:
            attributes["XFRMA_SET_MARK"] = _U32.pack(self.mark[0])
            attributes["XFRMA_SET_MARK_MASK"] = _U32.pack(self.mark[1])
        if self.interface_id:
            attributes["XFRMA_IF_ID"] = _U32.pack(self.interface_id)
        if self.consumed != Consumed():
            attributes["XFRMA_LTIME_VAL"] = CONSUMED_ONLY.pack(*self._consumed())
        return self.info(), attributes

    def info(self) -> bytes:
        flags = 0
        if self.extended:
            flags |= _FLAG_ESN
        if self.selectors is None:
            flags |= _FLAG_AF_UNSPEC
        if not self.copy_dont_fragment:
            flags |= _FLAG_NOPMTUDISC
        return INFO.pack(
            bytes(SELECTOR.size) if self.selectors is None else pack_selector(*self.selectors),
            pack_address(self.destination),
            self.spi.to_bytes(4, "big"),
            ESP,
            pack_address(self.source),
            *self.limits.values(),
            *self._consumed(),
            *(0, 0, 0),
            0,
            self.reqid,
            family_of(self.destination),
            _MODE_TUNNEL,
            0,
            flags,
        )

    def _consumed(self) -> tuple[int, int, int, int]:
        spent = self.consumed
        return spent.bytes, spent.packets, spent.added, spent.first_used

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        values = INFO.unpack(body)
        selector, destination, spi, _, source = values[:5]
        limits, consumed = values[5:13], values[13:17]
        reqid, family, _, window, flags = values[21:]
        get = attributes.get
        aead, cipher, auth = (get(f"XFRMA_ALG_{name}") for name in ("AEAD", "CRYPT", "AUTH_TRUNC"))
        encapsulation = mark = replay = None
        if (raw := get("XFRMA_ENCAP")) is not None:
            _, near, far, _ = _ENCAPSULATION.unpack_from(raw)
            encapsulation = UdpEncapsulation(
                int.from_bytes(near, "big"), int.from_bytes(far, "big")
            )
        if (raw := get("XFRMA_SET_MARK")) is not None:
            mark = _u32(raw), _u32(get("XFRMA_SET_MARK_MASK", b"\xff" * 4))
        if (raw := get("XFRMA_REPLAY_ESN_VAL")) is not None:
            replay = ReplayState.parse(raw)
        elif window:
            replay = ReplayState(window)
        return cls(
            source=unpack_address(source, family),
            destination=unpack_address(destination, family),
            spi=int.from_bytes(spi, "big"),
            selectors=unpack_selector(selector),
            interface_id=_u32(get("XFRMA_IF_ID", bytes(4))),
            reqid=reqid,
            aead=Algorithm.parse(aead, True) if aead else None,
            cipher=Algorithm.parse(cipher, False) if cipher else None,
            integrity=Algorithm.parse(auth, True) if auth else None,
            extended=bool(flags & _FLAG_ESN),
            replay=replay,
            encapsulation=encapsulation,
            limits=Limits.of(limits),
            consumed=Consumed(*consumed),
            mark=mark,
            mapping_interval=_u32(get("XFRMA_MTIMER_THRESH", bytes(4))),
            copy_dont_fragment=not flags & _FLAG_NOPMTUDISC,
            last_used=last_used_of(attributes),
        )


def _u32(raw: bytes) -> int:
    value: int = _U32.unpack_from(raw)[0]
    return value


def last_used_of(attributes: Attributes) -> int | None:
    raw = attributes.get("XFRMA_LASTUSED")
    return _U64.unpack_from(raw)[0] if raw is not None else None


@dataclass(frozen=True, slots=True)
class StateUsage:
    """The part of a state that `usage` wants, read without the rest: there may be 20,000."""

    interface_id: int
    name: StateName
    consumed: Consumed
    last_used: int | None

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        values = INFO.unpack(body)
        family = values[22]
        return cls(
            _u32(attributes.get("XFRMA_IF_ID", bytes(4))),
            StateName(unpack_address(values[1], family), int.from_bytes(values[2], "big")),
            Consumed(*values[13:17]),
            last_used_of(attributes),
        )
