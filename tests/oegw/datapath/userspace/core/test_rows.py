"""Where rows of packets end that came one behind the other, as their headers say."""

from __future__ import annotations

from typing import Any

import pytest

from oegw.datapath.userspace.core.bursts import Bursts
from oegw.datapath.userspace.core.choice import choose
from oegw.datapath.userspace.core.decrypting import row_ends
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.virtio import NONE
from oegw.packet.ip import UDP
from tests.support.core_traffic import ip_packet, udp
from tests.support.datapath_cores import NOW, Opening, Sealing, outbound, to_loopback

A, B = 0x80000001, 0x80000002
SIZE = 20


def packets(*headers: tuple[int, int]) -> bytes:
    """Of SPIs and low sequence numbers."""
    return b"".join(
        spi.to_bytes(4, "big") + low.to_bytes(4, "big") + bytes(SIZE - 8) for spi, low in headers
    )


@pytest.mark.parametrize(
    ("headers", "ends"),
    [
        ([(A, 1)], [1]),
        ([(A, 1), (A, 2), (A, 3)], [3]),
        ([(A, 1), (B, 1), (A, 2), (B, 2)], [1, 2, 3, 4]),
        ([(A, 1), (A, 2), (B, 7), (B, 8), (A, 3)], [2, 4, 5]),
        ([(A, 1), (A, 1), (A, 3), (A, 2)], [1, 2, 3, 4]),  # twice, left out, overtaken
        ([(A, 0xFFFFFFFF), (A, 0), (A, 1)], [1, 3]),  # the low half begins anew
        ([(A, 0xFFFFFFFE), (A, 0xFFFFFFFF), (B, 0), (B, 1)], [2, 4]),  # alike, as one number
    ],
)
@pytest.mark.parametrize("behind", [0, 7, SIZE - 1])
def test_a_row_is_of_one_sa_and_numbered_one_by_one(
    headers: list[tuple[int, int]], ends: list[int], behind: int
) -> None:
    payload = memoryview(packets(*headers) + bytes(behind))
    assert list(row_ends(payload, SIZE)) == [SIZE * end for end in ends]


@pytest.mark.parametrize("size", [1, 7])
def test_what_has_no_header_is_no_row(size: int) -> None:
    assert list(row_ends(memoryview(bytes(5 * size)), size)) == [0]
    assert list(row_ends(memoryview(b""), 0)) == [0]


def test_corrupted_packets_cost_no_more_than_linear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second one of a datagram is: a row is tried once, not at each of them."""
    tried: list[int] = []
    decrypt = Bursts.decrypt

    def counted(ring: Bursts, *of: Any) -> bool:
        tried.append(of[3])
        return decrypt(ring, *of)

    monkeypatch.setattr(Bursts, "decrypt", counted)
    sealing, opening = Sealing(choose("python")), Opening(choose("python"), joins_udp=False)
    sa = outbound("gcm-128", destination="127.0.0.1", encapsulation=to_loopback().encapsulation)
    inbound = opening.sa(sa.sa)
    sealing.core.install(sa)
    packet = ip_packet(4, UDP, udp(4, bytes(1000), 1000))
    key = key_of(packet)
    assert key is not None
    sealing.core.learn(key, sa)
    opening.core.learn(key, inbound)
    sealing.fill(*[NONE + packet] * 40)
    [run], care = sealing.core.seal(NOW)
    assert care is None
    octets = bytearray(run.packets)
    octets[run.size - 1 :: 2 * run.size] = bytes(20)
    opening.send(bytes(octets), run.size)
    assert opening.fill() == 1
    tried.clear()  # those of its trial
    assert opening.core.open(NOW) is None
    counted_now = opening.core.counted()
    assert counted_now["drop_in_invalid"] == counted_now["esp_in_packets"] == 20
    assert tried == [40]
