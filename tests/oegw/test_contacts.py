"""The memory of peers on disk."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from oegw.contacts import Contacts
from oegw.statefile import StateFile

SG_B = ip_address("192.1.1.5")


def test_what_was_remembered_is_there_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "state" / "oegw.db"
    first = Contacts(StateFile(path))
    assert first.all() == frozenset()
    first.remember(SG_B)
    first.remember(SG_B)
    first.remember("road.example")
    # No close: the process was killed.
    second = Contacts(StateFile(path))
    assert second.all() == {SG_B, "road.example"}
    second.forget(SG_B)
    second.forget(SG_B)
    assert Contacts(StateFile(path)).all() == {"road.example"}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_row_that_is_no_identity_is_passed_over(tmp_path: Path) -> None:
    contacts = Contacts(StateFile(tmp_path / "oegw.db"))
    contacts.remember(SG_B)
    contacts._file.database.execute("INSERT INTO contact VALUES ('x y z'), ('@'), ('@a b')")
    assert contacts.all() == {SG_B}
