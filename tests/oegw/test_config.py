"""The configuration: what each key becomes, and what each mistake is told."""

from __future__ import annotations

import dataclasses
import random
import re
from enum import Enum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from dnsrecords import rsakey
from ike.events import Encapsulation
from oegw import config, settings
from oegw.assurance import UnsignedDelegation
from oegw.configfile import ConfigError
from oegw.configparts import MAX_FILE
from oegw.ledger import Lifespans
from policy.rule import ANY_PORT, Category, OnFailure, PortRange
from tests.support.amount import amount
from tests.support.configurations import FULL, PEER_KEY, parsed, problems

RULE = 'version = 1\n[[rule]]\nname = "r"\n'
CONFIGURED = (
    RULE + 'category = "configured"\nsource = "192.1.0.0/24"\ndestination = "192.2.0.0/24"\n'
    f'peer = "192.1.1.5"\npeer_key = "{PEER_KEY}"\n'
)


def test_a_version_alone_means_opportunistic_for_everything() -> None:
    read = parsed("version = 1\n")
    assert read == dataclasses.replace(settings.Settings(), default=read.default)
    assert (read.default.category, read.default.on_failure) == (
        Category.OPPORTUNISTIC,
        OnFailure.CLEAR,
    )
    assert read.gateway.addresses == read.interfaces.outside == read.dns.resolvers == ()


