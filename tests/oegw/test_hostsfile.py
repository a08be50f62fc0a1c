"""hosts(5)."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

from oegw.hostsfile import HostsFile

TEXT = """\
# comment
127.0.0.1   localhost
192.2.0.66  Bob.Example bob   # and a comment
2001:db8::66 bob.example
192.2.0.67
fe80::1%eth0 linklocal
nonsense there
"""


def test_names_and_addresses(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(TEXT)
    hosts = HostsFile(path)
    bob = (ip_address("192.2.0.66"), ip_address("2001:db8::66"))
    assert hosts.addresses_of("bob.example") == bob
    assert hosts.addresses_of("BOB") == bob[:1]
    for absent in ("192.2.0.67", "linklocal", "there", "comment"):
        assert hosts.addresses_of(absent) == ()
    assert hosts.name_of(bob[0]) == "bob.example"
    assert hosts.name_of(ip_address("192.2.0.67")) is None


def test_a_change_is_seen_and_a_missing_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(path)
    assert hosts.addresses_of("bob") == ()
    path.write_text("192.2.0.66 bob\n")
    assert hosts.addresses_of("bob") == (ip_address("192.2.0.66"),)
    path.write_text("192.2.0.67 bob\n")
    os.utime(path, ns=(1, 1))
    assert hosts.addresses_of("bob") == (ip_address("192.2.0.67"),)
    path.unlink()
    assert hosts.addresses_of("bob") == ()


def test_one_name_has_a_bounded_number_of_addresses(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("".join(f"10.0.{n >> 8}.{n & 255} many\n" for n in range(1000)))
    assert len(HostsFile(path).addresses_of("many")) == 16
