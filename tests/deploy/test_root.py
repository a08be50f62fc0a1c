"""The cache of roots and packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.deploy import root


def test_what_was_used_longest_ago_leaves_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root, "cache_folder", lambda: tmp_path)
    for age in range(1, 10):
        for kind in root.KEPT:
            (tmp_path / f"{kind}-{age}").mkdir()
            os.utime(tmp_path / f"{kind}-{age}", (1e9 - age, 1e9 - age))
    kept = root.KEPT["package"]
    oldest_used_now = root._kept("package", "9", lambda _: pytest.fail("it is there"))
    left = {path.name for path in tmp_path.glob("package-*")}
    assert left == {f"package-{age}" for age in (9, *range(1, kept))}
    assert oldest_used_now.name == "package-9"
    assert len(list(tmp_path.glob("root-*"))) == 9  # of the other kind none
