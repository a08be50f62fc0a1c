"""Classic BPF: the filters of sockets, and of system calls, which need no right of their own."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

# Linux, <linux/bpf_common.h>: class, size and mode of an instruction; <asm/socket.h>.
LOAD_WORD = 0x20  # ld [k]
LOAD_HALF = 0x28  # ldh [k]
LOAD_BYTE = 0x30  # ldb [k]
LOAD_HALF_INDEXED = 0x48  # ldh [x + k]
HEADER_LENGTH = 0xB1  # ldx 4 * ([k] & 0xf)
COPY_TO_INDEX = 0x07  # tax
XOR_INDEX = 0xAC  # xor x
MULTIPLY = 0x24  # mul k
SHIFT_RIGHT = 0x74  # rsh k
MODULO = 0x94  # mod k
JUMP_IF_EQUAL = 0x15
JUMP_IF_AT_LEAST = 0x35
RETURN = 0x06  # ret k
RETURN_RESULT = 0x16  # ret a
NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: an offset from there on counts from the IP header
SO_ATTACH_FILTER = 26
SO_ATTACH_REUSEPORT = 51  # SO_ATTACH_REUSEPORT_CBPF

_INSTRUCTION = struct.Struct("=HBBI")

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k


def attach(to: socket.socket, option: int, program: Sequence[Instruction]) -> None:
    """``option``: one of SO_ATTACH_....  Raises OSError."""
    pointer, octets = pointed_at(program)
    to.setsockopt(socket.SOL_SOCKET, option, pointer)
    del octets


def pointed_at(program: Sequence[Instruction]) -> tuple[bytes, object]:
    """A struct sock_fprog, and what has to live as long as it is in use."""
    octets = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in program))
    return struct.pack("@HP", len(program), ctypes.addressof(octets)), octets
