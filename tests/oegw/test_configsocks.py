"""``[socks]`` and its tables."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from oegw import config
from oegw.socks5.settings import (
    AddressIdSettings,
    Limits,
    Listener,
    Rule,
    SocksSettings,
    UdpSettings,
    User,
)
from tests.support.configurations import parsed, problems
from tests.support.reference import check_table, keys_of

HASH = (  # of "secret"
    "$scrypt$ln=14,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$lUTkiXnaPIlt+39/W8AV+zIOgQ+DcviNZtmSHaWiqmU"
)

HEAD = "version = 1\n"
FULL = f"""\
[socks]
socket = "run/socks.sock"
outgoing = ["192.1.1.4", "2001:db8:1::4"]
advertise = "198.51.100.7"
prefer = "4"
confirm_names = false

[[socks.listener]]
address = "192.168.1.1"
interface = "eth0"

[[socks.listener]]
address = "::"
port = 1081
authentication = "password"
encrypted = true

[[socks.user]]
name = "alice"
password = "{HASH}"

[[socks.user]]
name = "Bob"
password = "{HASH}"
encrypted = true
connections = 7

[[socks.rule]]
allow = false
commands = ["bind", "udp"]
clients = ["192.168.1.0/24", "2001:db8:1::/48"]
users = "alice"
destinations = ["10.0.0.0/8", "192.2.0.66"]
names = ["*.Example.", "localhost"]
ports = [25, "6000-6063"]

[[socks.rule]]
allow = true
encrypted = true
ports = 443

[socks.ids]
scope = "connection"
reply = "id"
idle = 60
lifetime = 3600
quarantine = 30
per_scope = 16
total = 128
failures = 3
window = 10
lockout = 20
refresh = false

[socks.udp]
filtering = "port"
idle = 30
destinations = 8
resolutions = 2

