"""Which socket a packet from outside goes to: classic BPF, run by the kernel for each.

An SA belongs to one opening worker: SPI modulo their number.  So its replay window has one writer,
and its packets stay in order.
"""

from __future__ import annotations

from oegw.bpf.classic import (
    HEADER_LENGTH,
    JUMP_IF_AT_LEAST,
    JUMP_IF_EQUAL,
    LOAD_LENGTH,
    LOAD_WORD,
    LOAD_WORD_INDEXED,
    MODULO,
    RETURN,
    RETURN_RESULT,
    SUBTRACT_INDEX,
    Instruction,
)

# Specification values.
_NON_ESP_MARKER = 0  # RFC 3948 section 2.2
_SPI = 4  # octets (RFC 4303 section 2.1)

_WHOLE = 0xFFFFFFFF  # octets of a packet that a filter lets through


def by_marker(workers: int, keying: int) -> list[Instruction]:
    """Of the sockets of one UDP port, counted in the order in which they were bound: ``keying``
    for what begins with the non-ESP marker, else the worker of the SPI.

    What is too short for a marker goes to the first: a filter that reads behind the end says 0.
    """
    return [
        (LOAD_WORD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, _NON_ESP_MARKER),
        (RETURN, 0, 0, keying),
        (MODULO, 0, 0, workers),
        (RETURN_RESULT, 0, 0, 0),
    ]


def by_spi(version: int, worker: int, workers: int) -> list[Instruction]:
    """For the raw socket of a worker: its SPIs, and for the first what is too short to have one.

    A raw socket of IPv4 sees the packet from its IP header on, one of IPv6 from the ESP header.
    """
    too_short = _WHOLE if worker == 0 else 0
    begin: list[Instruction] = (
        [(HEADER_LENGTH, 0, 0, 0), (LOAD_LENGTH, 0, 0, 0), (SUBTRACT_INDEX, 0, 0, 0)]
        if version == 4
        else [(LOAD_LENGTH, 0, 0, 0)]
    )
    return [
        *begin,
        (JUMP_IF_AT_LEAST, 1, 0, _SPI),
        (RETURN, 0, 0, too_short),
        (LOAD_WORD_INDEXED if version == 4 else LOAD_WORD, 0, 0, 0),
        (MODULO, 0, 0, workers),
        (JUMP_IF_EQUAL, 0, 1, worker),
        (RETURN, 0, 0, _WHOLE),
        (RETURN, 0, 0, 0),
    ]


def nothing() -> list[Instruction]:
    """For a socket that only sends."""
    return [(RETURN, 0, 0, 0)]
