"""Which queue of the tunnel device a packet takes: a BPF program that hashes its two addresses.

A flow, and all between two hosts, stays in one queue and so goes through one sealing worker, in its
order.  Without it the kernel hashes flows by itself, and remembers in which queue we answered one.
"""

from __future__ import annotations

from oegw.bpf.instructions import (
    Label,
    Register,
    assembled,
    jump,
    jump32_if,
    leave,
    load_octet_of_packet,
    load_of_packet,
    move,
    multiply32,
    right32,
    xor,
)
from oegw.bpf.program import Code, Program

R0, R1, R6, R7 = Register.R0, Register.R1, Register.R6, Register.R7

# Specification: linux/bpf.h; RFC 791 section 3.1; RFC 8200 section 3.
_SOCKET_FILTER = 1
_IPV4_ADDRESSES = (12, 16)
_IPV6_ADDRESSES = (8, 12, 16, 20, 24, 28, 32, 36)

# Ours.
_NAME = "oegw_queue"
_SPREAD = 0x9E3779B1  # odd, 2^32 divided by the golden ratio: neighbours get far apart
_BITS = 16  # the lower ones of a product are the worse ones


def steering() -> Program:
    """Returns a number of which the kernel takes the remainder by the queues.  What is no IP, or
    too short, takes the first queue."""
    code: Code = [
        move(R6, R1),  # where reading the packet expects it
        load_octet_of_packet(0),
        right32(R0, 4),
        move(R7, 0),
        jump32_if(R0, "==", 4, "ipv4"),
        jump32_if(R0, "!=", 6, "neither"),
        *_mixed(_IPV6_ADDRESSES),
        jump("spread"),
        Label("ipv4"),
        *_mixed(_IPV4_ADDRESSES),
        Label("spread"),
        multiply32(R7, _SPREAD),
        right32(R7, _BITS),
        Label("neither"),
        move(R0, R7),
        leave(),
    ]
    return Program(_NAME, _SOCKET_FILTER, assembled(code), "Linux 4.16 with CONFIG_BPF_SYSCALL")


def _mixed(places: tuple[int, ...]) -> Code:
    return [line for at in places for line in (load_of_packet(at), xor(R7, R0))]
