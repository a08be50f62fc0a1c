"""``[moniker]`` and its tables."""

from __future__ import annotations

import base64
import random
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from oegw import config
from oegw.moniker.settings import (
    ClientSettings,
    ExportSettings,
    FirewallSettings,
    Found,
    GatewayInFront,
    Grant,
    HostSettings,
    MonikerSettings,
    ServiceRule,
)
from oegw.sst.statickey import StaticKey
from tests.support.configurations import parsed, problems
from tests.support.reference import check_table, keys_of

KEY = StaticKey(bytes(range(32))).public
OTHER_KEY = StaticKey(bytes(range(1, 33))).public
KEY_TEXT = base64.b64encode(KEY).decode()
OTHER_KEY_TEXT = base64.b64encode(OTHER_KEY).decode()

HEAD = "version = 1\n"
FULL = f"""\
[moniker]
port = 4601
addresses = ["192.1.0.4", "2001:db8::4"]
socket = "run/moniker.sock"
private_key = "keys/moniker.pem"
listing = "all"
clear = "local"
lease = 30
queries = 2.5
services = 10

[[moniker.grant]]
user = "@staff"
service = "HTTP*"
namespace = "Web"

[[moniker.grant]]
user = "alice"
namespace = "-"

[[moniker.rule]]
allow = false
service = "telnet"
namespace = "-"
clients = ["192.0.2.0/24", "2001:db8:1::/48"]
hosts = "192.2.0.9"

[[moniker.rule]]
allow = true
encrypted = true

[[moniker.host]]
name = "bob"
addresses = ["192.2.0.66", "2001:db8:2::66"]
key = "{KEY_TEXT}"
namespaces = ["Bob", "web"]
leases = 9
port = 4601

[moniker.gateway]
address = "192.2.0.1"
key = "{OTHER_KEY_TEXT}"
port = 4602

[moniker.firewall]
deny = true
outside = ["eth1"]
tunnel = "oe7"
allow = ["ip daddr 192.2.0.80 tcp dport 443"]
keep = false

[moniker.client]
encrypt = "require"

[[moniker.client.rule]]
allow = false
service = "telnet"
hosts = ["192.3.0.0/16"]

[moniker.export]
zone = "Site-A.example."
listen = ["192.1.0.4:5300", "[2001:db8::4]:5301", "192.1.0.5"]
multicast = ["eth0"]
public = true
host = "sg-a.example"

[[moniker.export.peer]]
name = "site-b.example"
address = "192.2.0.4"
key = "keys/find.key"
port = 5301
inside = true
"""


