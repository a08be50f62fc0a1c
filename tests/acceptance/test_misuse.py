"""The misuse table: each mistake is one clear sentence and an exit code that says of what kind.

The codes are those of `oegw --help`.  A row is a command line in a situation, the code, and what
the sentence says; nothing is printed to stdout, and there never is a traceback.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netfilterqueue import NetfilterQueue

from oegw import cli
from oegw.keys import generate, write_private
from oegw.settings import Settings
from tests.support.misuse import (
    MAIN,
    NOBODY,
    answering,
    bound,
    commands,
    environment,
    filled,
    has,
    needed,
    run,
    sentence,
    started,
)
from tests.support.own_network import ip, own_network

FAILED, USAGE, CONFIGURATION, NO_DAEMON, NOT_PERMITTED = 1, 2, 3, 4, 5

RULE = '[[rule]]\nname = "{}"\ncategory = "{}"\ndestination = "{}"\n'


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that everybody may enter, with a configuration and a key in it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "oegw.toml").write_text(MAIN)
        write_private(path / "gateway.pem", generate(2048))
        yield path


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Nothing of these tests gets out, and nothing of the machine's is in their way."""
    with own_network():
        ip("link", "add", "out0", "type", "veth", "peer", "name", "far0")
        ip("addr", "add", "192.1.1.4/24", "dev", "out0")
        ip("link", "set", "out0", "up")
        ip("link", "set", "far0", "up")
        yield


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command says, after its code is as it must be."""

    def misused(code: int, *words: object) -> str:
        capsys.readouterr()
        assert cli.main([str(word) for word in words]) == code
        out, err = capsys.readouterr()
        assert out == ""
        return sentence(err)

    return misused


# ----------------------------------------------------- what is the same of all commands

COMMANDS = commands()
NOT_ABOUT_THE_FILE = {"guard", "doctor"}
"""They are of use where the configuration is what is wrong, and tell of it in their own way."""
WITHOUT_A_DAEMON = {"rollover", "check", "explain", "guard", "doctor", "metrics"}
"""They ask one if it is there."""


@pytest.mark.parametrize("words", COMMANDS)
def test_an_option_that_there_is_not(told: Any, words: str) -> None:
    said = (
        told(USAGE, *words.split(), *needed(COMMANDS[words]), "--no-such-option")
        if not (
            words.endswith(" run")  # behind its command all options are the command's
        )
        else told(USAGE, *words.split(), "--no-such-option", *needed(COMMANDS[words]))
    )
    assert said == "oegw: unrecognized arguments: --no-such-option (oegw --help explains)"


@pytest.mark.parametrize(
    "words", [w for w, p in COMMANDS.items() if has(p, "--config") and w not in NOT_ABOUT_THE_FILE]
)
def test_a_configuration_that_there_is_not(told: Any, words: str) -> None:
    more = needed(COMMANDS[words])
    said = told(CONFIGURATION, *words.split(), "--config", "/nowhere/oegw.toml", *more)
    assert said == "oegw: /nowhere/oegw.toml: No such file or directory"


@pytest.mark.parametrize(
    "words", [w for w, p in COMMANDS.items() if has(p, "--socket") and w not in WITHOUT_A_DAEMON]
)
def test_no_daemon(told: Any, place: Path, words: str) -> None:
    more = [*needed(COMMANDS[words]), *(["--once"] if words == "top" else [])]  # no terminal
    said = told(NO_DAEMON, *words.split(), "--config", place / "oegw.toml", *more)
    assert said == f"oegw: {place}/control.sock: no oegw is running there"


@pytest.mark.parametrize("words", [w for w, p in COMMANDS.items() if needed(p)])
def test_an_argument_that_is_missing(told: Any, words: str) -> None:
    assert re.match(
        r"oegw: (the following arguments are required: |which command\?)",
        told(USAGE, *words.split()),
    )


# --------------------------------------------------------------------- the configuration

FILES: list[tuple[str, bytes | str, str]] = [
    ("empty", "", "version: is missing: write version = 1 in front"),
    ("binary", bytes(range(256)), "line 2 is not UTF-8 text"),
    ("UTF-16", MAIN.encode("utf-16"), "line 1 is not UTF-8 text"),
    ("null", "version = 1\0", r"Expected newline .*line 1, column 12"),
    ("version", "version = 2", "version: this oegw reads version 1 only"),
    ("unknown key", MAIN + "trys = 3\n", 'dns.trys: unknown key; did you mean "tries"?'),
    ("unknown table", MAIN + "[gatway]\n", 'gatway: unknown key; did you mean "gateway"?'),
    ("unknown word", MAIN + RULE.format("a", "permt", "10.0.0.0/8"), 'did you mean "permit"?'),
    ("key twice", MAIN + "[dns]\n", r"Cannot declare \('dns',\) twice"),
    ("prefix for address", MAIN.replace("192.1.1.4", "192.1.1.0/24"), "is not an IP address"),
    ("address for prefix", MAIN + RULE.format("a", "deny", "10.0.0.1/8"),
     "rule[1].destination: '10.0.0.1/8' has host bits set; the network is 10.0.0.0/8"),
    ("name for address", MAIN.replace("192.1.1.53", "dns.example"), "is not an IP address"),
    ("same traffic", MAIN + RULE.format("a", "permit", "10.0.0.0/8") +
     RULE.format("b", "deny", "10.0.0.0/8"), "match the same traffic and neither is more specific"),
    ("overlap", MAIN + RULE.format("a", "permit", "10.1.0.0/16") +
     RULE.format("b", "deny", "10.0.0.0/8"), "if that is meant, write override = true"),
    ("name twice", MAIN + RULE.format("a", "deny", "10.1.0.0/16") * 2, "another rule is named 'a'"),
    ("huge number", MAIN + "tries = 99999999999999", "99999999999999 is not within 1 to 20"),
    ("endless number", MAIN + "tries = " + "9" * 5000, "a number with thousands of digits"),
    ("port", MAIN + RULE.format("a", "deny", "10.1.0.0/16") +
     'protocol = "tcp"\ndestination_ports = 65536', "ports are within 0 to 65535"),
    ("nesting", "x = " + "[" * 5000, "brackets are nested too deep"),
    ("client that is no host", MAIN + '[publish]\nclients = "255.255.255.255"\n',
     "publish.clients: '255.255.255.255' is not the address of one host"),
    ("everybody manages", MAIN + '[management]\naddresses = "0.0.0.0/0"', "0.0.0.0/0 is everybody"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"), [row[1:] for row in FILES], ids=[row[0] for row in FILES]
)
@pytest.mark.parametrize("command", ["check", "apply"])
def test_a_configuration_with_a_fault(
    told: Any, place: Path, command: str, text: bytes | str, says: str
) -> None:
    path = place / "faulty.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    said = told(CONFIGURATION, command, "--config", path)
    assert str(path) in said
    assert says in said or re.search(says, said)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "oegw: .: Is a directory"),
        ("/", "oegw: /: Is a directory"),
        ("/etc/passwd/oegw.toml", "oegw: /etc/passwd/oegw.toml: Not a directory"),
        ("/dev/zero", "oegw: /dev/zero: is longer than 16777216 octets"),
        ("/proc/self/mem", "oegw: /proc/self/mem: Input/output error"),
        ("x" * 300, f"oegw: {'x' * 300}: File name too long"),
    ],
)
def test_a_path_that_leads_to_no_configuration(told: Any, path: str, says: str) -> None:
    assert told(CONFIGURATION, "check", "--config", path) == says


def test_a_pipe_into_which_nobody_writes(
    told: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a configuration, which ``<(command)`` of a shell may give; not for a list of prefixes."""
    monkeypatch.setattr("oegw.configparts.PIPE_PATIENCE", 0.1)
    pipe = place / "pipe.toml"
    os.mkfifo(pipe)
    said = told(CONFIGURATION, "check", "--config", pipe)
    assert said == f"oegw: {pipe}: is a pipe, and nobody writes into it"
    path = place / "lists.toml"
    for each in (str(pipe), "/dev/zero"):
        rule = f"[[rule]]\nname = 'a'\ncategory = 'deny'\ndestination_file = '{each}'\n"
        path.write_text(MAIN + rule)
        said = told(CONFIGURATION, "check", "--config", path)
        assert said.endswith(f"rule[1].destination_file: {each}: is not a regular file")


