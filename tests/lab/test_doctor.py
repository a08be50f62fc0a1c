"""Faults planted on a gateway of the lab, one at a time: `oegw doctor` finds each by its name and
nothing else, and where the command that it prints can be run here, that mends it.

The lab's network is that of alice-bob, with both gateways running; each test leaves it healthy.
Of the lists of faults every fourth is planted in the run of every day, all in `tests/run --all`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from oegw.rollover import Rollover, Stage
from tests.support.amount import amount
from tests.support.doctor_lab import Patient, mends, names, patient
from tests.support.intercept_net import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.netns]

STEP = amount(1, 4)


@pytest.fixture(scope="module")
def box() -> Iterator[Patient]:
    with patient() as found:
        yield found


@dataclass(frozen=True, slots=True)
class Planted:
    """``undo``: where the printed command can't be run in a namespace, or mends in another way.
    ``hides``: something else can't be examined then."""

    name: str
    plant: str
    undo: str = ""
    hides: bool = False


DOCKER = """
iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -N DOCKER
iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 -j ACCEPT
"""
UFW = """
iptables -P FORWARD DROP; iptables -N ufw-before-forward; iptables -N ufw-reject-forward
iptables -A FORWARD -j ufw-before-forward; iptables -A FORWARD -j ufw-reject-forward
iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A ufw-before-forward -p icmp --icmp-type 3 -j ACCEPT
"""
FIREWALLD = """nft -f - <<'END'
table inet firewalld {
    chain filter_IN_public { tcp dport 22 accept; }
    chain filter_INPUT {
        type filter hook input priority 10; policy accept;
        ct state { established, related } accept
        iifname "eth1" goto filter_IN_public
    }
    chain filter_FORWARD {
        type filter hook forward priority 10; policy accept;
        iifname "eth1" accept
    }
}
END
"""
CLOSED = """nft -f - <<'END'
table inet admin {
    chain passing {
        type filter hook forward priority 0; policy drop;
        ct state related accept
        iifname { "eth0", "eth2" } oifname "eth1" accept
    }
}
END
"""
CLEAR_IPTABLES = "iptables -P FORWARD ACCEPT; iptables -t filter -F; iptables -t filter -X"
ADMIN = "nft 'add table inet admin; add chain inet admin in { type filter hook input priority 0; }'"

IN_THE_KERNEL = [
    Planted("forwarding-off", "sysctl -qw net.ipv4.ip_forward=0"),
    Planted("rp-filter-strict", "sysctl -qw net.ipv4.conf.oegw0.rp_filter=1"),
    Planted("redirects-sent", "sysctl -qw net.ipv4.conf.eth0.send_redirects=1"),
    Planted(
        "redirects-accepted",
        "sysctl -qw net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.eth1.accept_redirects=1",
    ),
    Planted("pmtu-off", "sysctl -qw net.ipv4.ip_no_pmtu_disc=1"),
    Planted("outside-mtu-small", "ip link set dev eth1 mtu 1300"),
    Planted(
        "ipv6-advertisements-ignored",
        "sysctl -qw net.ipv6.conf.eth1.accept_ra=1; "
        "ip address add 2001:db8:1:1::404/64 dev eth1 nodad valid_lft 999 preferred_lft 999",
    ),
    Planted("ike-port-blocked", f"{ADMIN}; nft add rule inet admin in udp dport 500-4500 drop"),
    Planted("esp-blocked", f"{ADMIN}; nft add rule inet admin in meta l4proto esp drop"),
    Planted(
        "pmtu-blocked",
        f"{ADMIN}; nft add rule inet admin in icmp type destination-unreachable drop",
    ),
    Planted("forwarded-dropped", CLOSED),
    Planted("docker-drops-forwarded", DOCKER),
    Planted("ufw-drops-forwarded", UFW, CLEAR_IPTABLES),
    Planted("firewalld-without-zone", FIREWALLD, "nft delete table inet firewalld"),
    Planted("firewall-gap", f"{ADMIN}; nft add rule inet admin in iifname eth1 tcp dport 22 drop"),
    Planted(
        "foreign-ipsec",
        "ip xfrm policy add src 198.51.100.0/24 dst 203.0.113.0/24 dir out "
        "tmpl src 192.1.1.4 dst 192.1.1.70 proto esp mode tunnel",
    ),
    Planted(
        "mark-overwritten",
        "iptables -t mangle -A PREROUTING -i wg0 -j MARK --set-xmark 0x30000/0xff0000",
        "iptables -t mangle -D PREROUTING -i wg0 -j MARK --set-xmark 0x30000/0xff0000",
    ),
    Planted(
        "mark-bits-shared",
        "ip rule add priority 5210 fwmark 0x80000/0xff0000 lookup main",
        "ip rule delete priority 5210",
    ),
    Planted(
        "nat-undeclared",
        "nft 'add table ip nat; "
        "add chain ip nat out { type nat hook postrouting priority srcnat; }; "
        "add rule ip nat out oifname eth1 ip saddr 192.3.0.0/24 masquerade'",
        "nft delete table ip nat",
    ),
    Planted("key-readable", "chmod 644 sg-a.pem", hides=True),
    Planted("configuration-writable", "chmod 666 sg-a.toml"),
]
AFTERWARDS = (
    f"nft 'add table inet admin; delete table inet admin'; {CLEAR_IPTABLES}; "
    "ip address delete 2001:db8:1:1::404/64 dev eth1 2>/dev/null; true"
)


