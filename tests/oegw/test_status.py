"""The status as text: aligned, within its columns, and harmless to terminals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oegw.console import _datapath
from oegw.datapath.interface import Capability, WorkerReport
from oegw.status import WIDTH, octets, plain, render, span, traffic

Row = dict[str, Any]

KEYED: Row = {
    "source": "192.1.0.65/32",
    "destination": "192.2.0.66/32",
    "protocol": None,
    "port": None,
    "state": "keyed",
    "rule": "default",
    "category": "opportunistic",
    "gateway": "192.1.1.5",
    "trust": "insecure",
    "since": 59.2,
    "lifespan_left": 1140.0,
    "packets_in": 12,
    "bytes_in": 123456,
    "packets_out": 13,
    "bytes_out": 9999,
    "spi_in": "deadbeef",
    "spi_out": "12345678",
    "cipher": "aes-gcm-16",
    "reason": "",
}
CLEAR: Row = KEYED | {
    "destination": "192.200.200.0/24",
    "protocol": 6,
    "port": 80,
    "state": "clear",
    "gateway": None,
    "trust": None,
    "spi_in": None,
    "spi_out": None,
    "cipher": None,
    "lifespan_left": None,
    "bytes_in": 0,
    "bytes_out": 0,
    "reason": "no TXT record at 0.200.200.192.in-addr.arpa",
}
STATUS: Row = {
    "pid": 4711,
    "version": "0.1.0",
    "started": 1_700_000_000.0,
    "identity": None,
    "addresses": ["192.1.1.4", "2001:db8:1:1::4"],
    "outside": ["eth1"],
    "datapath": {"name": "userspace", "reason": "the kernel has no XFRM"},
    "interception": {"queue": "nft queue"},
    "connections": [KEYED, CLEAR],
    "channels": [
        {
            "local": "192.1.1.4",
            "remote": "192.1.1.5",
            "identity": "sg-b.example",
            "initiator": True,
            "proposal": "modern: aes-cbc-256 hmac-sha2-256 modp-3072",
            "age": 61,
        }
    ],
    "held": {"packets": 2, "bytes": 1500},
    "lookups": 3,
    "counters": {"ike.drop.no_such_channel": 5, "tunnel.keyed": 1},
}


def test_a_status_in_full() -> None:
    text = render(STATUS)
    lines = text.splitlines()
    assert lines[0].startswith("oegw 0.1.0, process 4711, up since 2023-11-1")
    assert lines[1:7] == [
        "Identity      the address in use",
        "Addresses     192.1.1.4, 2001:db8:1:1::4",
        "Outside       eth1",
        "Datapath      userspace (the kernel has no XFRM)",
        "Interception  nft queue",
        "Under way     3 look-ups; 2 packets held (1.5k)",
    ]
    assert lines[8:14] == [
        "Connections: 2",
        "STATE  SOURCE      DESTINATION       FOR     GATEWAY    AGE  LEFT    IN    OUT",
        "keyed  192.1.0.65  192.2.0.66        any     192.1.1.5  59s   19m  123k  10.0k",
        "    rule default (opportunistic), DNS insecure, aes-gcm-16, SPI in deadbeef out 12345678",
        "clear  192.1.0.65  192.200.200.0/24  tcp/80  -          59s     -     0      0",
        "    rule default (opportunistic), no TXT record at 0.200.200.192.in-addr.arpa",
    ]
    assert lines[15:19] == [
        "Keying channels: 1",
        "REMOTE     LOCAL      IDENTITY      ROLE       AGE",
        "192.1.1.5  192.1.1.4  sg-b.example  initiator  61s",
        "    modern: aes-cbc-256 hmac-sha2-256 modp-3072",
    ]
    assert lines[20:] == [
        "Counters",
        "  ike.drop.no_such_channel           5",
        "  tunnel.keyed                       1",
    ]
    assert text.endswith("\n")
    assert all(len(line) <= WIDTH and line == line.rstrip() for line in lines)


def test_the_datapath_in_user_space_says_what_it_does_and_why() -> None:
    worker = {
        "name": "sealing 0", "pid": 4712, "restarts": 0, "core": "compiled",
        "core_reason": "it is there",
    }  # fmt: skip
    crashed = worker | {
        "name": "opening 0", "pid": None, "restarts": 3, "core": "python",
        "core_reason": "it crashed",
    }  # fmt: skip
    datapath = {
        "name": "userspace", "reason": "no ESP", "core": "compiled", "core_reason": "it is there",
        "libraries": [
            {"work": "AES-GCM", "by": "ipsec-mb 1.3.0", "reason": ""},
            {"work": "checksums", "by": "Python", "reason": "no GMP"},
        ],
        "offloads": [
            {"name": "TSO", "used": True, "reason": ""},
            {"name": "USO", "used": False, "reason": "the kernel is\x1b[2J too old"},
        ],
        "workers_per_direction": 1, "workers": [worker, crashed],
    }  # fmt: skip
    lines = render(STATUS | {"datapath": datapath}).splitlines()
    assert lines[4:12] == [
        "Datapath      userspace (no ESP)",
        "Core          compiled (it is there)",
        "Library       AES-GCM by ipsec-mb 1.3.0",
        "Library       checksums by Python (no GMP)",
        "Workers       1 each way: sealing 0 process 4712; opening 0 is being started, restarted 3"
        " times,",
        "              python (it crashed)",
        "Offload       TSO on",
        "Offload       USO off (the kernel is?[2J too old)",
    ]


def test_the_core_is_that_which_runs_now() -> None:
    capability = Capability(
        "userspace", "no ESP", (), True, core="compiled", core_reason="it is there", workers=1
    )
    before = WorkerReport("sealing 0", 4712, 0, "compiled", "it is there")
    after = replace(before, core="python", core_reason="it crashed")
    for workers, core in (
        ((before,), "compiled"),
        ((after,), "python"),
        ((after, before), "compiled"),
    ):
        assert _datapath(capability, workers)["core"] == core
    assert _datapath(capability, (after,))["core_reason"] == "it crashed"


def test_libraries_are_those_of_the_workers_that_run_now() -> None:
    at_first, now = ("AES-GCM", "ipsec-mb", ""), ("AES-GCM", "OpenSSL", "it was removed")
    capability = Capability(
        "userspace", "no ESP", (), True, core="compiled", libraries=(at_first,), workers=1
    )
    starting = WorkerReport("sealing 0", None, 1, "compiled", "it is there")
    one = replace(starting, libraries=(at_first,))
    other = replace(one, libraries=(now,))
    for workers, shown in (
        ((starting,), at_first),
        ((starting, other), now),
        ((other, other), now),
        ((one, other), at_first),
    ):
        told = _datapath(capability, workers)["libraries"]
        assert told == [dict(zip(("work", "by", "reason"), shown, strict=True))]


def test_an_offload_that_one_worker_lost_is_off() -> None:
    offloads = (("sending", True, ""), ("receiving", True, ""), ("steering", False, "too old"))
    capability = Capability(
        "userspace", "no ESP", (), True, core="python", offloads=offloads, workers=2
    )
    has_all = WorkerReport("sealing 0", 4712, 0, "python", "")
    has_lost = replace(has_all, name="sealing 1", without=(("sending", "refused"),))
    told = _datapath(capability, (has_all, has_lost))["offloads"]
    assert told == [
        {"name": "sending", "used": False, "reason": "sealing 1: refused"},
        {"name": "receiving", "used": True, "reason": ""},
        {"name": "steering", "used": False, "reason": "too old"},
    ]
    assert _datapath(capability, (has_all,))["offloads"][0]["used"]


@pytest.mark.parametrize(("restarts", "words"), [(1, "once"), (2, "2 times")])
def test_how_often_a_worker_was_started_again(restarts: int, words: str) -> None:
    worker = {"name": "opening 0", "pid": 7, "restarts": restarts, "core": "python"}
    datapath = {"name": "userspace", "core": "python", "workers": [worker]}
    assert f"process 7, restarted {words}\n" in render(STATUS | {"datapath": datapath})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"encapsulation": "udp", "encapsulation_reason": "it is faster here"},
         "aes-gcm-16 in UDP (it is faster here), SPI"),
        ({"encapsulation": "esp", "encapsulation_reason": "there is no NAT"},
         "aes-gcm-16 without UDP (there is no NAT), SPI"),
        ({"encapsulation": "esp", "encapsulation_reason": None}, "aes-gcm-16 without UDP, SPI"),
    ],
)  # fmt: skip
def test_how_esp_goes_and_why(row: Row, words: str) -> None:
    assert words in " ".join(render(STATUS | {"connections": [KEYED | row]}).split())


def test_a_downgrade_and_silent_gateways_are_shown() -> None:
    clear = CLEAR | {"encrypted_before": "192.1.1.5\x1b[2J"}
    text = render(STATUS | {"connections": [clear], "silent_gateways": {"192.1.1.6": 42.0}})
    assert "Silent        tried last: 192.1.1.6 for 42s" in text.splitlines()
    assert "LAST TIME IT WAS ENCRYPTED, by 192.1.1.5?[2J" in " ".join(text.split())
    assert "Silent" not in render(STATUS)


def test_how_the_resolvers_do() -> None:
    row = {
        "address": "192.1.1.53", "trusted": True, "why": "named in dns.trusted",
        "standing": "good", "last_answer": 2.04, "timeouts": 0, "smoothed": 0.0123,
        "queries": 7, "answers": 7, "refused": 0,
    }  # fmt: skip
    dead = row | {
        "address": "192.1.1.54", "trusted": False, "why": "not on this box", "standing": "dead",
        "last_answer": None, "timeouts": 9, "smoothed": None, "answers": 0, "refused": 3,
    }  # fmt: skip
    words = " ".join(render({**STATUS, "resolvers": [row, dead]}).split())
    assert (
        "Resolver 192.1.1.53: trusted (named in dns.trusted); good, answers in 12 ms; "
        "last answer 2.0s ago" in words
    )
    assert (
        "Resolver 192.1.1.54: not trusted (not on this box); dead; no answer yet; "
        "9 time-outs in a row; 3 responses that were not to our queries, or unreadable" in words
    )


def test_long_addresses_get_lines_of_their_own() -> None:
    pair = {
        "source": "2001:db8:1111:1111:1111:1111:1111:1111/128",
        "destination": "2001:db8:2222:2222:2222:2222:2222:2222/128",
        "gateway": "2001:db8:3333:3333:3333:3333:3333:3333",
        "reason": "word " * 40,
    }
    lines = render(STATUS | {"connections": [KEYED | pair, KEYED]}).splitlines()
    expected = (
        "    2001:db8:1111:1111:1111:1111:1111:1111 -> 2001:db8:2222:2222:2222:2222:2222:2222"
    )
    assert expected in lines
    assert all(len(line) <= WIDTH for line in lines)


def test_a_gateway_that_has_only_just_started() -> None:
    text = render({"connections": [], "channels": [], "datapath": None})
    assert "No connections." in text
    assert "No keying channels." in text
    assert "Counters" not in text


def test_verdict_that_expires_says_how_packets_go_meanwhile() -> None:
    text = render(STATUS | {"connections": [CLEAR | {"state": "expiring", "standing": "clear"}]})
    assert "expiring" in text
    assert "still clear" in text
    text = render(STATUS | {"connections": [CLEAR | {"standing": "clear"}]})
    assert "still" not in text


def test_channel_that_is_not_up_yet() -> None:
    channel = STATUS["channels"][0] | {"identity": None, "proposal": ""}
    lines = render(STATUS | {"channels": [channel]}).splitlines()
    assert "    being negotiated" in lines
    assert not any("None" in line for line in lines)


def test_the_gateway_of_a_tunnel_is_told_once() -> None:
    row = KEYED | {"reason": KEYED["gateway"]}
    text = render(STATUS | {"connections": [row], "channels": []})
    assert text.count(KEYED["gateway"]) == 1


def test_strangers_can_not_steer_the_terminal() -> None:
    evil = "\x1b[2J\x07\u202e\n"
    row = KEYED | {"reason": evil, "rule": evil, "gateway": evil}
    channel = STATUS["channels"][0] | {"identity": evil, "proposal": evil}
    text = render(STATUS | {"connections": [row], "channels": [channel], "counters": {evil: 1}})
    assert all(line.isprintable() for line in text.splitlines())
    assert plain(evil) == "?[2J???"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0.0s"), (-3, "0.0s"), (9.94, "9.9s"), (10, "10s"), (119, "119s"),
     (120, "2m"), (7199, "120m"), (7200, "2h"), (172800, "2d"), (True, "-")],
)  # fmt: skip
def test_lengths_of_time(seconds: object, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (12345, "12k"), (10**9, "1.0G"), (10**16, "10000T"),
     (None, "-")],
)  # fmt: skip
def test_amounts(number: object, text: str) -> None:
    assert octets(number) == text


@pytest.mark.parametrize(
    ("protocol", "port", "text"),
    [(None, None, "any"), (0, 0, "any"), (6, 443, "tcp/443"), (17, None, "udp"), (99, None, "99"),
     ("tcp", 80, "tcp/80")],
)  # fmt: skip
def test_what_a_connection_is_for(protocol: object, port: object, text: str) -> None:
    assert traffic(protocol, port) == text


def test_refusals_with_their_reasons() -> None:
    refusal = {
        "peer": "road.example",
        "address": "192.1.1.8",
        "what": "a tunnel for 192.2.0.66/32",
        "reason": "192.2.0.66 does not delegate to us: no such record",
        "times": 3,
        "age": 12.0,
    }
    lines = render(STATUS | {"refusals": [refusal, refusal | {"peer": "192.1.1.8"}]}).splitlines()
    start = lines.index("Refused lately: 2")
    assert lines[start + 1 : start + 5] == [
        "  road.example at 192.1.1.8: a tunnel for 192.2.0.66/32, 12s ago, 3 times",
        "    192.2.0.66 does not delegate to us: no such record",
        "  192.1.1.8: a tunnel for 192.2.0.66/32, 12s ago, 3 times",
        "    192.2.0.66 does not delegate to us: no such record",
    ]


@pytest.mark.parametrize(
    ("identity", "fqdn", "text"),
    [
        (None, None, "the address in use"),
        (None, "sg-a.example", "the address in use, or @sg-a.example"),
        ("sg-a.example", "sg-a.example", "sg-a.example"),
    ],
)
def test_what_the_gateway_is_called(identity: object, fqdn: object, text: str) -> None:
    lines = render(STATUS | {"identity": identity, "fqdn": fqdn}).splitlines()
    assert f"Identity      {text}" in lines


def test_decision_points_and_how_they_do() -> None:
    points = [
        {"name": "good", "url": "http://a/", "answers": 3, "failures": 0, "reason": ""},
        {"name": "bad", "url": "http://b/", "answers": 0, "failures": 2,
         "reason": "malformed: no JSON"},
    ]  # fmt: skip
    text = render({"decision_points": points})
    assert "Decisions by  good (http://a/); answers: 3\n" in text
    assert "bad (http://b/); 2 failures in a row, the last malformed: no JSON\n" in text


def test_where_ports_are_sealed_and_why_they_are_not() -> None:
    def shown(**fields: object) -> str:
        return " ".join(render(STATUS | {"connections": [KEYED | fields]}).split())

    assert "ports sealed inside, SPI" in shown(sealed_inside=True)
    assert "IKE and ESP in UDP with sealed ports" in shown(sealed_outside=True)
    assert "PORTS NOT SEALED: the path?[2J" in shown(unsealed="the path\x1b[2J")
    assert "sealed" not in shown(sealed_inside=False, sealed_outside=None).lower()


def test_the_forwarder_is_shown_where_there_is_one() -> None:
    assert "DNS forwarder" not in render(STATUS)
    row = {
        "address": "192.1.0.1", "port": 53, "questions": 12, "answers": 11, "failures": 1,
        "names_with_keys": 2,
    }  # fmt: skip
    assert (
        "DNS forwarder: 192.1.0.1 port 53: 12 questions, 11 answers, 1 failures, "
        "2 names with keys" in render(STATUS | {"forwarder": row}).splitlines()
    )
