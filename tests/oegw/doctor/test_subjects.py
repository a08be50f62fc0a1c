"""Findings of facts: those that the lab can't plant, and when there is nothing to find."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.outcome import (
    Gateway,
    GatewaysFound,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.trust import Trust
from oegw import __version__, config
from oegw.doctor import checks
from oegw.doctor.box import (
    Clock,
    Daemon,
    Files,
    Host,
    Kernel,
    Limits,
    Link,
    Place,
    Process,
    Routing,
    RoutingRule,
    UdpSocket,
    XfrmItem,
)
from oegw.doctor.fact import Fact, Unexamined
from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, PROBLEM, WARNING, Finding
from oegw.doctor.iptablesrules import Iptables
from oegw.doctor.names import Names, Server
from oegw.doctor.nftrules import NftRules
from oegw.environment import Environment
from oegw.resolvers import in_use
from oegw.rollover import Rollover, Stage
from oegw.settings import DatapathSettings, GatewaySettings, PublishSettings, Settings

HERE, HERE6 = ip_address("192.1.1.4"), ip_address("2001:db8::4")
ALICE, BOB = ip_address("192.1.0.65"), ip_address("192.2.0.66")
SERVER = ip_address("192.1.1.53")
KEY = rsa.generate_private_key(65537, 1024).public_key()
OTHER = rsa.generate_private_key(65537, 1024).public_key()
OUT = Link("eth1", 1500, lasting=(ip_interface("192.1.1.4/24"),))
IN = Link("eth0", 1500, lasting=(ip_interface("192.1.0.1/24"),))
TUNNEL = Link("oegw0", 1500)
OWN_TABLE = {"table": {"family": "inet", "name": "oegw"}}
STATUS = {
    "version": __version__, "pid": 7, "interception": {"queue": "nft"},
    "datapath": {"name": "userspace", "workers": [{"name": "sealing 0", "restarts": 0}]},
}  # fmt: skip
ROUTES = Routing((RoutingRule(4, 4500, 4500, 0x20000, 0x30000, 45),), {(4, 4500): ("oegw0",)})
ALL_BITS = 0xFFFFFFFF
PATH = Path("/etc/oegw/oegw.toml")
FILES = Files(
    Place(PATH, 0o600), Place(Path("/k"), 0o600), "", Place(Path("/s/state")),
    Place(Path("/s"), 0o700, directory=True, free=1 << 30),
)  # fmt: skip


def also(rule: RoutingRule) -> Routing:
    return replace(ROUTES, rules=(*ROUTES.rules, rule))


def nft(*entries: dict[str, Any]) -> NftRules:
    return NftRules({"nftables": [OWN_TABLE, *entries]})


def healthy(**changed: Any) -> Facts:
    """A box on which nothing is to be found; each argument is a fact that is otherwise."""
    settings = Settings(gateway=GatewaySettings(addresses=(HERE,)))
    values: dict[str, Any] = {
        "text": "version = 1\n",
        "examined": (settings, ()),
        "surveyed": Environment(("eth1",), (HERE,), frozenset({HERE}), (IN.lasting[0].network,)),
        "own_key": KEY,
        "links": (OUT, IN, TUNNEL),
        "routing": ROUTES,
        "sysctls": {
            "net/ipv4/ip_forward": "1", "net/ipv4/conf/eth0/forwarding": "1",
            "net/ipv4/conf/eth1/forwarding": "1",
        },
        "nftables": nft(),
        "iptables": (),
        "gaps": (),
        "xfrm": (),
        "processes": {7: Process(7, "oegw", ("/bin/oegw", "run"))},
        "sockets": (),
        "kernel": Kernel("6.1.0-18-amd64"),
        "clock": Clock(2e9, 1e9, "the key was made", True),
        "limits": Limits(1 << 22, 10, 1000),
        "files": FILES,
        "host": Host(),
        "names": Names(
            (Server(SERVER, True, True, True),),
            ((HERE, KeysFound((KEY,), 60, Trust.SECURE)),),
            ((ALICE, delegating(HERE, KEY)),),
            frozenset({ALICE}),
        ),
        "rollover": None,
        "daemon": Daemon(STATUS, number=7),
    }  # fmt: skip
    assert not set(changed) - set(values)
    return Facts(PATH, **{name: Fact.of(value) for name, value in (values | changed).items()})


def with_settings(**changed: Any) -> tuple[Settings, tuple[str, ...]]:
    return replace(healthy().settings, **changed), ()


def delegating(to: Any, key: Any, trust: Trust = Trust.SECURE) -> GatewaysFound:
    fqdn = to if isinstance(to, str) else None
    return GatewaysFound((Gateway(10, None if fqdn else to, fqdn, (key,)),), 60, trust)


def found(facts: Facts) -> list[Finding]:
    examination = checks.examine(facts)
    assert not examination.unexamined
    return [finding for _, finding in examination.findings]


def only(facts: Facts) -> Finding:
    [finding] = found(facts)
    return finding


def dns(**changed: Any) -> Names:
    return replace(healthy().names(), **changed)


def test_nothing() -> None:
    assert found(healthy()) == []


SILENT = Server(SERVER, False, True, None, "no answer")
NO_KEY = ((HERE, NothingFound(60, "nothing")),)
FLOWS = [
    {"chain": {"family": "inet", "table": "t", "name": "f", "type": "filter", "hook": "forward"}},
    {"rule": {"family": "inet", "table": "t", "chain": "f", "handle": 4,
              "expr": [{"flow": {"op": "add", "flowtable": "@fast"}}]}},
]  # fmt: skip
JUMPS = Iptables("iptables", "*filter\n:INPUT ACCEPT [0:0]\n")
PUBLISHED_BY_UPDATE = with_settings(publish=PublishSettings(clients=(ALICE,), server=SERVER))
LENT = replace(OUT, lent=(ip_interface("2001:db8::4/64"),))


@pytest.mark.parametrize(
    ("name", "severity", "changed", "mend"),
    [
        ("nftables-conf-flushes", WARNING, {"host": Host(flushing="/etc/nftables.conf")},
         "sed -i 's/^flush ruleset/#&/' /etc/nftables.conf"),
        ("flow-offload", PROBLEM, {"nftables": nft(*FLOWS)}, "nft delete rule inet t f handle 4"),
        ("receive-buffer-small", WARNING, {"limits": Limits(65536)}, "rmem_max=4194304"),
        ("connection-tracking-full", WARNING, {"limits": Limits(None, 900, 1000)}, "max=4000"),
        ("disk-full", WARNING,
         {"files": replace(FILES, state_directory=Place(Path("/s"), 0o700, 0, True, 1000))}, "/s"),
        ("key-unusable", PROBLEM, {"files": replace(FILES, key_fault="/k: 1024 bits")}, "mv /k"),
        ("configuration-writable", WARNING,
         {"files": replace(FILES, configuration=Place(PATH, 0o600, 1000))}, "chown root"),
        ("kernel-old", WARNING, {"kernel": Kernel("4.19.0-1-amd64")}, "apt-get install linux"),
        ("kernel-no-queue", PROBLEM, {"kernel": Kernel("6.1", no_queue="none")}, "modprobe"),
        ("kernel-no-esp", NOTE, {"kernel": Kernel("6.1", no_esp="none")}, "modprobe"),
        ("kernel-no-esp", PROBLEM, {"kernel": Kernel("6.1", no_esp="none"),
         "examined": with_settings(datapath=DatapathSettings("kernel"))}, "modprobe"),
        ("core-missing", PROBLEM, {"kernel": Kernel("6.1", no_core="none"),
         "examined": with_settings(datapath=DatapathSettings(core="compiled"))}, "build-essential"),
        ("clock-unsynchronised", NOTE, {"clock": Clock(2e9, 1e9, "", False)}, "timedatectl"),
        ("clock-behind", PROBLEM, {"clock": Clock(1e9, 2e9, "the key was made", True)}, "set-ntp"),
        ("daemon-other-version", WARNING,
         {"daemon": Daemon({**STATUS, "version": "0.0.1"}, number=7)}, "kill 7; tail --pid=7"),
        ("daemon-other-version", WARNING,
         {"daemon": Daemon({**STATUS, "version": "0.0.1"}, unit="oegw.service", number=7)},
         "systemctl restart oegw.service"),
        ("daemon-complains", PROBLEM, {"daemon": Daemon(None, "no", complains=True)}, "oegw run"),
        ("gateways-silent", NOTE, {"daemon": Daemon({**STATUS, "silent_gateways": {"1.2.3.4": 9}})},
         "oegw forget"),
        ("refused-tunnels", NOTE,
         {"daemon": Daemon({**STATUS, "refusals": [{"peer": "x", "reason": "y"}]})}, "oegw status"),
        ("workers-restarted", WARNING,
         {"daemon": Daemon({**STATUS, "datapath": {"workers": [{"name": "a", "restarts": 4}]}})},
         "oegw status"),
        ("companion-down", PROBLEM,
         {"daemon": Daemon({**STATUS, "socks": {"reason": "ended"}, "moniker": {"services": 1}})},
         "oegw status"),
        ("resolver-slow", WARNING,
         {"daemon": Daemon({**STATUS, "resolvers": [{"address": "x", "standing": "dead"},
                                                    {"address": "y", "standing": "good"}]})},
         "oegw status"),
        ("own-rules-taken-away", WARNING,
         {"daemon": Daemon({**STATUS, "standing": {
             "put_back": 2, "ago": 60.5, "what": ["table inet oegw"], "author": "nft"}})},
         "oegw status"),
        ("own-queue-rule-gone", PROBLEM,
         {"daemon": Daemon({**STATUS, "interception": {"queue": "iptables"}}),
          "iptables": (JUMPS,)},
         "oegw run"),
        ("resolver-silent", PROBLEM, {"names": dns(servers=(SILENT,), keys=NO_KEY)}, "127.0.0.1"),
        ("resolver-silent", WARNING,
         {"names": dns(servers=(SILENT, *dns().servers))}, "127.0.0.1"),
        ("resolver-untrusted", NOTE, {"names": dns(servers=(Server(SERVER, True, False),))},
         "unbound"),
        ("own-key-missing", PROBLEM, {"names": dns(keys=NO_KEY)}, "oegw dns-records"),
        ("own-key-missing", PROBLEM, {"names": dns(keys=NO_KEY), "examined": PUBLISHED_BY_UPDATE},
         "oegw dns-records --update"),
        ("own-records-unusable", PROBLEM,
         {"names": dns(keys=((HERE, Malformed("bogus", 60)),))}, "oegw dns-records"),
        ("own-records-unanswered", WARNING,
         {"names": dns(keys=((HERE, Unanswered("SERVFAIL")),))}, "dig 4.1.1.192.in-addr.arpa ANY"),
        ("client-record-missing", NOTE,
         {"names": dns(clients=((BOB, NothingFound(60, "none")),))}, "--client 192.2.0.66"),
        ("client-delegates-elsewhere", NOTE,
         {"names": dns(clients=((BOB, delegating(BOB, OTHER)),))}, "--client"),
        ("own-records-unusable", PROBLEM,
         {"names": dns(clients=((ALICE, delegating(HERE, KEY, Trust.BOGUS)),))}, "dns-records"),
        ("rollover-overdue", WARNING,
         {"rollover": Rollover(Stage.USED, "a", "b", (), (), 1, 1e9)}, "oegw rollover"),
        ("ike-port-taken", PROBLEM,
         {"sockets": (UdpSocket("0.0.0.0", 500, (Process(9, "x"),)),)}, "kill 9"),
        ("ike-port-taken", PROBLEM,
         {"sockets": (UdpSocket("192.1.1.4", 4500, (Process(9, "x", (), "x.service"),)),),
          "host": Host(systemd=True)}, "systemctl disable --now x.service"),
        ("other-ike-daemon", PROBLEM,
         {"processes": {9: Process(9, "pluto")}, "host": Host(systemd=True)},
         "systemctl disable --now ipsec"),
        ("foreign-ipsec", WARNING, {"xfrm": (XfrmItem("state", "src a dst b proto esp spi 1"),)},
         "ip xfrm state delete src a dst b proto esp spi 1"),
        ("mark-compared-whole", WARNING, {"routing": also(RoutingRule(4, 9, 8, 0xCA6C, ALL_BITS))},
         "ip -4 rule add priority 9 table 8 fwmark 0xca6c/0xffff && ip -4 rule delete priority 9"),
        # Bits of the other keys stay; those of port encryption, and of others, are not taken.
        ("mark-bits-shared", WARNING, {"routing": also(RoutingRule(4, 9, 8, 0x80000, 0x400C0000))},
         "'[intercept]' 'assurance_mask = 0x300000' >> "),
        ("ipv6-advertisements-ignored", WARNING,
         {"links": (LENT, IN), "sysctls": {**healthy().sysctls(),
          "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/eth1/accept_ra": "1"}},
         "accept_ra=2"),
        ("redirects-accepted", WARNING,
         {"sysctls": {**healthy().sysctls(), "net/ipv6/conf/eth1/accept_redirects": "1"}},
         "net/ipv6/conf/eth1/accept_redirects=0"),
        ("rp-filter-strict", PROBLEM,
         {"sysctls": {**healthy().sysctls(), "net/ipv4/conf/all/rp_filter": "1"}}, "oegw0"),
    ],
)  # fmt: skip
def test_one_fact_is_otherwise(
    name: str, severity: Any, changed: dict[str, Any], mend: str
) -> None:
    finding = only(healthy(**changed))
    assert (finding.name, finding.severity) == (name, severity)
    assert mend in finding.mend
    assert finding.what
    assert finding.why


@pytest.mark.parametrize(
    "changed",
    [
        {"sockets": (UdpSocket("192.1.1.4", 500, (Process(7, "oegw", ("/x/oegw", "run")),)),)},
        {"sockets": (UdpSocket("192.1.1.4", 4500, (Process(8, "py", ("py", "-m", "oegw.a.b")),)),)},
        {"sockets": (UdpSocket("10.0.0.1", 500, (Process(9, "x"),)),)},
        {"xfrm": (XfrmItem("policy", "src a", 4500),)},
        {"clock": Clock(1e9, 1e9 + 60, "", True)},
        {"names": dns(clients=((ALICE, delegating(HERE, KEY)), (BOB, Unanswered("slow"))))},
        {"routing": also(RoutingRule(4, 9, 9, 0x1, 0xFF))},
        {"kernel": Kernel("6.1", no_core="none"),
         "daemon": Daemon({**STATUS, "datapath": {"name": "kernel"}})},
        {"kernel": Kernel("6.1", no_tun="none"),
         "daemon": Daemon({**STATUS, "datapath": {"name": "kernel"}})},
        # The larger of the two counts.
        {"sysctls": {**healthy().sysctls(), "net/ipv4/conf/all/rp_filter": "1",
                     "net/ipv4/conf/oegw0/rp_filter": "2"}},
    ],
)  # fmt: skip
def test_nothing_is_made_of_it(changed: dict[str, Any]) -> None:
    assert found(healthy(**changed)) == []


@pytest.mark.parametrize(
    ("rule", "about_us"),
    [
        ('nft table ip nat: oifname "eth1" masquerade', True),
        ('nft table ip nat: oifname { "eth1", "ppp0" } counter packets 0 bytes 0 masquerade', True),
        ('nft table ip nat: oifname "wg0" masquerade', False),
        ('nft table ip nat: ip saddr 172.17.0.0/16 oifname != "docker0" masquerade', False),
        ('nft table ip nat: ip saddr 192.1.0.0/16 oifname != "docker0" masquerade', True),
        ("iptables-legacy: -A POSTROUTING -s 192.1.0.0/24 -o eth1 -j MASQUERADE", True),
        ("iptables-legacy: -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", False),
        ("iptables-legacy: -A POSTROUTING ! -o lo -j MASQUERADE", True),
        ("iptables table nat, which iptables-legacy-save can't show", True),
    ],
)
def test_a_translation_is_about_networks_and_interfaces(rule: str, about_us: bool) -> None:
    box = replace(healthy().environment, translates=(rule,))
    told = [finding.name for finding in found(healthy(surveyed=box))]
    assert told == (["nat-undeclared"] if about_us else [])


BEHIND_NAT = Environment(("eth1",), (ip_address("10.0.0.2"),), frozenset(), ())
MASQUERADES = replace(healthy().environment, translates=('oifname "eth1" masquerade',))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("behind-nat", {"surveyed": BEHIND_NAT}),
        ("nat-undeclared", {"surveyed": MASQUERADES}),
        ("resolver-untrusted", {"names": dns(servers=(Server(SERVER, True, False),))}),
        ("resolver-not-validating", {"names": dns(servers=(Server(SERVER, True, True, False),))}),
        ("mark-bits-shared", {"routing": also(RoutingRule(4, 9, 8, 0x80000, 0xFF0000))}),
    ],
)
@pytest.mark.parametrize(
    "text",
    ["version = 1\n", 'version = 1\n[dns]\nresolvers = ["192.1.1.53"]\ntrusted = ["192.1.1.53"]\n'],
)
def test_edits_of_the_configuration_leave_it_right(
    tmp_path: Path, name: str, changed: dict[str, Any], text: str
) -> None:
    path = tmp_path / "oegw.toml"
    path.write_text(text)
    facts = healthy(text=text, examined=config.examine(path), **changed)
    told = {finding.name: finding for finding in found(replace(facts, path=path))}
    [edit] = [part for part in told[name].mend.split(" && ") if part.startswith(("sed", "printf"))]
    subprocess.run(edit, shell=True, check=True)
    settings, faults = config.examine(path)
    assert not faults
    assert settings != facts.settings
    in_use(settings.dns)


def test_states_of_an_earlier_run() -> None:
    """Deleted one by one: others' stay."""
    items = (
        XfrmItem("state", "src a", 4500),
        XfrmItem("policy", "src b dir out if_id 0x1194", 4500),
    )
    facts = healthy(
        xfrm=items, daemon=Daemon(None, "no oegw"), nftables=NftRules({}), routing=Routing(),
        links=(OUT, IN),
    )  # fmt: skip
    told = {finding.name: finding for finding in found(facts)}
    assert set(told) == {"daemon-not-running", "leftover-ipsec"}
    assert told["leftover-ipsec"].mend == (
        "ip xfrm state delete src a && ip xfrm policy delete src b dir out if_id 0x1194"
    )


