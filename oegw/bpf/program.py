"""A BPF program as a value.  Without IO."""

from __future__ import annotations

from dataclasses import dataclass

from oegw.bpf.instructions import Instruction, Label

Code = list[Instruction | Label]


@dataclass(frozen=True, slots=True)
class Program:
    """``name`` has at most 15 octets; ``kind`` and ``at`` (where it is attached; 0 for what has
    no such place) are the kernel's numbers; ``needs`` is what an operator is told to have."""

    name: str
    kind: int
    code: bytes
    needs: str
    at: int = 0
