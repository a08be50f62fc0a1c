"""The trace's file: whole lines, also around a disk that was full."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from oegw.trace import JsonTrace
from oegw.tracefile import TraceFile

WRITE = os.write


class Disk:
    """Has room for so many octets."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, octets: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        fits = octets[: self.room]
        self.room -= len(fits)
        return WRITE(descriptor, fits)


def lines(path: Path) -> list[Any]:
    found: list[Any] = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append("torn")
    return found


def test_a_full_disk_costs_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.jsonl"
    trace = JsonTrace(TraceFile(path, lambda: 7.0), lambda: 5.0)
    trace.event("ike", "sent", number=1)
    disk = Disk(10)
    monkeypatch.setattr(os, "write", disk.write)
    for number in (2, 3, 4):
        trace.event("ike", "sent", number=number)
    assert trace.counters["ike.sent"] == 4
    assert capsys.readouterr().err == (
        f"oegw: gateway.trace: {path}: not the whole line fits in: events are not recorded\n"
    )
    disk.room = 10_000
    trace.event("ike", "sent", number=5)
    trace.event("ike", "sent", number=6)
    first, torn, lost, *rest = lines(path)
    assert (first["number"], torn) == (1, "torn")
    assert lost == {"time": 7.0, "category": "trace", "event": "lost", "lines": 3}
    assert [line["number"] for line in rest] == [5, 6]
    assert capsys.readouterr().err.endswith("recorded again; 3 events were lost\n")


def test_a_pipe_that_nobody_reads_stops_nobody(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=f"gateway.trace: {pipe}: No such device or address"):
        TraceFile(pipe, lambda: 0.0)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file = TraceFile(pipe, lambda: 0.0)
    for _ in range(100):
        file.write("x" * 10_000 + "\n")  # more than a pipe holds
    file.close()
    os.close(reader)


def test_it_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"old": 1}\n')
    file = TraceFile(path, lambda: 0.0)
    file.write('{"new": 2}\n')
    file.close()
    assert lines(path) == [{"old": 1}, {"new": 2}]
