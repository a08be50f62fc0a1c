"""The memory of peers on disk."""

from __future__ import annotations

import sqlite3
from ipaddress import ip_address
from pathlib import Path

import pytest

from oegw.contacts import Contacts, StateError

SG_B = ip_address("192.1.1.5")


def test_what_was_remembered_is_there_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "state" / "oegw.db"
    first = Contacts(path)
    assert first.all() == frozenset()
    first.remember(SG_B)
    first.remember(SG_B)
    first.remember("road.example")
    # No close: the process was killed.
    second = Contacts(path)
    assert second.all() == {SG_B, "road.example"}
    second.forget(SG_B)
    second.forget(SG_B)
    assert Contacts(path).all() == {"road.example"}
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("head", [b"SQLite format 3\0", bytes(16)])
def test_corrupt_file_is_set_aside_and_said(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "oegw.db"
    path.write_bytes(head + b"and then nonsense" * 100)
    contacts = Contacts(path)
    assert contacts.note.startswith(f"{path}: ")
    assert contacts.note.endswith("set aside as oegw.db.corrupt")
    assert contacts.all() == frozenset()
    assert (tmp_path / "oegw.db.corrupt").read_bytes().startswith(head)


def test_file_of_somebody_else_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "gateway.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----" * 100)
    with pytest.raises(StateError, match="file is not a database"):
        Contacts(path)
    assert path.read_bytes().startswith(b"-----BEGIN")
    assert list(tmp_path.iterdir()) == [path]


def test_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"gateway\.state: .*/file/oegw\.db: "):
        Contacts(tmp_path / "file" / "oegw.db")
    with pytest.raises(StateError, match="unable to open"):
        Contacts(tmp_path)


def test_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(StateError, match="newer oegw"):
        Contacts(path)
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (7,)


def test_damaged_page_is_set_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "oegw.db"
    contacts = Contacts(path)
    contacts.remember(SG_B)
    contacts.close()
    octets = bytearray(path.read_bytes())
    octets[4096:8192] = b"\xff" * 4096
    path.write_bytes(octets)
    again = Contacts(path)
    assert "set aside as oegw.db.corrupt" in again.note
    assert again.all() == frozenset()


def test_row_that_is_no_identity_is_passed_over(tmp_path: Path) -> None:
    contacts = Contacts(tmp_path / "oegw.db")
    contacts.remember(SG_B)
    contacts._database.execute("INSERT INTO contact VALUES ('x y z'), ('@'), ('@a b')")
    assert contacts.all() == {SG_B}


def test_nobody_else_reads_whom_we_talk_to(tmp_path: Path) -> None:
    contacts = Contacts(tmp_path / "oegw.db")
    contacts.remember(SG_B)
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
