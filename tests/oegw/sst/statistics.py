"""Statistics of sealed ports: what an observer could hope to see, and does not.

``python -m tests.oegw.sst.statistics [--samples N] [--seed N]`` prints them; the tests judge the
same numbers.  A z of more than 4.5 in either direction would come by chance once in 150,000 rows.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import comb, sqrt

from oegw.sst.interface import Algorithm, PortKey
from oegw.sst.permutation import Permutation
from tests.support.sst_packets import TCP, UDP, packed, random_addresses

LIMIT = 4.5
SAMPLES = 200_000

ONE, OTHER = packed("192.0.2.1"), packed("198.51.100.7")
ONE6, OTHER6 = packed("2001:db8:1::1"), packed("2001:db8:2::2")


@dataclass(frozen=True, slots=True)
class Row:
    """One statistic: ``value`` beside what chance would give, and how far off in deviations."""

    name: str
    value: float
    expected: float
    z: float

    @property
    def fine(self) -> bool:
        return abs(self.z) < LIMIT

    def __str__(self) -> str:
        verdict = "" if self.fine else "   <-- not chance"
        return f"{self.name:58}{self.value:14.4f}{self.expected:14.4f}{self.z:8.2f}{verdict}"


HEADING = f"{'':58}{'measured':>14}{'expected':>14}{'z':>8}"


def chi_square(name: str, counts: Iterable[int], expected: float, bins: int) -> Row:
    """The sum over ``bins``; those that nothing fell into are not in ``counts``.

    It has a mean of df and a variance of 2 df, and is close to normal for the df of these rows.
    """
    seen = list(counts)
    total = sum((count - expected) ** 2 / expected for count in seen)
    total += (bins - len(seen)) * expected
    df = bins - 1
    return Row(name, total, df, (total - df) / sqrt(2 * df))


def mean_flips(name: str, flips: Counter[int]) -> Row:
    """Flipped bits of 32: binomial with a mean of 16 and a variance of 8."""
    number = sum(flips.values())
    mean = sum(bits * count for bits, count in flips.items()) / number
    return Row(f"{name}: mean flipped bits", mean, 16, (mean - 16) / sqrt(8 / number))


def spread_of_flips(name: str, flips: Counter[int]) -> Row:
    """Chi-square of the whole histogram; its tails are gathered, so that no bin is rare."""
    number = sum(flips.values())
    total, df = 0.0, -1
    for bits in ((0, 8), *((n, n) for n in range(9, 24)), (24, 32)):
        inside = range(bits[0], bits[1] + 1)
        expected = sum(comb(32, n) for n in inside) / 2**32 * number
        total += (sum(flips[n] for n in inside) - expected) ** 2 / expected
        df += 1
    return Row(f"{name}: chi-square of flipped bits", total, df, (total - df) / sqrt(2 * df))


def each_bit(name: str, changed: list[int], number: int) -> Iterator[Row]:
    """Of the 32 bits that come out the one that flips least, and the one that flips most."""
    for word, count in (("least", min(changed)), ("most", max(changed))):
        z = (count - number / 2) / sqrt(number / 4)
        yield Row(f"{name}: the bit that flips {word}", count / number, 0.5, z)


def permutation(algorithm: Algorithm, rng: random.Random) -> Permutation:
    return Permutation(PortKey(algorithm, rng.randbytes(algorithm.key_length)))


def joined(ports: tuple[int, int]) -> int:
    return ports[0] << 16 | ports[1]


def _flips(
    rng: random.Random, samples: int, pair: Callable[[random.Random, int], tuple[int, int]]
) -> tuple[Counter[int], list[int]]:
    """How many bits differ in pairs that ``pair`` makes, and how often each of them does."""
    flips: Counter[int] = Counter()
    changed = [0] * 32
    for number in range(samples):
        one, other = pair(rng, number)
        difference = one ^ other
        flips[difference.bit_count()] += 1
        while difference:
            low = difference & -difference
            changed[low.bit_length() - 1] += 1
            difference ^= low
    return flips, changed


def avalanche(samples: int = SAMPLES, seed: int = 9) -> list[Row]:
    """SST-9: one bit flipped in the ports, in the ciphertext, in an address, in the key."""

    def flipped_ports(way: str) -> Callable[[random.Random, int], tuple[int, int]]:
        def pair(rng: random.Random, number: int) -> tuple[int, int]:
            while True:
                block = rng.getrandbits(32)
                other = block ^ 1 << number % 32
                ports = (block >> 16, block & 0xFFFF, other >> 16, other & 0xFFFF)
                if all(ports):
                    break
            change = getattr(keyed, way)
            return (
                joined(change(ONE, OTHER, TCP, *ports[:2])),
                joined(change(ONE, OTHER, TCP, *ports[2:])),
            )

        return pair

    def flipped_address(rng: random.Random, number: int) -> tuple[int, int]:
        other = (int.from_bytes(OTHER6, "big") ^ 1 << number % 120).to_bytes(16, "big")
        ports = rng.randrange(1, 65536), rng.randrange(1, 65536)
        return (
            joined(keyed.seal_ports(ONE6, OTHER6, UDP, *ports)),
            joined(keyed.seal_ports(ONE6, other, UDP, *ports)),
        )

    def flipped_key(rng: random.Random, number: int) -> tuple[int, int]:
        octets = rng.getrandbits(128)
        found = []
        for key in (octets, octets ^ 1 << number % 128):
            one = Permutation(PortKey(Algorithm.FF1_AES_128, key.to_bytes(16, "big")))
            found.append(joined(one.seal_ports(ONE, OTHER, TCP, 40000, 443)))
        return found[0], found[1]

    rng = random.Random(seed)
    keyed = permutation(Algorithm.FF1_AES_128, rng)
    rows = []
    for name, pair, number in (
        ("one bit of the ports", flipped_ports("seal_ports"), samples),
        ("one bit of the ciphertext, opened", flipped_ports("open_ports"), samples),
        ("one bit of an address", flipped_address, samples // 2),
        ("one bit of the key", flipped_key, samples // 10),
    ):
        flips, changed = _flips(rng, number, pair)
        rows += [mean_flips(name, flips), spread_of_flips(name, flips)]
        rows += each_bit(name, changed, number)
    return rows


def services(rng: random.Random, samples: int) -> Iterator[tuple[tuple[bytes, bytes], int, int]]:
    """Flows as an observer sees them: few services, ephemeral source ports one after the other."""
    hosts = [random_addresses(rng, rng.choice((4, 6))) for _ in range(200)]
    for number in range(samples):
        pair = hosts[number % len(hosts)]
        yield pair, 32768 + (number // len(hosts)) % 28232, rng.choice((22, 53, 80, 443))


def uniformity(
    samples: int = SAMPLES, algorithm: Algorithm = Algorithm.FF1_AES_128, seed: int = 8
) -> list[Row]:
    """SST-8, SST-10: sealed ports are uniform, whatever the service; none is 0."""
    rng = random.Random(seed)
    keyed = permutation(algorithm, rng)
    ports: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    octets = [Counter[int]() for _ in range(4)]
    by_service: dict[int, Counter[int]] = {}
    for (source, destination), source_port, service in services(rng, samples):
        sealed = keyed.seal_ports(source, destination, TCP, source_port, service)
        by_service.setdefault(service, Counter())[sealed[1] >> 8] += 1
        for place, port in enumerate(sealed):
            ports[place][port] += 1
            octets[2 * place][port >> 8] += 1
            octets[2 * place + 1][port & 0xFF] += 1
    rows = []
    for name, counts in zip(("source port", "destination port"), ports, strict=True):
        assert counts[0] == 0
        del counts[0]
        rows.append(chi_square(f"{name}, 65535 bins", counts.values(), samples / 65535, 65535))
    for place, counts in enumerate(octets):
        rows.append(chi_square(f"octet {place}, 256 bins", counts.values(), samples / 256, 256))
    for service, counts in sorted(by_service.items()):
        name = f"first octet of a sealed port {service}, 256 bins"
        rows.append(chi_square(name, counts.values(), sum(counts.values()) / 256, 256))
    return rows


def unrelated(samples: int = SAMPLES, seed: int = 88) -> list[Row]:
    """SST-8: two flows of the same hosts to the same service share nothing beyond chance."""
    rng = random.Random(seed)
    keyed = permutation(Algorithm.FF1_AES_128, rng)
    equal = 0
    differences: tuple[Counter[int], Counter[int]] = (Counter(), Counter())

    hosts = [random_addresses(rng, 4) for _ in range(samples // 30_000 + 1)]

    def pair(rng: random.Random, number: int) -> tuple[int, int]:
        # No flow comes twice, for the same numbers again would not be another sample.
        nonlocal equal
        source, destination = hosts[number // 30_000]
        source_port = 1024 + 2 * (number % 30_000)
        service = rng.choice((22, 443, 4500))
        one = keyed.seal_ports(source, destination, TCP, source_port, service)
        other = keyed.seal_ports(source, destination, TCP, source_port + 1, service)
        equal += (one[0] == other[0]) + (one[1] == other[1])
        for place in (0, 1):
            differences[place][(one[place] ^ other[place]) >> 8] += 1
        return joined(one), joined(other)

    flips, changed = _flips(rng, samples, pair)
    expected = 2 * samples / 65535
    name = "flows of neighbouring source ports"
    rows = [
        mean_flips(name, flips),
        spread_of_flips(name, flips),
        *each_bit(name, changed, samples),
    ]
    rows.append(
        Row(f"{name}: equal sealed ports", equal, expected, (equal - expected) / sqrt(expected))
    )
    for place, counts in enumerate(differences):
        which = "source" if place == 0 else "destination"
        rows.append(
            chi_square(
                f"xor of sealed {which} ports, 256 bins", counts.values(), samples / 256, 256
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Statistics of sealed ports.")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{given.samples} samples, seed {given.seed}")
    for title, rows in (
        ("avalanche (SST-9)", avalanche(given.samples, given.seed)),
        ("flows to one service (SST-8)", unrelated(given.samples, given.seed)),
        *(
            (
                f"uniformity, {each.name} (SST-8, SST-10)",
                uniformity(given.samples, each, given.seed),
            )
            for each in Algorithm
        ),
    ):
        print(f"\n{title}\n{HEADING}")
        for row in rows:
            print(row)


if __name__ == "__main__":
    main()