[socks.limits]
total = 100
client = 10
negotiating = 20
associations = 3
handshake = 2.5
connect = 5
bind = 6
idle = 7
"""


def test_every_key_arrives() -> None:
    here = Path("/etc/oegw")
    assert parsed(HEAD + FULL, here).socks == SocksSettings(
        True,
        here / "run/socks.sock",
        (
            Listener(ip_address("192.168.1.1"), interface="eth0"),
            Listener(ip_address("::"), 1081, "password", None, True),
        ),
        (User("alice", HASH), User("Bob", HASH, True, 7)),
        (
            Rule(
                False,
                ("bind", "udp"),
                (ip_network("192.168.1.0/24"), ip_network("2001:db8:1::/48")),
                ("alice",),
                (ip_network("10.0.0.0/8"), ip_network("192.2.0.66/32")),
                ("*.example", "localhost"),
                ((25, 25), (6000, 6063)),
                origin="socks.rule[1]",
            ),
            Rule(True, ports=((443, 443),), encrypted=True, origin="socks.rule[2]"),
        ),
        (ip_address("192.1.1.4"), ip_address("2001:db8:1::4")),
        (ip_address("198.51.100.7"),),
        "4",
        False,
        AddressIdSettings("connection", "id", 60, 3600, 30, 16, 128, 3, 10, 20, False),
        UdpSettings("port", 30, 8, 2),
        Limits(100, 10, 20, 3, 2.5, 5, 6, 7),
    )


def test_without_the_table_there_is_no_server() -> None:
    assert parsed(HEAD).socks == SocksSettings()
    assert parsed(HEAD + "[socks]\n").socks == SocksSettings(present=True)


def test_a_password_is_nowhere_shown() -> None:
    assert HASH not in repr(parsed(HEAD + FULL))
    [problem] = problems(HEAD + '[[socks.user]]\nname = "a"\npassword = "hunter2"\n')
    assert "hunter2" not in problem
    assert "oegw socks password" in problem


def test_encryption_may_be_demanded_in_three_places() -> None:
    assert not SocksSettings().demands_encryption
    listener, user, rule = Listener(ip_address("::1")), User("a", HASH), Rule(True)
    plain = SocksSettings(listeners=(listener,), users=(user,), rules=(rule,))
    assert not plain.demands_encryption
    for name, each in (("listeners", listener), ("users", user), ("rules", rule)):
        demanding: Any = {name: (replace(each, encrypted=True),)}
        assert replace(plain, **demanding).demands_encryption


LISTENER = '[[socks.listener]]\naddress = "192.168.1.1"\n'
USER = f'[[socks.user]]\nname = "alice"\npassword = "{HASH}"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("socks = 1", "socks: must be a table"),
        ("[socks]\nport = 1080", "socks.port: unknown key"),
        ('[socks]\nprefer = "ipv6"', "socks.prefer: 'ipv6' is not"),
        ('[socks]\noutgoing = ["192.1.1.4", "192.1.1.5"]', "socks.outgoing: has more than one"),
        ('[socks]\nadvertise = "0.0.0.0"', "socks.advertise: 0.0.0.0 is not the address of a"),
        (f'[socks]\nsocket = "{"x" * 120}"', "socks.socket: the path is longer than 107"),
        ("[socks.listener]", "socks.listener: must be written [[socks.listener]]"),
        ("[[socks.listener]]", "socks.listener[1].address: is missing: where are clients"),
        (LISTENER + "port = 0", "socks.listener[1].port: 0 is not within 1 to 65535"),
        (LISTENER + 'interface = "a b"', "socks.listener[1].interface: 'a b' is not the name"),
        (LISTENER + 'authentication = "yes"', "socks.listener[1].authentication: 'yes' is not"),
        (LISTENER + 'authentication = "password"', "socks.user: is missing: a listener asks"),
        (LISTENER + LISTENER, "socks.listener: two listeners have port 1080 of 192.168.1.1"),
        (
            '[[socks.listener]]\naddress = "224.0.0.1"',
            "socks.listener[1].address: 224.0.0.1 is no address to listen on",
        ),
        (
            '[[socks.listener]]\naddress = "0.0.0.0"',
            "socks.listener[1].authentication: 0.0.0.0 is every address",
        ),
        (
            '[[socks.listener]]\naddress = "::"\ninterface = "eth0"',
            "socks.listener[1].authentication: :: is every address",
        ),
        (
            f'[interfaces]\noutside = ["eth1"]\n{LISTENER}interface = "eth1"',
            "socks.listener[1].authentication: 'eth1' is outside",
        ),
        (f'[[socks.user]]\npassword = "{HASH}"', "socks.user[1].name: is missing: who is it?"),
        ('[[socks.user]]\nname = "a"', "socks.user[1].password: is missing: oegw socks password"),
        (
            '[[socks.user]]\nname = "a"\npassword = 1',
            "socks.user[1].password: must be a text in quotes",
        ),
        (
            USER.replace("alice", "x" * 256),
            "socks.user[1].name: is longer than 255 octets",
        ),
        (USER + "connections = 0", "socks.user[1].connections: 0 is not within 1"),
        (USER + USER, "socks.user: two users have the name 'alice'"),
        ("[[socks.rule]]", "socks.rule[1].allow: is missing: true, or false"),
        (
            USER + '[[socks.rule]]\nallow = true\nusers = "alcie"',
            "socks.user: socks.rule[1] is about 'alcie', who is none; did you mean 'alice'?",
        ),
        (
            '[[socks.rule]]\nallow = true\ncommands = ["connect", "Bind"]',
            "socks.rule[1].commands[2]: 'Bind' is not one of connect, bind, udp, associate",
        ),
        (
            '[[socks.rule]]\nallow = true\nnames = ["a b"]',
            "socks.rule[1].names[1]: 'a b' can't be the pattern of a name",
        ),
        (
            '[[socks.rule]]\nallow = true\ndestinations = "10.0.0.1/8"',
            "socks.rule[1].destinations: ",
        ),
        (
            "[[socks.rule]]\nallow = true\nports = [80, 0]",
            "socks.rule[1].ports[2]: the number 0 is neither a port nor a range",
        ),
        (
            '[[socks.rule]]\nallow = true\nports = "90-80"',
            "socks.rule[1].ports: '90-80' is neither a port nor a range",
        ),
        ("[[socks.rule]]\nallow = true\nports = []", "socks.rule[1].ports: the list is empty"),
        (
            "[[socks.rule]]\nallow = false\nencrypted = true",
            "socks.rule[1].encrypted: says nothing",
        ),
        ('[socks.ids]\nscope = "user"', "socks.ids.scope: 'user' is not"),
        ("[socks.ids]\nper_scope = 100000", "socks.ids.per_scope: is larger than socks.ids.total"),
        ("[socks.ids]\nidle = 90000", "socks.ids.idle: is longer than socks.ids.lifetime"),
        ("[socks.ids]\nwindow = 0", "socks.ids.window: 0 seconds are not within 1"),
        ("[socks.udp]\nfragments = true", "socks.udp.fragments: unknown key"),
        ("[socks.limits]\nhandshake = 0", "socks.limits.handshake: 0 seconds are not within 0.1"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    [problem] = problems(f"{HEAD}{text}\n")
    assert problem.replace('"', "'").startswith(words.replace('"', "'"))


def test_mutated_tables_raise_nothing_but_config_error() -> None:
    dice = random.Random(8)
    tokens = re.findall(r'"[^"\n]*"|\[+|\]+|\w+|[^\w\s]|\s+', FULL)
    words = ["1", "-1", "true", '""', '"x"', "[]", "{}", '"::/0"', "1e400", '"*"', "socks", "rule"]
    good = 0
    for _ in range(500):
        mutated = list(tokens)
        for _ in range(dice.randrange(1, 4)):
            mutated[dice.randrange(len(mutated))] = dice.choice(words)
        try:
            config.parse(HEAD + "".join(mutated), Path("/nowhere/oegw.toml"))
            good += 1
        except config.ConfigError:
            pass
    assert good < 500


def test_the_socket_is_found_in_a_file_with_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    path.write_text(HEAD + '[socks]\nsocket = "s.sock"\nprefer = 6\n')
    assert config.socks_socket(path) == tmp_path / "s.sock"


# ---------------------------------------------------------------- documentation

TABLES = [
    ("socks", SocksSettings, ("present", "ids", "udp", "limits")),
    ("socks.listener", Listener, ()),
    ("socks.user", User, ()),
    ("socks.rule", Rule, ("origin",)),
    ("socks.ids", AddressIdSettings, ()),
    ("socks.udp", UdpSettings, ()),
    ("socks.limits", Limits, ()),
]


@pytest.mark.parametrize(("table", "kind", "ours"), TABLES, ids=[name for name, _, _ in TABLES])
def test_every_key_is_in_the_reference_with_its_default(
    table: str, kind: Any, ours: tuple[str, ...]
) -> None:
    check_table(table, kind, ours)


def test_the_reference_has_no_key_that_is_not_read() -> None:
    assert keys_of("socks") <= set(re.findall(r"^(\w+) = ", FULL, re.M))