def test_every_key_arrives() -> None:
    read = parsed(FULL, Path("/etc/oegw"))
    assert read.gateway == settings.GatewaySettings(
        (ip_address("192.1.1.4"), ip_address("2001:db8:1:1::4")),
        "sg-a.example",
        Path("/etc/oegw/keys/gateway.pem"),
        Path("/run/oegw/control.sock"),
        Path("/etc/oegw/trace.jsonl"),
        Path("/etc/oegw/state/oegw.db"),
    )
    assert read.interfaces.outside == ("eth1", "br-wan.100")
    assert read.dns == settings.DnsSettings(
        (ip_address("192.1.1.53"), ip_address("2001:db8:1:1::53")),
        0.25,
        2,
        (ip_network("2001:db8::/32"), ip_network("10.0.0.0/8")),
        True,
        (ip_address("2001:db8:1:1::53"),),
        UnsignedDelegation.SELF,
        ("ipseckey", "txt"),
        100,
    )
    assert read.ike == settings.IkeSettings(
        ("modern",), 7200, 600, 1.0, 4, 50, 3,
        ("aes256-sha256-modp2048", "3des-md5-modp1024"), ("aes128gcm16",),
        "optional", 1_000_000, 100_000_000, 15.0, 0.0, 3,
    )  # fmt: skip
    assert read.datapath == settings.DatapathSettings(
        "userspace", Encapsulation.UDP, "oe7", 64, 7, "python", False, 2
    )
    assert read.intercept == settings.InterceptOptions(
        0xC0, 0x300, 0x400, 7, "first", 10, 100000, 5, 70, 7
    )
    assert read.lifespans == Lifespans(1, 2, 3, 4, 5, 6.5, 7, 8, 9, 10)
    assert read.publish == settings.PublishSettings(
        (ip_address("192.1.0.65"), ip_address("2001:db8:1:0::65")),
        7,
        600,
        ip_address("192.1.1.54"),
        Path("/etc/oegw/keys/update.key"),
    )
    assert read.default.on_failure is OnFailure.DROP
    office, web, never = read.rules
    assert office.source == (ip_network("192.1.0.0/24"),)
    assert office.origin == "/etc/oegw/oegw.toml: rule[1]"
    assert web.source == (ip_network("192.1.0.64/30"), ip_network("192.1.0.70/32"))
    assert (web.protocol, web.source_ports, web.destination_ports) == (
        6,
        PortRange(1024, 65535),
        PortRange(80, 80),
    )
    assert web.on_failure is OnFailure.DROP
    assert (never.source, never.override, never.source_ports) == (None, True, ANY_PORT)
    peer = read.peers["office"]
    assert (peer.address, peer.identity) == (ip_address("192.1.1.5"), "sg-b.example")
    assert rsakey.format_text(peer.key) == PEER_KEY
    assert set(read.peers) == {"office"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[gateway]\n", "version: is missing: write version = 1 in front"),
        # A file that is just being written looks so: read as one without rules, it would open all.
        ("", "version: is missing: write version = 1 in front"),
        ("# only a comment\n", "version: is missing: write version = 1 in front"),
        ("version = 2\nfuture = 3", "version: this oegw reads version 1 only"),
        ("version = true", "version: must be a whole number, not the truth value true"),
        ("version = 1\n[gatway]\n", 'gatway: unknown key; did you mean "gateway"?'),
        ("version = 1\ngateway = 3", "gateway: must be a table, not the number 3"),
        ("version = 1\n[rule]\n", "rule: must be written [[rule]], in double brackets, not a"),
        ("version = 1\nrule = [1]", "rule[1]: must be a table, not the number 1"),
        ('version = 1\n[gateway]\nidentety = "@a.b"',
         'gateway.identety: unknown key; did you mean "identity"?'),
        ('version = 1\n[dns]\nresolvers = ["192.1.1.53"]\ntrusted = ["192.1.1.54"]',
         "dns.trusted: 192.1.1.54 is not one of dns.resolvers"),
        ('version = 1\n[dns]\ntrusted = ["localhost"]',
         "dns.trusted[1]: 'localhost' is not an IP address"),
        ('version = 1\n[dns]\nunsigned_delegation = "none"',
         "dns.unsigned_delegation: 'none' is not"),
        ('version = 1\n[dns]\nrecords = ["txt", "key"]',
         "dns.records[2]: 'key' is not one of txt, ipseckey"),
        ("version = 1\n[dns]\nquestions_per_second = 0",
         "dns.questions_per_second: 0 is not within 1 to 100000"),
        ("version = 1\n[dns]\ntries = true",
         "dns.tries: must be a whole number, not the truth value true"),
        ("version = 1\n[dns]\ntries = 1.0", "dns.tries: must be a whole number, not the number 1"),
        ("version = 1\n[dns]\ntries = 0", "dns.tries: 0 is not within 1 to 20"),
        ("version = 1\n[dns]\ntimeout = nan", "dns.timeout: nan seconds are not within 0.01 to 60"),
        ("version = 1\n[dns]\ntimeout = false",
         "dns.timeout: must be a number of seconds, not the truth value false"),
        ("version = 1\n[dns]\ntimeout = 1979-05-27",
         "dns.timeout: must be a number of seconds, not a date or time"),
        ('version = 1\n[dns]\nresolvers = ["a"]', "dns.resolvers[1]: 'a' is not an IP address"),
        ('version = 1\n[dns]\nresolvers = ["0.0.0.0"]',
         "dns.resolvers: 0.0.0.0 is not the address of a server"),
        ('version = 1\n[dns]\nresolvers = ["192.1.1.1", 3]',
         "dns.resolvers[2]: must be a text in quotes, not the number 3"),
        ("version = 1\n[dns]\nresolvers = []",
         "dns.resolvers: the list is empty; leave the key out instead"),
        ('version = 1\n[gateway]\naddresses = ["192.1.1.4", "192.1.1.5"]',
         "gateway.addresses: has more than one IPv4 address"),
        ('version = 1\n[gateway]\naddresses = ["192.1.1.4", "192.1.1.4"]',
         "gateway.addresses[2]: '192.1.1.4' is in the list before"),
        ('version = 1\n[gateway]\naddresses = "127.0.0.1"',
         "gateway.addresses: 127.0.0.1 is a loopback address"),
        ('version = 1\n[gateway]\naddresses = "fe80::1%eth0"',
         "gateway.addresses: 'fe80::1%eth0' names an interface"),
        ('version = 1\n[gateway]\nidentity = "192.1.1.4"',
         "gateway.identity: is an address: leave the key out, or give @ and a domain name"),
        ('version = 1\n[gateway]\nidentity = "sg-a"',
         "gateway.identity: 'sg-a' is neither @ and a domain name nor an address"),
        ('version = 1\n[gateway]\nidentity = "@a..b"', "gateway.identity: 'a..b' is not a"),
        ('version = 1\n[gateway]\nfqdn = "sg a.example"', "gateway.fqdn: 'sg a.example' is not a"),
        ('version = 1\n[gateway]\nfqdn = "192.1.1.4"', "gateway.fqdn: '192.1.1.4' ends like an"),
        ('version = 1\n[gateway]\nidentity = "@a.example"\nfqdn = "b.example"',
         "gateway.fqdn: is another name than identity"),
        ('version = 1\n[dns]\ncheck_own = "no"', "dns.check_own: must be true or false"),
        ('version = 1\n[gateway]\ntrace = ""', "gateway.trace: is empty"),
        ('version = 1\n[gateway]\ntrace = "a\\u0000b"',
         "gateway.trace: 'a\\x00b' has characters that can't be printed"),
        (f'version = 1\n[gateway]\ncontrol_socket = "/{"x" * 107}"',
         "gateway.control_socket: the path is longer than 107 octets"),
        ('version = 1\n[interfaces]\noutside = ["eth 1"]',
         "interfaces.outside[1]: 'eth 1' is not the name of an interface"),
        ('version = 1\n[interfaces]\noutside = ["oegw0"]',
         "datapath.tunnel_interface: is one of interfaces.outside"),
        ('version = 1\n[datapath]\ntunnel_interface = "0123456789abcdef"',
         "datapath.tunnel_interface: '0123456789abcdef' is not the name of an interface"),
        ('version = 1\n[datapath]\nencapsulation = "UDP"',
         'datapath.encapsulation: \'UDP\' is not "auto" or "esp" or "udp"'),
        ('version = 1\n[datapath]\nencapsulation = "udp if possible"',
         'datapath.encapsulation: \'udp if possible\' is not "auto" or "esp" or "udp"'),
        ('version = 1\n[datapath]\ncore = "c"',
         'datapath.core: \'c\' is not "auto" or "compiled" or "python"'),
        ("version = 1\n[datapath]\nworkers = 17", "datapath.workers: 17 is not within 0 to 16"),
        ("version = 1\n[datapath]\noffloads = 1",
         "datapath.offloads: must be true or false, not the number 1"),
        ('version = 1\n[datapath]\ndatapath = "kernal"',
         'datapath.datapath: \'kernal\' is not "auto" or "kernel" or "userspace"; did you mean'),
        ('version = 1\n[ike]\nchannel_proposals = ["aes128-sha256-modp2048", "des-md5-modp768"]',
         "ike.channel_proposals[2]: 'des-md5-modp768' "),
        ('version = 1\n[ike]\ntunnel_proposals = "rot13"', "ike.tunnel_proposals: 'rot13' "),
        ('version = 1\n[ike]\npfs = "maybe"',
         'ike.pfs: \'maybe\' is not "required" or "optional" or "off"'),
        ("version = 1\n[ike]\ntunnel_bytes = 1000",
         "ike.tunnel_bytes: is less than 100000: the tunnel would do nothing else"),
        (CONFIGURED.replace('"192.1.1.5"', '"any"'),
         "rule[1].peer_identity: is missing: a peer \"any\" needs a name to be known by"),
        (CONFIGURED.replace('"192.1.1.5"', '"sg_b..example"'),
         "rule[1].peer: 'sg_b..example' is not a "),
        (CONFIGURED + 'encapsulation = "tcp"',
         'rule[1].encapsulation: \'tcp\' is not "auto" or "esp" or "udp"'),
        ('version = 1\n[ike]\nprofiles = ["modem"]',
         "ike.profiles[1]: 'modem' is not one of modern, draft"),
        ("version = 1\n[ike]\nhalf_open_limit = 4",
         "ike.half_open_per_source: is larger than half_open_limit"),
        ("version = 1\n[intercept]\nmark_mask = 5",
         "intercept.mark_mask: 0x5 is not exactly two neighbouring bits, such as 0x30000"),
        ("version = 1\n[intercept]\nmark_mask = 0x70",
         "intercept.mark_mask: 0x70 is not exactly two neighbouring bits, such as 0x30000"),
        ("version = 1\n[intercept]\nassurance_mask = 0x60000",
         "intercept.assurance_mask: has bits of mark_mask"),
        ("version = 1\n[intercept]\nencrypted_mark = 0xC00000",
         "intercept.encrypted_mark: 0xc00000 is not exactly one bit, such as 0x400000"),
        ("version = 1\n[intercept]\nencrypted_mark = 0x10000",
         "intercept.encrypted_mark: is a bit of mark_mask or assurance_mask"),
        ("version = 1\n[intercept]\nencrypted_mark = 0x1000000",
         "sst.mark_mask: has bits of intercept.mark_mask, assurance_mask or encrypted_mark"),
        ("version = 1\n[intercept]\nmark_mask = 0x180000000",
         "intercept.mark_mask: 6442450944 is not within 1 to 4294967295"),
        ('version = 1\n[intercept]\nhold = "last"',
         'intercept.hold: \'last\' is not "first" or "first+last"'),
        ("version = 1\n[lifespans]\nsilence = -1",
         "lifespans.silence: -1 seconds are not within 0.1 to 604800"),
        ('version = 1\n[multihoming]\nchoice = "recieved"',
         'multihoming.choice: \'recieved\' is not "round-robin" or "received" or "rekeyed"; '
         'did you mean "received"?'),
        ("version = 1\n[multihoming]\nturn = 0",
         "multihoming.turn: 0 seconds are not within 0.1 to 60"),
        ("version = 1\n[multihoming]\npatience = 0.1",
         "multihoming.patience: 0.1 seconds are not within 0.5 to 600"),
        ('version = 1\n[default]\ncategory = "configured"',
         "default.category: a default can't be configured: strangers have no peer"),
        ('version = 1\n[default]\ncategory = "deny"\non_failure = "drop"',
         "default.on_failure: is for category opportunistic only"),
        (RULE, "rule[1].category: is missing: it is one of deny, permit, opportunistic, "),
        ('version = 1\n[[rule]]\ncategory = "deny"',
         "rule[1].name: is missing: each rule needs a name of its own"),
        (RULE + 'category = "deny"\n[[rule]]\nname = "r"\ncategory = "deny"',
         "rule[2].name: another rule is named 'r'"),
        ('version = 1\n[[rule]]\nname = "default"\ncategory = "deny"',
         "rule[1].name: 'default' is the name of a rule that every gateway has"),
        (RULE + 'category = "oportunistic"',
         'rule[1].category: \'oportunistic\' is not "deny" or "permit" or "opportunistic" or '
         '"configured"; did you mean "opportunistic"?'),
        (RULE + 'category = "deny"\non_failure = "drop"',
         "rule[1].on_failure: is for category opportunistic only"),
        (RULE + 'category = "deny"\ndestination = "192.1.0.65/24"',
         "rule[1].destination: '192.1.0.65/24' has host bits set; the network is 192.1.0.0/24"),
        (RULE + 'category = "deny"\nsource = ["192.1.0.0/24", "there"]',
         "rule[1].source[2]: 'there' is not an IP address, nor a prefix"),
        (RULE + 'category = "deny"\nsource = []',
         "rule[1].source: the list is empty; leave the key out instead"),
        (RULE + 'category = "deny"\nprotocol = "tpc"', "rule[1].protocol: 'tpc' is not a protocol"),
        (RULE + 'category = "deny"\nprotocol = 256',
         "rule[1].protocol: a protocol's number is within 0 to 255"),
        (RULE + 'category = "deny"\nprotocol = "icmp"\ndestination_ports = 8',
         "rule[1].destination_ports: protocol 1 has no ports"),
        (RULE + 'category = "deny"\nprotocol = "tcp"\nsource_ports = "9-3"',
         "rule[1].source_ports: the range begins at 9, after its end 3"),
        (RULE + 'category = "deny"\nprotocol = "tcp"\nsource_ports = 65536',
         "rule[1].source_ports: ports are within 0 to 65535"),
        (RULE + 'category = "deny"\nprotocol = "tcp"\nsource_ports = "http"',
         'rule[1].source_ports: must be a port or a range as "1000-2000", not the text'),
        (RULE + 'category = "deny"\noverride = "yes"',
         "rule[1].override: must be true or false, not the text 'yes'"),
        (RULE + 'category = "deny"\npeer = "192.1.1.5"',
         "rule[1].peer: is for rules of category configured only"),
        (CONFIGURED.replace('source = "192.1.0.0/24"\n', ""),
         "rule[1].source: a configured rule has exactly one source prefix, not none"),
        (CONFIGURED.replace('"192.2.0.0/24"', '["192.2.0.0/24", "192.3.0.0/24"]'),
         "rule[1].destination: a configured rule has exactly one destination prefix, not 2"),
        (CONFIGURED.replace("192.2.0.0/24", "2001:db8::/32"),
         "rule[1].destination: is of another address family than source"),
        (CONFIGURED.replace('peer = "192.1.1.5"\n', ""),
         "rule[1].peer: is missing: a configured rule needs it"),
        (re.sub("peer_key.*", "", CONFIGURED),
         "rule[1].peer_key: is missing: a configured rule needs it"),
        (CONFIGURED.replace(PEER_KEY, PEER_KEY[2:]),
         "rule[1].peer_key: key begins neither with 0s (base64) nor with 0x (hexadecimal); "
         'give a key, or "dns"'),
        (CONFIGURED.replace("192.1.1.5", "Any"),
         "rule[1].peer: 'Any' is no full domain name; give an address, a domain name, or \"any\""),
        ('version = 1\n[gateway]\nprivate_key = "a"\nstate = "a"',
         "gateway.state: is the file of private_key, too; it needs one of its own"),
        (CONFIGURED.replace("192.1.1.5", "127.0.0.1"), "rule[1].peer: 127.0.0.1 is a loopback"),
        (CONFIGURED + '[gateway]\naddresses = "192.1.1.5"',
         "rule[1].peer: 192.1.1.5 is this gateway's own address"),
        (CONFIGURED + '[gateway]\naddresses = "2001:db8:1:1::4"',
         "rule[1].peer: gateway.addresses has no IPv4 address"),
        (CONFIGURED + 'on_failure = "clear"',
         "rule[1].on_failure: is for category opportunistic only"),
        (CONFIGURED + 'peer_identity = "sg-b"',
         "rule[1].peer_identity: 'sg-b' is neither @ and a domain name nor an address"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_key_path(text: str, wanted: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith(wanted)


def test_all_mistakes_are_told_at_once() -> None:
    text = """
    [gateway]
    identity = 3
    colour = "red"
    [dns]
    tries = "many"
    [[rule]]
    name = "a"
    category = "deny"
    destination = "192.1.0.65/24"
    [[rule]]
    name = "a"
    categry = "deny"
    """
    assert [line.split(": ")[0] for line in problems(text)] == [
        "version",
        "gateway.identity",
        "dns.tries",
        "rule[1].destination",
        "rule[2].name",
        "rule[2].category",
        "rule[2].categry",
        "gateway.colour",
    ]


def test_a_file_that_is_all_wrong_does_not_flood_the_terminal() -> None:
    text = "version = 1\n" + "".join(f"key{number} = 1\n" for number in range(1000))
    found = problems(text)
    assert len(found) == 101
    assert found[-1] == "and 900 more"


def test_faulty_rules_are_left_out_of_what_could_be_understood() -> None:
    values = {
        "version": 1,
        "rule": [
            {"name": "good", "category": "deny", "destination": "192.2.0.0/24"},
            {"name": "bad", "category": "deny", "destination": "192.2.0.1/24"},
        ],
    }
    read, found = config.examine_values(values, Path("oegw.toml"))
    assert [rule.name for rule in read.rules] == ["good"]
    assert len(found) == 1


# ------------------------------------------------------------------------ files


def written(directory: Path, text: str) -> Path:
    path = directory / "oegw.toml"
    path.write_text(text)
    return path


def test_prefix_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "partners.txt").write_text("192.2.0.0/24 # Bob\n2001:db8:2::/48\n")
    rule = RULE + 'category = "opportunistic"\ndestination_file = "partners.txt"'
    read = config.load(written(tmp_path, rule))
    destination = read.rules[0].destination
    assert destination is not None
    assert list(destination) == [ip_network("192.2.0.0/24"), ip_network("2001:db8:2::/48")]


def test_faults_in_a_prefix_file_are_told_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("192.2.0.1/24\nelsewhere\n")
    found = problems(RULE + 'category = "deny"\nsource_file = "p.txt"', tmp_path)
    assert [line.split(": ")[:2] for line in found] == [
        ["rule[1].source_file", f"{file}:1"],
        ["rule[1].source_file", f"{file}:2"],
    ]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ('category = "deny"\nsource_file = "p.txt"', "No such file"),
        ('category = "deny"\nsource = "192.1.0.0/24"\nsource_file = "p.txt"', "give either source"),
        ('category = "configured"\nsource = "192.1.0.0/24"\ndestination_file = "p.txt"\n'
         f'peer = "192.1.1.5"\npeer_key = "{PEER_KEY}"', "one destination prefix, not a list"),
    ],
)  # fmt: skip
def test_prefix_files_in_the_wrong_place(tmp_path: Path, lines: str, wanted: str) -> None:
    assert any(wanted in line for line in problems(RULE + lines, tmp_path))


