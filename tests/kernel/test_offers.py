"""What the test kernel has to offer; these tests run inside it.

They ask with the commands of the system, so that a hole in the kernel's
configuration is not taken for a fault of ours.
"""

from __future__ import annotations

import itertools
import shlex
import subprocess
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.kernel

_numbers = itertools.count()

AUTHENTICATION = {
    "hmac(md5)": (16, 96), "hmac(sha1)": (20, 96), "hmac(sha256)": (32, 128)
}  # octets of key, bits that remain  # fmt: skip
ENCRYPTION = {"cbc(des3_ede)": (24,), "cbc(aes)": (16, 24, 32), "ecb(cipher_null)": (0,)}


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"offers{next(_numbers)}"
    run(f"ip netns add {name}")
    run(f"ip -n {name} link set lo up")
    yield name
    run(f"ip netns del {name}")


def run(command: str, text: str | None = None) -> str:
    done = subprocess.run(shlex.split(command), input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def inside(namespace: str, command: str, text: str | None = None) -> str:
    return run(f"nsenter --net=/run/netns/{namespace} {command}", text)


def key(octets: int) -> str:
    return "0x" + bytes((n * 37 + 11) % 256 for n in range(octets)).hex() if octets else '""'


def add_state(namespace: str, words: str, outer: str = "src 192.0.2.1 dst 192.0.2.2") -> str:
    run(f"ip -n {namespace} xfrm state add {outer} proto esp spi 0x1000 mode tunnel {words}")
    return run(f"ip -n {namespace} xfrm state")


@pytest.mark.parametrize(
    "outer", ["src 192.0.2.1 dst 192.0.2.2", "src 2001:db8::1 dst 2001:db8::2"]
)
@pytest.mark.parametrize("hash_name", AUTHENTICATION)
@pytest.mark.parametrize("cipher", ENCRYPTION)
def test_esp_with_a_cipher_and_a_hash(
    namespace: str, cipher: str, hash_name: str, outer: str
) -> None:
    octets, bits = AUTHENTICATION[hash_name]
    authentication = f"auth-trunc {hash_name} {key(octets)} {bits}"
    for size in ENCRYPTION[cipher]:
        words = f"replay-window 64 {authentication} enc {cipher} {key(size)}"
        assert hash_name in add_state(namespace, words, outer)
        run(f"ip -n {namespace} xfrm state flush")


@pytest.mark.parametrize("octets", [20, 28, 36])
def test_gcm_with_extended_sequence_numbers(namespace: str, octets: int) -> None:
    words = f"replay-window 1024 flag esn aead rfc4106(gcm(aes)) {key(octets)} 128"
    assert "esn" in add_state(namespace, words)


def test_cbc_with_extended_sequence_numbers(namespace: str) -> None:
    authentication = f"auth-trunc hmac(sha256) {key(32)} 128"
    words = f"replay-window 128 flag esn {authentication} enc cbc(aes) {key(16)}"
    assert "esn" in add_state(namespace, words)


def test_esp_in_udp_marks_and_interface_ids(namespace: str) -> None:
    words = f"aead rfc4106(gcm(aes)) {key(20)} 128 encap espinudp 4500 4500 0.0.0.0 if_id 7"
    text = add_state(namespace, words + " mark 0x10 mask 0xff")
    assert "espinudp sport 4500 dport 4500" in text
    assert "if_id 0x7" in text
    run(f"ip -n {namespace} link add ipsec0 type xfrm dev lo if_id 7")


NFT = """
table inet t {
    counter c { }
    map m { type ipv4_addr : verdict; flags timeout; }
    chain q { counter name c; queue num 5; }
    chain pre {
        type filter hook prerouting priority -160; policy accept;
        meta mark & 0x3 != 0 meta mark set meta mark & 0xfffffffc
        fib daddr type local meta l4proto esp accept
        fib daddr oifname != "eth1" accept
        ct state established accept
        ip daddr vmap @m
        ipsec in reqid 1 accept
    }
    chain out {
        type route hook output priority -160; policy accept;
        udp dport { 500, 4500 } accept
    }
    chain post { type nat hook postrouting priority 100; policy accept; masquerade; }
    chain nat { type nat hook prerouting priority -100; policy accept; dnat ip to 192.0.2.9; }
}
"""


def test_nft_takes_all_that_we_say(namespace: str) -> None:
    inside(namespace, "nft -f -", NFT)
    assert "queue" in inside(namespace, "nft list ruleset")


@pytest.mark.parametrize("program", ["iptables", "ip6tables", "iptables-legacy"])
def test_iptables_takes_the_jump_to_the_queue(namespace: str, program: str) -> None:
    mark = "-m mark --mark 0x1/0x3 -m comment --comment x"
    inside(namespace, f"{program} -w -t mangle -A PREROUTING {mark} -j NFQUEUE --queue-num 9")
    inside(namespace, f"{program} -w -t nat -A POSTROUTING -j MASQUERADE")
    assert "NFQUEUE" in inside(namespace, f"{program} -t mangle -S")


@pytest.mark.parametrize(
    "discipline",
    [
        "root netem delay 10ms loss 5% reorder 25% duplicate 1%",
        "root tbf rate 1mbit burst 10kb latency 50ms",
        "ingress",
    ],
)
def test_traffic_can_be_shaped(namespace: str, discipline: str) -> None:
    run(f"ip -n {namespace} link add v0 type veth peer name v1")
    inside(namespace, f"tc qdisc add dev v0 {discipline}")
    assert discipline.removeprefix("root ").split()[0] in inside(namespace, "tc qdisc show dev v0")


@pytest.mark.parametrize("device", ["x0 type bridge", "x0 type veth", "x0 link v0 type macvlan"])
def test_devices_of_test_networks(namespace: str, device: str) -> None:
    run(f"ip -n {namespace} link add v0 type veth peer name v1")
    run(f"ip -n {namespace} link add {device}")
    run(f"ip -n {namespace} tuntap add x1 mode tun")


@pytest.mark.parametrize(("family", "where"), [("-4", "192.0.2.0/24"), ("-6", "2001:db8::/64")])
def test_routing_by_mark(namespace: str, family: str, where: str) -> None:
    run(f"ip {family} -n {namespace} rule add fwmark 0x2/0x3 lookup 100")
    run(f"ip {family} -n {namespace} route add {where} dev lo table 100")
    assert "lookup 100" in run(f"ip {family} -n {namespace} rule")


def test_cgroups_and_bpf_are_there() -> None:
    assert "pids" in run("cat /sys/fs/cgroup/cgroup.controllers")
    configuration = run("zcat /proc/config.gz").splitlines()
    for name in ("CGROUP_BPF", "IP_SCTP", "UML_TIME_TRAVEL_SUPPORT"):
        assert f"CONFIG_{name}=y" in configuration
