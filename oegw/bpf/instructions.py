"""BPF instructions (RFC 9669): named, with labels, and as octets.

Only those that our programs need.  Without IO.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

# Specification: RFC 9669 sections 3 and 4.
_LOAD, _STORE = 0x61, 0x63  # BPF_LDX | BPF_MEM | BPF_W, BPF_STX | BPF_MEM | BPF_W
_LOAD_OCTET, _STORE_OCTET = 0x71, 0x73  # with BPF_B
_LOAD_LONG = 0x79  # BPF_LDX | BPF_MEM | BPF_DW
_LOAD_PACKET, _LOAD_PACKET_OCTET = 0x20, 0x30  # BPF_LD | BPF_ABS | BPF_W, with BPF_B
_MOVE, _MOVE_NUMBER = 0xBF, 0xB7
_ADD_NUMBER = 0x07
_AND32_NUMBER, _OR32_NUMBER = 0x54, 0x44
_MULTIPLY32_NUMBER, _RIGHT32_NUMBER = 0x24, 0x74
_XOR = 0xAF
_MOVE32_NUMBER = 0xB4
_JUMP = 0x05
_CALL, _EXIT = 0x85, 0x95
_JUMP32_NUMBER = {"==": 0x16, "!=": 0x56, ">": 0x26}
_JUMP_REGISTER = {">": 0x2D}


class Register(IntEnum):
    """R0 is what a call returns and the program ends with, R1 to R5 are arguments, R6 to R9
    outlive a call, R10 is the end of the stack."""

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; ``to`` is the label that it jumps to."""

    code: int
    destination: int = 0
    source: int = 0
    offset: int = 0
    number: int = 0
    to: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A place that is jumped to."""

    name: str


def load(into: Register, base: Register, offset: int) -> Instruction:
    """32 bits from memory."""
    return Instruction(_LOAD, into, base, offset)


def load_pointer(into: Register, base: Register, offset: int) -> Instruction:
    return Instruction(_LOAD_LONG, into, base, offset)


def store(base: Register, offset: int, value: Register) -> Instruction:
    """32 bits to memory."""
    return Instruction(_STORE, base, value, offset)


def load_octet(into: Register, base: Register, offset: int) -> Instruction:
    return Instruction(_LOAD_OCTET, into, base, offset)


def store_octet(base: Register, offset: int, value: Register) -> Instruction:
    return Instruction(_STORE_OCTET, base, value, offset)


def load_of_packet(offset: int) -> Instruction:
    """32 bits of the packet, big-endian, into R0.  R6 has to be the program's argument; R1 to R5
    are lost.  If the packet ends before, so does the program, with 0 (RFC 9669 section 5.5)."""
    return Instruction(_LOAD_PACKET, number=offset)


def load_octet_of_packet(offset: int) -> Instruction:
    """The same with 8 bits."""
    return Instruction(_LOAD_PACKET_OCTET, number=offset)


def move(into: Register, value: Register | int) -> Instruction:
    if isinstance(value, Register):
        return Instruction(_MOVE, into, value)
    return Instruction(_MOVE_NUMBER, into, number=value)


def move32(into: Register, value: int) -> Instruction:
    return Instruction(_MOVE32_NUMBER, into, number=value)


def add(into: Register, value: int) -> Instruction:
    return Instruction(_ADD_NUMBER, into, number=value)


def and32(into: Register, value: int) -> Instruction:
    return Instruction(_AND32_NUMBER, into, number=value)


def or32(into: Register, value: int) -> Instruction:
    return Instruction(_OR32_NUMBER, into, number=value)


def multiply32(into: Register, value: int) -> Instruction:
    return Instruction(_MULTIPLY32_NUMBER, into, number=value)


def right32(into: Register, value: int) -> Instruction:
    """Shift to the right, without a sign."""
    return Instruction(_RIGHT32_NUMBER, into, number=value)


def xor(into: Register, value: Register) -> Instruction:
    return Instruction(_XOR, into, value)


def jump(to: str) -> Instruction:
    return Instruction(_JUMP, to=to)


def jump32_if(register: Register, relation: str, value: int, to: str) -> Instruction:
    """If the lower 32 bits of ``register`` are equal, unequal or above, unsigned."""
    return Instruction(_JUMP32_NUMBER[relation], register, number=value, to=to)


def jump_if(register: Register, relation: str, other: Register, to: str) -> Instruction:
    return Instruction(_JUMP_REGISTER[relation], register, other, to=to)


def call(function: int) -> Instruction:
    """One of the kernel's functions for BPF programs."""
    return Instruction(_CALL, number=function)


def leave() -> Instruction:
    """End with R0."""
    return Instruction(_EXIT)


def assembled(program: Sequence[Instruction | Label], order: str = sys.byteorder) -> bytes:
    """The program in the byte order of a machine.  KeyError: a label that is not there."""
    places: dict[str, int] = {}
    instructions: list[Instruction] = []
    for each in program:
        if isinstance(each, Label):
            places[each.name] = len(instructions)
        else:
            instructions.append(each)
    return b"".join(
        _octets(each, places[each.to] - place - 1 if each.to else each.offset, order)
        for place, each in enumerate(instructions)
    )


def _octets(each: Instruction, offset: int, order: str) -> bytes:
    little = order == "little"
    registers = (
        each.source << 4 | each.destination if little else each.destination << 4 | each.source
    )
    number = (each.number & 0xFFFFFFFF) - ((each.number & 0x80000000) << 1)
    return struct.pack("<BBhi" if little else ">BBhi", each.code, registers, offset, number)