def healthy(box: Patient) -> None:
    found = box.doctor()
    assert not found["problems"], found["findings"]
    assert not found["warnings"], found["findings"]


def test_nothing_is_found_on_the_healthy_lab(box: Patient) -> None:
    healthy(box)


@pytest.mark.parametrize("fault", IN_THE_KERNEL[::STEP], ids=lambda fault: fault.name)
def test_fault_in_the_kernel(box: Patient, fault: Planted) -> None:
    box.sh(fault.plant)
    try:
        found = box.doctor(whole=not fault.hides)
        assert names(found) == {fault.name}, found["findings"]
        if fault.undo:
            assert mends(found, fault.name)
            box.sh(fault.undo)
        for command in () if fault.undo else mends(found, fault.name):
            box.sh(command)
        healthy(box)
    finally:
        box.sh(AFTERWARDS)


# ----------------------------------------------------------------- the configuration

NEW_KEY = "other.pem"


@dataclass(frozen=True, slots=True)
class Written:
    """A fault in a configuration that only the doctor is given.  ``mended``: by its own command."""

    name: str
    edits: tuple[tuple[str, str], ...] = ()
    add: str = ""
    before: str = ""
    mended: bool = False
    hides: bool = False


IN_THE_CONFIGURATION = [
    Written("configuration-faulty", add='[[rule]]\nname = "x"\ncategory = "maybe"\n'),
    Written(
        "configuration-of-another-box",
        (('addresses = ["192.1.1.4", "2001:db8:1:1::4"]', 'addresses = ["192.1.1.44"]'),),
        hides=True,
    ),
    Written(
        "configuration-advice",
        add='[[rule]]\nname = "x"\ncategory = "opportunistic"\ndestination = "10.0.0.0/8"\n',
    ),
    Written(
        "ipv6-leak",
        add='[[rule]]\nname = "x"\ncategory = "opportunistic"\ndestination = "192.2.0.0/16"\n'
        'on_failure = "drop"\n',
        mended=True,
    ),
    Written("resolver-silent", (("192.1.1.53", "192.1.1.99"),)),
    Written("resolver-not-validating", (("[dns]", '[dns]\ntrusted = ["192.1.1.53"]'),)),
    Written("client-record-missing", add='[publish]\nclients = ["192.1.0.99"]\n'),
    Written("client-delegates-elsewhere", add='[publish]\nclients = ["192.2.0.66"]\n'),
    Written(
        "own-key-missing", (("[gateway]", '[gateway]\nidentity = "@nobody.lab.example"'),)
    ),
    Written(
        "state-directory",
        (('sg-a.db"', 'file/sg-a.db"'),),
        before="touch file",
        mended=True,
    ),
    Written(
        "state-corrupt",
        (('sg-a.db"', 'bad.db"'),),
        before="head -c 16 sg-a.db > bad.db; head -c 5000 /dev/zero | tr '\\0' x >> bad.db",
        mended=True,
    ),
]  # fmt: skip


