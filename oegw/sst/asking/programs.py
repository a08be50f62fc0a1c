"""The three programs that run in the kernel for sockets of a cgroup.  Without IO.

    setsockopt(IP or IPV6, 200) -> ASK    -> the request bit of the socket's mark
    getsockopt(IP or IPV6, 200) -> ANSWER <- the request bit
    socket()                    -> MARK   -> the request bit, whether the program asks or not

The plane sees the mark on each packet of the socket.  Other bits of the mark are others'.
"""

from __future__ import annotations

import errno
import socket
import sys

from oegw.bpf.instructions import (
    Label,
    Register,
    add,
    and32,
    assembled,
    call,
    jump,
    jump32_if,
    jump_if,
    leave,
    load,
    load_octet,
    load_pointer,
    move,
    move32,
    or32,
    store,
    store_octet,
)
from oegw.bpf.program import Code, Program
from oegw.sst.asking.option import SST

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

# Specification: linux/bpf.h, stable towards programs.
CGROUP_SOCK, CGROUP_SOCKOPT = 9, 25  # bpf_prog_type
AT_SOCKET, AT_GETSOCKOPT, AT_SETSOCKOPT = 2, 21, 22  # bpf_attach_type
_SETSOCKOPT, _SET_RETVAL = 49, 187  # functions
_SOCK, _VALUE, _VALUE_END, _LEVEL, _NAME, _LENGTH, _RETVAL = 0, 8, 16, 24, 28, 32, 36  # bpf_sockopt
_FAMILY, _PROTOCOL, _MARK = 4, 12, 16  # bpf_sock
_DONE = 0xFFFFFFFF  # a length of -1: the kernel need not look at this option itself
_AS_IT_WAS = 0  # a length of 0: the kernel takes the caller's own octets
_INT = 4  # octets
_LOW = 0 if sys.byteorder == "little" else _INT - 1  # of its octets, the one that is 0 or 1

# Ours.  A name has at most 15 octets; by these we find our programs again.
ASK_NAME, ANSWER_NAME, MARK_NAME = "oegw_sst_ask", "oegw_sst_answer", "oegw_sst_mark"

_NEEDS = "Linux 5.18 with CONFIG_CGROUP_BPF"


def ask(bit: int, page: int) -> Program:
    """Sets and clears ``bit`` of the mark (SST-24, SST-26); ``page``: octets of a memory page."""
    code: Code = [
        *_ours(page),
        load(R3, R6, _LENGTH),
        jump32_if(R3, "==", _DONE, "pass"),  # attached further up as well: done already
        jump32_if(R3, "!=", _INT, "invalid"),
        load_pointer(R2, R6, _VALUE),
        load_pointer(R3, R6, _VALUE_END),
        move(R4, R2),
        add(R4, _INT),
        jump_if(R4, ">", R3, "invalid"),
        # By octets: some machines demand of a load that it is aligned, and nothing says that.
        *(
            line
            for place in range(_INT)
            for line in (load_octet(R8, R2, place), jump32_if(R8, "!=", 0, "invalid"))
            if place != _LOW
        ),
        load_octet(R8, R2, _LOW),
        jump32_if(R8, ">", 1, "invalid"),
        load(R9, R7, _MARK),
        and32(R9, ~bit),
        jump32_if(R8, "==", 0, "write"),
        or32(R9, bit),
        Label("write"),
        store(R10, -_INT, R9),
        move(R1, R7),
        move(R2, socket.SOL_SOCKET),
        move(R3, socket.SO_MARK),
        move(R4, R10),
        add(R4, -_INT),
        move(R5, _INT),
        call(_SETSOCKOPT),
        jump32_if(R0, "!=", 0, "failed"),
        move32(R2, _DONE),
        store(R6, _LENGTH, R2),
        *_pass(),
        *_failures(),
    ]
    return Program(ASK_NAME, CGROUP_SOCKOPT, assembled(code), _NEEDS, AT_SETSOCKOPT)


def answer(bit: int, page: int) -> Program:
    """Reads ``bit`` of the mark (SST-26)."""
    code: Code = [
        *_ours(page),
        load_pointer(R2, R6, _VALUE),
        load_pointer(R3, R6, _VALUE_END),
        move(R4, R2),
        add(R4, _INT),
        jump_if(R4, ">", R3, "invalid"),
        load(R9, R7, _MARK),
        and32(R9, bit),
        move(R8, 0),
        jump32_if(R9, "==", 0, "write"),
        move(R8, 1),
        Label("write"),
        move(R3, 0),
        *(store_octet(R2, place, R8 if place == _LOW else R3) for place in range(_INT)),
        move(R3, _INT),
        store(R6, _LENGTH, R3),
        move(R3, 0),
        store(R6, _RETVAL, R3),
        *_pass(),
        *_failures(),
    ]
    return Program(ANSWER_NAME, CGROUP_SOCKOPT, assembled(code), _NEEDS, AT_GETSOCKOPT)


def mark(bit: int) -> Program:
    """Sets ``bit`` of the mark of each new TCP and UDP socket (SST-27).

    Not of MPTCP: the kernel makes its subflows without asking us, and they don't take over a mark.
    """
    code: Code = [
        load(R2, R1, _PROTOCOL),
        jump32_if(R2, "==", socket.IPPROTO_TCP, "mark"),
        jump32_if(R2, "!=", socket.IPPROTO_UDP, "pass"),
        Label("mark"),
        load(R2, R1, _MARK),
        or32(R2, bit),
        store(R1, _MARK, R2),
        Label("pass"),
        move(R0, 1),
        leave(),
    ]
    return Program(MARK_NAME, CGROUP_SOCK, assembled(code), _NEEDS, AT_SOCKET)


def _ours(page: int) -> Code:
    """Goes on with our option on a TCP or UDP socket, R6 the call and R7 the socket; all else is
    the kernel's."""
    return [
        move(R6, R1),
        load(R2, R6, _NAME),
        jump32_if(R2, "!=", SST, "kernel's"),
        load_pointer(R7, R6, _SOCK),
        load(R3, R7, _FAMILY),
        load(R2, R6, _LEVEL),
        jump32_if(R2, "==", socket.IPPROTO_IP, "either"),
        jump32_if(R2, "!=", socket.IPPROTO_IPV6, "kernel's"),
        jump32_if(R3, "!=", socket.AF_INET6, "kernel's"),
        Label("either"),
        jump32_if(R3, "==", socket.AF_INET, "inet"),
        jump32_if(R3, "!=", socket.AF_INET6, "kernel's"),
        Label("inet"),
        load(R3, R7, _PROTOCOL),
        jump32_if(R3, "==", socket.IPPROTO_TCP, "ours"),
        jump32_if(R3, "==", socket.IPPROTO_UDP, "ours"),
        Label("kernel's"),
        # Of a value longer than a page only the first page is here.  Older kernels refuse the
        # call unless they are told to take the caller's own.
        load(R3, R6, _LENGTH),
        jump32_if(R3, "==", _DONE, "pass"),
        jump32_if(R3, ">", page, "long"),
        jump("pass"),
        Label("long"),
        move(R3, _AS_IT_WAS),
        store(R6, _LENGTH, R3),
        jump("pass"),
        Label("ours"),
    ]


def _pass() -> Code:
    return [Label("pass"), move(R0, 1), leave()]


def _failures() -> Code:
    return [
        Label("invalid"),
        move(R0, -errno.EINVAL),
        Label("failed"),
        move(R1, R0),
        call(_SET_RETVAL),
        move(R0, 0),
        leave(),
    ]