def test_every_key_arrives() -> None:
    here = Path("/etc/oegw")
    assert parsed(HEAD + FULL, here).moniker == MonikerSettings(
        True,
        4601,
        (ip_address("192.1.0.4"), ip_address("2001:db8::4")),
        here / "run/moniker.sock",
        here / "keys/moniker.pem",
        "all",
        "local",
        30,
        2.5,
        10,
        (Grant("@staff", "http*", "web"), Grant("alice", "*", "")),
        (
            ServiceRule(
                False,
                "telnet",
                "-",
                (ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/48")),
                (ip_network("192.2.0.9/32"),),
                origin="moniker.rule[1]",
            ),
            ServiceRule(True, encrypted=True, origin="moniker.rule[2]"),
        ),
        (
            HostSettings(
                "bob",
                (ip_address("192.2.0.66"), ip_address("2001:db8:2::66")),
                KEY,
                ("bob", "web"),
                9,
                4601,
            ),
        ),
        GatewayInFront(ip_address("192.2.0.1"), OTHER_KEY, 4602),
        FirewallSettings(True, ("eth1",), "oe7", ("ip daddr 192.2.0.80 tcp dport 443",), False),
        ClientSettings(
            (
                ServiceRule(
                    False,
                    "telnet",
                    hosts=(ip_network("192.3.0.0/16"),),
                    origin="moniker.client.rule[1]",
                ),
            ),
            "require",
        ),
        ExportSettings(
            "site-a.example",
            (
                (ip_address("192.1.0.4"), 5300),
                (ip_address("2001:db8::4"), 5301),
                (ip_address("192.1.0.5"), 53),
            ),
            ("eth0",),
            True,
            (Found("site-b.example", ip_address("192.2.0.4"), here / "keys/find.key", 5301, True),),
            "sg-a.example",
        ),
    )


def test_nothing_said_is_nothing_started() -> None:
    assert parsed(HEAD).moniker == MonikerSettings()
    assert parsed(HEAD + "[moniker]\n").moniker == MonikerSettings(present=True)


def test_other_tables_say_it_too() -> None:
    text = (
        '[sst]\nprivate_key = "sst.pem"\n[interfaces]\noutside = ["eth1"]\n'
        '[datapath]\ntunnel_interface = "oe7"\n'
    )
    read = parsed(HEAD + text + "[moniker]\n").moniker
    assert read.private_key == Path("/nowhere/sst.pem")
    assert (read.firewall.outside, read.firewall.tunnel) == (("eth1",), "oe7")
    text += '[moniker]\nprivate_key = "m.pem"\n[moniker.firewall]\noutside = "eth2"\ntunnel = "t"\n'
    read = parsed(HEAD + text).moniker
    assert read.private_key == Path("/nowhere/m.pem")
    assert (read.firewall.outside, read.firewall.tunnel) == (("eth2",), "t")


HOST = 'name = "bob"\naddresses = ["192.2.0.66"]\n'
PEER = 'name = "b.example"\naddress = "192.2.0.4"\nkey = "k"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("moniker = 3", "moniker: must be a table, not the number 3"),
        ("[moniker]\nport = 0", "moniker.port: 0 is not within 1 to 65535"),
        ("[moniker]\nlease = 0.5", "moniker.lease: must be a whole number"),
        ("[moniker]\nqueries = 0", "moniker.queries: 0 seconds are not within"),
        ("[moniker]\nservices = 0", "moniker.services: 0 is not within 1 to 65536"),
        ('[moniker]\nlisting = "none"', "moniker.listing: 'none' is not 'local' or 'all'"),
        ('[moniker]\naddresses = ["224.0.0.1"]', "moniker.addresses: 224.0.0.1 is no address"),
        (f'[moniker]\nsocket = "{"x" * 120}"', "moniker.socket: the path is longer than 107"),
        ('[moniker]\nclear = "local"', "moniker.private_key: is missing: with clear = 'local'"),
        ("[moniker]\nlist = 1", "moniker.list: unknown key; did you mean 'listing'?"),
        ("[moniker.grant]\nuser = 'a'", "moniker.grant: must be written [[moniker.grant]]"),
        ("[moniker]\ngrant = [3]", "moniker.grant[1]: must be a table, not the number 3"),
        ("[[moniker.grant]]", "moniker.grant[1].user: is missing"),
        ('[[moniker.grant]]\nuser = "a b"', "moniker.grant[1].user: 'a b' is neither a user's"),
        (
            '[[moniker.grant]]\nuser = "a"\nservice = "a/b"',
            "moniker.grant[1].service: 'a/b' can't be the pattern of a name",
        ),
        (
            '[[moniker.grant]]\nuser = "a"\nnamespace = "a*"',
            "moniker.grant[1].namespace: 'a*' can't be a name",
        ),
        ("[[moniker.rule]]", "moniker.rule[1].allow: is missing"),
        ("[[moniker.rule]]\nallow = 1", "moniker.rule[1].allow: must be true or false"),
        (
            '[[moniker.rule]]\nallow = true\nclients = "192.0.2.1/24"',
            "moniker.rule[1].clients: ",
        ),
        ("[[moniker.rule]]\nallow = true\nuser = 1", "moniker.rule[1].user: unknown key"),
        ('[[moniker.host]]\nname = "bob"', "moniker.host[1].addresses: is missing"),
        (
            '[[moniker.host]]\naddresses = ["192.2.0.66"]',
            "moniker.host[1].name: is missing: what is it called",
        ),
        (
            '[[moniker.host]]\nname = "b"\naddresses = ["0.0.0.0"]',
            "moniker.host[1].addresses: 0.0.0.0 is not the address of a host",
        ),
        (
            f'[[moniker.rule]]\nallow = true\nservice = "{"x" * 256}"',
            "moniker.rule[1].service: is longer than 255 octets",
        ),
        (f'[[moniker.host]]\n{HOST}key = "AAAA"', "moniker.host[1].key: 'AAAA' is no X25519"),
        (f'[[moniker.host]]\n{HOST}key = "!"', "moniker.host[1].key: '!' is no X25519 public key"),
        (
            f"[[moniker.host]]\n{HOST}[[moniker.host]]\n{HOST.replace('66', '67')}",
            "moniker.host: two hosts have the name 'bob'",
        ),
        (
            f"[[moniker.host]]\n{HOST}[[moniker.host]]\n{HOST.replace('bob', 'eve')}",
            "moniker.host: two hosts have the address 192.2.0.66",
        ),
        (
            f'[[moniker.host]]\n{HOST}namespaces = ["a"]\n[[moniker.host]]\n'
            + HOST.replace("bob", "eve").replace("66", "67")
            + 'namespaces = ["A"]',
            "moniker.host: two hosts have the namespace 'a'",
        ),
        (
            f'[moniker]\nprivate_key = "k"\n[[moniker.host]]\n{HOST}key = "{KEY_TEXT}"\n'
            f"[[moniker.host]]\n{HOST.replace('bob', 'eve').replace('66', '67')}"
            f'key = "{KEY_TEXT}"',
            "moniker.host: 'eve' has the key of 'bob'",
        ),
        (
            f'[[moniker.host]]\n{HOST}key = "{KEY_TEXT}"',
            "moniker.private_key: is missing: hosts that ask",
        ),
        ("[moniker.gateway]", "moniker.gateway.address: is missing"),
        (
            '[moniker.gateway]\naddress = "192.2.0.1"',
            "moniker.private_key: is missing: the gateway knows this host",
        ),
        (
            '[moniker]\nprivate_key = "k"\n[moniker.gateway]\naddress = "0.0.0.0"',
            "moniker.gateway.address: 0.0.0.0 is not the address of a gateway",
        ),
        ('[moniker.firewall]\noutside = ["a b"]', "moniker.firewall.outside[1]: 'a b' is not the"),
        ('[moniker.firewall]\ntunnel = "a/b"', "moniker.firewall.tunnel: 'a/b' is not the name"),
        ('[moniker.client]\nencrypt = "yes"', "moniker.client.encrypt: 'yes' is not 'never'"),
        ("[[moniker.client.rule]]", "moniker.client.rule[1].allow: is missing"),
        ('[moniker.export]\nlisten = ["::1"]', "moniker.export.zone: is missing"),
        (
            '[moniker.export]\nzone = "a.example"\nlisten = ["localhost"]',
            "moniker.export.listen[1]: 'localhost' is not an address",
        ),
        (
            '[moniker.export]\nzone = "a.example"\nlisten = ["127.0.0.1:70000"]',
            "moniker.export.listen[1]: a port is within 1 to 65535",
        ),
        (
            f"[[moniker.export.peer]]\n{PEER.replace('b.example', 'b..example')}",
            "moniker.export.peer[1].name: ",
        ),
        (
            "[[moniker.export.peer]]\n" + PEER.replace('key = "k"\n', ""),
            "moniker.export.peer[1].key: is missing",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    [problem] = problems(f"{HEAD}{text}\n")
    assert problem.replace('"', "'").startswith(words.replace('"', "'"))


def test_all_faults_are_told_at_once() -> None:
    text = "[moniker]\nport = 0\n[[moniker.rule]]\n[[moniker.rule]]\nallow = 3\n"
    assert len(problems(HEAD + text)) == 3


def test_rules_for_applications_fit_into_an_answer() -> None:
    """They are told in one line."""
    text = HEAD + "[moniker]\n" + "[[moniker.client.rule]]\nallow = false\n" * 200
    [problem] = problems(text)
    assert problem.startswith("moniker.client.rule: the rules are longer than 15360 octets")


def test_a_key_from_the_dns_is_none_here() -> None:
    text = '[moniker]\nprivate_key = "k"\n[moniker.gateway]\naddress = "192.2.0.1"\nkey = "dns"\n'
    assert parsed(HEAD + text).moniker.gateway == GatewayInFront(ip_address("192.2.0.1"))


def test_mutated_tables_raise_nothing_but_config_error() -> None:
    dice = random.Random(7)
    tokens = re.findall(r'"[^"\n]*"|\[+|\]+|\w+|[^\w\s]|\s+', FULL)
    words = [
        "1",
        "-1",
        "true",
        '""',
        '"x"',
        "[]",
        "{}",
        '"::/0"',
        "1e400",
        '"*"',
        "moniker",
        "rule",
    ]
    good = 0
    for _ in range(1000):
        mutated = list(tokens)
        for _ in range(dice.randrange(1, 4)):
            mutated[dice.randrange(len(mutated))] = dice.choice(words)
        good += not problems_or_none("version = 1\n" + "".join(mutated))
    assert good < 1000


def problems_or_none(text: str) -> tuple[str, ...]:
    try:
        config.parse(text, Path("/nowhere/oegw.toml"))
    except config.ConfigError as error:
        return error.problems
    return ()


# ---------------------------------------------------------------- documentation

TABLES = [
    ("moniker", MonikerSettings, ("present",)),
    ("moniker.grant", Grant, ()),
    ("moniker.rule", ServiceRule, ("origin",)),
    ("moniker.host", HostSettings, ()),
    ("moniker.gateway", GatewayInFront, ()),
    ("moniker.firewall", FirewallSettings, ()),
    ("moniker.client", ClientSettings, ("rules",)),
    ("moniker.export", ExportSettings, ("peers",)),
    ("moniker.export.peer", Found, ()),
]
ELSEWHERE = {"tunnel"}  # has a default that another table gives


@pytest.mark.parametrize(("table", "kind", "ours"), TABLES, ids=[name for name, _, _ in TABLES])
def test_every_key_is_in_the_reference_with_its_default(
    table: str, kind: Any, ours: tuple[str, ...]
) -> None:
    check_table(table, kind, ours, ELSEWHERE)


def test_the_reference_has_no_key_that_is_not_read() -> None:
    assert keys_of("moniker") <= set(re.findall(r"^(\w+) = ", FULL, re.M))


def test_the_socket_is_found_in_a_file_with_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "oegw.toml"
    path.write_text(HEAD + '[moniker]\nsocket = "m.sock"\nport = 0\n')
    assert config.moniker_socket(path) == tmp_path / "m.sock"