@pytest.mark.parametrize("fault", IN_THE_CONFIGURATION[::STEP], ids=lambda fault: fault.name)
def test_fault_in_the_configuration(box: Patient, fault: Written) -> None:
    if fault.before:
        box.sh(fault.before)
    with box.variant(*fault.edits, add=fault.add):
        found = box.doctor(whole=not fault.hides)
        assert names(found) == {fault.name}, found["findings"]
        for command in mends(found, fault.name) if fault.mended else ():
            # The gateway that runs has another file, and would refuse to read this one.
            box.sh(command.replace("oegw reload", "oegw check"))
        if fault.mended:
            healthy(box)


def test_there_is_no_configuration(box: Patient) -> None:
    """The gateway of the usual configuration does not run, then."""
    box.configuration = box.directory / "nowhere.toml"
    try:
        found = box.doctor(after="--only configuration")
    finally:
        box.configuration = box.own
    assert names(found) == {"configuration-missing"}


def test_another_key_than_the_published_one(box: Patient) -> None:
    """Alice is not in the configuration, but seen on the link."""
    box.sh(f"oegw keygen --out {NEW_KEY}")
    with box.variant(("sg-a.pem", NEW_KEY)):
        found = box.doctor()
        assert names(found) == {"own-key-differs", "client-key-differs"}, found["findings"]
        [command] = mends(found, "client-key-differs")
        printed = box.sh(command)  # what belongs into the zone
        assert "4.1.1.192.in-addr.arpa" in printed
        assert "65.0.1.192.in-addr.arpa" in printed


def test_no_key(box: Patient) -> None:
    with box.variant(("sg-a.pem", "fresh.pem")):
        found = box.doctor(after="--only files")
        assert names(found) == {"key-missing"}
        box.sh(mends(found, "key-missing")[0])
        assert not names(box.doctor(after="--only files"))


def test_a_change_of_key_is_forgotten(box: Patient) -> None:
    state = box.directory / "sg-a.pem.rollover"
    state.write_text(Rollover(Stage.PUBLISHED, "a", "b", (), (), 60, 1000.0).serialize())
    try:
        assert names(box.doctor()) == {"rollover-overdue"}
    finally:
        state.unlink()


# ----------------------------------------------------------------- around the process


def test_the_clock_is_behind(box: Patient) -> None:
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    before = f"LD_PRELOAD={library} FAKETIME='2020-01-01 00:00:00' NO_FAKE_STAT=1"
    assert names(box.doctor(before)) == {"clock-behind"}


def test_no_tun_device(box: Patient) -> None:
    before = "unshare -m bash -c 'mount -t tmpfs none /dev/net; exec \"$@\"' --"
    assert names(box.doctor(before)) == {"kernel-no-tun"}


def test_no_compiled_core(box: Patient) -> None:
    from oegw.datapath.userspace import core

    [library] = Path(core.__file__).parent.glob("_core*.so")
    hide = f"mount --bind /dev/null {library}"
    before = f"unshare -m bash -c '{hide}; exec \"$@\"' --"
    assert names(box.doctor(before)) == {"core-missing"}


def test_another_ike_daemon(box: Patient) -> None:
    """A program of this name in another network namespace is nobody's concern."""
    box.sh("cp /bin/sleep charon")
    box.start("exec ./charon 60")
    try:
        wait_for(lambda: "charon" in box.sh("cat /proc/[0-9]*/comm", code=None))
        found = box.doctor()
        assert names(found) == {"other-ike-daemon"}, found["findings"]
        box.sh(mends(found, "other-ike-daemon")[0])
        box.processes.pop().wait(timeout=10)
        elsewhere = box.words("bob", "exec ./charon 60")
        other = subprocess.Popen(elsewhere, cwd=box.directory)
        try:
            healthy(box)
        finally:
            other.kill()
            other.wait()
    finally:
        (box.directory / "charon").unlink()


# ------------------------------------------------------------- the gateway's own state


def mend_by_a_start(box: Patient, name: str, was: int = 0) -> None:
    """The printed command stays in the foreground, as `oegw run` does."""
    [command] = mends(box.doctor(), name)
    box.start(command)
    box.await_gateway(was)


