"""The lab's means for SOCKS: its own client with our server, and what it claims of captures."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.lab_commands import LAB
from tests.support.socks_server import Names, Running, running

LIBRARY = LAB.parent / "lablib"
ALICE, INSIDE, BOB = (IPv4Address(a) for a in ("192.1.0.65", "192.1.0.1", "192.2.0.66"))
FACT = {"kind": "socks-headers", "link": "as1", "host": "alice", "by": str(INSIDE), "octets": 10}
PATIENCE = 20.0


@pytest.fixture(scope="module")
def lablib() -> Iterator[ModuleType]:
    sys.path.insert(0, str(LAB.parent))
    try:
        import lablib
        import lablib.facts
        import lablib.socksfacts

        yield lablib
    finally:
        sys.path.remove(str(LAB.parent))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    names = Names(of={"here.test": ("127.0.0.1",)}, reverse={"127.0.0.1": "here.test"})
    with running(tmp_path_factory.mktemp("socks"), names=names) as server:
        yield server


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The port of what the lab's hosts echo with."""
    command = [sys.executable, "-IS", str(LIBRARY / "echo.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(" ")[2])
        process.terminate()


def _asked(server: Running, **order: object) -> dict[str, Any]:
    order = {"proxy": "127.0.0.1", "at": server.server.ports[0], "target": "127.0.0.1", **order}
    command = [sys.executable, "-IS", str(LIBRARY / "asksocks.py"), json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize(
    ("order", "kind"),
    [
        ({}, "4"),
        ({"target": "::1", "flag": 16}, "6"),
        ({"with_id": True}, "4"),
        ({"combined": True}, "id"),
    ],
)
def test_its_client_connects(
    server: Running, echo: int, order: dict[str, object], kind: str
) -> None:
    seen = _asked(server, command="connect", port=echo, words="hello", **order)
    assert (seen["code"], seen["kind"]) == (0, kind)
    whom = ip_address(str(order.get("target", "127.0.0.1")))
    assert seen["heard"] == f"you are {whom} {seen['port']}: hello"


@pytest.mark.parametrize(
    ("order", "header"),
    [
        ({}, 10),
        ({"target": "::1"}, 22),
        ({"target": "::1", "combined": True}, 10),
        ({"with_id": True}, 10),
    ],
)
def test_its_client_sends_datagrams(
    server: Running, echo: int, order: dict[str, object], header: int
) -> None:
    seen = _asked(server, command="udp", port=echo, words="hello", **order)
    assert (seen["code"], seen["header"]) == (0, header)
    assert seen["heard"].endswith(": hello")


def test_its_client_learns_what_an_address_is_called(server: Running) -> None:
    assert _asked(server, command="associate", preference=3)["bound"] == "here.test"
    assert _asked(server, command="associate", target="here.test")["kind"] == "id"


def test_its_client_tells_a_refusal_and_a_closed_port(server: Running) -> None:
    refused = _asked(server, command="connect", target="169.254.1.1", port=80)
    assert refused["code"] == 2
    assert _asked(server, command="connect", at=1, port=80)["code"] == "refused"
    assert (
        _asked(server, command="connect", user="who", password="?", port=80)["code"] == "no method"
    )


# ----------------------------------------------------------------------------- captures


def _datagram(source: IPv4Address, destination: IPv4Address, octets: bytes) -> SimpleNamespace:
    udp = struct.pack("!HHHH", 5000, 1080, 8 + len(octets), 0) + octets
    head = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(udp), 0, 64, 17, 0)
    frame = bytes(14) + head + source.packed + destination.packed + udp
    return SimpleNamespace(
        source=source, destination=destination, protocol=17, fragment=None, ethertype="ipv4",
        frame=frame,
    )  # fmt: skip


SHORT = bytes.fromhex("00000008 00a1b2c3 1b59")
LONG = bytes.fromhex("00000004 20010db8000200000000000000000066 1b59")
TO = _datagram(ALICE, INSIDE, SHORT + b"by an ID")
FROM = _datagram(INSIDE, ALICE, SHORT + b"you are 192.1.1.4 5: by an ID")


@pytest.mark.parametrize(
    ("packets", "true"),
    [
        ([TO, FROM], True),
        ([TO, FROM, _datagram(ALICE, INSIDE, LONG + b"something else")], True),
        ([TO], False),
        ([FROM], False),
        ([TO, _datagram(INSIDE, ALICE, LONG + b"you are 192.1.1.4 5: by an ID")], False),
        ([_datagram(ALICE, INSIDE, LONG + b"by an ID"), FROM], False),
        ([TO, FROM, _datagram(ALICE, BOB, b"by an ID")], False),
        ([], False),
    ],
)
def test_what_counts_as_a_short_header(
    lablib: ModuleType, packets: list[SimpleNamespace], true: bool
) -> None:
    lab = SimpleNamespace(address={"alice": ALICE}.__getitem__, captured={"as1": packets})
    fact = {**FACT, "words": "by an ID"}
    if true:
        assert "10 octets" in lablib.facts.check(lab, fact)
    else:
        with pytest.raises(lablib.stage.Missed):
            lablib.facts.check(lab, fact)
