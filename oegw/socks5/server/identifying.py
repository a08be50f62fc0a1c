"""The dedicated ADDRESS ASSOCIATE: an ID for an address or a name, or what one stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oegw.socks5.codes import AddressType, ReplyCode
from oegw.socks5.preference import (
    AskName,
    Preference,
    TellAddress,
    TellId,
    TellName,
    association_answer,
    preference_of,
    reserved_octet_used,
)
from oegw.socks5.rules import ASSOCIATE
from oegw.socks5.server.finding import Found, find, judge
from oegw.socks5.server.patience import Patience
from oegw.socks5.session import Requested
from oegw.socks5.wire import Address, AddressId, IPAddress, Reply

if TYPE_CHECKING:
    from oegw.socks5.server.conversation import Conversation

_STORED = {
    Preference.IPV4: AddressType.IPV4,
    Preference.IPV6: AddressType.IPV6,
    Preference.NAME: AddressType.NAME,
}


async def identify(conversation: Conversation, asked: Requested) -> None:
    """No connection to the destination is made (SK-24).  Raises Refused."""
    common = conversation.common
    if reserved_octet_used(asked.port):
        common.tally.drop("reserved_preference")  # ignored, and counted
    preference = preference_of(asked.flag, asked.port)
    async with Patience(conversation.input, common.settings.limits.connect):
        found = await find(common, conversation.client, asked.address, ASSOCIATE)
        ways = judge(common, conversation.client, found, ASSOCIATE, found.port)
        allowed = tuple(way.address for way in ways)
        # What an ID stands for is told in either mode (SK-32): otherwise nobody could ask for it.
        if common.settings.ids.reply == "id" and not isinstance(asked.address, AddressId):
            answer = _identified(conversation, found, _stored(preference, found))
        else:
            answer = await _answer(conversation, found, preference, allowed)
    port = found.port if found.port is not None and not isinstance(answer, str) else 0
    conversation.session.reply(Reply(ReplyCode.SUCCEEDED, answer, port))
    common.places.answered(conversation.place)


def _stored(preference: Preference, found: Found) -> AddressType | None:
    if preference is Preference.DESTINATION:  # SK-38: of what would be tried first
        six = found.addresses[0].version == 6
        return AddressType.IPV6 if six else AddressType.IPV4
    return _STORED.get(preference)


async def _answer(
    conversation: Conversation,
    found: Found,
    preference: Preference,
    allowed: tuple[IPAddress, ...],
) -> Address:
    """With ``reply = "address"``, or of what an ID stands for."""
    answer = association_answer(preference, found.destination, allowed)
    match answer:
        case TellId():
            return _identified(conversation, found, None)
        case TellAddress(address):
            return address
        case TellName(name):
            return name
        case AskName(address):
            common = conversation.common
            async with common.asking(conversation.client.address):
                return await common.resolver.name_of(address)


def _identified(
    conversation: Conversation, found: Found, preference: AddressType | None
) -> Address:
    """Raises Refused (TableFull)."""
    common = conversation.common
    if found.entry is not None and found.entry.preference == preference:
        return found.entry.id
    return common.ids.associate(
        conversation.client.scope,
        found.destination,
        common.now(),
        preference=preference,
        resolved=found.resolved,
    )