TAKEN_AWAY = [
    ("own-rules-gone", "nft delete table inet oegw"),
    ("own-routing-gone", "ip -4 rule delete priority 4500"),
    ("own-device-gone", "ip -4 route flush table 4500; ip -6 route flush table 4500"),
    ("own-queue-rule-gone", "iptables -t mangle -F; ip6tables -t mangle -F"),
]


@pytest.mark.parametrize(("name", "plant"), TAKEN_AWAY)
def test_what_somebody_took_away_is_found_until_the_gateway_puts_it_back(
    box: Patient, name: str, plant: str
) -> None:
    """While it is stopped it can't; nor is it asked then how packets get into its queue."""
    number = box.number()
    os.kill(number, signal.SIGSTOP)
    box.sh(plant)
    found = names(box.doctor())
    silent = {"daemon-silent", "workers-restarted"}
    assert found - silent == ({name} if name != "own-queue-rule-gone" else set())
    os.kill(number, signal.SIGCONT)
    wait_for(lambda: (box.status() or {"standing": {"put_back": 0}})["standing"]["put_back"], 30)
    mended = names(box.doctor())
    assert "own-rules-taken-away" in mended
    assert mended <= {"own-rules-taken-away", "workers-restarted"}
    box.stop()
    box.begin()
    healthy(box)


def test_bits_of_marks_move_away_from_those_of_others(box: Patient) -> None:
    """The command edits the configuration and starts the gateway again; the others' rule stays."""
    before, number = box.own.read_text(), box.number()
    rule = "priority 5210 fwmark 0x80000/0xff0000 lookup main"  # as Tailscale has it
    box.sh(f"ip rule add {rule}")
    try:
        mend_by_a_start(box, "mark-bits-shared", number)
        assert "mark_mask = 0xc0000000" in box.own.read_text()
        healthy(box)
    finally:
        box.sh(f"ip rule delete {rule}")
        box.own.write_text(before)
    box.stop()
    box.begin()


def test_a_gateway_that_does_not_answer(box: Patient) -> None:
    number = box.number()
    os.kill(number, signal.SIGSTOP)
    found = box.doctor()
    assert "daemon-silent" in names(found), found["findings"]
    assert names(found) <= {"daemon-silent", "workers-restarted"}
    mend_by_a_start(box, "daemon-silent", number)
    healthy(box)


def test_a_gateway_that_was_killed(box: Patient) -> None:
    box.stop("KILL")
    found = box.doctor()
    rules = {"leftover-table", "leftover-routes", "daemon-not-running"}
    assert rules <= names(found) <= rules | {"leftover-queue-rule", "leftover-device"}
    mend_by_a_start(box, "leftover-table")
    healthy(box)


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("leftover-device", "ip tuntap add dev oegw0 mode tun"),
        (
            "leftover-routes",
            "ip rule add priority 4500 fwmark 0x20000/0x30000 lookup 4500 protocol 45; "
            "ip route add unreachable default table 4500 proto 45",
        ),
        (
            "leftover-queue-rule",
            "iptables -t mangle -A OUTPUT -m mark --mark 0x10000/0x30000 "
            "-m comment --comment oegw-oegw -j NFQUEUE --queue-num 4500",
        ),
        ("ike-port-taken", ""),
    ],
)
def test_faults_without_a_gateway(stopped: Patient, name: str, plant: str) -> None:
    if plant:
        stopped.sh(plant)
    else:
        program = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); "
        program += "s.bind(('192.1.1.4', 500)); print('bound', flush=True); time.sleep(60)"
        stopped.start(f'exec {sys.executable} -c "{program}" > bound.txt')
        wait_for(lambda: (stopped.directory / "bound.txt").exists()
                 and (stopped.directory / "bound.txt").read_text())  # fmt: skip
    found = stopped.doctor()
    assert names(found) == {name, "daemon-not-running"}, found["findings"]
    for command in mends(found, name):
        stopped.sh(command)
    assert names(stopped.doctor()) == {"daemon-not-running"}


@pytest.fixture(scope="module")
def stopped(box: Patient) -> Iterator[Patient]:
    """In the tests that come last."""
    box.stop()
    assert names(box.doctor()) == {"daemon-not-running"}
    yield box
    box.begin()
    healthy(box)
