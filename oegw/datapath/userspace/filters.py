"""Which socket a packet from outside goes to: classic BPF, run by the kernel for each.

What one sender sends is one opening worker's.  So it stays in order, also where the kernel joined
many of his packets (UDP_GRO), which looks at addresses and ports, and not at SPIs.
"""

from __future__ import annotations

from oegw.bpf.classic import (
    COPY_TO_INDEX,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    MODULO,
    MULTIPLY,
    NETWORK_HEADER,
    RETURN,
    RETURN_RESULT,
    SHIFT_RIGHT,
    XOR_INDEX,
    Instruction,
)

# Specification values.
_NON_ESP_MARKER = 0  # RFC 3948 section 2.2
_SOURCE = {4: (12,), 6: (8, 12, 16, 20)}  # the words of it (RFC 791, RFC 8200 section 3)

# Our choices.
_SPREADING = 0x9E3779B1  # 2^32 by the golden ratio: what is in a row gets far from each other
_SHIFT = 15  # and once more, since addresses have patterns of all kinds
_UPPER_HALF = 16

_WHOLE = 0xFFFFFFFF  # octets of a packet that a filter lets through


def worker_of(source: bytes, workers: int) -> int:
    """Which of the opening workers has what comes from this address (packed)."""
    folded = 0
    for at in range(0, len(source), 4):
        folded ^= int.from_bytes(source[at : at + 4], "big")
    folded = folded * _SPREADING % 2**32
    folded ^= folded >> _SHIFT
    return (folded * _SPREADING % 2**32 >> _UPPER_HALF) % workers


def _worker_of(version: int, workers: int) -> list[Instruction]:
    """The same: it ends with the worker as the result.  It works alike in a raw socket, and behind
    a UDP header."""
    first, *others = _SOURCE[version]
    program: list[Instruction] = [(LOAD_WORD, 0, 0, NETWORK_HEADER + first)]
    for word in others:
        program += [
            (COPY_TO_INDEX, 0, 0, 0),
            (LOAD_WORD, 0, 0, NETWORK_HEADER + word),
            (XOR_INDEX, 0, 0, 0),
        ]
    return [
        *program,
        (MULTIPLY, 0, 0, _SPREADING),
        (COPY_TO_INDEX, 0, 0, 0),
        (SHIFT_RIGHT, 0, 0, _SHIFT),
        (XOR_INDEX, 0, 0, 0),
        (MULTIPLY, 0, 0, _SPREADING),
        (SHIFT_RIGHT, 0, 0, _UPPER_HALF),
        (MODULO, 0, 0, workers),
    ]


def by_marker(version: int, workers: int, keying: int) -> list[Instruction]:
    """Of the sockets of one UDP port, counted in the order in which they were bound: ``keying``
    for what begins with the non-ESP marker, else the worker of the sender.

    What is too short for a marker goes to the first: a filter that reads behind the end says 0.
    """
    return [
        (LOAD_WORD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, _NON_ESP_MARKER),
        (RETURN, 0, 0, keying),
        *_worker_of(version, workers),
        (RETURN_RESULT, 0, 0, 0),
    ]


def by_sender(version: int, worker: int, workers: int) -> list[Instruction]:
    """For the raw socket of a worker: what comes from its senders."""
    return [
        *_worker_of(version, workers),
        (JUMP_IF_EQUAL, 0, 1, worker),
        (RETURN, 0, 0, _WHOLE),
        (RETURN, 0, 0, 0),
    ]


def nothing() -> list[Instruction]:
    """For a socket that only sends."""
    return [(RETURN, 0, 0, 0)]
