"""`oegw init`: from nothing to a configuration that works, or to nothing."""

from __future__ import annotations

import io
import os
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oegw import cli, config, first, firstcommand
from oegw.environment import Environment, UnsuitableBox
from oegw.first import Choices, Found, ssh_client, text_of
from oegw.keys import generate, read_private

SG_A = ip_address("192.1.1.4")
FOUND = Found(
    Environment(("eth1",), (SG_A,), frozenset({SG_A}), (ip_network("192.1.0.0/24"),)),
    (ip_network("192.1.0.0/24"),),
    (ip_address("192.1.1.53"),),
    ip_address("198.51.100.7"),
    (),
)
KEY = generate(2048)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "etc"


@pytest.fixture
def init(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    monkeypatch.setattr(firstcommand, "generate", lambda bits: KEY)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(*arguments: str, found: Found = FOUND, answers: str | None = None) -> Any:
        monkeypatch.setattr(firstcommand, "look", lambda gateways: found)
        if answers is not None:
            monkeypatch.setattr("sys.stdin", Terminal(answers))
        code = cli.main(["init", "--dir", str(place), *arguments])
        told = capsys.readouterr()
        assert all(line.startswith("oegw: ") for line in told.err.splitlines() if not answers)
        return code, told.out, told.err

    return run


def test_it_writes_what_check_takes_and_prints_what_is_to_be_published(
    init: Any, place: Path
) -> None:
    code, out, err = init("--client", "192.1.0.65")
    assert code == 0
    settings = config.load(place / "oegw.toml")
    assert settings.management.addresses == (ip_network("198.51.100.7/32"),)
    assert settings.publish.clients == (SG_A, ip_address("192.1.0.65"))
    assert settings.gateway.addresses == (SG_A,)
    assert read_private(place / "gateway.pem").public_key() == KEY.public_key()
    assert (place / "oegw.toml").stat().st_mode & 0o777 == 0o644
    records = [line.split(" ", 3) for line in out.splitlines() if not line.startswith(";")]
    assert [(owner, kind) for owner, _, kind, _ in records] == [
        ("4.1.1.192.in-addr.arpa.", "KEY"),
        ("4.1.1.192.in-addr.arpa.", "TXT"),
        ("65.0.1.192.in-addr.arpa.", "TXT"),
    ]
    config_option = f"--config {place / 'oegw.toml'}"
    for command in ("oegw check", "oegw apply --confirm 60", "oegw doctor"):
        assert f"{command} {config_option}" in out
    assert err == ""


def test_a_second_time_it_changes_nothing(init: Any, place: Path) -> None:
    _, once, _ = init()
    before = [path.read_bytes() for path in sorted(place.iterdir())]
    code, second, err = init()
    assert code == 0
    assert [path.read_bytes() for path in sorted(place.iterdir())] == before
    assert "is there already and stays as it is" in err
    without = [line for line in once.splitlines() if not line.startswith("; made")]
    assert without == second.splitlines()
    code, out, err = init("--client", "192.1.0.66")
    assert (code, out) == (1, "")
    assert err == f"oegw: {place / 'oegw.toml'}: exists already: nothing was changed; edit it\n"


def test_a_key_that_is_there_is_used(init: Any, place: Path) -> None:
    init()
    (place / "oegw.toml").unlink()
    key = (place / "gateway.pem").read_bytes()
    _, out, _ = init()
    assert (place / "gateway.pem").read_bytes() == key
    assert "made: " + str(place / "oegw.toml") in out
    assert "made: " + str(place / "gateway.pem") not in out


def test_without_room_for_the_second_file_nothing_is_there(
    init: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, octets: bytes, mode: int) -> None:
        raise firstcommand.KeyFileError(f"{path}: No space left on device")

    monkeypatch.setattr(firstcommand, "write_whole", full)
    code, out, err = init()
    assert (code, out) == (1, "")
    assert err == f"oegw: {place / 'oegw.toml'}: No space left on device\n"
    assert not place.exists()


def test_on_a_terminal_two_questions_have_defaults(init: Any, place: Path) -> None:
    code, _, err = init(answers="192.1.0.65x\n192.1.0.65, 192.1.0.66\n\n")
    assert code == 0
    assert "note: '192.1.0.65x' is not an IP address" in err
    assert "networks inside: 192.1.0.0/24" in err
    settings = config.load(place / "oegw.toml")
    assert [str(each) for each in settings.publish.clients] == [
        "192.1.1.4", "192.1.0.65", "192.1.0.66",
    ]  # fmt: skip
    assert settings.management.addresses == (ip_network("198.51.100.7/32"),)


def test_a_terminal_that_goes_leaves_nothing(init: Any, place: Path) -> None:
    code, _, err = init(answers="\n")
    assert code == 1
    assert err.endswith("oegw: no answer: nothing was written\n")
    assert not place.exists()


@pytest.mark.parametrize("answers", [None, "unused"])
def test_with_yes_nothing_is_asked(init: Any, place: Path, answers: str | None) -> None:
    code, _, err = init("--yes", "--management", "192.0.2.0/24", answers=answers)
    assert (code, err) == (0, "")
    settings = config.load(place / "oegw.toml")
    assert settings.management.addresses == (ip_network("192.0.2.0/24"),)


def test_what_the_box_lacks_is_told(init: Any) -> None:
    found = replace(FOUND, resolvers=(), ssh=None, still=("net.ipv4.ip_forward",))
    code, _, err = init(found=found)
    assert code == 0
    assert "no resolver is known" in err
    assert "this box does not forward: sysctl -w net.ipv4.ip_forward=1" in err
    assert "nobody is in management.addresses" in err


def test_a_box_that_cannot_be_one_is_told_which_option_helps(
    init: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsuitable(outside: Any, addresses: Any) -> None:
        raise UnsuitableBox("no interface has a default route")

    monkeypatch.setattr("oegw.first.survey", unsuitable)
    monkeypatch.setattr(firstcommand, "look", __import__("oegw.first").first.look)
    code = cli.main(["init", "--dir", str(place)])
    assert code == 1
    assert not place.exists()


@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        Choices((SG_A,), (ip_address("192.1.0.65"),), (ip_network("2001:db8::/32"),), "sg.example"),
        Choices(server=ip_address("192.1.1.53"), tsig_key=Path('/a "b"/\\key')),
    ],
)
@pytest.mark.parametrize("translates", [(), ("masquerade",)])
def test_every_text_is_without_fault(choices: Choices, translates: tuple[str, ...]) -> None:
    inside = (ip_network("10.0.0.0/8"), ip_network("192.1.0.0/24"))
    found = replace(FOUND, box=replace(FOUND.box, translates=translates), inside=inside)
    settings = config.parse(text_of(found, choices, 0.0), Path("/etc/oegw/oegw.toml"))
    assert [str(rule.inside) for rule in settings.nat] == ["10.0.0.0/8"] * bool(translates)
    assert settings.publish.tsig_key == choices.tsig_key
    assert settings.gateway.fqdn == choices.fqdn


