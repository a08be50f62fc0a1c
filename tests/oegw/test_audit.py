"""The audit log: lines of decisions, whole ones, in a file that others rename and fill up."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from oegw import audit
from oegw.audit import Audit, AuditFile, AuditSettings, AuditThread, audit_line
from oegw.trace import JsonTrace

VERDICT = {
    "connection": 7,
    "source": ip_network("192.1.0.65"),
    "destination": ip_network("192.2.0.0/24"),
    "rule": "default",
    "rule_category": "opportunistic",
}


class Teller:
    """What the operator was told; `wait` until there is so much."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._came = threading.Condition()

    def __call__(self, text: str) -> None:
        with self._came:
            self.said.append(text)
            self._came.notify_all()

    def wait(self, number: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.said) >= number, 10), self.said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def made(*events: tuple[str, str, Mapping[str, Any]], path: Path, say: Any = None) -> Teller:
    """A trace of these events, and the log of it in ``path``."""
    teller = say or Teller()
    trace = JsonTrace(None, lambda: 1700000000.25)
    thread = AuditThread(AuditFile(path), teller)
    trace.listeners.append(thread.listen)
    for category, event, fields in events:
        trace.event(category, event, **fields)
    thread.close()
    return teller


def test_a_decision_is_a_line_with_all_that_is_known_of_it(path: Path) -> None:
    made(
        ("verdict", "encrypt", VERDICT | {"gateway": ip_address("192.1.1.5"), "renewed": False}),
        ("verdict", "encrypt", VERDICT | {"trust": None, "renewed": True}),
        ("verdict", "ended", VERDICT | {"decision": "encrypt", "seconds": 3.5}),
        ("ike", "sent", {"message": "MM1"}),
        ("gateway", "stopping", {}),
        path=path,
    )
    begun, renewed, ended, stopping = lines(path)
    assert begun == {
        "time": 1700000000.25,
        "at": "2023-11-14T22:13:20.250+00:00",
        "event": "begun",
        "decision": "encrypt",
        "connection": 7,
        "source": "192.1.0.65",
        "destination": "192.2.0.0/24",
        "rule": "default",
        "gateway": "192.1.1.5",
        "category": "opportunistic",
    }
    assert renewed["event"] == "renewed"
    assert "trust" not in renewed
    assert (ended["event"], ended["decision"], ended["seconds"]) == ("ended", "encrypt", 3.5)
    assert stopping["event"] == "stopping"


def test_only_decisions_and_the_life_of_the_gateway_belong_into_it() -> None:
    assert audit_line({"time": 1.0, "category": "gateway", "event": "note"}) is None
    assert audit_line({"time": 1.0, "category": "tunnel", "event": "keyed"}) is None


def test_the_file_is_for_its_owner_and_a_group_whatever_the_umask_says(path: Path) -> None:
    before = os.umask(0o077)
    try:
        AuditFile(path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)  # the operator's choice stays
    AuditFile(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_is_appended_to(path: Path) -> None:
    path.write_text('{"older": 1}\n')
    made(("gateway", "started", {"pid": 1}), path=path)
    older, started = lines(path)
    assert older == {"older": 1}
    assert started["pid"] == 1


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: os.mkfifo(path)])
def test_a_path_that_is_no_file_is_refused(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(OSError):  # noqa: PT011  (which one, the kernel says)
        AuditFile(path)


@contextmanager
def small_disk(octets: int) -> Iterator[None]:
    """No file grows beyond so many octets: as a disk that fills up, half a write included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_once_and_no_half_line_stays(path: Path) -> None:
    teller = Teller()
    trace = JsonTrace(None, lambda: 1700000000.25)
    thread = AuditThread(AuditFile(path), teller)
    trace.listeners.append(thread.listen)
    trace.event("gateway", "started", pid=1)
    until(lambda: path.stat().st_size > 0)
    with small_disk(200):
        for number in range(50):
            trace.event("verdict", "clear", **VERDICT | {"number": number, "renewed": False})
        teller.wait(1)
        for number in range(50, 60):
            trace.event("verdict", "clear", **VERDICT | {"number": number, "renewed": False})
        until(lambda: thread._lost == 60)
    trace.event("verdict", "clear", **VERDICT | {"number": 99, "renewed": False})
    teller.wait(2)
    thread.close()
    assert [text.rpartition(": ")[2] for text in teller.said] == [
        "decisions are not recorded",
        "recorded again; 60 lines were lost",
    ]
    first, lost, last = lines(path)  # each line is whole
    assert first["event"] == "started"
    assert (lost["event"], lost["lines"]) == ("lost", 60)
    assert last["number"] == 99


def test_a_disk_that_hangs_costs_lines_and_never_the_gateway(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, begun = threading.Event(), threading.Event()
    write = AuditFile.write

    def slow(self: AuditFile, octets: bytes) -> None:
        begun.set()
        assert hanging.wait(20)
        write(self, octets)

    monkeypatch.setattr(AuditFile, "write", slow)
    monkeypatch.setattr(audit, "WAITING_MOST", 10)
    teller = Teller()
    thread = AuditThread(AuditFile(path), teller)
    trace = JsonTrace(None, lambda: 1700000000.25)
    trace.listeners.append(thread.listen)
    trace.event("gateway", "started", pid=1)
    assert begun.wait(10)
    for number in range(15):
        trace.event("verdict", "clear", **VERDICT | {"number": number, "renewed": False})
    hanging.set()
    thread.close()
    assert [line.get("lines") for line in lines(path) if line["event"] == "lost"] == [5]
    assert [line["number"] for line in lines(path) if "number" in line] == list(range(10))


def test_it_is_opened_anew_when_it_was_renamed_and_no_line_is_lost(path: Path) -> None:
    trace = JsonTrace(None, lambda: 1700000000.25)

    async def rotated() -> None:
        log = Audit(trace.listeners, Teller())
        log.follow(AuditSettings(path))
        trace.event("verdict", "clear", **VERDICT | {"number": 1, "renewed": False})
        old = path.rename(path.with_suffix(".1"))
        log.reopen()
        while not path.exists():
            await asyncio.sleep(0.01)
        trace.event("verdict", "clear", **VERDICT | {"number": 2, "renewed": False})
        log.close()
        written = [line["number"] for line in [*lines(old), *lines(path)]]
        assert written == [1, 2]
        assert not trace.listeners

    asyncio.run(rotated())


def test_a_reload_moves_it_or_says_why_not(path: Path, tmp_path: Path) -> None:
    trace = JsonTrace(None, lambda: 1700000000.25)

    async def moved() -> None:
        log = Audit(trace.listeners, Teller())
        with pytest.raises(OSError, match=r"audit.file: .*: No such file"):
            log.follow(AuditSettings(tmp_path / "missing" / "audit.jsonl"))
        log.follow(AuditSettings(path))
        [note] = log.moved(AuditSettings(tmp_path))
        assert note.startswith(f"audit.file: {tmp_path}: ")
        trace.event("gateway", "reloaded")
        assert log.moved(AuditSettings()) == []
        trace.event("gateway", "stopping")
        log.close()

    asyncio.run(moved())
    assert [line["event"] for line in lines(path)] == ["reloaded"]
