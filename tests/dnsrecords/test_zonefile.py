"""What we tell people to publish must load in the servers that they have."""

import os
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path

import dns.rdatatype
import dns.zone
import pytest

from dnsrecords import zonefile
from dnsrecords.delegation import Delegation
from dnsrecords.errors import MalformedName
from dnsrecords.key import HostKey
from dnsrecords.reverse import reverse_name
from dnsrecords.sstkey import SstKey
from tests.support.dns_keys import KEY_1024, KEY_2048, KEY_4096, base64_key
from tests.support.sst_keys import sst_key

ORIGIN = "1.192.in-addr.arpa."
BOB = reverse_name(ip_address("192.1.0.66"))
SG_B = ip_address("192.1.1.5")

DELEGATIONS = [
    Delegation(10, SG_B),
    Delegation(10, SG_B, None, KEY_1024),
    Delegation(10, SG_B, None, KEY_2048),
    Delegation(20, ip_address("2001:db8::5"), None, KEY_4096),
    Delegation(30, None, "sg-a.example", KEY_2048),
]
SST_KEYS = [sst_key(SG_B), sst_key(ip_address("2001:db8::5"), precedence=65535, algorithm=2)]
KEYS = [HostKey(KEY_1024), HostKey(KEY_2048), HostKey(KEY_4096)]


def zone_text() -> str:
    lines = [
        f"$ORIGIN {ORIGIN}",
        "$TTL 3600",
        "@ IN SOA ns.example. hostmaster.example. 1 3600 900 604800 300",
        "@ IN NS ns.example.",
    ]
    lines += [zonefile.txt_line(BOB, each) for each in DELEGATIONS]
    lines += [zonefile.sst_key_line(BOB, each) for each in SST_KEYS]
    lines += [zonefile.key_line(reverse_name(SG_B), each) for each in KEYS]
    return "\n".join(lines) + "\n"


def test_forms() -> None:
    k1, k2 = base64_key(1024), base64_key(2048)
    assert zonefile.txt_line(BOB, DELEGATIONS[0]) == (
        '66.0.1.192.in-addr.arpa. IN TXT "X-IPsec-Server(10)=192.1.1.5"'
    )
    assert zonefile.txt_line(BOB, DELEGATIONS[2]) == (
        f'66.0.1.192.in-addr.arpa. IN TXT "X-IPsec-Server(10)=192.1.1.5" " {k2[:254]}" "{k2[254:]}"'
    )
    assert zonefile.key_line("SG-A.example", KEYS[0]) == f"sg-a.example. IN KEY 16896 4 1 {k1}"


@pytest.mark.parametrize("owner", ["", "a.example.\nb.example. IN TXT x", "a b", "a;b"])
def test_an_owner_that_would_break_the_zone(owner: str) -> None:
    with pytest.raises(MalformedName):
        zonefile.txt_line(owner, DELEGATIONS[0])
    with pytest.raises(MalformedName):
        zonefile.key_line(owner, KEYS[0])
    with pytest.raises(MalformedName):
        zonefile.sst_key_line(owner, SST_KEYS[0])


def test_dnspython_reads_the_same_octets() -> None:
    zone = dns.zone.from_text(zone_text(), origin=ORIGIN, relativize=False)
    found_txt = [rdata.to_wire() for _, _, rdata in zone.iterate_rdatas(dns.rdatatype.TXT)]
    found_key = [rdata.to_wire() for _, _, rdata in zone.iterate_rdatas(dns.rdatatype.KEY)]
    assert found_txt == [each.serialize() for each in (*DELEGATIONS, *SST_KEYS)]
    assert [each for rdata in found_txt if (each := Delegation.parse(rdata or b""))] == DELEGATIONS
    assert [each for rdata in found_txt if (each := SstKey.parse(rdata or b""))] == SST_KEYS
    assert found_key == [each.serialize() for each in KEYS]


def test_nsd_loads_the_zone(tmp_path: Path) -> None:
    """tests/run installs nsd; without it this test fails, it is not skipped."""
    checker = shutil.which("nsd-checkzone", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert checker is not None, "nsd-checkzone is missing: install the package nsd"
    file = tmp_path / "reverse.zone"
    file.write_text(zone_text(), encoding="ascii")
    done = subprocess.run(
        [checker, ORIGIN, str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is ok" in done.stdout
