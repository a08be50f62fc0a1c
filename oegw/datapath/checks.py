"""What every datapath refuses to install."""

from __future__ import annotations

from oegw.datapath.interface import DatapathError, SecurityAssociation
from oegw.datapath.userspace.transform import AlgorithmError, check_algorithms

# Specification values (RFC 4303 sections 2.1 and 3.4.3).
LOWEST_SPI = 256
SMALLEST_REPLAY_WINDOW = 32

# Our choice: a window is one number of so many bits.
LARGEST_REPLAY_WINDOW = 65536
LARGEST_LIMIT = 2**63 - 1  # octets or seconds; what every datapath can count


def check_sa(sa: SecurityAssociation) -> None:
    """Raises DatapathError, which names the SPI and what is wrong, never a key."""
    problem = _problem(sa)
    if problem:
        raise DatapathError(f"SA {sa.spi:#010x}: {problem}")


def _problem(sa: SecurityAssociation) -> str | None:
    source, destination = sa.source_selector, sa.destination_selector
    if not LOWEST_SPI <= sa.spi < 2**32:
        return "the SPI is reserved"
    if sa.source.version != sa.destination.version:
        return "the outer addresses are of two families"
    if sa.encapsulation is not None and not (
        0 < sa.encapsulation.source_port < 2**16 and 0 < sa.encapsulation.destination_port < 2**16
    ):
        return "no UDP port"
    if source.network.version != destination.network.version:
        return "the selectors are of two address families"
    if source.protocol != destination.protocol:
        return "the selectors name two protocols"
    if not SMALLEST_REPLAY_WINDOW <= sa.replay_window <= LARGEST_REPLAY_WINDOW:
        return f"a replay window of {sa.replay_window} packets"
    limits = (sa.soft_bytes, sa.hard_bytes, sa.soft_seconds, sa.hard_seconds)
    if any(limit is not None and not 0 < limit <= LARGEST_LIMIT for limit in limits):
        return "a limit that can't be counted"
    try:
        check_algorithms(sa)
    except AlgorithmError as error:
        return str(error)
    return None
