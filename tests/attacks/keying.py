"""Attacks on the keying core: rows 1 to 5, 7 to 9, 11 to 14, 21 and 23."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_network

from ike import endpoint, events
from ike.events import KeyingChannelEstablished, TunnelClosed, TunnelProposed
from ike.signer import Signer
from ike.v1 import opening
from ike.v1.keymat import ChannelKeys
from tests.attacks import lenient
from tests.attacks.frame import attack, replaced, survived
from tests.ike import test_attacks as shown
from tests.ike.v1 import test_adversity, test_fragments
from tests.support import ike_stranger as x
from tests.support.ike_pair import Pair, private_key
from tests.support.ike_stranger import Stranger

_UNPROTECTED = replaced(
    ("ike.v1.session.Session._expect_protected", lenient.expect_nothing),
    ("ike.v1.session.verified_informational", lenient.heed_without_hash),
)


@attack(
    1,
    "Datagrams of 0 to 27 octets, and lengths that lie",
    source="CVE-2013-4564, CVE-2020-1763, CVE-2022-23094; PROTOS c09-isakmp",
    defence="ike/wire.py Reader.octets",
    otherwise="a payload that claims more octets than came is read as if they had, and answered",
    without=replaced(("ike.wire.Reader.octets", lenient.take_all_octets)),
)
def short_and_lying_datagrams() -> None:
    shown.test_01_short_and_lying_datagrams()


@attack(
    1,
    "Garbled headers and payloads of every kind: a fault of the input must not leave the core",
    source="CVE-2013-4564, CVE-2020-1763 (a log line about a state that there is not)",
    defence="ike/endpoint.py Endpoint._count_drops",
    otherwise="the first wrong datagram raises out of the core, and the daemon ends",
    without=replaced(("ike.endpoint.Endpoint._count_drops", lenient.raise_through)),
)
def garbled_datagrams_raise_nothing() -> None:
    side = shown.responder()
    stranger = Stranger(side)
    dice = random.Random(3)
    whole = x.clear((b"12345678", bytes(8)), x.MAIN, 0, (x.SA, x.offer()))
    with survived():
        for _ in range(500):
            data = bytearray(whole)
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            stranger.send(bytes(data[: dice.randrange(len(data) + 1)]))
    assert len(side.triggers) > 100
    assert stranger.send_1(), "the endpoint does not answer any more"


@attack(
    1,
    "4000 garbled messages 1: memory stays flat, no answer is larger than its question",
    source="PROTOS c09-isakmp",
    defence="ike/half_open.py HalfOpenTable.admits",
    otherwise="every message that can still be read leaves an exchange of some kilobytes behind",
    without=replaced(("ike.half_open.HalfOpenTable.admits", lambda self, address: True)),
)
def garbled_datagrams_leave_nothing() -> None:
    shown.test_01_memory_stays_flat_and_nothing_is_amplified()


@attack(
    2,
    "R-U-THERE and its answer without a channel, clear and encrypted",
    source="CVE-2009-0790",
    defence="ike/endpoint.py Endpoint._find",
    otherwise="a message for a channel that there is not reaches the exchanges",
    without=replaced(
        ("ike.endpoint.Endpoint._find", lenient.find_anything(endpoint.Endpoint._find))
    ),
)
def dead_peer_detection_without_a_channel() -> None:
    for encrypted in (False, True):
        for notify in (36136, 36137):
            shown.test_02_dpd_without_state(encrypted, notify)


@attack(
    2,
    "R-U-THERE in the clear for a channel that is up",
    source="RFC 3706 section 5.2",
    defence=("ike/v1/session.py Session._expect_protected", "ike/v1/protection.py verified_chain"),
    otherwise="anybody who has seen the cookies makes us answer, and keeps a dead peer alive",
    without=_UNPROTECTED,
)
def dead_peer_detection_in_the_clear() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    cookies = (pair.sent[1].data[:8], pair.sent[1].data[8:16])
    body = struct.pack("!IBBH", 1, 1, 16, 36136) + b"".join(cookies) + bytes(4)
    sent = len(pair.sent)
    message = x.clear(cookies, x.INFO, 99, (x.N, body))
    pair.b.endpoint.receive_datagram(pair.now, message, pair.b.address, pair.a.address)
    pair.pump()
    assert len(pair.sent) == sent, "answered"
    assert pair.b.triggers == ["clear_message"]


@attack(
    3,
    "Each payload type from 0 to 255 in message 1, last and first",
    source="CVE-2015-3991, CVE-2015-3204",
    defence="ike/v1/message.py Chain.cut",
    otherwise="messages with payloads that nobody has defined are taken",
    without=replaced(("ike.v1.message._KNOWN", lenient.EVERY_PAYLOAD)),
)
def every_payload_type() -> None:
    shown.test_03_every_payload_type_in_message_1("last")
    shown.test_03_every_payload_type_in_message_1("first")


@attack(
    3,
    "Each message without one of its payloads",
    source="CVE-2015-3204",
    defence="ike/v1/message.py Chain.one",
    otherwise="what is not there is used, and the daemon ends",
    without=replaced(("ike.v1.message.Chain.one", lenient.first_of_all)),
)
def missing_payloads() -> None:
    side = shown.responder()
    stranger = Stranger(side)
    with survived():
        stranger.send_1()
        for payload in ((x.KE, stranger.pair.public), (x.NONCE, stranger.nonce)):
            assert not stranger.send(x.clear(stranger.cookies, x.MAIN, 0, payload))
        stranger.send_3()
        identification = stranger.identification()
        for payload in ((x.ID, identification), (x.SIG, stranger.sign(identification))):
            assert not stranger.send_5(payload)
        assert stranger.send_5()
        for missing in ("sa", "nonce", "ke", "id_i", "id_r"):
            shown.test_13_missing_payloads(missing)


@attack(
    3,
    "Other domains of interpretation and situations",
    source="CVE-2013-6467",
    defence="ike/v1/payloads.py SecurityAssociation.parse",
    otherwise="an offer in another language is read as if it were ours",
    without=replaced(
        ("ike.v1.payloads.DOI_IPSEC", lenient.AnyNumber(1)),
        ("ike.v1.payloads.SITUATION_IDENTITY_ONLY", lenient.AnyNumber(1)),
    ),
)
def foreign_domains_of_interpretation() -> None:
    for doi in (0, 2, 0xFFFFFFFF):
        shown.test_03_other_domains_of_interpretation(doi)


_NO_CHECK = replaced(
    ("ike.groups.ModpGroup.check", lambda self, public: int.from_bytes(public, "big")),
    ("ike.groups._library", None),
)


@attack(
    4,
    "Public values 0, 1, p-1, p, p+1, too short, too long in message 3",
    source="CVE-2015-3240, CVE-2023-41913",
    defence="ike/groups.py ModpGroup.check",
    otherwise="everybody knows the secret (the library looks too; taken out with it)",
    without=_NO_CHECK,
)
def degenerate_values_in_main_mode() -> None:
    for name in shown.DEGENERATE:
        shown.test_04_degenerate_values_in_main_mode(name)


@attack(
    4,
    "The same in quick mode",
    source="CVE-2015-3240",
    defence="ike/groups.py ModpGroup.check",
    otherwise="perfect forward secrecy is none",
    without=_NO_CHECK,
)
def degenerate_values_in_quick_mode() -> None:
    for name in ("one", "p-1", "zero"):
        shown.test_04_degenerate_values_in_quick_mode(name)


@attack(
    4,
    "Groups 0, 1, 1025, 65535",
    source="CVE-2014-9221",
    defence="ike/v1/proposals.py choose_channel",
    otherwise="a group that is not ours is agreed to",
    without=replaced(("ike.v1.main_mode.choose_channel", lenient.any_channel)),
)
def unknown_groups() -> None:
    for group in (0, 1, 1025, 65535):
        shown.test_04_unknown_groups(group)


@attack(
    5,
    "16 kinds of wrong signatures: short hash, garbage behind it, DigestInfo, PSS, other padding",
    source="CVE-2018-15836, CVE-2018-16151, CVE-2026-50721",
    defence="ike/signer.py verifying_key",
    otherwise="a block with the hash somewhere in it passes for a signature",
    without=replaced(("ike.v1.main_mode.verifying_key", lenient.digest_anywhere)),
)
def forged_signatures() -> None:
    shown.test_05_forged_signatures()


@attack(
    5,
    "A cube root for a key with exponent 3",
    source="CVE-2018-16152; Bleichenbacher 2006",
    defence="ike/signer.py verifying_key",
    otherwise="whoever knows a public key with exponent 3 signs in its owner's name",
    without=replaced(("ike.signer.verifying_key", lenient.digest_anywhere)),
)
def cube_root_forgery() -> None:
    shown.test_05_cube_root_forgery()


@attack(
    7,
    "Authentication by RSA encryption, by pre-shared key, by other methods",
    source="CVE-2018-0131, CVE-2017-17305, CVE-2018-8753, CVE-2018-9129",
    defence="ike/v1/proposals.py choose_channel",
    otherwise="a method is agreed to in which the private key decrypts: an oracle",
    without=replaced(("ike.v1.main_mode.choose_channel", lenient.any_channel)),
)
def other_authentication_methods() -> None:
    for method in (1, 2, 4, 5, 64221, 65001):
        shown.test_07_other_authentication_methods(method)


@attack(
    7,
    "Ciphertexts in the place of signatures: the private key must only ever sign",
    source="Dangers of Key Reuse, USENIX Security 2018",
    defence="ike/signer.py Signer",
    otherwise="a peer that sees whether its ciphertext decrypted finds out what is in it",
    without=replaced(("ike.signer.Signer.sign", lenient.sign_by_hand)),
)
def private_key_only_signs() -> None:
    shown.test_07_the_private_key_only_signs()
    spied = [name for name in ("decrypt", "unwrap", "private_numbers") if name in _calls()]
    assert not spied


def _calls() -> set[str]:
    """The names of methods that the keying core calls on keys in a whole main and quick mode."""
    calls: set[str] = set()
    key = private_key("b")

    class Spy:
        def __getattr__(self, name: str) -> object:
            calls.add(name)
            return getattr(key, name)

    side = shown.responder(private_key=Signer(Spy()))
    stranger = Stranger(side)
    stranger.send_1()
    stranger.send_3()
    stranger.send_5((x.ID, stranger.identification()), (x.SIG, bytes(range(256))))
    stranger.send_5()
    assert side.seen(KeyingChannelEstablished)
    assert calls, "the spy saw nothing"
    return calls


@attack(
    8,
    "Aggressive mode, and every other exchange that is not ours",
    source="CVE-2023-30570; PSK offline attack",
    defence="ike/endpoint.py Endpoint._receive_message",
    otherwise="a stranger's message of another exchange makes a state",
    without=replaced(
        (
            "ike.endpoint.Endpoint._receive_message",
            lenient.every_exchange(endpoint.Endpoint._receive_message),
        )
    ),
)
def aggressive_mode() -> None:
    for exchange in (4, 0, 1, 3, 6, 31, 33, 34, 240, 255):
        shown.test_08_other_exchanges(exchange)


@attack(
    8,
    "Our own message 1 comes back to us",
    source="strongSwan's developer list, June 2016 (reflection)",
    defence="ike/endpoint.py Endpoint._find",
    otherwise="we negotiate with ourselves",
    without=replaced(
        ("ike.endpoint.Endpoint._find", lenient.find_anything(endpoint.Endpoint._find))
    ),
)
def reflection() -> None:
    shown.test_08_reflection()


@attack(
    9,
    "One message 1 with a forged source, then a minute of silence",
    source="VU#419128, CVE-2016-5361",
    defence="ike/v1/opening.py ResponderOpening.start",
    otherwise="message 2 is repeated to somebody who never asked",
    without=replaced(
        (
            "ike.v1.opening.ResponderOpening.start",
            lenient.repeats_message_2(opening.ResponderOpening.start),
        )
    ),
)
def amplification_by_retransmission() -> None:
    shown.test_09_no_more_goes_out_than_came_in()


@attack(
    9,
    "The same message 1 twenty times",
    source="VU#419128",
    defence="ike/retransmit.py AnsweredMessages.again",
    otherwise="each copy is answered",
    without=replaced(("ike.retransmit.DUPLICATES_ANSWERED", 1000)),
)
def duplicates_of_message_1() -> None:
    shown.test_09_duplicates_are_answered_a_few_times_only()


@attack(
    11,
    "Delete, INITIAL-CONTACT and errors in the clear for a tunnel that is up",
    source="CVE-2004-0164, CVE-2019-10155",
    defence=("ike/v1/session.py Session._expect_protected", "ike/v1/protection.py verified_chain"),
    otherwise="whoever has seen the cookies ends the tunnel",
    without=_UNPROTECTED,
)
def unprotected_informational() -> None:
    for how in ("clear", "bad hash", "no hash"):
        for which in range(4):
            shown.test_11_unprotected_informational(which, how)


@attack(
    11,
    "Delete under a wrong HASH, and under another message ID",
    source="CVE-2019-10155",
    defence="ike/v1/protection.py verified_chain",
    otherwise="the encryption alone, which is no authentication, decides",
    without=replaced(("ike.v1.protection.hmac", lenient.ALWAYS_EQUAL)),
)
def delete_under_a_wrong_hash() -> None:
    shown.test_11_a_delete_under_a_wrong_hash_or_another_message_id()


@attack(
    11,
    "Refusals in the clear during main mode",
    source="RFC 4322 section 9.2",
    defence="ike/v1/opening.py InitiatorOpening._hinted",
    otherwise="one forged datagram ends every negotiation",
    without=replaced(("ike.v1.opening.InitiatorOpening._hinted", lenient.ends_on_hint)),
)
def refusals_in_the_clear() -> None:
    for notify in (14, 18, 23, 24):
        pair = Pair()
        pair.initiate()
        cookies = (pair.wire[0].data[:8], b"whatever")
        body = struct.pack("!IBBH", 1, 1, 0, notify)
        message = x.clear(cookies, x.INFO, 9, (x.N, body))
        pair.a.endpoint.receive_datagram(pair.now, message, pair.a.address, pair.b.address)
        pair.run()
        assert pair.tunnel_up(), notify


_NO_REPLAY_CHECK = replaced(
    ("ike.v1.session.Session._refuse_replay", lambda self, header, message: None)
)


@attack(
    12,
    "Every recorded message again: while the tunnel is up, and after its end",
    source="draft-spencer-ipsec-ike-implementation-02 section 3.3; ikev1-impair-01, -02",
    defence="ike/v1/session.py Session._refuse_replay",
    otherwise="message 1 of quick mode makes another tunnel out of old octets",
    without=_NO_REPLAY_CHECK,
)
def recorded_messages_again() -> None:
    test_adversity.test_every_earlier_message_replayed_in_each_state(test_adversity.MESSAGES)
    pair = Pair()
    pair.initiate()
    pair.run()
    recorded = list(pair.sent)
    pair.a.endpoint.close_tunnel(pair.now, 0)
    pair.pump()
    pair.run()
    for datagram in recorded:
        pair.deliver(datagram)
    pair.run()
    pair.wait(30)
    assert len(pair.b.seen(TunnelProposed)) == 1
    assert not pair.a.pairs()
    assert not pair.b.pairs()


@attack(
    12,
    "A recorded Delete twenty times",
    source="draft-spencer-ipsec-ike-implementation-02 section 3.3",
    defence="ike/v1/session.py Session._refuse_replay",
    otherwise="it is heeded, and answered, each time",
    without=_NO_REPLAY_CHECK,
)
def recorded_delete_again() -> None:
    shown.test_12_a_replayed_delete_is_answered_once()


@attack(
    13,
    "Identities of types that are no address, from a stranger who is authenticated",
    source="CVE-2023-38711",
    defence="ike/identity.py Identification.selector",
    otherwise="a name is taken for a subnet",
    without=replaced(
        (
            "ike.identity.Identification.selector",
            lambda self: events.TrafficSelector(ip_network("0.0.0.0/0")),
        )
    ),
)
def identities_in_quick_mode() -> None:
    for kind in (0, 2, 3, 7, 9, 99, 255):
        shown.test_13_identity_types(kind)


@attack(
    13,
    "AES-GCM with key lengths of 0, of none, of 192; other transforms that nobody should take",
    source="CVE-2024-3652",
    defence="ike/v1/proposals.py choose_tunnel",
    otherwise="a transform is taken for what it is not",
    without=replaced(("ike.v1.quick_mode.choose_tunnel", lenient.any_tunnel)),
)
def transforms_without_a_key_length() -> None:
    cases = [
        (20, x.ESP_GCM.replace(x.tv(6, 128), x.tv(6, 0))),
        (20, x.ESP_GCM.replace(x.tv(6, 128), b"")),
        (20, x.ESP_GCM.replace(x.tv(6, 128), x.tv(6, 192))),
        (11, x.ESP_GCM.replace(x.tv(6, 128), b"") + x.tv(5, 5)),
        (0, b""),
    ]
    for kind, attributes in cases:
        shown.test_13_transforms_that_nobody_should_take(kind, attributes)


@attack(
    13,
    "A stranger who is authenticated deletes somebody else's tunnel; two Deletes in one message",
    source="CVE-2023-38712",
    defence="ike/v1/directory.py Directory.tunnel_by_outbound",
    otherwise="any peer ends the tunnels of all others",
    without=replaced(
        ("ike.v1.directory.Directory.tunnel_by_outbound", lenient.tunnel_of_anybody),
        ("ike.v1.tunnel.Tunnel.belongs_to", lambda self, session: True),
    ),
)
def deletes_of_a_stranger() -> None:
    shown.test_13_two_deletes_in_one_message()
    shown.test_13_a_peer_deletes_only_its_own_tunnels()


@attack(
    14,
    "Fragments of many messages, of many sources, with gaps and contradictions",
    source="CVE-2013-6076, CVE-2016-10396, CVE-2026-12413",
    defence="ike/v1/fragments.py Fragments._begin",
    otherwise="pieces pile up until memory is full",
    without=replaced(
        ("ike.v1.fragments.REASSEMBLIES_PER_SOURCE", 1 << 30),
        ("ike.v1.fragments.REASSEMBLIES_MOST", 1 << 30),
    ),
)
def fragments_without_end() -> None:
    test_fragments.test_memory_is_bounded()
    test_fragments.test_the_oldest_makes_room_when_there_are_too_many_in_all()


@attack(
    21,
    "The identity of a peer that is up, with another key",
    source="CVE-2014-2338; newoe-27-replace-sa-auth-authnull",
    defence="ike/v1/main_mode.py Authenticated.peer",
    otherwise="whoever says the name takes the tunnels over",
    without=replaced(
        ("ike.v1.main_mode.Authenticated.peer", property(lambda self: (self.identity, 0, 0)))
    ),
)
def another_key_replaces_nothing() -> None:
    pair = Pair()
    pair.initiate()
    pair.run()
    other = Pair(seed=9, a={"private_key": private_key("mallory")})
    other.now = pair.now + 10  # long after: nobody takes it for one that was begun at once
    other.b.endpoint = pair.b.endpoint
    other.b.events = pair.b.events
    other.keys_of_peer[id(other.b)] = (private_key("mallory"),)
    other.initiate()
    other.run()
    other.wait(60)
    assert len(pair.b.pairs()) == 2
    assert not pair.b.seen(TunnelClosed)


@attack(
    23,
    "Two of ours that know old and new algorithms",
    source="Logjam (group 2), Sweet32 (3DES), SLOTH (MD5)",
    defence="ike/v1/proposals.py choose_channel",
    otherwise="they end on 3DES, MD5 and group 2",
    without=replaced(
        (
            "ike.v1.proposals.channel_tiers",
            lenient.weakest_first(lenient.channel_tiers),
        )
    ),
)
def weak_algorithms_by_preference() -> None:
    for profiles in (("modern", "draft"), ("modern",)):
        shown.test_23_two_of_ours_never_end_on_the_draft_list(profiles)


@attack(
    23,
    "Somebody on the way takes the new algorithms out of message 1",
    source="Logjam",
    defence="ike/v1/keymat.py ChannelKeys.signed_hash",
    otherwise="both sides agree on the weakest that they know",
    without=replaced(
        (
            "ike.v1.keymat.ChannelKeys.signed_hash",
            lenient.without_the_offer(ChannelKeys.signed_hash),
        )
    ),
)
def downgrade_on_the_way() -> None:
    shown.test_23_a_downgrade_on_the_way_is_noticed()


@attack(
    23,
    "3DES for a gigabyte and more",
    source="Sweet32",
    defence="ike/v1/suites.py TunnelSuite.byte_limit",
    otherwise="one key encrypts until blocks collide",
    without=replaced(("ike.v1.suites.TunnelSuite.byte_limit", None)),
)
def triple_des_without_end() -> None:
    pair = Pair(a={"profiles": ("draft",)}, b={"profiles": ("draft",)})
    pair.initiate()
    pair.run()
    for side in pair.sides:
        for two in side.pairs().values():
            for sa in two:
                assert sa.cipher == "3des-cbc"
                assert sa.lifetime_bytes is not None
                assert sa.lifetime_bytes // 8 <= 1 << 28, "blocks under one key"