def test_a_configuration_out_of_a_pipe(place: Path) -> None:
    script = 'exec "$@" <(echo version = 2)'
    command = [sys.executable, "-P", "-m", "oegw", "check", "--config"]
    done = subprocess.run(
        ["bash", "-c", script, "-", *command],
        env=environment(), capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == CONFIGURATION
    assert sentence(done.stderr).endswith("version: this oegw reads version 1 only")


def test_a_key_that_stands_in_two_files(told: Any, place: Path) -> None:
    main = place / "several.toml"
    main.write_text(MAIN)
    main.with_suffix(".d").mkdir()
    part = main.with_suffix(".d") / "10.toml"
    part.write_text("[dns]\nresolvers = '192.1.1.54'\n")
    said = told(CONFIGURATION, "check", "--config", main)
    assert said == f"oegw: {part}: dns.resolvers, line 2: stands in {main}, line 10 too"


def test_two_faults_are_two_sentences(place: Path) -> None:
    path = place / "faulty.toml"
    path.write_text(MAIN + "tries = 0\ntimeout = 0\n")
    code, out, err = run("check", "--config", path)
    faults = [line for line in err.splitlines() if "note" not in line]
    assert (code, out, len(faults)) == (CONFIGURATION, "", 2)


# ---------------------------------------------------------------------------- the keys


def write_key(path: Path, kind: str) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    path.unlink(missing_ok=True)
    encryption: Any = serialization.NoEncryption()
    key: Any
    if kind == "elliptic":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(65537, 1024 if kind == "1024" else 2048)
    if kind == "passphrase":
        encryption = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(
        b"nonsense" if kind == "nonsense" else key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    )  # fmt: skip
    path.chmod(0o644 if kind == "readable" else 0o600)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("1024", "an RSA key of 1024 bits is too short: 2048 are the least; oegw keygen makes one"),
        ("readable", "mode 0644 lets others at the private key; chmod 600 it"),
        ("elliptic", "is not an RSA key"),
        ("passphrase", "the key is encrypted; nobody could give the passphrase at a start"),
        ("nonsense", "is not a private key in PEM form"),
    ],
)
def test_a_key_that_cannot_be_used(told: Any, place: Path, kind: str, says: str) -> None:
    write_key(place / "other.pem", kind)
    path = place / "faulty.toml"
    path.write_text(MAIN.replace("gateway.pem", "other.pem"))
    said = told(CONFIGURATION, "check", "--config", path)
    assert said.startswith(f"oegw: private key: {place}/other.pem: ")
    assert says in said
    assert says in told(FAILED, "dns-records", "--key", place / "other.pem", "--fqdn", "a.example")


