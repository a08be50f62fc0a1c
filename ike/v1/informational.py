"""The informational exchange, RFC 2409 section 5.7:  HDR*, HASH(1), N/D.

What counts is only what stands under a right HASH of an authenticated channel.
"""

from __future__ import annotations

from collections.abc import Sequence

from ike.header import Header
from ike.registry import ExchangeType, NotifyType, Protocol
from ike.station import Station
from ike.v1.keymat import ChannelKeys
from ike.v1.message import Chain, clear_message
from ike.v1.payloads import Delete, Notification, Payload
from ike.v1.protection import hashed_message, verified_chain

_INFORMATIONAL = ExchangeType.INFORMATIONAL


def random_message_id(station: Station) -> int:
    return int.from_bytes(station.random_nonzero(4), "big")


def informational(
    keys: ChannelKeys, block: bytes, message_id: int, payloads: Sequence[Payload]
) -> bytes:
    """A protected message.  ``block`` is the last block of phase 1."""
    iv = keys.exchange_iv(block, message_id)
    return hashed_message(keys, iv, _INFORMATIONAL, message_id, payloads)


def verified_informational(
    keys: ChannelKeys, block: bytes, header: Header, message: bytes
) -> Chain:
    """The payloads under a right HASH; raises ``Dropped``."""
    iv = keys.exchange_iv(block, header.message_id)
    return verified_chain(keys, iv, header, message)


def channel_delete(keys: ChannelKeys) -> Delete:
    return Delete(Protocol.ISAKMP, (keys.cookies[0] + keys.cookies[1],))


def channel_notification(
    keys: ChannelKeys, notify: NotifyType, octets: bytes = b""
) -> Notification:
    return Notification(Protocol.ISAKMP, keys.cookies[0] + keys.cookies[1], notify, octets)


def clear_refusal(station: Station, header: Header, notify: NotifyType) -> bytes:
    """An answer to message 1 in the clear.  The receiver may only take it as a hint.

    Our cookie and the message ID are random and forgotten: zero upsets some peers.
    """
    cookies = (header.initiator_cookie, station.random_nonzero(8))
    notification = Notification(Protocol.ISAKMP, b"", notify)
    message_id = random_message_id(station)
    return clear_message(cookies, _INFORMATIONAL, message_id, [notification])