@pytest.mark.parametrize(
    ("octets", "wanted"),
    [
        (b"version = \n", "Invalid value"),
        (b"version = 1\n\xff\xfe", "line 2 is not UTF-8 text"),
        (b"a = " + b"[" * 5000, "brackets are nested too deep"),
        (b"a = " + b"9" * 5000, "digits"),
        (b"#" * (MAX_FILE + 1), "is longer than"),
    ],
)
def test_files_that_are_no_toml(tmp_path: Path, octets: bytes, wanted: str) -> None:
    path = tmp_path / "oegw.toml"
    path.write_bytes(octets)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert wanted in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(tmp_path / "oegw.toml")
    with pytest.raises(ConfigError, match="directory"):
        config.load(tmp_path)


def test_the_control_socket_is_found_in_a_file_with_other_faults(tmp_path: Path) -> None:
    path = written(tmp_path, 'colour = "red"\n[gateway]\ncontrol_socket = "c.sock"\nnoise = 1')
    assert config.control_socket(path) == tmp_path / "c.sock"
    assert config.control_socket(written(tmp_path, "")) == Path("/run/oegw/control.sock")
    with pytest.raises(ConfigError, match="control_socket"):
        config.control_socket(written(tmp_path, "[gateway]\ncontrol_socket = 3"))


