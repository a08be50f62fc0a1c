"""The file of what must survive a crash: made, refused, set aside."""

from __future__ import annotations

import sqlite3
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oegw.contacts import Contacts
from oegw.memorytable import MemoryTable
from oegw.statefile import StateError, StateFile

SG_B = ip_address("192.1.1.5")


@pytest.mark.parametrize("head", [b"SQLite format 3\0", bytes(16)])
def test_corrupt_file_is_set_aside_and_said(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "oegw.db"
    path.write_bytes(head + b"and then nonsense" * 100)
    file = StateFile(path)
    assert file.note.startswith(f"{path}: ")
    assert file.note.endswith("set aside as oegw.db.corrupt")
    assert Contacts(file).all() == frozenset()
    assert len(MemoryTable(file).load()) == 0
    assert (tmp_path / "oegw.db.corrupt").read_bytes().startswith(head)


def test_file_of_somebody_else_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "gateway.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----" * 100)
    with pytest.raises(StateError, match="file is not a database"):
        StateFile(path)
    assert path.read_bytes().startswith(b"-----BEGIN")
    assert list(tmp_path.iterdir()) == [path]


def test_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"gateway\.state: .*/file/oegw\.db: "):
        StateFile(tmp_path / "file" / "oegw.db")
    with pytest.raises(StateError, match="unable to open"):
        StateFile(tmp_path)


def test_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(StateError, match="newer oegw"):
        StateFile(path)
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (7,)


def test_damaged_page_is_set_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    first = StateFile(path)
    Contacts(first).remember(SG_B)
    first.close()
    octets = bytearray(path.read_bytes())
    octets[4096:8192] = b"\xff" * 4096
    path.write_bytes(octets)
    again = StateFile(path)
    assert "set aside as oegw.db.corrupt" in again.note
    assert Contacts(again).all() == frozenset()


def test_nobody_else_reads_whom_we_talk_to(tmp_path: Path) -> None:
    Contacts(StateFile(tmp_path / "oegw.db")).remember(SG_B)
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}


def test_file_of_the_first_version_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE contact (identity TEXT PRIMARY KEY);
        CREATE TABLE pair (selectors TEXT PRIMARY KEY, gateway TEXT NOT NULL);
        CREATE TABLE gateway (identity TEXT PRIMARY KEY, key TEXT NOT NULL);
        INSERT INTO contact VALUES ('192.1.1.5');
        INSERT INTO pair VALUES ('192.1.0.65/32 192.2.0.66/32 0 0 0', '192.1.1.5');
        INSERT INTO gateway VALUES ('192.1.1.5', 'fingerprint');
        PRAGMA user_version = 1;
        """
    )
    database.close()
    file = StateFile(path)
    assert file.note == ""
    assert file.database.execute("PRAGMA user_version").fetchone() == (2,)
    assert Contacts(file).all() == {SG_B}
    memory = MemoryTable(file).load()
    assert len(memory) == 2
    assert memory.key_of(SG_B) == "fingerprint"
    lasting = MemoryTable(file).load_lasting("boot", "")
    lasting.fell_silent(SG_B, 1060.0)
    MemoryTable(file).save(lasting.take_changes())
    file.close()
    assert len(MemoryTable(StateFile(path)).load_lasting("boot", "")) == 1


def test_an_upgrade_that_fails_sets_the_old_version_aside_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE silence (something_else)")  # in the way of the second step's end
    database.execute("PRAGMA user_version = 1")
    database.close()
    assert "silence already exists; set aside" in StateFile(path).note
    database = sqlite3.connect(tmp_path / "oegw.db.corrupt")
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("silence",)]


def test_file_of_a_newer_version_is_not_changed_by_an_octet(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    database = sqlite3.connect(path)
    database.executescript("CREATE TABLE later (a); PRAGMA user_version = 3")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match=r"version 3, and this one knows up to 2"):
        StateFile(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", [0, 2])
def test_a_database_of_another_program_stays_as_it_is(tmp_path: Path, version: int) -> None:
    path = tmp_path / "oegw.db"
    database = sqlite3.connect(path)
    database.executescript(f"CREATE TABLE mail (a); PRAGMA user_version = {version}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="is the database of another program"):
        StateFile(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def with_contacts(path: Path, number: int) -> bytes:
    file = StateFile(path)
    for each in range(number):
        Contacts(file).remember(f"host{each}.example")
        file.database.execute("INSERT INTO pair VALUES (?, ?)", (f"pair {each}", f"gateway {each}"))
    file.close()
    return path.read_bytes()


VERSION = range(60, 64)  # octets that say of which of our versions it is; the first 16 say SQLite


@cache
def fifty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return with_contacts(Path(folder) / "oegw.db", 50)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_octet_is_wrong_the_gateway_starts(data: st.DataObject) -> None:
    octets = bytearray(fifty())
    place = data.draw(st.integers(16, 107) | st.integers(16, len(octets) - 1))
    octets[place] = data.draw(st.integers(0, 2 if place in VERSION else 255))
    assume(int.from_bytes(octets[60:64], "big") <= 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "oegw.db"
        path.write_bytes(octets)
        file = StateFile(path)
        Contacts(file).all()
        MemoryTable(file).load()
        MemoryTable(file).load_lasting("boot", "")
        file.close()


@pytest.mark.parametrize(("table", "value"), [("contact", b"@\xff"), ("pair", b"\xff")])
def test_a_text_that_is_none_is_forgotten(tmp_path: Path, table: str, value: bytes) -> None:
    path = tmp_path / "oegw.db"
    octets = with_contacts(path, 1)
    old = b"@host0.example" if table == "contact" else b"pair 0"
    assert old in octets
    path.write_bytes(octets.replace(old, value + old[len(value) :]))
    file = StateFile(path)
    assert Contacts(file).all() <= {"host0.example"}
    MemoryTable(file).load()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as full, suppress(OSError):
        while full.write(bytes(4096)):
            pass


@pytest.mark.netns
@pytest.mark.parametrize("there", [True, False])
def test_on_a_full_disk_the_gateway_starts_and_what_is_there_is_known(
    tmp_path: Path, there: bool
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=True)
    try:
        path = tmp_path / "oegw.db"
        if there:
            with_contacts(path, 1)
        fill(tmp_path / "full")
        file = StateFile(path)
        assert "what is remembered is lost at the end" in file.note
        assert Contacts(file).all() == ({"host0.example"} if there else set())
        Contacts(file).remember("other.example")
        file.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