@pytest.mark.parametrize(
    ("environments", "client"),
    [
        ([{}], None),
        ([{"SSH_CONNECTION": "198.51.100.7 50000 192.1.1.4 22"}], "198.51.100.7"),
        ([{}, {"SSH_CONNECTION": "2001:db8::7 50000 2001:db8::4 22"}], "2001:db8::7"),
        ([{"SSH_CONNECTION": "fe80::7%eth0 50000 fe80::4 22"}], None),
        ([{"SSH_CONNECTION": "UNKNOWN 65535 UNKNOWN 65535"}], None),
        ([{"SSH_CONNECTION": "127.0.0.1 5 127.0.0.1 22"}], None),
    ],
)
def test_who_came_by_ssh(environments: list[dict[str, str]], client: str | None) -> None:
    assert ssh_client(iter(environments)) == (None if client is None else ip_address(client))


def test_the_processes_above_are_asked_too() -> None:
    """As under sudo, which hands on nothing of it."""
    program = (
        "import sys; from oegw.first import _environments, ssh_client; "
        "print(ssh_client(_environments()))"
    )
    environment = {**os.environ, "SSH_CONNECTION": "198.51.100.7 5 6 7"}
    inner = f"env -u SSH_CONNECTION '{os.sys.executable}' -c '{program}'; true"
    done = subprocess.run(
        ["sh", "-c", inner], env=environment, capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "198.51.100.7"


def test_addresses_that_pass_are_not_named(tmp_path: Path, monkeypatch: Any) -> None:
    rows = "20010db8000000000000000000000004 02 40 00 {} eth1\n"
    file = tmp_path / "if_inet6"
    monkeypatch.setattr(first, "_IF_INET6", file)
    passing = ip_address("2001:db8::4")
    box = replace(FOUND.box, addresses=(SG_A, passing))
    monkeypatch.setattr(first, "survey", lambda outside, addresses: box)
    monkeypatch.setattr(first, "links", lambda outside, tunnel: SimpleNamespace(inside=()))
    file.write_text(rows.format("01"))
    assert first.look(()).box.addresses == (SG_A,)
    assert first.look((SG_A, passing)).box.addresses == (SG_A, passing)
    file.write_text(rows.format("80"))
    assert first.look(()).box.addresses == (SG_A, passing)
