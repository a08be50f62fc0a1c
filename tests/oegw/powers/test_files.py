"""Root gives files to a user who may be hostile: nothing but those becomes that user's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oegw.powers.dropping import User
from oegw.powers.files import Files, give

pytestmark = pytest.mark.netns  # as root

THEM = User("nobody", 65534, 65534)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oegw-files-") as folder:
        yield Path(folder)


def files(place: Path, *logs: Path, state: str = "oegw/state.db") -> Files:
    return Files(place / state, logs, (), ())


def by_them(work: Callable[[], object]) -> None:
    """As the user does it, after all rights are gone."""
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(THEM.gid, THEM.gid, THEM.gid)
            os.setresuid(THEM.uid, THEM.uid, THEM.uid)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def owner(path: Path) -> int:
    return path.lstat().st_uid


def test_folders_and_files_become_theirs(place: Path) -> None:
    place.chmod(0o755)
    (place / "oegw").mkdir()
    (place / "oegw/state.db").write_bytes(b"")
    log = place / "trace.jsonl"
    give(files(place, log, place / "logs/audit.jsonl"), THEM)
    for path in ("oegw", "oegw/state.db", "trace.jsonl", "logs"):
        assert owner(place / path) == THEM.uid, path
    by_them(lambda: (place / "logs/audit.jsonl").write_text("theirs to make"))
    assert owner(place) == 0


def test_a_link_of_theirs_makes_no_file_elsewhere(place: Path) -> None:
    place.chmod(0o755)
    given = files(place, place / "oegw/audit.jsonl")
    give(given, THEM)
    (place / "oegw/audit.jsonl").unlink(missing_ok=True)
    by_them(lambda: (place / "oegw/audit.jsonl").symlink_to(place / "nologin"))
    give(given, THEM)
    assert not (place / "nologin").exists()


def test_a_file_of_roots_with_another_name_stays_roots(place: Path) -> None:
    """Where fs.protected_hardlinks is 0, they may give it that name."""
    place.chmod(0o755)
    give(files(place), THEM)
    secret = place / "shadow"
    secret.write_text("root's")
    (place / "oegw/state.db-wal").hardlink_to(secret)
    give(files(place), THEM)
    assert owner(secret) == 0


def test_a_folder_in_theirs_is_not_followed(place: Path) -> None:
    place.chmod(0o755)
    give(files(place), THEM)
    etc = place / "etc"
    (etc / "oegw").mkdir(parents=True)
    (etc / "oegw/state.db").write_text("root's")
    by_them(lambda: (place / "oegw/oegw").symlink_to(etc))
    give(files(place, state="oegw/oegw/state.db"), THEM)
    assert owner(etc) == 0
    give(files(place, state="oegw/oegw/oegw/state.db"), THEM)
    assert owner(etc / "oegw") == owner(etc / "oegw/state.db") == 0
    by_them(lambda: (place / "oegw/later").symlink_to(place / "new"))
    give(files(place, state="oegw/later/state.db"), THEM)
    assert not (place / "new").exists()
