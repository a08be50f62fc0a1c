"""`oegw sst` as an operator meets it, as far as that needs no rights; the rest: sst/asking."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import pytest

from oegw import cli
from oegw.sst.keys import read_private


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def oegw(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> Result:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert all(line.startswith("oegw: ") for line in lines), captured.err
        return Result(code, captured.out, captured.err)

    return run


def configured(folder: Path, text: str) -> Path:
    path = folder / "oegw.toml"
    path.write_text(f"version = 1\n{text}")
    return path


def test_keygen_makes_a_key_and_prints_its_public_half(oegw: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "sst.pem"
    result = oegw("sst", "keygen", path)
    assert result.code == cli.FINE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = base64.b64encode(read_private(path).public).decode()
    assert result.out == f"{path}: {public}\n"


def test_keygen_never_replaces_a_key(oegw: Any, tmp_path: Path) -> None:
    path = tmp_path / "sst.pem"
    assert oegw("sst", "keygen", path).code == cli.FINE
    before = path.read_bytes()
    result = oegw("sst", "keygen", path)
    assert result.code == cli.FAILED
    assert str(path) in result.err
    assert path.read_bytes() == before


def test_keygen_rolls_a_key_over_and_keeps_the_old_one(oegw: Any, tmp_path: Path) -> None:
    path = tmp_path / "sst.pem"
    assert oegw("sst", "keygen", path, "--roll").code == cli.FAILED, "there is none"
    assert oegw("sst", "keygen", path).code == cli.FINE
    before = read_private(path).public
    result = oegw("sst", "keygen", path, "--roll")
    assert result.code == cli.FINE
    after = base64.b64encode(read_private(path).public).decode()
    assert result.out.splitlines() == [
        f"{path}: {after}",
        f"{path}.old: the key until now; put it into sst.old_keys",
    ]
    assert read_private(tmp_path / "sst.pem.old").public == before != read_private(path).public
    assert oegw("sst", "keygen", path, "--roll").code == cli.FAILED, "it may still be needed"


def test_keygen_takes_the_file_of_the_configuration(oegw: Any, tmp_path: Path) -> None:
    config = configured(tmp_path, '[sst]\nprivate_key = "ports.pem"\n')
    for arguments in (("--config", config, "keygen"),):
        assert oegw("sst", *arguments).code == cli.FINE
    assert (tmp_path / "ports.pem").exists()
    (tmp_path / "ports.pem").unlink()
    assert oegw("sst", "keygen", "--config", config).code == cli.FINE
    assert (tmp_path / "ports.pem").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "port encryption is off"),
        ('[sst]\nprivate_key = "k"\n', "listens to mark 0x1000000 "),
        ('[sst]\nprivate_key = "k"\nmark_mask = 0xfc00\n', "listens to mark 0x400 "),
        ('[sst]\nprivate_key = "k"\nenabled = false\n', "port encryption is off"),
        ('[sst]\nprivate_key = "k"\nrequests = ["dscp"]\n', "does not listen to sockets"),
        ('[default]\nsst = "inner"\n', "listens to mark"),
    ],
)
def test_state_says_what_the_gateway_makes_of_requests(
    oegw: Any, tmp_path: Path, text: str, said: str
) -> None:
    result = oegw("sst", "--config", configured(tmp_path, text))
    assert result.code == cli.FINE
    assert said in result.out.splitlines()[0]


@pytest.mark.parametrize("arguments", [("run",), ("run", "--"), ("dance",), ("keygen", "a", "b")])
def test_wrong_command_lines(oegw: Any, arguments: tuple[str, ...]) -> None:
    assert oegw("sst", *arguments).code == cli.USAGE


@pytest.mark.parametrize("command", ["enable", "disable", "run", "keygen"])
def test_help_fits_and_has_examples(oegw: Any, command: str) -> None:
    result = oegw("sst", command, "--help")
    assert result.code == cli.FINE
    assert f"  oegw sst {command}" in result.out
    assert max(map(len, result.out.splitlines())) <= 100


@pytest.mark.parametrize("command", [("enable",), ("run", "--", "true")])
def test_wrong_configuration_is_told(oegw: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    config = configured(tmp_path, "[sst]\nmark_mask = 5\n")
    first, *rest = command
    result = oegw("sst", first, "--config", config, *rest)
    assert result.code == cli.CONFIGURATION
    assert "sst.mark_mask" in result.err