# ---------------------------------------------------------------- documentation

DOCUMENT = Path(settings.__file__).parent / "docs" / "configuration.md"


def documented_sections() -> dict[str, str]:
    """The text under each ``## [name]`` heading of the reference."""
    parts = re.split(r"^## `\[+(\w+)\]+`$", DOCUMENT.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SECTIONS: list[tuple[str, Any]] = [
    (each.name, each.default_factory)
    for each in dataclasses.fields(settings.Settings)
    if each.name
    not in (
        "rules",
        "default",
        "peers",
        "decision_points",
        "nat",
        "files",
        "texts",
        "moniker",
        "socks",
    )
]


@pytest.mark.parametrize(("section", "kind"), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_every_key_is_in_the_reference_with_its_default(section: str, kind: Any) -> None:
    text = documented_sections()[section]
    for each in dataclasses.fields(kind):
        row = re.search(rf"^\| `{each.name}` \| (.*?) \| ", text, re.M)
        assert row is not None, f"[{section}] {each.name} is not in {DOCUMENT.name}"
        default = each.default.value if isinstance(each.default, Enum) else each.default
        if default in ((), None):
            assert "`" not in row[1], f"{each.name} has no fixed default"
            continue
        if isinstance(default, tuple):
            default = tuple(item.value if isinstance(item, Enum) else item for item in default)
        words = {str(default), f"{default:#x}" if isinstance(default, int) else "", repr(default)}
        words |= {str(default).lower()} if isinstance(default, bool) else set()
        words |= {f'"{default}"', str(list(default) if isinstance(default, tuple) else "")}
        words |= {f"{default:g}" if isinstance(default, float) else ""}
        shown = row[1].strip("`").replace('"', "'")
        assert shown in {word.replace('"', "'") for word in words if word}, f"{each.name}: {row[1]}"


def test_every_key_of_rules_is_in_the_reference() -> None:
    sections = documented_sections()
    for key in re.findall(r"^(\w+) = ", FULL.split("[[rule]]", 1)[1], re.M):
        assert f"| `{key}` |" in sections["rule"], key
    for key in ("source_file", "destination_file"):
        assert f"`{key}`" in sections["rule"], key
    for key in ("category", "on_failure", "initiate", "require", "icmp", "relax"):
        assert f"| `{key}` |" in sections["default"], key


# ------------------------------------------------------------------------- fuzz

WORDS = [
    "1", "-1", "0", "65536", "1e400", "nan", "inf", "true", "false", '""', '"x"', "[]", "{}",
    "[[]]", "[1, 2]", '["a", "a"]', '{a = 1}', "1979-05-27T07:32:00Z", "07:32:00", "0x30000",
    '"192.1.0.65/24"', '"::/0"', '"fe80::1%a"', '"0sAQ=="', '"0xzz"', '"@"', '"\\u0007"',
    '"../../etc"', "=", ".", "\n", "[", "]", '"', "#", "'", "99999999999999999999999",
    '"configured"', '"deny"', '"1-2"', '"-"', '"first"', "rule", "gateway", "peer", "version",
]  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.timeout(600)
def test_mutated_files_raise_nothing_but_config_error() -> None:
    """Texts go through the TOML parser, tables straight to the validator, 100,000 in all."""
    values = amount(90_000, 18_000)
    generator = random.Random(4322)
    tokens = re.findall(r'"[^"\n]*"|\[+|\]+|\w+|[^\w\s]|\s+', FULL)
    path = Path("/nowhere/oegw.toml")
    good = bad = 0
    for _ in range(amount(10_000, 2_000)):
        mutated = list(tokens)
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(len(mutated))
            match generator.randrange(4):
                case 0:
                    mutated[at] = generator.choice(WORDS)
                case 1:
                    del mutated[at]
                case 2:
                    mutated.insert(at, generator.choice(tokens))
                case _:
                    other = generator.randrange(len(mutated))
                    mutated[at], mutated[other] = mutated[other], mutated[at]
        try:
            config.parse("".join(mutated), path)
            good += 1
        except ConfigError:
            bad += 1
    for _ in range(values):
        try:
            _, found = config.examine_values(random_values(generator), path)
        except ConfigError:
            bad += 1
        else:
            good, bad = good + (not found), bad + bool(found)
    assert good > 100
    assert bad > values / 2


KEYS = sorted(
    {each.name for _, kind in SECTIONS for each in dataclasses.fields(kind)}
    | set(re.findall(r"^(\w+) = ", FULL, re.M))
    | {"source_file", "colour", "", "a b", "\x1b[2J"}
)
LEAVES: list[Any] = [
    0, 1, -1, 80, 2**31, 10**30, 0.5, float("nan"), float("inf"), True, False, "", "x", "\x00",
    "192.1.0.0/24", "192.1.0.65", "192.1.0.65/24", "::1", "2001:db8::/32", "::/0",
    "@sg.example", "@", "tcp", "sctp", "17", "80-89", "9-1", "first", "udp", "modern", "configured",
    "deny", "opportunistic", "drop", "clear", PEER_KEY, "0s", "0x00", "x" * 5000, "\ud800", [], {},
    ["192.1.0.0/24", 3], ["eth0", "eth0"], [[]], [{}],
]  # fmt: skip


def random_values(generator: random.Random) -> dict[str, Any]:
    """A tree as TOML could give, with known keys at likely and unlikely places."""

    def table(likely: list[str]) -> dict[str, Any]:
        keys = likely if generator.random() < 0.9 else KEYS
        return {
            generator.choice(keys): generator.choice(LEAVES) for _ in range(generator.randint(0, 4))
        }

    values: dict[str, Any] = {"version": 1}
    if generator.random() < 0.05:
        values["version"] = generator.choice(LEAVES)
    for name, kind in generator.sample(SECTIONS, 2):
        values[name] = table([each.name for each in dataclasses.fields(kind)])
    rule_keys = ["source", "destination", "protocol", "destination_ports", "peer", "peer_key"]
    values["rule"] = [
        {"name": "r", "category": generator.choice(["deny", "configured"])} | table(rule_keys)
        for _ in range(generator.randint(0, 2))
    ]
    if generator.random() < 0.1:
        values[generator.choice([*KEYS, "rule", "default", "gateway"])] = generator.choice(LEAVES)
    return values


def test_modern_comes_before_draft(tmp_path: Path) -> None:
    """Two of ours must not end on the weak proposals."""
    text = 'version = 1\n[ike]\nprofiles = ["draft", "modern"]\n'
    with pytest.raises(config.ConfigError, match=r"ike\.profiles: modern comes before draft"):
        config.parse(text, tmp_path / "oegw.toml")


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ('peer = "SG-B.example."', ("sg-b.example", "sg-b.example", None)),
        ('peer = "any"\npeer_identity = "@road.example"', (None, "road.example", None)),
        (
            'peer = "192.1.1.5"\nencapsulation = "udp"',
            (ip_address("192.1.1.5"), ip_address("192.1.1.5"), Encapsulation.UDP),
        ),
    ],
)
def test_peers_by_address_by_name_and_without_either(lines: str, wanted: Any) -> None:
    text = CONFIGURED.replace('peer = "192.1.1.5"', lines)
    peer = parsed(text, Path("/etc/oegw")).peers["r"]
    assert (peer.address, peer.expected_identity, peer.encapsulation) == wanted
    assert peer.key is not None


