"""RESPONDER-LIFETIME, RFC 2407 sections 4.5.4 and 4.6.3.1.

A responder that keeps a tunnel for less time than was proposed says so in quick
mode message 2, so that both sides give it up together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ike.constants import LIFETIME_SHORTEST
from ike.errors import MalformedPayload
from ike.registry import LifeType, NotifyType, Phase2Attribute, Protocol
from ike.v1.attributes import Attribute, AttributeSet, parse_attributes, serialize_attributes
from ike.v1.payloads import Notification
from ike.v1.proposals import TunnelChoice
from ike.wire import Reader


def lifetime_notification(spi: bytes, seconds: int) -> Notification:
    attributes = (
        Attribute(Phase2Attribute.LIFE_TYPE, LifeType.SECONDS),
        Attribute(Phase2Attribute.LIFE_DURATION, seconds),
    )
    octets = serialize_attributes(attributes)
    return Notification(Protocol.ESP, spi, NotifyType.RESPONDER_LIFETIME, octets)


def announced_lifetime(choice: TunnelChoice, notifications: Iterable[Notification]) -> TunnelChoice:
    """The choice with the shorter lifetime that the responder announced, if it did."""
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
        seconds = attributes.lifetimes.get(LifeType.SECONDS)
        if seconds is not None:
            shorter = min(choice.lifetime, max(seconds, LIFETIME_SHORTEST))
            choice = replace(choice, lifetime=shorter)
    return choice