# ------------------------------------------------------------------------ the arguments

ARGUMENTS = [
    ("", r"the following arguments are required: COMMAND"),
    ("statsu", r"argument COMMAND: invalid choice: 'statsu'"),
    ("explain alice bob", r"argument SRC: 'alice' is not an IP address"),
    ("explain 192.1.0.65 2001:db8::1", r"SRC and DST are of different address families"),
    ("probe 192.1.0.65 192.2.0.66 tpc", r"'tpc' is not a protocol"),
    ("probe 192.1.0.65 192.2.0.66 tcp 65536", r"'65536' is not a port within 0 to 65535"),
    ("probe 192.1.0.65 192.2.0.66 icmp 80", r"protocol 1 has no ports"),
    ("forget 192.2.0.66/24", r"has host bits set; the network is 192.2.0.0/24"),
    ("close 192.2.0.0/33", r"argument DST: "),
    ("keygen --out x --bits 1024", r"'1024' is not a number of bits within 2048 to"),
    ("keygen --out x --bits " + "9" * 5000, r"is not a number of bits within 2048 to"),
    ("apply --confirm 0", r"'0' is not a number of seconds within 1 to 86400"),
    ("apply --confirm never", r"'never' is not a number of seconds"),
    ("init --client 192.1.0.0/24", r"argument --client: '192.1.0.0/24' is not an IP address"),
    ("init --management here", r"argument --management: 'here' is not an IP address, nor a prefix"),
    ("init --client 224.0.0.1", r"argument --client: '224.0.0.1' is not the address of one host"),
    ("init --client 0.0.0.0", r"argument --client: '0.0.0.0' is not the address of one host"),
    ("init --client fe80::1", r"argument --client: 'fe80::1' is not the address of one host"),
    ("dns-records --fqdn a.example --client 127.0.0.1", r"'127.0.0.1' is not the address of one"),
    ("dns-records --fqdn a..b", r"argument --fqdn: "),
    ("dns-records --public-key 0sAAAA --fqdn a.example", r"--public-key: "),
    ("sst run", r"the following arguments are required: COMMAND|which command\?"),
    ("socks connect h.invalid 99999", r"99999"),
    ("docs natt", r"there is no page 'natt'; did you mean \"nat\"\?"),
    ("docs ../README", r"there is no page '../README'; oegw docs lists them"),
]