def test_a_peer_whose_key_is_in_the_dns() -> None:
    text = CONFIGURED.replace(PEER_KEY, "dns")
    assert parsed(text, Path("/etc/oegw")).peers["r"].key is None


@pytest.mark.parametrize("written_as", ["sg-a.example", "SG-A.Example.", "@sg-a.example"])
def test_name_of_the_gateway_with_and_without_a_trailing_dot(written_as: str) -> None:
    """D2 case 12."""
    settings = parsed(f'version = 1\n[gateway]\nfqdn = "{written_as}"\n', Path("/etc/oegw"))
    assert settings.gateway.fqdn == "sg-a.example"
    assert settings.gateway.identity is None
    settings = parsed('version = 1\n[gateway]\nidentity = "@sg-a.example."\n', Path("/etc/oegw"))
    assert settings.gateway.identity == "sg-a.example"


def test_own_records_are_looked_at_unless_told_otherwise() -> None:
    assert parsed("version = 1\n", Path("/etc/oegw")).dns.check_own
    text = "version = 1\n[dns]\ncheck_own = false\n"
    assert not parsed(text, Path("/etc/oegw")).dns.check_own


def test_assurance_mask_makes_room_for_a_mark_mask_that_is_where_it_usually_is() -> None:
    path = Path("/etc/oegw/oegw.toml")
    options = config.parse("version = 1\n[intercept]\nmark_mask = 0xC0000\n", path).intercept
    assert options.assurance_mask == 0x300000


@pytest.mark.parametrize("key", ["mark_mask", "assurance_mask"])
def test_encrypted_mark_makes_room_for_them(key: str) -> None:
    path = Path("/etc/oegw/oegw.toml")
    options = config.parse(f"version = 1\n[intercept]\n{key} = 0xC00000\n", path).intercept
    assert options.encrypted_mark == 0x40000000
