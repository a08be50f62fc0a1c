"""Classic BPF: the filters of sockets, which need no right of their own."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

# Linux, <linux/bpf_common.h>: class, size and mode of an instruction; <asm/socket.h>.
LOAD_WORD = 0x20  # ld [k]
LOAD_HALF = 0x28  # ldh [k]
LOAD_WORD_INDEXED = 0x40  # ld [x + k]
LOAD_HALF_INDEXED = 0x48  # ldh [x + k]
LOAD_LENGTH = 0x80  # ld len
HEADER_LENGTH = 0xB1  # ldx 4 * ([k] & 0xf)
SUBTRACT_INDEX = 0x1C  # sub x
MODULO = 0x94  # mod k
JUMP_IF_EQUAL = 0x15
JUMP_IF_AT_LEAST = 0x35
RETURN = 0x06  # ret k
RETURN_RESULT = 0x16  # ret a
SO_ATTACH_FILTER = 26
SO_ATTACH_REUSEPORT = 51  # SO_ATTACH_REUSEPORT_CBPF

_INSTRUCTION = struct.Struct("=HBBI")

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k


def attach(to: socket.socket, option: int, program: Sequence[Instruction]) -> None:
    """``option``: one of SO_ATTACH_....  Raises OSError."""
    octets = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in program))
    pointer = struct.pack("@HP", len(program), ctypes.addressof(octets))
    to.setsockopt(socket.SOL_SOCKET, option, pointer)
