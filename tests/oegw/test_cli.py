"""The commands as an operator meets them: what they print, and the code they end with."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from dnsrecords import rsakey
from dnsrecords.delegation import Delegation
from dnsrecords.ipseckey import IpsecKey
from dnsrecords.reverse import reverse_name
from dnsrecords.sstkey import SstKey
from oegw import __main__, asking, cli, environment
from oegw.control import ControlServer
from oegw.environment import Environment, UnsuitableBox
from oegw.intercept import jump
from oegw.keys import generate, read_private, write_private
from oegw.powers import running
from oegw.sst import keys as sst
from tests.support.configurations import PEER_KEY
from tests.support.dns_keys import txt

ROOT = Path(__file__).parents[2]
KEY = generate(2048)
COMMANDS = (  # in the order of the help
    "init", "keygen", "dns-records", "rollover", "check", "run", "status", "top", "watch",
    "metrics", "explain", "probe", "forget", "close", "reload", "apply", "confirm", "doctor",
    "docs", "guard", "sst", "moniker", "socks",
)  # fmt: skip

Message = dict[str, Any]

SMALL = f"""\
version = 1
[gateway]
addresses = ["192.1.1.4", "2001:db8:1:1::4"]
private_key = "gateway.pem"
control_socket = "control.sock"
[dns]
local_reverse = ["10.1.0.0/16", "2001:db8::/32"] # the second stands for public addresses
[[rule]]
name = "branch"
category = "configured"
source = "192.1.0.0/24"
destination = "192.2.0.0/24"
peer = "192.1.1.5"
peer_key = "{PEER_KEY}"
[[rule]]
name = "web"
category = "opportunistic"
destination = "192.3.0.0/16"
protocol = "tcp"
destination_ports = "80-89"
on_failure = "drop"
[[rule]]
name = "never"
category = "deny"
destination = "192.3.0.0/16"
protocol = "udp"
[[rule]]
name = "readable"
category = "permit"
destination = "2001:db8:5::/48"
"""


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
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def box(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' box is attached to one network, whatever it is really like."""

    def survey(outside: tuple[str, ...], addresses: tuple[Any, ...]) -> Environment:
        if "eth9" in outside:
            raise UnsuitableBox("interfaces.outside: there is no interface 'eth9'")
        return Environment(("eth1",), addresses, frozenset(), (ip_network("192.1.1.0/24"),))

    monkeypatch.setattr(environment, "survey", survey)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "oegw.toml"
    path.write_text(SMALL)
    write_private(tmp_path / "gateway.pem", KEY)
    return path


def serving(path: Path, answers: dict[str, list[Message]], asked: list[Message]) -> Iterator[None]:
    """A daemon that gives prepared answers and notes what it was asked."""

    async def answer(message: Message) -> AsyncIterator[Message]:
        asked.append(message)
        for line in answers[message["command"]]:
            yield line

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ControlServer(path, answer)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def asked() -> list[Message]:
    return []


@pytest.fixture
def answers() -> dict[str, list[Message]]:
    return {}


@pytest.fixture
def daemon(config: Path, answers: dict[str, list[Message]], asked: list[Message]) -> Iterator[None]:
    yield from serving(config.parent / "control.sock", answers, asked)


# -------------------------------------------------------------- the command line


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(oegw: Any, command: str) -> None:
    result = oegw(command, "--help")
    assert result.code == 0
    assert (
        f"examples:\n  oegw {command}" in result.out or "examples:\n  oegw check &&" in result.out
    )
    for number, meaning in enumerate(
        ("fine", "failed", "command line", "configuration", "daemon", "permitted")
    ):
        assert re.search(rf"^  {number}  .*{meaning}", result.out, re.M)
    assert max(map(len, result.out.splitlines())) <= 100


