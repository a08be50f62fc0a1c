"""Files of the policy that change by themselves."""

from __future__ import annotations

import os
from pathlib import Path

from oegw import config
from oegw.watch import Watch, stamps_of


def test_change_is_told_once_and_only_when_it_has_come_to_rest(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("192.1.0.0/24\n")
    watch = Watch(stamps_of([file]))
    assert not watch.has_changed(stamps_of([file]))
    file.write_text("192.1.0.0/24\n192.2")
    assert not watch.has_changed(stamps_of([file]))
    file.write_text("192.1.0.0/24\n192.2.0.0/24\n")  # still being written
    assert not watch.has_changed(stamps_of([file]))
    assert watch.has_changed(stamps_of([file]))
    assert not watch.has_changed(stamps_of([file]))


def test_replaced_removed_and_new_files_are_changes(tmp_path: Path) -> None:
    file, other = tmp_path / "list", tmp_path / "other"
    file.write_text("192.1.0.0/24\n")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)

    def seen(*paths: Path) -> bool:
        return [watch.has_changed(stamps_of(paths)) for _ in range(3)] == [False, True, False]

    watch = Watch(stamps_of([file]))
    other.write_text("192.9.0.0/24\n")  # as long, and as old
    os.utime(other, ns=times)
    other.replace(file)
    assert seen(file)
    file.unlink()
    assert seen(file)
    file.write_text("")
    assert seen(file)
    assert seen(file, other)


def test_change_that_is_taken_back_is_none(tmp_path: Path) -> None:
    known = {tmp_path: (1, 2, 3)}
    watch = Watch(dict(known))
    assert not watch.has_changed({tmp_path: None})
    assert not watch.has_changed(dict(known))
    assert not watch.has_changed({tmp_path: None})


def test_configuration_names_the_files_of_its_rules(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("192.1.0.0/24\n")
    rule = '[[rule]]\nname = "{0}"\ncategory = "deny"\n{1}_file = "{2}"\n'
    text = (
        "version = 1\n" + rule.format("r1", "source", "a") + rule.format("r2", "destination", "a")
    )
    settings = config.parse(text + "[gateway]\nwatch = 2\n", tmp_path / "oegw.toml")
    assert settings.files == (tmp_path / "a",)
    assert settings.gateway.watch == 2
