"""What a careless gateway does: put in the place of a defence to see that it is one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from ike.constants import HEADER_LENGTH
from ike.errors import UnknownCookies, WrongSignature
from ike.header import Header
from ike.registry import ExchangeType, PayloadType
from ike.v1.informational import verified_informational
from ike.v1.message import Chain
from ike.v1.opening import ResponderOpening
from ike.v1.proposals import ChannelChoice, TunnelChoice
from ike.v1.protection import decrypted_chain
from ike.v1.suites import channel_tiers, tunnel_tiers


class AnyNumber(int):
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


EVERY_PAYLOAD = frozenset(map(PayloadType, range(1, 256)))
ALWAYS_EQUAL = SimpleNamespace(compare_digest=lambda one, other: True)


def take_all_octets(self: Any, count: int) -> bytes:
    """Reader.octets that gives what there is."""
    start = self._position
    self._position = min(start + max(count, 0), self._end)
    return self._octets[start : self._position]


def raise_through(self: Any, remote: Any, action: Any) -> None:
    """Endpoint._count_drops that catches nothing."""
    action()


def find_anything(find: Any) -> Any:
    """Endpoint._find for which unknown cookies are those of a newcomer."""

    def lenient(self: Any, header: Any, remote: Any) -> Any:
        try:
            return find(self, header, remote)
        except UnknownCookies:
            return None

    return lenient


def heed_without_hash(keys: Any, block: bytes, header: Header, message: bytes) -> Chain:
    """verified_informational that believes what is in the clear, or under any HASH."""
    if not header.encrypted:
        return Chain.cut(header.next_payload, message[HEADER_LENGTH:], padded=False)
    try:
        return verified_informational(keys, block, header, message)
    except Exception:
        iv = keys.exchange_iv(block, header.message_id)
        return Chain.cut(
            header.next_payload, decrypted_chain(keys, iv, header, message), padded=True
        )


def expect_nothing(self: Any, header: Any) -> Any:
    """Session._expect_protected that asks for no protection."""
    return self.end


def any_channel(offer: Any, configuration: Any) -> ChannelChoice:
    """choose_channel that looks at nothing but the number of transforms."""
    proposal = offer.proposals[0]
    answer = replace(offer, proposals=(replace(proposal, transforms=proposal.transforms[:1]),))
    return ChannelChoice(channel_tiers(configuration)[0][0], 3600, None, answer)


def any_tunnel(
    offer: Any,
    configuration: Any,
    encapsulations: Any = (False,),
    key_exchange: bool = True,
    sst: bool = False,
) -> TunnelChoice:
    """choose_tunnel that does not look at attributes."""
    proposal = offer.proposals[0]
    suite = tunnel_tiers(configuration)[0][0]
    group = channel_tiers(configuration)[0][0].group
    transform = proposal.transforms[0]
    return TunnelChoice(
        suite, group, proposal.spi, 3600, 3600, None, None, False, sst, proposal, transform
    )


def weakest_first(tiers: Any) -> Any:
    return lambda configuration: list(reversed(tiers(configuration)))


def digest_anywhere(keys: Any, signature: bytes, digest: bytes) -> Any:
    """verifying_key that looks for the digest in what comes out of RSA, as careless ones did."""
    for key in keys:
        numbers = key.public_numbers()
        block = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n)
        if digest[:20] in block.to_bytes((key.key_size + 7) // 8, "big"):
            return key
    raise WrongSignature("none")


def any_length(verify: Any) -> Any:
    """verifying_key for which zero octets in front do not count."""

    def lenient(keys: Any, signature: bytes, digest: bytes) -> Any:
        octets = (keys[0].key_size + 7) // 8
        return verify(keys, signature.lstrip(b"\0").rjust(octets, b"\0"), digest)

    return lenient


def every_exchange(receive: Any) -> Any:
    """Endpoint._receive_message that takes any exchange for one that it knows."""

    def lenient(self: Any, now: Any, header: Any, data: bytes, local: Any, remote: Any) -> None:
        main = replace(header, exchange=ExchangeType.IDENTITY_PROTECTION)
        receive(self, now, main, data, local, remote)

    return lenient


def repeats_message_2(start: Any) -> Any:
    """ResponderOpening.start that repeats message 2 by itself, as some did."""

    def lenient(self: ResponderOpening, now: float) -> None:
        start(self, now)
        for after in (1, 3, 7):
            self._station.alarms.set(
                now + after, lambda _: self._owner.send("MM2", self._main.message_2, True)
            )

    return lenient


def ends_on_duplicate(self: ResponderOpening, message: bytes, arrival: Any) -> None:
    """ResponderOpening.repeated that begins anew."""
    from ike.errors import DuplicateMessage
    from ike.events import Failure

    self._owner.opening_failed(0.0, Failure.MALFORMED, "message 1 again")
    raise DuplicateMessage("answered before")


def by_initiator_cookie(self: Any, cookies: tuple[bytes, bytes]) -> Any:
    """Directory.answered that does not ask for our cookie."""
    return next((s for (mine, _), s in self._answered.items() if mine == cookies[0]), None)


def ends_on_hint(self: Any, failure: Any, detail: str) -> None:
    """InitiatorOpening._hinted that believes it."""
    self._owner.opening_failed(0.0, failure, detail)


def tunnel_of_anybody(self: Any, session: Any, spi: bytes) -> Any:
    """Directory.tunnel_by_outbound that does not ask whose it is."""
    return next((t for t in self.tunnels.values() if t.outbound_spi == spi), None)


def sign_by_hand(self: Any, digest: bytes) -> bytes:
    """Signer.sign as textbook RSA, with the operation that decrypts as well."""
    numbers = self._private_key.private_numbers()
    n = numbers.public_numbers.n
    octets = (n.bit_length() + 7) // 8
    block = b"\x00\x01" + b"\xff" * (octets - 3 - len(digest)) + b"\x00" + digest
    return pow(int.from_bytes(block, "big"), numbers.d, n).to_bytes(octets, "big")


def without_the_offer(signed_hash: Any) -> Any:
    """ChannelKeys.signed_hash that leaves out what was offered."""

    def lenient(
        self: Any, first: bytes, second: bytes, initiators: bool, offer: bytes, who: bytes
    ) -> Any:
        return signed_hash(self, first, second, initiators, b"", who)

    return lenient


def first_of_all(self: Any, payload: Any) -> Any:
    """Chain.one that takes it for granted that there is one."""
    return self.all(payload)[0]
