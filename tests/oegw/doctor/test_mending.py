"""Commands that edit a configuration, run by a shell: the file then says what it should."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from oegw.doctor.mending import Mending

VALUES = {"mark_mask": "0xc0000000", "encrypted_mark": "0x1"}
TEXTS = [
    "version = 1\n",
    "version = 1",
    "version = 1\n\n[intercept]\n",
    "version = 1\n[ intercept ] # ours\nqueue = 7\nmark_mask = 0x30000 # old\n[dns]\nmark_mask = 3",
    "version = 1\n[intercept]\nencrypted_mark=1\n[[rule]]\nmark_mask = 1\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_keys_get_their_values(tmp_path: Path, text: str) -> None:
    path = tmp_path / "it's a file.toml"
    path.write_text(text)
    before = tomllib.loads(text)
    subprocess.run(Mending(path, text).setting("intercept", VALUES), shell=True, check=True)
    after = tomllib.loads(path.read_text())
    assert after.pop("intercept") == before.pop("intercept", {}) | {
        "mark_mask": 0xC0000000, "encrypted_mark": 1,
    }  # fmt: skip
    assert after == before


def test_lines_are_added_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    path.write_text("version = 1\n")
    added = '[[rule]]\nname = "100 % of \\"it\'s\\""\n'
    subprocess.run(Mending(path).appending(added), shell=True, check=True)
    assert tomllib.loads(path.read_text())["rule"] == [{"name": '100 % of "it\'s"'}]


def test_starts_and_restarts() -> None:
    by_hand = Mending(Path("/x/a b.toml"))
    assert by_hand.start == by_hand.restart == "oegw run --config '/x/a b.toml'"
    assert Mending().start == "oegw run"
    running = Mending(number=17)
    assert running.restart == "kill 17; tail --pid=17 -f /dev/null; oegw run"
    assert Mending(installed=True).start == "systemctl start oegw.service"
    service = Mending(number=17, unit="oegw.service", installed=True)
    assert service.restart == "systemctl restart oegw.service"