@pytest.mark.parametrize(("line", "says"), ARGUMENTS, ids=[line[:40] for line, _ in ARGUMENTS])
def test_a_command_line_that_is_wrong(told: Any, line: str, says: str) -> None:
    assert re.search(says, told(USAGE, *line.split()))


def test_arguments_that_are_no_text(place: Path) -> None:
    for words, code in (
        ((b"\xff\xfe",), USAGE),
        (("forget", b"\xff"), USAGE),
        (("check", "--config", bytes(place) + b"/\xff.toml"), CONFIGURATION),
    ):
        done, out, err = run(*words)
        assert (done, out) == (code, "")
        sentence(err)


# --------------------------------------------------------------------------- the daemon


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ({"done": True, "speaks": 2, "release": "9.1.0"}, NO_DAEMON,
         "this command is of oegw 0.1.0, what runs is of oegw 9.1.0: restart it"),
        ({"error": "no such command: 'confirm'", "done": True, "release": "0.0.9"}, FAILED,
         "no such command: 'confirm' (this command is of oegw 0.1.0, what runs is of oegw 0.0.9: "
         "restart it)"),
        ({"error": "the gateway is starting", "done": True}, FAILED, "the gateway is starting"),
        (["no object"], FAILED, "what answers there is not oegw"),
        ({}, NO_DAEMON, "the answer broke off"),
    ],
)  # fmt: skip
def test_a_daemon_that_one_cannot_talk_to(
    told: Any, place: Path, answer: Any, code: int, says: str
) -> None:
    with answering(place / "other.sock", answer):
        said = told(code, "confirm", "--config", place / "oegw.toml", "--socket",
                    place / "other.sock")  # fmt: skip
    assert said.endswith(says)


