from ipaddress import ip_address

import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsrecords.reverse import reverse_name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.1.1.4", "4.1.1.192.in-addr.arpa."),
        ("0.0.0.255", "255.0.0.0.in-addr.arpa."),
        ("2001:db8::1", "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa."),
        ("fe80::1%eth0", "1" + ".0" * 28 + ".8.e.f.ip6.arpa."),
    ],
)
def test_names(address: str, name: str) -> None:
    assert reverse_name(ip_address(address)) == name


@given(st.ip_addresses())
def test_as_dnspython_has_it(address) -> None:  # type: ignore[no-untyped-def]
    if getattr(address, "ipv4_mapped", None) is None:  # which dnspython puts into in-addr.arpa
        assert reverse_name(address) == dns.reversename.from_address(str(address)).to_text()
