"""Instructions as octets, against the encoding of RFC 9669 section 3."""

from __future__ import annotations

import pytest

from oegw.bpf.instructions import (
    Instruction,
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
    load_octet_of_packet,
    load_of_packet,
    load_pointer,
    move,
    move32,
    multiply32,
    or32,
    right32,
    store,
    store_octet,
    xor,
)
from oegw.sst.asking import programs

R0, R1, R2, R6, R9, R10 = (Register(n) for n in (0, 1, 2, 6, 9, 10))


@pytest.mark.parametrize(
    ("instruction", "little", "big"),
    [
        (load(R2, R6, 28), "61 62 1c00 00000000", "61 26 001c 00000000"),
        (load_pointer(R2, R6, 8), "79 62 0800 00000000", "79 26 0008 00000000"),
        (store(R10, -4, R9), "63 9a fcff 00000000", "63 a9 fffc 00000000"),
        (load_octet(R2, R6, 3), "71 62 0300 00000000", "71 26 0003 00000000"),
        (store_octet(R2, 1, R9), "73 92 0100 00000000", "73 29 0001 00000000"),
        (move(R6, R1), "bf 16 0000 00000000", "bf 61 0000 00000000"),
        (move(R0, -22), "b7 00 0000 eaffffff", "b7 00 0000 ffffffea"),
        (move32(R2, 0xFFFFFFFF), "b4 02 0000 ffffffff", "b4 20 0000 ffffffff"),
        (add(R2, 4), "07 02 0000 04000000", "07 20 0000 00000004"),
        (and32(R9, ~0x01000000), "54 09 0000 fffffffe", "54 90 0000 feffffff"),
        (or32(R9, 0x80000000), "44 09 0000 00000080", "44 90 0000 80000000"),
        (multiply32(R2, 0x9E3779B1), "24 02 0000 b179379e", "24 20 0000 9e3779b1"),
        (right32(R2, 16), "74 02 0000 10000000", "74 20 0000 00000010"),
        (xor(R2, R1), "af 12 0000 00000000", "af 21 0000 00000000"),
        (load_of_packet(12), "20 00 0000 0c000000", "20 00 0000 0000000c"),
        (load_octet_of_packet(0), "30 00 0000 00000000", "30 00 0000 00000000"),
        (call(49), "85 00 0000 31000000", "85 00 0000 00000031"),
        (leave(), "95 00 0000 00000000", "95 00 0000 00000000"),
    ],
)
def test_instruction_as_octets(instruction: Instruction, little: str, big: str) -> None:
    assert assembled([instruction], "little").hex() == little.replace(" ", "")
    assert assembled([instruction], "big").hex() == big.replace(" ", "")


def test_jumps_count_from_the_next_instruction() -> None:
    code = [
        Label("begin"),
        jump32_if(R2, "!=", 200, "end"),
        jump_if(R2, ">", R1, "end"),
        jump("begin"),
        Label("end"),
        leave(),
    ]
    assert assembled(code, "little").hex(" ", 8) == (
        "56020200c8000000 2d12010000000000 0500fdff00000000 9500000000000000"
    )


def test_label_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        assembled([jump("nowhere"), leave()])


@pytest.mark.parametrize("bit", [1 << place for place in range(32)])
def test_programs_are_whole_and_have_names_that_fit(bit: int) -> None:
    for each in (programs.ask(bit, 4096), programs.answer(bit, 4096), programs.mark(bit)):
        assert len(each.name) <= 15
        assert len(each.code) % 8 == 0
        assert each.code[-8] == 0x95