def test_the_help_lists_every_command(oegw: Any) -> None:
    result = oegw("--help")
    assert result.code == 0
    listed = re.findall(r"^    ([a-z-]+)", result.out, re.M)
    assert tuple(listed) == COMMANDS
    assert oegw("--version").out.startswith("oegw ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("keygen",),
        ("keygen", "--out", "x", "--bits", "1000"),
        ("keygen", "--out", "x", "--bits", "9" * 5000),
        ("explain", "192.1.0.65"),
        ("explain", "192.1.0.65", "2001:db8::1"),
        ("explain", "192.1.0.65", "192.1.0.66", "tpc"),
        ("explain", "192.1.0.65", "192.1.0.66", "tcp", "65536"),
        ("explain", "192.1.0.65", "192.1.0.66", "icmp", "80"),
        ("explain", "alice", "bob"),
        ("forget", "192.2.0.66/24"),
        ("dns-records", "--public-key", PEER_KEY),
        ("dns-records", "--public-key", "AwEAAc0m", "--gateway", "192.1.1.4"),
        (
            "dns-records",
            "--public-key",
            PEER_KEY,
            "--gateway",
            "127.0.0.1",
            "--client",
            "192.1.1.9",
        ),
        ("dns-records", "--public-key", PEER_KEY, "--fqdn", "a..b"),
        (
            "dns-records",
            "--public-key",
            PEER_KEY,
            "--gateway",
            "192.1.1.4",
            "--precedence",
            "65536",
        ),
        ("dns-records", "--public-key", PEER_KEY, "--key", "x", "--gateway", "192.1.1.4"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(oegw: Any, arguments: tuple[str, ...]) -> None:
    result = oegw(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert len(result.err.splitlines()) == 1


def test_it_can_be_run_as_a_module_and_into_a_pipe_that_closes() -> None:
    shell = f"{sys.executable} -m oegw check --help"
    whole = subprocess.run(shell.split(), capture_output=True, cwd=ROOT, check=True)
    assert b"usage: oegw check" in whole.stdout
    reader, writer = os.pipe()
    os.close(reader)
    broken = subprocess.run(
        [sys.executable, "-m", "oegw", "dns-records", "--public-key", PEER_KEY,
         "--gateway", "192.1.1.4"],
        stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False,
    )  # fmt: skip
    os.close(writer)
    assert broken.returncode == 141
    assert broken.stderr == b""


def test_an_interrupt_is_130(oegw: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(bits: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "generate", interrupt)
    result = oegw("keygen", "--out", tmp_path / "x.pem")
    assert (result.code, result.err) == (130, "")


# ------------------------------------------------------------------------ keygen


def test_keygen_writes_the_private_half_and_prints_the_public(oegw: Any, tmp_path: Path) -> None:
    path = tmp_path / "gateway.pem"
    result = oegw("keygen", "--out", path, "--bits", 2048)
    assert result.code == 0
    public = rsakey.parse_text(result.out.strip())
    assert read_private(path).public_key().public_numbers() == public.public_numbers()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = oegw("keygen", "--out", path, "--bits", 2048)
    assert again.code == 1
    assert "exists already" in again.err
    assert read_private(path).public_key().public_numbers() == public.public_numbers()
    forced = oegw("keygen", "--out", path, "--bits", 2048, "--force")
    assert forced.code == 0
    assert forced.out != result.out


def test_keygen_into_nowhere_fails(oegw: Any, tmp_path: Path) -> None:
    result = oegw("keygen", "--out", tmp_path / "a" / "b" / "c", "--bits", 2048)
    assert (result.code, result.out) == (1, "")


# ------------------------------------------------------------------- dns-records


def records(text: str) -> list[tuple[str, str, str]]:
    """Owner, type and RDATA of each line."""
    found = []
    for line in text.splitlines():
        owner, kind, rdtype, rdata = line.split(" ", 3)
        assert kind == "IN"
        found.append((owner, rdtype, rdata))
    return found


def delegation(rdata: str) -> Delegation | None:
    return Delegation.parse(txt(*re.findall(r'"([^"]*)"', rdata)))


def test_records_of_a_gateway_and_its_clients(oegw: Any, config: Path) -> None:
    result = oegw(
        "dns-records", "--key", config.parent / "gateway.pem", "--gateway", "192.1.1.4",
        "--client", "192.1.0.65", "--client", "192.1.1.4", "--precedence", 3,
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    public = read_private(config.parent / "gateway.pem").public_key()
    digits = rsakey.format_base64(public)
    (key_owner, key_type, key), *delegations = records(result.out)
    assert (key_owner, key_type, key) == ("4.1.1.192.in-addr.arpa.", "KEY", f"16896 4 1 {digits}")
    assert [(owner, rdtype) for owner, rdtype, _ in delegations] == [
        ("65.0.1.192.in-addr.arpa.", "TXT"),
        ("4.1.1.192.in-addr.arpa.", "TXT"),
    ]
    for _, _, rdata in delegations:
        read = delegation(rdata)
        assert read is not None
        assert read.key is not None
        assert (read.precedence, read.address) == (3, ip_address("192.1.1.4"))
        assert read.key.public_numbers() == public.public_numbers()


def test_records_by_configuration_pair_families(oegw: Any, config: Path) -> None:
    result = oegw("dns-records", "--config", config, "--client", "192.1.0.65", "2001:db8:1::65")
    assert result.code == 0
    found = records(result.out)
    assert [rdtype for _, rdtype, _ in found] == ["KEY", "KEY", "TXT", "TXT"]
    addresses = [read.address for *_, rdata in found[2:] if (read := delegation(rdata))]
    assert addresses == [ip_address("192.1.1.4"), ip_address("2001:db8:1:1::4")]


def test_records_by_name(oegw: Any) -> None:
    result = oegw(
        "dns-records",
        "--public-key",
        PEER_KEY,
        "--fqdn",
        "@SG-A.example.",
        "--client",
        "192.1.0.65",
    )
    (owner, rdtype, _), (client, _, rdata) = records(result.out)
    assert (owner, rdtype, client) == ("sg-a.example.", "KEY", "65.0.1.192.in-addr.arpa.")
    read = delegation(rdata)
    assert read is not None
    assert (read.precedence, read.address, read.fqdn) == (10, None, "sg-a.example")


def test_records_as_ipseckey_too(oegw: Any, config: Path) -> None:
    key = config.parent / "gateway.pem"
    arguments = ["--key", key, "--gateway", "192.1.1.4", "--client", "192.1.0.65", "--ipseckey"]
    found = records(oegw("dns-records", *arguments, "--precedence", "3").out)
    assert [(owner, rdtype) for owner, rdtype, _ in found] == [
        ("4.1.1.192.in-addr.arpa.", "KEY"),
        ("4.1.1.192.in-addr.arpa.", "IPSECKEY"),
        ("65.0.1.192.in-addr.arpa.", "TXT"),
        ("65.0.1.192.in-addr.arpa.", "IPSECKEY"),
    ]
    public = read_private(key).public_key()
    own, client = (IpsecKey.from_text(rdata) for _, rdtype, rdata in found if rdtype == "IPSECKEY")
    assert own == IpsecKey.of(3, None, None, public)
    assert client == IpsecKey.of(3, ip_address("192.1.1.4"), None, public)
    named = ["--key", key, "--fqdn", "sg-a.example", "--client", "192.1.0.65", "--ipseckey"]
    *_, (_, _, rdata) = records(oegw("dns-records", *named).out)
    assert IpsecKey.from_text(rdata) == IpsecKey.of(10, None, "sg-a.example", public)
    result = oegw("dns-records", *arguments, "--precedence", "256")
    assert result.code == 2
    assert "precedence 256 is not within 0 to 255" in result.err


def test_records_as_ipseckey_by_configuration(oegw: Any, config: Path) -> None:
    assert "IPSECKEY" not in oegw("dns-records", "--config", config).out
    config.write_text(SMALL + "[publish]\nipseckey = true\n")
    assert "IPSECKEY" in oegw("dns-records", "--config", config).out


def sst_keys(text: str) -> list[tuple[str, SstKey]]:
    found = []
    for owner, rdtype, rdata in records(text):
        if rdtype == "TXT" and (key := SstKey.parse(txt(*re.findall(r'"([^"]*)"', rdata)))):
            found.append((owner, key))
    return found


def test_sst31_records_of_the_key_for_port_encryption(oegw: Any, config: Path) -> None:
    assert not sst_keys(oegw("dns-records", "--config", config).out)
    public = sst.generate(config.parent / "sst.pem").public
    text = (
        SMALL.replace("[dns]", 'fqdn = "sg-a.example"\n[dns]') + '[sst]\nprivate_key = "sst.pem"\n'
    )
    config.write_text(text)
    result = oegw(
        "dns-records", "--config", config, "--client", "192.1.0.65", "--client", "192.1.1.4"
    )
    assert (result.code, result.err) == (0, "")
    four, six = ip_address("192.1.1.4"), ip_address("2001:db8:1:1::4")
    itself, itself6 = reverse_name(four), reverse_name(six)
    assert sst_keys(result.out) == [
        (owner, SstKey(10, gateway, algorithm, public))
        for owner, gateway in (
            (itself, four),
            (itself6, six),
            ("65.0.1.192.in-addr.arpa.", four),
            ("_sst.sg-a.example.", four),
            ("_sst.sg-a.example.", six),
        )
        for algorithm in (1, 2)
    ]
    config.write_text(text + 'algorithms = ["aes256"]\n[publish]\nprecedence = 4\n')
    found = [key for _, key in sst_keys(oegw("dns-records", "--config", config).out)]
    assert {(key.precedence, key.algorithm) for key in found} == {(4, 2)}
    config.write_text(text + "enabled = false\n")
    assert not sst_keys(oegw("dns-records", "--config", config).out), "nobody would open them"


def test_sst_records_need_their_key_and_an_address(oegw: Any, config: Path) -> None:
    config.write_text(SMALL + '[sst]\nprivate_key = "sst.pem"\n')
    result = oegw("dns-records", "--config", config)
    assert (result.code, result.out) == (1, "")
    assert "sst.pem: No such file" in result.err
    sst.generate(config.parent / "sst.pem")
    result = oegw("dns-records", "--config", config, "--fqdn", "sg-a.example")
    assert result.code == 0
    assert not sst_keys(result.out)
    assert "no SST records: they name the gateway's addresses" in result.err


def test_records_of_old_sst_keys_are_only_withdrawn(oegw: Any, config: Path) -> None:
    by_key = ("--public-key", PEER_KEY, "--gateway", "192.1.1.4")
    for arguments in (
        ("--config", config),
        ("--config", config, "--update"),
        (*by_key, "--withdraw"),
    ):
        result = oegw("dns-records", "--old-sst-keys", *arguments)
        assert result.code == 2
        assert "--old-sst-keys is for --withdraw" in result.err


def test_rollover_without_clients_is_noted(oegw: Any, config: Path) -> None:
    result = oegw("rollover", "--status", "--config", config)
    assert (
        result.err == "oegw: note: publish.clients is empty: no client's record gets the new key\n"
    )
    config.write_text(SMALL + '[publish]\nclients = "192.1.0.65"\n')
    assert oegw("rollover", "--status", "--config", config).err == ""


def test_records_without_their_key(oegw: Any, config: Path) -> None:
    key = config.parent / "gateway.pem"
    key.chmod(0o644)
    result = oegw("dns-records", "--config", config)
    assert (result.code, result.out) == (1, "")
    assert "mode 0644" in result.err
    key.unlink()
    assert oegw("dns-records", "--config", config).code == 1
    assert oegw("dns-records", "--config", config.parent / "none.toml").code == 3


# ------------------------------------------------------------------------- check


def test_check_prints_the_table_most_specific_first(oegw: Any, config: Path) -> None:
    result = oegw("check", "--config", config)
    assert (result.code, result.err) == (0, "")
    v4, v6 = result.out.split("\n\n")
    rows = [re.split(r"  +", line) for line in v4.splitlines()[2:]]
    users = [row for row in rows if not row[3].startswith("built-in")]
    assert users == [
        ["192.2.0.0/24", "192.1.0.0/24", "any", "branch", "configured with 192.1.1.5",
         f"{config}: rule[1]"],
        ["192.3.0.0/16", "any", "tcp any -> 80-89", "web", "opportunistic, else drop",
         f"{config}: rule[2]"],
        ["192.3.0.0/16", "any", "udp", "never", "deny", f"{config}: rule[3]"],
        ["any", "any", "any", "default", "opportunistic, else clear", f"{config}: default"],
    ]  # fmt: skip
    assert any(row[3] == "built-in: directly attached network 192.1.1.0/24" for row in rows)
    lengths = [int(row[0].partition("/")[2] or 32) for row in rows[1:] if row[0] != "any"]
    assert lengths == sorted(lengths, reverse=True)  # behind DHCP, which goes before all
    assert "readable" in v6
    assert "branch" not in v6


def test_peer_of_variable_address_is_called_by_its_name(oegw: Any, config: Path) -> None:
    config.write_text(
        SMALL.replace('peer = "192.1.1.5"', 'peer = "any"\npeer_identity = "@road.example"')
    )
    assert "configured with road.example" in oegw("check", "--config", config).out
    said = oegw("explain", "--config", config, "192.1.0.65", "192.2.0.66").out
    assert "a tunnel with road.example and never in clear. The peer has to begin" in said


def test_check_reports_everything_at_once(oegw: Any, config: Path) -> None:
    config.write_text(
        SMALL.replace('name = "never"', 'name = "never"\ncolour = 3')
        + '[[rule]]\nname = "a"\ncategory = "deny"\ndestination = "192.9.0.0/24"\n'
        '[[rule]]\nname = "b"\ncategory = "permit"\ndestination = "192.9.0.0/24"\n'
        "[dns.more]\n"
    )
    (config.parent / "gateway.pem").chmod(0o640)
    result = oegw("check", "--config", config)
    assert (result.code, result.out) == (3, "")
    lines = result.err.splitlines()
    assert f"oegw: {config}: rule[3].colour: unknown key" in lines[0]
    assert f"oegw: {config}: dns.more: unknown key" in lines[1]
    assert "private key: " in lines[2]
    assert "mode 0640" in lines[2]
    assert '"a"' in lines[3]
    assert '"b"' in lines[3]
    assert f"{config}: rule[5]" in lines[3]
    assert len(lines) == 4


def test_check_away_from_the_gateway_says_what_it_does_not_know(oegw: Any, config: Path) -> None:
    (config.parent / "gateway.pem").unlink()
    config.write_text(SMALL + '[interfaces]\noutside = "eth9"\n')
    result = oegw("check", "--config", config)
    assert result.code == 0
    assert re.search(r"note: private key: .*No such file", result.err)
    assert re.search(r"note: without the networks .*eth9", result.err)
    assert "attached" not in result.out


def test_check_says_that_the_compiled_core_is_missing(
    oegw: Any, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "oegw.datapath.userspace.core.choice.what_is_missing", lambda: "it was not built"
    )
    config.write_text(SMALL + '[datapath]\ncore = "compiled"\n')
    result = oegw("check", "--config", config)
    assert result.code == 0
    assert 'note: datapath.core = "compiled": it was not built' in result.err
    config.write_text(SMALL + '[datapath]\ncore = "auto"\n')
    assert "not built" not in oegw("check", "--config", config).err


def test_check_looks_at_the_keys_of_port_encryption(oegw: Any, config: Path) -> None:
    config.write_text(SMALL + '[sst]\nprivate_key = "sst.pem"\nold_keys = ["gateway.pem"]\n')
    result = oegw("check", "--config", config)
    assert result.code == 3
    assert re.search(r"note: sst.private_key: .*sst.pem: No such file", result.err)
    assert re.search(r"sst.old_keys: .*gateway.pem: is not an X25519 key", result.err)
    config.write_text(SMALL + '[sst]\nprivate_key = "sst.pem"\n')
    assert oegw("sst", "keygen", "--config", config).code == 0
    assert "sst" not in oegw("check", "--config", config).err
    (config.parent / "sst.pem").chmod(0o644)
    assert re.search(r"sst.private_key: .*mode 0644", oegw("check", "--config", config).err)


@pytest.mark.parametrize("there", [True, False])
def test_check_warns_of_ports_behind_nat_that_can_not_be_encrypted(
    oegw: Any, config: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(jump, "has_nft_queue", lambda nft, table: there)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    only = '[[rule]]\nname = "o"\ncategory = "permit"\nsst = "only"\ndestination = "192.9.0.0/24"\n'
    nat = '[[nat]]\ninside = "192.168.0.0/24"\n'
    config.write_text(SMALL + '[sst]\nprivate_key = "sst.pem"\n' + only + nat)
    result = oegw("check", "--config", config)
    assert result.code == 0
    assert ("nftables has no queue" in result.err) is not there


def test_check_of_nothing_and_of_no_toml(oegw: Any, tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    assert oegw("check", "--config", path).code == 3
    path.write_text("version =")
    assert oegw("check", "--config", path).code == 3
    path.write_text("")
    assert oegw("check", "--config", path).code == 3
    path.write_text("version = 1\n")
    assert oegw("check", "--config", path).code == 0


POINT = '[[decision_point]]\nname = "p"\nurl = "https://192.1.0.70/"\nca = "ca.pem"\n'
PUBLISH = '[publish]\ntsig_key = "tsig.key"\n'
PEER = '[[moniker.export.peer]]\nname = "b.example"\naddress = "192.1.1.5"\nkey = "tsig.key"\n'


@pytest.mark.parametrize(
    ("text", "file", "note", "fault"),
    [
        (POINT, "ca.pem", "decision_point 'p': ca: {}: No such file or directory",
         "decision_point 'p': ca: {}: has no certificates in PEM"),
        (PUBLISH, "tsig.key", "publish.tsig_key: {}: No such file or directory",
         "publish.tsig_key: {}: is not of the form"),
        (PEER, "tsig.key", "moniker.export.peer.key: {}: No such file or directory",
         "moniker.export.peer.key: {}: is not of the form"),
    ],
)  # fmt: skip
def test_check_looks_into_the_files_that_are_needed_later(
    oegw: Any, config: Path, text: str, file: str, note: str, fault: str
) -> None:
    path = config.parent / file
    config.write_text(SMALL + text)
    result = oegw("check", "--config", config)
    assert (result.code, result.err) == (0, f"oegw: note: {note.format(path)}\n")
    path.write_text("nonsense")
    path.chmod(0o600)
    result = oegw("check", "--config", config)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"oegw: {fault.format(path)}")
    assert len(result.err.splitlines()) == 1


def test_check_tells_of_rules_that_never_have_a_tunnel(oegw: Any, config: Path) -> None:
    text = SMALL.replace("[dns]", '[dns]\nresolvers = "192.1.1.53"')
    config.write_text(text + '[default]\nrequire = "secure"\n')
    result = oegw("check", "--config", config)
    assert result.code == 0
    assert result.err.startswith("oegw: note: rule 'default' never has a tunnel, its traffic")


def test_a_fault_is_told_once(oegw: Any, config: Path) -> None:
    text = SMALL.replace("[dns]", "[dns]\nrecords = []")
    config.write_text(text + '[default]\ncategory = "configured"\n')
    lines = oegw("check", "--config", config).err.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["dns.records", "default.category"]


def test_a_long_list_of_prefixes_is_cut_short(oegw: Any, config: Path) -> None:
    lines = (f"10.{number // 256}.{number % 256}.0/24" for number in range(1000))
    (config.parent / "many.txt").write_text("\n".join(lines))
    config.write_text(
        'version = 1\n[[rule]]\nname = "many"\ncategory = "deny"\ndestination_file = "many.txt"'
    )
    result = oegw("check", "--config", config)
    assert result.code == 0
    assert result.out.count(" many ") == 8
    assert "(992 more)" in result.out


# ----------------------------------------------------------------------- explain


@pytest.mark.parametrize(
    ("flow", "rule", "wanted"),
    [
        (("192.1.0.65", "192.2.0.66"), "branch", "tunnel with 192.1.1.5 and never in clear"),
        (("192.1.0.65", "192.3.0.68", "tcp", "80"), "web", "If not, it is dropped."),
        (("192.1.0.65", "192.3.0.68", "tcp", "443"), "default", "If not, it passes in clear;"),
        (("192.1.0.65", "192.3.0.68", "udp"), "never", "It is dropped."),
        (("2001:db8::1", "2001:db8:5::1"), "readable", "It passes in clear."),
        (("192.1.0.65", "192.1.1.67"), "built-in: directly attached network 192.1.1.0/24",
         "It passes in clear."),
        (("192.1.0.65", "9.9.9.9"), "default", "TXT record at 9.9.9.9.in-addr.arpa. is looked up"),
        (("192.1.0.65", "10.0.0.1"), "default", "the DNS is not asked. It passes in clear."),
        (("192.1.0.65", "10.1.0.1"), "default", "TXT record at 1.0.1.10.in-addr.arpa. is looked"),
    ],
)  # fmt: skip
def test_explain_without_a_daemon(
    oegw: Any, config: Path, flow: tuple[str, ...], rule: str, wanted: str
) -> None:
    result = oegw("explain", "--config", config, *flow)
    assert result.code == 0
    words = " ".join(result.out.split())
    assert f"rule {rule} written" in words
    assert wanted in words
    assert "now unknown: " in words
    assert "no oegw is running there" in words
    assert all(len(line) <= 100 or str(config.parent) in line for line in result.out.splitlines())


def test_explain_says_where_the_rule_is_written_and_how_far_it_goes(
    oegw: Any, config: Path
) -> None:
    out = oegw("explain", "--config", config, "192.1.0.65", "192.3.0.68", "tcp", "80").out
    assert f"written   {config}: rule[2]\n" in out
    assert "category  opportunistic, else drop\n" in out
    assert re.search(r"^scope     .* -> 192.3.0.0/16, tcp any -> 80-89$", out, re.M)
    hidden = oegw("explain", "--config", config, "192.1.0.65", "192.3.0.68", "tcp").out
    assert "for packets that show no ports" in hidden


@pytest.mark.usefixtures("daemon")
def test_explain_adds_what_the_daemon_knows(
    oegw: Any, config: Path, answers: dict[str, list[Message]], asked: list[Message]
) -> None:
    answers["explain"] = [
        {"rule": "branch", "category": "configured", "state": "keyed", "reason": "", "done": True}
    ]
    result = oegw("explain", "--config", config, "192.1.0.65", "192.2.0.66", "tcp", "80")
    assert result.code == 0
    assert result.out.endswith("now       keyed\n")
    assert asked == [
        {"command": "explain", "source": "192.1.0.65", "destination": "192.2.0.66", "protocol": 6,
         "source_port": 49152, "destination_port": 80, "port": 80}
    ]  # fmt: skip
    answers["explain"] = [
        {"rule": "old", "category": "deny", "state": "denied", "reason": "it was so", "done": True}
    ]
    result = oegw("explain", "--config", config, "192.1.0.65", "192.2.0.66")
    assert "now       denied: it was so\n" in result.out
    assert "the running gateway applies rule old; oegw reload?" in result.out


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("runs", [False, True])
def test_explain_says_if_port_encryption_has_yet_to_begin(
    runs: bool, oegw: Any, config: Path, answers: dict[str, list[Message]]
) -> None:
    path, control = config.with_name("sst.toml"), config.with_name("control.sock")
    path.write_text('version = 1\n[sst]\nprivate_key = "sst.pem"\n[default]\nsst = "only"\n')
    answers["explain"] = [
        {"rule": "default", "state": "nonexistent", "reason": "", "encrypts_ports": runs,
         "done": True}
    ]  # fmt: skip
    result = oegw(
        "explain", "--config", path, "--socket", control, "192.1.0.65", "192.2.0.66"
    )  # fmt: skip
    assert ("the running gateway does not encrypt ports" in result.out) is not runs


def test_explain_of_a_policy_in_conflict(oegw: Any, config: Path) -> None:
    rule = '[[rule]]\nname = "{}"\ncategory = "deny"\ndestination = "192.9.0.0/24"\n'
    config.write_text("version = 1\n" + rule.format("a") + rule.format("b"))
    result = oegw("explain", "--config", config, "192.1.0.65", "192.2.0.66")
    assert (result.code, result.out) == (3, "")


# --------------------------------------------------------------- with a daemon

STATUS: Message = {
    "pid": 4711, "version": "0.1.0", "started": 1.7e9, "identity": None, "addresses": [],
    "outside": ["eth1"], "datapath": {"name": "memory", "reason": "test"}, "connections": [],
    "channels": [], "held": {"packets": 0, "bytes": 0}, "lookups": 0, "counters": {"x.y": 3},
}  # fmt: skip


@pytest.mark.usefixtures("daemon")
def test_status_as_text_and_as_json(
    oegw: Any, config: Path, answers: dict[str, list[Message]]
) -> None:
    answers["status"] = [STATUS | {"done": True}]
    result = oegw("status", "--config", config)
    assert result.code == 0
    assert "process 4711" in result.out
    assert "No connections." in result.out
    assert json.loads(oegw("status", "--config", config, "--json").out) == STATUS
    socket = config.parent / "control.sock"
    assert oegw("status", "--socket", socket, "--config", "/nowhere").code == 0


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("result", ["keyed", "clear"])
def test_probe_shows_the_steps_as_they_come(
    oegw: Any, config: Path, answers: dict[str, list[Message]], asked: list[Message], result: str
) -> None:
    answers["probe"] = [
        {"step": "(5B) TXT look-up", "seconds": 0.0012, "detail": "name=66.0.2.192.in-addr.arpa."},
        {"step": "(5D) main mode, message 1", "seconds": 0.02, "detail": "\x1b[2J"},
        {"done": True, "result": result, "reason": ""},
    ]
    ended = oegw("probe", "--config", config, "192.1.0.65", "192.2.0.66")
    assert ended.code == (0 if result == "keyed" else 1)
    assert ended.out.splitlines() == [
        "   0.0012 s  (5B) TXT look-up                        name=66.0.2.192.in-addr.arpa.",
        "   0.0200 s  (5D) main mode, message 1               ?[2J",
        result,
    ]
    assert (asked[0]["protocol"], asked[0]["port"]) == (1, None)


@pytest.mark.usefixtures("daemon")
def test_forget_and_reload(
    oegw: Any, config: Path, answers: dict[str, list[Message]], asked: list[Message]
) -> None:
    answers["forget"] = [{"forgotten": 2, "done": True}]
    answers["reload"] = [{"notes": ["[dns] changed: takes effect at the next restart"]}]
    assert oegw("forget", "--config", config, "192.2.0.66").out == "forgotten: 2\n"
    assert asked == [{"command": "forget", "destination": "192.2.0.66/32"}]
    answers["forget"] = [{"forgotten": 0, "ports_forgotten": 3, "done": True}]
    assert "port encryption, hosts and gateways forgotten: 3\n" in (
        oegw("forget", "--config", config, "192.2.0.66").out
    )
    asked.clear()
    answers["close"] = [{"closed": 1, "done": True}]
    assert oegw("close", "--config", config, "192.2.0.0/24").out == "closed: 1\n"
    assert asked == [{"command": "close", "destination": "192.2.0.0/24"}]
    result = oegw("reload", "--config", config)
    assert (result.code, result.out) == (0, "[dns] changed: takes effect at the next restart\n")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("command", ["status", "reload", "probe", "forget", "close", "explain"])
def test_what_the_daemon_refuses_is_1(
    oegw: Any, config: Path, answers: dict[str, list[Message]], command: str
) -> None:
    answers[command] = [{"error": "first line\nsecond \x1b line", "done": True}]
    flow = {"probe": 2, "explain": 2, "forget": 1, "close": 1}.get(command, 0)
    result = oegw(command, "--config", config, *["192.2.0.66"] * flow)
    assert result.code == 1
    assert result.err == "oegw: first line\noegw: second ? line\n"


@pytest.mark.parametrize("command", ["status", "reload", "probe", "forget", "close"])
def test_no_daemon_is_4(oegw: Any, config: Path, command: str) -> None:
    flow = {"probe": 2, "forget": 1, "close": 1}.get(command, 0)
    result = oegw(command, "--config", config, *["192.2.0.66"] * flow)
    assert (result.code, result.out) == (4, "")
    assert "no oegw is running there" in result.err


def test_an_unreachable_socket_that_was_named_is_4_for_explain_too(oegw: Any, config: Path) -> None:
    arguments = ("--config", config, "--socket", config.parent / "no.sock")
    assert oegw("explain", *arguments, "192.1.0.65", "192.2.0.66").code == 4


def test_not_permitted_is_5(oegw: Any, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Iterator[Message]:
        raise cli.NotPermittedError("control.sock: Permission denied; be root")
        yield {}

    monkeypatch.setattr(asking, "request", refuse)
    result = oegw("status", "--config", config)
    assert result.code == 5
    assert "Permission denied" in result.err


def test_a_wrong_configuration_is_3_for_run(oegw: Any, config: Path) -> None:
    config.write_text("version = 1\ncolour = 3\nshape = 4\n")
    result = oegw("run", "--config", config)
    assert result.code == 3
    assert len(result.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(98, "UDP 192.1.1.4 port 500: Address already in use"), "UDP 192.1.1.4 port 500"),
        (FileNotFoundError(2, "No such file or directory", "/nowhere"), "/nowhere: No such file"),
        (UnsuitableBox("no default route"), "no default route"),
    ],
)
def test_failed_start_is_told_in_words(
    oegw: Any, config: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*_: object) -> Environment:
        raise error

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(running, "survey", fail)
    result = oegw("run", "--config", config)
    assert result.code == 1
    assert result.err.startswith(f"oegw: cannot start: {words}")


def test_interrupt_while_the_modules_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "oegw.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "oegw.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert __main__.main() == 130


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel checks rules for root only")
def test_check_has_the_kernel_read_what_moniker_lets_through(oegw: Any, tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    text = 'version = 1\n[moniker.firewall]\ndeny = true\noutside = ["eth1"]\nallow = [{}]\n'
    path.write_text(text.format('"tcp dport 443", "nonsense here"'))
    result = oegw("check", "--config", path)
    assert result.code == 3
    assert "moniker.firewall.allow: 'nonsense here': nft refuses it" in result.err
    assert "443" not in result.err
    path.write_text(text.format('"tcp dport 443"'))
    assert oegw("check", "--config", path).code == 0
