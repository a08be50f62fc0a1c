"""Who sends ESP that there is no SA for: the parser, the sampling, and both in a real kernel."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from ipaddress import ip_address

import pytest

from oegw.datapath.interface import UnknownSpiReceived
from oegw.datapath.xfrm import unknown
from oegw.datapath.xfrm.unknown import UnknownSpis, spi_of
from tests.support.datapath_sas import A4
from tests.support.xfrm_lab import OUTER, XfrmLab, tunnel, wait_for

ESP = struct.pack("!II", 0x1234, 7) + bytes(32)


def ipv4(payload: bytes, options: int = 0) -> bytes:
    return bytes([0x45 + options]) + bytes(19 + 4 * options) + payload


UDP = struct.pack("!HHHH", 4500, 4500, 8 + len(ESP), 0)


@pytest.mark.parametrize(
    ("packet", "version", "udp", "spi"),
    [
        (ipv4(ESP), 4, False, 0x1234),
        (ipv4(ESP, options=10), 4, False, 0x1234),
        (ipv4(UDP + ESP), 4, True, 0x1234),
        (ESP, 6, False, 0x1234),
        (UDP + ESP, 6, True, 0x1234),
        (ipv4(UDP + b"\xff"), 4, True, None),  # a keepalive
        (ipv4(UDP + bytes(4) + ESP), 4, True, None),  # IKE
        (ipv4(struct.pack("!II", 255, 1)), 4, False, None),  # reserved
        (b"", 4, False, None),
        (b"", 6, True, None),
    ],
)
def test_spi_of_what_a_raw_socket_sees(
    packet: bytes, version: int, udp: bool, spi: int | None
) -> None:
    assert spi_of(packet, version, udp) == spi


def test_cut_packets_have_none_and_raise_nothing() -> None:
    for version, udp, packet in ((4, False, ipv4(ESP)), (4, True, ipv4(UDP + ESP)), (6, True, UDP)):
        for length in range(len(packet)):
            assert spi_of(packet[:length], version, udp) in (None, 0x1234)


@pytest.mark.netns
class TestOnLoopback:
    """ESP to ourselves on lo, which no kernel has an SA for; the counter is played by the test."""

    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> list[UnknownSpiReceived]:
        monkeypatch.setattr(unknown, "_LOOK", 0.1)
        monkeypatch.setattr(unknown, "_PAUSE", 0.1)
        return []

    def sample(
        self, seen: list[UnknownSpiReceived], counts: list[int], known: int = 0, port: int = 45500
    ) -> None:
        async def run() -> None:
            readings = iter([*counts, *[counts[-1]] * 1000])
            sampler = UnknownSpis(
                port,
                lambda destination, spi: spi == known,
                seen.append,
                lambda: {"drop_in_unknown_spi": next(readings)},
            )
            sampler.start(asyncio.get_running_loop())
            await asyncio.sleep(0.15)
            for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with socket.socket(family, socket.SOCK_RAW, 50) as raw:
                    for _ in range(5):
                        raw.sendto(ESP, (address, 0))
                with socket.socket(family, socket.SOCK_DGRAM) as udp:
                    udp.sendto(ESP, (address, port))
                    udp.sendto(bytes(4) + ESP, (address, port))
                    udp.sendto(ESP, (address, port + 1))
            await asyncio.sleep(0.3)
            sampler.close()

        asyncio.run(run())

    def test_both_families_are_seen_once_each_while_the_counter_grows(
        self, seen: list[UnknownSpiReceived]
    ) -> None:
        self.sample(seen, [3, 4])
        assert sorted(seen, key=str) == [
            UnknownSpiReceived(ip_address(each), ip_address(each), 0x1234)
            for each in ("127.0.0.1", "::1")
        ]

    def test_nothing_is_looked_at_while_it_does_not(self, seen: list[UnknownSpiReceived]) -> None:
        self.sample(seen, [3])
        assert seen == []

    def test_what_we_have_an_sa_for_is_not_told(self, seen: list[UnknownSpiReceived]) -> None:
        self.sample(seen, [3, 4], known=0x1234)
        assert seen == []

    def test_a_sample_ends_after_so_many_packets(
        self, seen: list[UnknownSpiReceived], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unknown, "_PACKETS", 1)
        self.sample(seen, [3, 4])
        assert len(seen) == 1

    def test_only_headers_are_read(self) -> None:
        sampler = UnknownSpis(45500, lambda *_: False, lambda _: None)
        raw = sampler._raw(4, udp=False)
        with raw, socket.socket(socket.AF_INET, socket.SOCK_RAW, 50) as sender:
            sender.sendto(ESP + bytes(1000), ("127.0.0.1", 0))
            assert len(raw.recv(2000)) == 76


@pytest.mark.kernel
@pytest.mark.timeout(300)
class TestInTheKernel:
    def test_peer_that_sends_on_an_sa_we_lost_is_reported(self) -> None:
        """In both families, as ESP and in UDP."""
        with XfrmLab() as lab:
            gwa, gwb = lab.begin()
            for number, (family, udp) in enumerate([(4, False), (4, True), (6, False), (6, True)]):
                lost, other = 0x1000 + number, 0x2000 + number
                tunnel(gwa, gwb, family=family, udp=udp, spi=lost)
                tunnel(gwa, gwb, family=family, udp=udp, spi=other, inner=(A4, "192.2.0.99"))
                assert lab.ping("-c", "3"), lab.last
                told = gwb.named("UnknownSpiReceived")
                assert not [each for each in told if each["spi"] in (lost, other)]
                gwb.ask("remove", inbound=True, spi=lost, destination=OUTER[family][1])
                deadline = time.monotonic() + 40
                while not gwb.named("UnknownSpiReceived", spi=lost):
                    assert time.monotonic() < deadline, "no report"
                    lab.ping("-c", "2", "-i", "0.2", "-W", "1")
                first = gwb.named("UnknownSpiReceived", spi=lost)[0]
                assert (first["source"], first["local"]) == OUTER[family]
                assert gwa.named("UnknownSpiReceived") == []

    def test_at_most_once_a_second_however_fast_it_comes(self) -> None:
        with XfrmLab() as lab:
            gwa, gwb = lab.begin()
            tunnel(gwa, None)
            begun = time.monotonic()
            lab.ping("-i", "0.01", "-c", "400", "-W", "1")
            wait_for(lambda: gwb.named("UnknownSpiReceived"), 20, "a report")
            time.sleep(1)
            told = gwb.named("UnknownSpiReceived", spi=0x1000)
            assert 1 <= len(told) <= time.monotonic() - begun