def test_a_command_of_another_version(place: Path) -> None:
    """Said by the daemon, which is the newer one."""
    import asyncio
    import json

    from oegw.control import ControlServer

    async def ask() -> Any:
        async def answer(_: Any) -> Any:
            yield {"done": True}

        server = ControlServer(place / "newer.sock", answer)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(place / "newer.sock")
        writer.write(b'{"command": "status", "speaks": 0, "release": "0.0.1"}\n')
        line = json.loads(await reader.readline())
        writer.close()
        await server.close()
        return line

    said = asyncio.run(ask())
    assert said["error"] == "this command is of oegw 0.0.1, what runs is of oegw 0.1.0: restart it"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x" * 200, "AF_UNIX path too long"),
        ("oegw.toml", "no oegw is running there"),
        (".", "no oegw is running there"),
    ],
)
def test_a_socket_that_is_none(told: Any, place: Path, name: str, says: str) -> None:
    assert says in told(NO_DAEMON, "status", "--socket", place / name)


def test_daemons_of_hosts_that_do_not_run(told: Any, place: Path) -> None:
    path = place / "hosts.toml"
    path.write_text(f'{MAIN}[moniker]\nsocket = "m.sock"\n[socks]\nsocket = "s.sock"\n')
    for words, name in (("moniker status", "m.sock"), ("socks status", "s.sock")):
        said = told(NO_DAEMON, *words.split(), "--config", path)
        assert said == f"oegw: {place}/{name}: no oegw is running there"
    assert "m.sock: no daemon of Moniker answers" in told(
        NO_DAEMON, "moniker", "list", "--config", path
    )
    assert "no oegw is running there" in told(
        NO_DAEMON, "check", "--diff", "--config", place / "oegw.toml"
    )


# ------------------------------------------------------------------------ names and hosts


@pytest.mark.parametrize(
    "line",
    [
        "moniker query h.invalid web",
        "moniker connect h.invalid web",
        "socks connect --proxy h.invalid bob.example 22",
        "socks resolve --proxy h.invalid bob.example",
    ],
)
def test_a_name_that_nobody_knows(told: Any, place: Path, line: str) -> None:
    first, second, *rest = line.split()
    option = ("--config", place / "oegw.toml") if first == "moniker" else ()
    assert "h.invalid" in told(FAILED, first, second, *option, *rest)


def test_a_server_that_does_not_answer(told: Any, place: Path) -> None:
    path = place / "updates.toml"
    path.write_text(MAIN.replace("192.1.1.53", "127.0.0.1") + '[publish]\nclients = "192.1.0.65"\n')
    assert "127.0.0.1" in told(FAILED, "dns-records", "--update", "--config", path)
    assert "localhost:1080: Connection refused" in told(FAILED, "socks", "connect", "h", "22")


# --------------------------------------------------------------------------- files written


def test_places_where_nothing_can_be_written(told: Any, place: Path) -> None:
    assert told(FAILED, "keygen", "--out", place).endswith("only with --force")
    assert told(FAILED, "keygen", "--out", place / "gateway.pem").endswith("only with --force")
    assert told(FAILED, "keygen", "--bits", "2048", "--out", place / "a/b/c").endswith(
        "a/b/c: No such file or directory"
    )
    init = ("init", "--yes", "--gateway", "192.1.1.4", "--dir")
    assert told(FAILED, *init, place / "a" / "b").endswith("b: No such file or directory")
    assert told(FAILED, *init, place / "gateway.pem").endswith("Not a directory")
    assert told(FAILED, *init, place).endswith("exists already: nothing was changed; edit it")
    assert not (place / "a").exists()


def test_a_device_or_a_pipe_is_not_replaced(told: Any, place: Path) -> None:
    """`--out /dev/null --force`, by root, would be the end of /dev/null."""
    pipe = place / "a.pipe"
    os.mkfifo(pipe)
    keygen = ("keygen", "--bits", "2048", "--force", "--out")
    assert told(FAILED, *keygen, pipe) == f"oegw: {pipe}: is not a regular file"
    probe = ("probe", "192.1.0.65", "192.2.0.66", "--socket", place / "control.sock", "--svg")
    assert told(FAILED, *probe, pipe) == f"oegw: --svg {pipe}: is no regular file"
    assert pipe.is_fifo()


