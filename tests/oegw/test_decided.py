"""Decisions in the trace: each once when it begins, once more when it is renewed, and its end."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import ike.events as keying
from dnsrecords.outcome import NothingFound
from oegw import commands as do
from oegw import events as happened
from policy.flow import Flow
from policy.rule import Category, OnFailure
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    Playbook,
    deny,
    esp_sa,
    found,
    inbound_key,
    opportunistic,
    outbound_key,
    permit,
    ping,
    rsa_key,
)

PAIR = {"source": ip_network(ALICE), "destination": ip_network(BOB)}


def verdicts(book: Playbook) -> list[tuple[str, dict[str, Any]]]:
    """The decisions since the last call."""
    said = [(event, fields) for kind, event, fields in book.trace.lines if kind == "verdict"]
    book.trace.lines.clear()
    return said


def tunnel_up(book: Playbook, tunnel: int, spi: int) -> None:
    book.send(keying.InboundSaEstablished(tunnel, esp_sa(SG_B, SG_A, spi, (BOB, ALICE))))
    book.send(happened.SaInstalled(tunnel, inbound_key(spi)))
    book.send(keying.OutboundSaEstablished(tunnel, esp_sa(SG_A, SG_B, spi + 1, (ALICE, BOB))))
    book.send(happened.SaInstalled(tunnel, outbound_key(spi + 1)))


def test_a_tunnel_is_one_decision_with_gateway_key_and_spis() -> None:
    book = Playbook()
    book.gateway.memory.key_shown(SG_B, rsa_key("sg-b"))
    book.send(ping(1))
    book.send(ping(2))
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    tunnel_up(book, 0, 0x1001)
    [(decision, fields)] = verdicts(book)
    assert decision == "encrypt"
    assert fields["key"] == book.gateway.memory.key_of(SG_B)
    assert len(fields["key"]) == 64
    for name, value in {
        **PAIR, "gateway": SG_B, "peer": str(SG_B), "trust": "insecure", "renewed": False,
        "rule": "default", "rule_category": "opportunistic", "tunnel": 0, "initiator": True,
        "spi_in": "00001001", "spi_out": "00001002",
    }.items():  # fmt: skip
        assert fields[name] == value, name
    book.now += 30
    book.gateway.close(ip_network(BOB), book.now)
    [(decision, fields)] = verdicts(book)
    assert decision == "ended"
    assert fields["decision"] == "encrypt"
    assert fields["seconds"] == 30
    assert fields["reason"] == "closed by the operator"


def test_a_successor_of_a_tunnel_renews_the_decision() -> None:
    book = Playbook()
    book.send(ping(1))
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    tunnel_up(book, 0, 0x1001)
    verdicts(book)
    [order] = book.renew(0)
    assert isinstance(order, do.StartNegotiation)
    tunnel_up(book, order.tunnel, 0x3001)
    [(decision, fields)] = verdicts(book)
    assert (decision, fields["renewed"], fields["spi_in"]) == ("encrypt", True, "00003001")


def test_clear_is_told_with_reason_and_lifespan_renewed_and_ended_by_a_tunnel() -> None:
    book = Playbook()
    book.send(ping(1))
    book.send(happened.LookupEnded(1, NothingFound(60, "no record")))
    [(decision, fields)] = verdicts(book)
    assert decision == "clear"
    assert (fields["reason"], fields["lifespan"], fields["renewed"]) == ("no record", 60, False)
    book.wait(60)
    assert verdicts(book) == []  # it goes on as it was, while its use is found out
    book.send(ping(2))
    book.send(happened.LookupEnded(2, NothingFound(60, "no record")))
    assert [(d, f["renewed"]) for d, f in verdicts(book)] == [("clear", True)]
    book.wait(60)
    book.send(ping(3))
    book.send(happened.LookupEnded(3, found((SG_B, "sg-b"))))
    tunnel_up(book, 0, 0x1001)
    ended, encrypted = verdicts(book)
    assert (ended[0], ended[1]["decision"], ended[1]["seconds"]) == ("ended", "clear", 120)
    assert (encrypted[0], encrypted[1]["renewed"]) == ("encrypt", False)


def test_what_must_not_be_clear_is_denied_and_the_end_is_told_without_use() -> None:
    book = Playbook(opportunistic("lawyers", "192.2.0.0/24", OnFailure.DROP))
    book.send(ping(1))
    book.send(happened.LookupEnded(1, NothingFound(60, "no record")))
    assert [(d, f["rule"]) for d, f in verdicts(book)] == [("deny", "lawyers")]
    book.wait(60)
    book.wait(121)
    assert [(d, f["decision"]) for d, f in verdicts(book)] == [("ended", "deny")]


def test_rules_that_decide_by_themselves_are_told_for_what_they_hold() -> None:
    book = Playbook(deny("never", "192.2.0.0/24"), permit("web", "192.3.0.0/24", protocol=6))
    book.send(ping(1))
    flow = Flow(ALICE, BOB.__class__("192.3.0.68"), 6, 40000, 443)
    book.send(happened.PacketTrapped(flow, 2, 60))
    denied, clear = verdicts(book)
    assert denied[0] == "deny"
    assert denied[1]["rule_category"] == Category.DENY.value
    assert denied[1]["lifespan"] == 300
    assert denied[1]["destination"].supernet_of(ip_network(BOB))
    assert (clear[0], clear[1]["rule"], clear[1]["protocol"]) == ("clear", "web", 6)
