"""What the two cores of the user-space datapath take for the same input, and their ratio.

    python -m tests.bench.bench_core [SECONDS]

Only ``seal`` and ``open`` are timed: reading and writing, which is the kernel's work, is not.  One
line for each algorithm and kind of packets; microseconds of CPU time are per packet, the medians of
all batches.
Bulk is TCP in super-packets of 60,000 octets, cut into packets of 1,400, and joined again.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from typing import Any

from oegw.datapath.userspace.core.choice import choose
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.virtio import GSO_TCPV4, NEEDS_CSUM, NONE, VirtioHeader
from oegw.packet.ip import TCP, UDP
from tests.support.core_traffic import ip_packet, tcp, udp
from tests.support.datapath_cores import NOW, Opening, Sealing, outbound, to_loopback

CORES = ("python", "compiled")
ALGORITHMS = ("gcm-128", "gcm-256", "cbc-sha2", "3des-md5")
FRAMES = {"bulk": 4, "1400": 8, "64": 8}  # that the device takes at once, and a batch has
SEGMENT = 1348
BULK = random.Random(1).randbytes(44 * SEGMENT)  # Python's numbers have an easy life with zeros


def bulk(number: int) -> bytes:
    upper = tcp(4, BULK, 1000, number * len(BULK), partial=True)
    header = VirtioHeader(NEEDS_CSUM, GSO_TCPV4, 40, SEGMENT, 20, 16)
    return header.serialize() + ip_packet(4, TCP, upper, identification=number * 44 & 0xFFFF)


def small(size: int) -> Any:
    """Datagrams whose IP packets have ``size`` octets."""
    return lambda number: NONE + ip_packet(4, UDP, udp(4, BULK[: size - 28], 1000))


KINDS = {"bulk": bulk, "1400": small(1400), "64": small(64)}


def measured(core: str, algorithm: str, kind: str, seconds: float) -> tuple[float, float]:
    """Microseconds for a packet, sealing and opening."""
    sealing, opening = Sealing(choose(core)), Opening(choose(core), joins_udp=False)
    sa = outbound(
        algorithm,
        mtu=1440,
        encapsulation=to_loopback().encapsulation,
        destination="127.0.0.1",
    )
    sealing.core.install(sa)
    inbound = opening.sa(sa.sa)
    first = KINDS[kind](0)[10:]
    key = key_of(first)
    assert key is not None
    sealing.core.learn(key, sa)
    opening.core.learn(key, inbound)
    sealed, opened = [], []
    number = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sealing.fill(*(KINDS[kind](number + index) for index in range(FRAMES[kind])))
        number += FRAMES[kind]
        before = time.process_time()
        runs, care = sealing.core.seal(NOW)
        after = time.process_time()
        assert care is None
        packets = sum(run.count for run in runs)
        sealed.append((after - before) / packets)
        for run in runs:
            for start in range(0, len(run.packets), run.size * 40):
                opening.send(bytes(run.packets[start : start + run.size * 40]), run.size)
        assert opening.fill()
        before = time.process_time()
        assert opening.core.open(NOW) is None
        after = time.process_time()
        opened.append((after - before) / packets)
        opening.frames()
    for side in (sealing, opening):
        side.close()
    return statistics.median(sealed) * 1e6, statistics.median(opened) * 1e6


def main(seconds: float) -> None:
    print("algorithm  packets   seal: python compiled  ratio   open: python compiled  ratio")
    for algorithm in ALGORITHMS:
        for kind in KINDS:
            slow, fast = (measured(core, algorithm, kind, seconds) for core in CORES)
            print(
                f"{algorithm:10} {kind:7}"
                f" {slow[0]:13.2f} {fast[0]:8.2f} {slow[0] / fast[0]:6.1f}"
                f" {slow[1]:14.2f} {fast[1]:8.2f} {slow[1] / fast[1]:6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.5)