def test_a_link_stays_and_leads_to_the_picture(place: Path) -> None:
    (place / "link.svg").symlink_to("there.svg")
    done = {"done": True, "result": "clear", "reason": "no"}
    with answering(place / "control.sock", done):
        run("probe", "192.1.0.65", "192.2.0.66", "--socket", place / "control.sock", "--svg",
            place / "link.svg")  # fmt: skip
    assert (place / "link.svg").is_symlink()
    assert (place / "there.svg").read_text().startswith("<svg")


def test_an_address_that_is_not_the_box_s(told: Any, place: Path) -> None:
    said = told(FAILED, "init", "--yes", "--gateway", "192.0.2.77", "--dir", place / "new")
    assert said.startswith("oegw: nothing was written: ")
    assert "--gateway" in told(FAILED, "init", "--yes", "--dir", place / "new")
    assert not (place / "new").exists()


def test_a_full_disk(place: Path) -> None:
    full = place / "full"
    full.mkdir()
    for words in (
        ("keygen", "--bits", "2048", "--out", full / "key.pem"),
        ("init", "--yes", "--bits", "2048", "--gateway", "192.1.1.4", "--dir", full),
        ("sst", "keygen", full / "sst.pem"),
    ):
        code, err, left = filled(full, words)
        assert code == FAILED
        assert sentence(err).endswith("No space left on device")
        assert left == "full\n"


