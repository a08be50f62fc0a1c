"""XFRM policies: struct xfrm_userpolicy_info with its template, and what names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_network
from struct import Struct
from typing import Self

from oegw.datapath.interface import IPAddress, Selector
from oegw.datapath.xfrm.layout import (
    AF_INET,
    CONSUMED,
    ID,
    LIMITS,
    SELECTOR,
    pack_address,
    pack_selector,
    unpack_address,
    unpack_selector,
)
from oegw.datapath.xfrm.state import ESP, Limits

# Linux, <linux/xfrm.h>.
_MODE_TUNNEL = 1
_ANY_ALGORITHM = 2**32 - 1

INFO = Struct(f"@{SELECTOR.size}s{LIMITS}{CONSUMED}IIBBBB0Q")
"""struct xfrm_userpolicy_info."""

NAME = Struct(f"@{SELECTOR.size}sIB0I")
"""struct xfrm_userpolicy_id."""

TEMPLATE = Struct(f"@{ID}H2x16sIBBBIII")
"""struct xfrm_user_tmpl."""

_U32 = Struct("@I")


class PolicyDirection(IntEnum):
    IN = 0
    OUT = 1
    FORWARD = 2


class Action(IntEnum):
    ALLOW = 0
    BLOCK = 1


@dataclass(frozen=True, slots=True)
class Template:
    """Which SA a policy demands: ESP in tunnel mode with these outer addresses (None: any),
    SPI (0: any) and reqid."""

    family: int
    reqid: int
    source: IPAddress | None = None
    destination: IPAddress | None = None
    spi: int = 0

    def serialize(self) -> bytes:
        return TEMPLATE.pack(
            pack_address(self.destination),
            self.spi.to_bytes(4, "big"),
            ESP,
            self.family,
            pack_address(self.source),
            self.reqid,
            _MODE_TUNNEL,
            *(0, 0),
            *(_ANY_ALGORITHM, _ANY_ALGORITHM, _ANY_ALGORITHM),
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        destination, spi, _, family, source, reqid, *_ = TEMPLATE.unpack_from(raw)
        return cls(
            family,
            reqid,
            unpack_address(source, family) if any(source) else None,
            unpack_address(destination, family) if any(destination) else None,
            int.from_bytes(spi, "big"),
        )


@dataclass(frozen=True, slots=True)
class PolicyName:
    """struct xfrm_userpolicy_id and the interface: what DELPOLICY and GETPOLICY ask for."""

    direction: PolicyDirection
    selectors: tuple[Selector, Selector]
    interface_id: int = 0

    def fields(self) -> tuple[bytes, Mapping[str, bytes]]:
        body = NAME.pack(pack_selector(*self.selectors), 0, self.direction)
        return body, {"XFRMA_IF_ID": _U32.pack(self.interface_id)} if self.interface_id else {}

    @classmethod
    def parse(cls, body: bytes, attributes: Mapping[str, bytes]) -> Self:
        selector, _, direction = NAME.unpack(body)
        selectors = unpack_selector(selector)
        if selectors is None:
            raise ValueError("a policy's name without addresses")
        [interface_id] = _U32.unpack(attributes.get("XFRMA_IF_ID", bytes(4)))
        return cls(PolicyDirection(direction), selectors, interface_id)


@dataclass(frozen=True, slots=True)
class Policy:
    """Packets of these selectors (None: others' policies may say no family) demand ``template``,
    or are blocked.  Of several that fit, the one with the lowest ``priority`` rules."""

    direction: int
    selectors: tuple[Selector, Selector] | None
    priority: int
    interface_id: int = 0
    action: int = Action.ALLOW
    template: Template | None = None

    @property
    def name(self) -> PolicyName:
        if self.selectors is None:
            raise ValueError("a policy of no address family")
        return PolicyName(PolicyDirection(self.direction), self.selectors, self.interface_id)

    def fields(self) -> tuple[bytes, Mapping[str, bytes]]:
        attributes: dict[str, bytes] = {}
        if self.template is not None:
            attributes["XFRMA_TMPL"] = self.template.serialize()
        if self.interface_id:
            attributes["XFRMA_IF_ID"] = _U32.pack(self.interface_id)
        return self.info(), attributes

    def info(self) -> bytes:
        selector = bytes(SELECTOR.size)
        if self.selectors is not None:
            selector = pack_selector(*self.selectors)
        return INFO.pack(
            selector,
            *Limits().values(),
            *(0, 0, 0, 0),
            self.priority,
            *(0, self.direction, self.action, 0, 0),
        )

    @classmethod
    def parse(cls, body: bytes, attributes: Mapping[str, bytes]) -> Self:
        values = INFO.unpack(body)
        priority, _, direction, action, _, _ = values[13:]
        template = attributes.get("XFRMA_TMPL")
        [interface_id] = _U32.unpack(attributes.get("XFRMA_IF_ID", bytes(4)))
        return cls(
            direction,
            unpack_selector(values[0]),
            priority,
            interface_id,
            action,
            Template.parse(template) if template else None,
        )


def everything(family: int) -> tuple[Selector, Selector]:
    """The selectors of all packets of a family."""
    each = Selector(ip_network("0.0.0.0/0" if family == AF_INET else "::/0"))
    return each, each
