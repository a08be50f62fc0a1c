"""Microseconds per sealed pair of ports, and per whole packet.

Run as a script: ``python tests/bench/bench_sst_seal.py [--rounds N]``.

Cold: two addresses of which nothing is prepared yet, the price of a new pair of hosts; with a new
key: the price of a new peer.  Cached: another flow of the same hosts, ten calls of AES.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from oegw.sst.interface import Algorithm, PortKey
from oegw.sst.packet import open_sealed, seal
from oegw.sst.permutation import Permutation
from oegw.sst.place import place_of
from oegw.sst.quote import open_quote
from oegw.sst.signal import Signal
from tests.support.sst_packets import (
    TCP,
    UDP,
    icmp_error,
    packed,
    random_addresses,
    random_packet,
    random_port,
)

BATCH = 2000
SIGNAL = Signal()
ROUTERS = {4: packed("203.0.113.9"), 6: packed("2001:db8:ffff::9")}


def measured(work: Callable[[Sequence[tuple]], None], rows: Sequence[tuple], rounds: int) -> str:
    """The median of the rounds, and their least, in microseconds for each of ``rows``."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work(rows)
        times.append((time.perf_counter() - begun) / len(rows) * 1e6)
    return f"{statistics.median(times):8.2f} {min(times):8.2f}"


def flows(rng: random.Random, version: int, pairs: int) -> list[tuple]:
    hosts = [random_addresses(rng, version) for _ in range(pairs)]
    return [
        (*hosts[number % pairs], TCP, random_port(rng), random_port(rng)) for number in range(BATCH)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    rng = random.Random(1)
    print(f"{'microseconds each':58}{'median':>8} {'least':>8}")
    for algorithm in Algorithm:
        key = PortKey(algorithm, rng.randbytes(algorithm.key_length))
        warm = Permutation(key)

        def sealed(rows: Sequence[tuple], permutation: Permutation = warm) -> None:
            seal_ports = permutation.seal_ports
            for row in rows:
                seal_ports(*row)

        def opened(rows: Sequence[tuple], permutation: Permutation = warm) -> None:
            open_ports = permutation.open_ports
            for row in rows:
                open_ports(*row)

        def cold(rows: Sequence[tuple], key: PortKey = key) -> None:
            sealed(rows, Permutation(key))

        def coldest(rows: Sequence[tuple], key: PortKey = key) -> None:
            for row in rows:
                Permutation(key).seal_ports(*row)

        for version in (4, 6):
            name = f"{algorithm.name}, IPv{version}"
            few, many = flows(rng, version, 20), flows(rng, version, BATCH)
            print(f"{name + ', seal_ports, new key':58}{measured(coldest, many, rounds)}")
            print(f"{name + ', seal_ports, cold':58}{measured(cold, many, rounds)}")
            sealed(few)
            print(f"{name + ', seal_ports, cached':58}{measured(sealed, few, rounds)}")
            print(f"{name + ', open_ports, cached':58}{measured(opened, few, rounds)}")

    keyed = Permutation(PortKey(Algorithm.FF1_AES_128, bytes(range(16))))

    def places(rows: Sequence[tuple]) -> None:
        for (packet,) in rows:
            place_of(packet)

    def whole(rows: Sequence[tuple]) -> None:
        for (packet,) in rows:
            seal(packet, keyed, SIGNAL)

    def back(rows: Sequence[tuple]) -> None:
        for (packet,) in rows:
            open_sealed(packet, keyed, SIGNAL)

    def quotes(rows: Sequence[tuple]) -> None:
        for (packet,) in rows:
            open_quote(packet, keyed, SIGNAL)

    for version in (4, 6):
        for protocol, word in ((TCP, "TCP"), (UDP, "UDP")):
            clear = [
                random_packet(rng, version=version, protocol=protocol, plain=True, longest=1400)
                for _ in range(BATCH)
            ]
            rows = [(made.packet,) for made in clear]
            wire = [(seal(made.packet, keyed, SIGNAL),) for made in clear]
            errors = [
                (icmp_error(packet, ROUTERS[version], 3 if version == 4 else 1),)
                for (packet,) in wire
            ]
            name = f"whole {word} packet, IPv{version}"
            print(f"{name + ', place_of':58}{measured(places, rows, rounds)}")
            print(f"{name + ', seal':58}{measured(whole, rows, rounds)}")
            print(f"{name + ', open_sealed':58}{measured(back, wire, rounds)}")
            print(f"{name + ', open_quote':58}{measured(quotes, errors, rounds)}")


if __name__ == "__main__":
    main()