def test_an_output_that_is_full(place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = run(
            "dns-records", "--key", place / "gateway.pem", "--fqdn", "a.example", stdout=full
        )
    assert (code, sentence(err)) == (FAILED, "oegw: output: No space left on device")


# ------------------------------------------------------------- who runs it, and how it ends


def test_a_user_who_may_not(place: Path) -> None:
    """Not root: and neither the configuration, nor the key, nor the daemon is theirs."""
    (place / "mine.toml").write_text(MAIN)
    (place / "mine.toml").chmod(0o600)
    with answering(place / "control.sock"):
        (place / "control.sock").chmod(0o600)
        for words, code, says in (
            (("run", "--config", place / "oegw.toml"), NOT_PERMITTED, "be root"),
            (("status", "--config", place / "oegw.toml"), NOT_PERMITTED, "be root"),
            (("check", "--config", place / "mine.toml"), CONFIGURATION, "Permission denied"),
            (("keygen", "--bits", "2048", "--out", place / "x.pem"), NOT_PERMITTED,
             "Permission denied"),
            (("init", "--yes", "--gateway", "192.1.1.4", "--dir", place / "new"), NOT_PERMITTED,
             "Permission denied"),
            (("dns-records", "--key", place / "gateway.pem", "--fqdn", "a.example"), NOT_PERMITTED,
             "Permission denied"),
            (("rollover", "--config", place / "oegw.toml"), NOT_PERMITTED, "Permission denied"),
            (("moniker", "serve"), NOT_PERMITTED, "Permission denied"),
        ):  # fmt: skip
            done, out, err = run(*words, user=NOBODY, group=NOBODY, extra_groups=[])
            assert (done, out) == (code, ""), words
            assert says in sentence(err)
    assert not (place / "new").exists()


def test_a_reader_who_leaves_is_not_a_failure_to_speak_of(place: Path) -> None:
    status = {"version": "0.1.0", "done": True}
    for words in (("--help",), ("status", "--json", "--socket", place / "control.sock")):
        with answering(place / "control.sock", status):
            process = started(*words, stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.close()
            _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("words", ["top", "top --once", "watch", "status", "socks password"])
def test_streams_that_are_closed(place: Path, words: str) -> None:
    """By who started us, as a daemon's are."""
    options = () if words.startswith("socks") else ("--socket", place / "control.sock")
    with answering(place / "control.sock", {"version": "0.1.0", "done": True}):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&- >&-', "-", sys.executable, "-P", "-m", "oegw",
             *words.split(), *map(str, options)],
            env=environment(), stderr=subprocess.PIPE, timeout=60, check=False, text=True,
        )  # fmt: skip
    if words != "status":  # which has told whoever may read it
        assert done.returncode != 0
        sentence(done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("term", [None, "dumb"])
def test_a_terminal_on_which_nothing_can_be_drawn(place: Path, term: str | None) -> None:
    ours, theirs = pty.openpty()
    more = {"TERM": term} if term else {}
    env = {name: value for name, value in environment(more).items() if term or name != "TERM"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "oegw", "top", "--socket", place / "control.sock"],
        env=env, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False,
        text=True,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert done.returncode == USAGE
    assert sentence(done.stderr).endswith("--once prints one page")


def test_metrics_of_nobody_are_told_and_an_error(place: Path) -> None:
    code, out, err = run("metrics", "--once", "--socket", place / "nobody.sock")
    assert code == NO_DAEMON
    assert "oegw_up 0.0" in out
    assert sentence(err).endswith("no oegw is running there")


def test_an_interrupt(place: Path) -> None:
    with answering(place / "control.sock") as asked:
        process = started("status", "--socket", place / "control.sock")
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")


# ----------------------------------------------------------------------- what is taken


@pytest.mark.netns
def test_a_second_daemon(place: Path) -> None:
    with answering(place / "control.sock"):
        code, out, err = run("run", "--config", place / "oegw.toml")
    assert (code, out) == (FAILED, "")
    assert sentence(err).endswith("control.sock: another oegw is running there")


@pytest.mark.netns
@pytest.mark.parametrize("port", [500, 4500])
def test_a_port_of_the_gateway_that_is_taken(place: Path, port: int) -> None:
    with bound(socket.SOCK_DGRAM, "192.1.1.4", port):
        code, out, err = run("run", "--config", place / "oegw.toml")
    assert (code, out) == (FAILED, "")
    assert re.search(rf"port {port}( over IPv4)?: Address already in use", sentence(err))


def test_a_port_of_the_socks_server_that_is_taken(place: Path) -> None:
    path = place / "socks.toml"
    path.write_text(
        f'{MAIN}[socks]\nsocket = "s.sock"\n[[socks.listener]]\naddress = "127.0.0.1"\n'
    )
    with bound(socket.SOCK_STREAM, "127.0.0.1", 1080):
        code, out, err = run("socks", "serve", "--config", path)
    assert (code, out) == (FAILED, "")
    assert "1080" in sentence(err)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ('outside = "out0"', 'outside = "eth9"', "there is no interface 'eth9'"),
        ('"192.1.1.4"', '"192.1.1.5"', "192.1.1.5 is not an address of this box"),
        ("gateway.pem", "nothing.pem", "nothing.pem: No such file or directory"),
        ('state = "state.db"', 'state = "/proc/state.db"', "/proc/state.db"),
        ('control_socket = "control.sock"', 'control_socket = "oegw.toml"',
         "there is something that is not a socket"),
    ],
)  # fmt: skip
def test_a_start_that_this_box_does_not_allow(
    place: Path, was: str, becomes: str, says: str
) -> None:
    path = place / "unfit.toml"
    path.write_text(MAIN.replace(was, becomes))
    code, out, err = run("run", "--config", path)
    assert (code, out) == (FAILED, "")
    assert says in sentence(err)


@pytest.mark.netns
def test_a_box_is_not_opened_under_a_gateway_that_is_not_found(told: Any) -> None:
    """`oegw guard --remove` with another configuration's name: its socket tells nothing."""
    queue = NetfilterQueue()
    queue.bind(Settings().intercept.queue, lambda packet: packet.drop())
    try:
        said = told(FAILED, "guard", "--remove", "--config", "/nowhere/oegw.toml")
    finally:
        queue.unbind()
    assert said == "oegw: the gateway runs, and is the guard: systemctl stop oegw first"
