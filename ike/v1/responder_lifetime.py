"""RESPONDER-LIFETIME, RFC 2407 sections 4.5.4 and 4.6.3.1.

A responder that keeps a tunnel for less time or fewer octets than was proposed says so
in quick mode message 2, so that both sides give it up together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ike.errors import MalformedPayload
from ike.registry import LifeType, NotifyType, Phase2Attribute, Protocol
from ike.v1.attributes import AttributeSet, parse_attributes, serialize_attributes
from ike.v1.payloads import Notification
from ike.v1.proposals import (
    TunnelChoice,
    life_in_octets,
    shorter_bytes,
    shorter_lifetime,
    tunnel_life_attributes,
)
from ike.wire import Reader


def lifetime_notification(
    spi: bytes, seconds: int | None, octets: int | None = None
) -> Notification:
    """What we keep less of than was offered; None: as offered."""
    attributes = serialize_attributes(tunnel_life_attributes(seconds, octets))
    return Notification(Protocol.ESP, spi, NotifyType.RESPONDER_LIFETIME, attributes)


def lifetime_notice(spi: bytes, choice: TunnelChoice) -> list[Notification]:
    """The notification that ``choice`` calls for, if any."""
    seconds = choice.lifetime if choice.lifetime < choice.offered_lifetime else None
    octets = choice.lifetime_bytes
    if octets is not None and choice.offered_bytes is not None and octets >= choice.offered_bytes:
        octets = None
    if seconds is None and octets is None:
        return []
    return [lifetime_notification(spi, seconds, octets)]


def announced_lifetime(choice: TunnelChoice, notifications: Iterable[Notification]) -> TunnelChoice:
    """The choice with the shorter lifetimes that the responder announced, if it did."""
    for notification in notifications:
        if notification.notify != NotifyType.RESPONDER_LIFETIME:
            continue
        attributes = AttributeSet.gather(
            parse_attributes(Reader(notification.octets)),
            Phase2Attribute.LIFE_TYPE,
            Phase2Attribute.LIFE_DURATION,
        )
        if attributes is None:
            raise MalformedPayload("RESPONDER-LIFETIME contradicts itself")
        seconds = attributes.lifetimes.get(LifeType.SECONDS, choice.lifetime)
        choice = replace(
            choice,
            lifetime=shorter_lifetime(choice.lifetime, seconds),
            lifetime_bytes=shorter_bytes(choice.lifetime_bytes, life_in_octets(attributes)),
        )
    return choice