def test_a_name_or_an_address_is_enough() -> None:
    keys = ((HERE, NothingFound(60, "")), ("gw.example", KeysFound((KEY,), 60, Trust.SECURE)))
    assert found(healthy(names=dns(keys=keys))) == []


def test_what_is_silent_is_told_once() -> None:
    unanswered = ((HERE, Unanswered("no answer")),)
    facts = healthy(names=dns(servers=(SILENT,), keys=unanswered))
    assert only(facts).name == "resolver-silent"


def test_what_can_not_be_known_ends_one_subject_only() -> None:
    def fails() -> Any:
        raise PermissionError(1, "Operation not permitted")

    examination = checks.examine(replace(healthy(limits=Limits(1)), xfrm=Fact(fails)))
    assert examination.unexamined == (("rivals", "Operation not permitted"),)
    assert [finding.name for _, finding in examination.findings] == ["receive-buffer-small"]


def test_only_what_is_asked_for_is_looked_at() -> None:
    """What is not wanted is not even read."""
    facts = Facts(PATH, limits=Fact.of(Limits(1, 900, 1000)))
    by_subject = checks.examine(facts, ["limits"])
    assert len(by_subject.findings) == 2
    assert by_subject.examined == ("limits",)
    [(_, finding)] = checks.examine(facts, ["connection-tracking-full"]).findings
    assert finding.name == "connection-tracking-full"


def test_a_fact_is_read_once() -> None:
    reads = []
    fact = Fact(lambda: reads.append(1) or 7)
    assert fact() == fact() == 7
    assert reads == [1]
    failing = Fact(lambda: [][0])
    for _ in range(2):
        with pytest.raises(Unexamined, match="index out of range"):
            failing()


def test_names_are_unique_and_commands_are_complete() -> None:
    kinds = [kind for subject in checks.SUBJECTS for kind in subject.kinds]
    assert len({kind.name for kind in kinds}) == len(kinds)
    assert len(checks.NAMES) == len(kinds) + len(checks.SUBJECTS)
    assert all(kind.mend for kind in kinds)
