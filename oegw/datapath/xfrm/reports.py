"""What the kernel says by itself (EXPIRE, ACQUIRE, MAPPING), the counters of an SA by themselves
(GETAE, NEWAE), and the request for an SPI (ALLOCSPI)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Self

from oegw.datapath.interface import IPAddress, Selector
from oegw.datapath.xfrm.layout import (
    ID,
    SELECTOR,
    STATE_NAME,
    family_of,
    pack_address,
    pack_selector,
    unpack_address,
    unpack_selector,
)
from oegw.datapath.xfrm.policy import INFO as POLICY_INFO
from oegw.datapath.xfrm.policy import Policy
from oegw.datapath.xfrm.state import (
    CONSUMED_ONLY,
    ESP,
    Attributes,
    Consumed,
    ReplayState,
    State,
    StateName,
)
from oegw.datapath.xfrm.state import INFO as STATE_INFO

# Linux, <linux/xfrm.h>: which values a GETAE or NEWAE is about.
_REPLAY_VALUE = 2
_LIFETIME_VALUE = 4

EXPIRE = Struct(f"@{STATE_INFO.size}sB0Q")
ACQUIRE = Struct(f"@{ID}16s{SELECTOR.size}s{POLICY_INFO.size}s4I0Q")
MAPPING = Struct(f"@{STATE_NAME.size}sI16s16s2s2s0I")
ACCOUNT = Struct(f"@{STATE_NAME.size}s16sII")
SPI_REQUEST = Struct(f"@{STATE_INFO.size}sII")

_U32 = Struct("@I")
_ANY_ALGORITHM = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Expired:
    """A limit of the SA ``state`` was reached; if ``hard``, it is gone."""

    state: State
    hard: bool

    def fields(self) -> tuple[bytes, Attributes]:
        interface = {"XFRMA_IF_ID": _U32.pack(self.state.interface_id)}
        return EXPIRE.pack(self.state.info(), self.hard), interface

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        info, hard = EXPIRE.unpack(body)
        return cls(State.parse(info, attributes), bool(hard))


@dataclass(frozen=True, slots=True)
class Acquired:
    """A packet of ``selectors`` met ``policy``, for which there is no SA."""

    source: IPAddress
    destination: IPAddress
    selectors: tuple[Selector, Selector]
    policy: Policy
    interface_id: int = 0

    def fields(self) -> tuple[bytes, Attributes]:
        body = ACQUIRE.pack(
            pack_address(self.destination),
            bytes(4),
            ESP,
            pack_address(self.source),
            pack_selector(*self.selectors),
            self.policy.info(),
            *(_ANY_ALGORITHM, _ANY_ALGORITHM, _ANY_ALGORITHM, 0),
        )
        return body, {"XFRMA_IF_ID": _U32.pack(self.interface_id)} if self.interface_id else {}

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        destination, _, _, source, selector, policy, *_ = ACQUIRE.unpack(body)
        selectors = unpack_selector(selector)
        if selectors is None:
            raise ValueError("an acquire without addresses")
        template = Policy.parse(policy, attributes).template
        family = template.family if template else family_of(selectors[0].network)
        return cls(
            unpack_address(source, family),
            unpack_address(destination, family),
            selectors,
            Policy.parse(policy, {"XFRMA_IF_ID": attributes.get("XFRMA_IF_ID", bytes(4))}),
            _U32.unpack(attributes.get("XFRMA_IF_ID", bytes(4)))[0],
        )


@dataclass(frozen=True, slots=True)
class Mapped:
    """An authentic packet of the inbound SA ``name`` in UDP came from another place."""

    name: StateName
    reqid: int
    old_source: IPAddress
    new_source: IPAddress
    old_port: int
    new_port: int

    def fields(self) -> tuple[bytes, Attributes]:
        body = MAPPING.pack(
            self.name.serialize(),
            self.reqid,
            pack_address(self.old_source),
            pack_address(self.new_source),
            self.old_port.to_bytes(2, "big"),
            self.new_port.to_bytes(2, "big"),
        )
        return body, {}

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        raw, reqid, old, new, old_port, new_port = MAPPING.unpack(body)
        name = StateName.parse(raw, {})
        family = family_of(name.destination)
        return cls(
            name,
            reqid,
            unpack_address(old, family),
            unpack_address(new, family),
            int.from_bytes(old_port, "big"),
            int.from_bytes(new_port, "big"),
        )


@dataclass(frozen=True, slots=True)
class Account:
    """Where an SA stands.  GETAE asks by ``name`` alone, NEWAE says it anew."""

    name: StateName
    source: IPAddress | None = None
    reqid: int = 0
    replay: ReplayState | None = None
    consumed: Consumed | None = None

    def fields(self) -> tuple[bytes, Attributes]:
        attributes: dict[str, bytes] = {}
        if self.replay is not None:
            attributes["XFRMA_REPLAY_ESN_VAL"] = self.replay.serialize()
        if self.consumed is not None:
            spent = self.consumed
            attributes["XFRMA_LTIME_VAL"] = CONSUMED_ONLY.pack(
                spent.bytes, spent.packets, spent.added, spent.first_used
            )
        flags = _REPLAY_VALUE | _LIFETIME_VALUE
        body = ACCOUNT.pack(self.name.serialize(), pack_address(self.source), flags, self.reqid)
        return body, attributes

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        raw, source, _, reqid = ACCOUNT.unpack(body)
        name = StateName.parse(raw, {})
        replay, consumed = (
            attributes.get(f"XFRMA_{each}") for each in ("REPLAY_ESN_VAL", "LTIME_VAL")
        )
        return cls(
            name,
            unpack_address(source, family_of(name.destination)) if any(source) else None,
            reqid,
            ReplayState.parse(replay) if replay else None,
            Consumed(*CONSUMED_ONLY.unpack(consumed)) if consumed else None,
        )


@dataclass(frozen=True, slots=True)
class SpiRequest:
    """ALLOCSPI: the kernel takes an SPI from the range, and answers with a larval state."""

    state: State
    lowest: int
    highest: int

    def fields(self) -> tuple[bytes, Attributes]:
        interface = {"XFRMA_IF_ID": _U32.pack(self.state.interface_id)}
        return SPI_REQUEST.pack(self.state.info(), self.lowest, self.highest), interface

    @classmethod
    def parse(cls, body: bytes, attributes: Attributes) -> Self:
        info, lowest, highest = SPI_REQUEST.unpack(body)
        return cls(State.parse(info, attributes), lowest, highest)
