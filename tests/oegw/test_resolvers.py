"""Which name servers are asked, and what is said of them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from dnsrecords.upstream import Upstream
from oegw import resolvers
from oegw.environment import UnsuitableBox
from oegw.settings import DnsSettings

NEAR, FAR, OTHER = map(ip_address, ("127.0.0.1", "192.1.1.53", "192.1.1.54"))


def test_those_of_the_configuration_go_before_those_of_the_box() -> None:
    dns = DnsSettings(resolvers=(FAR, OTHER), trusted=(OTHER,))
    assert resolvers.in_use(dns) == (FAR, OTHER)
    assert resolvers.trusted((FAR, OTHER), dns) == [OTHER]
    assert resolvers.trusted((NEAR, FAR), DnsSettings()) == [NEAR]


def test_trusted_ones_must_be_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "system_resolvers", lambda: [FAR])
    assert resolvers.in_use(DnsSettings(trusted=(FAR,))) == (FAR,)
    with pytest.raises(UnsuitableBox, match=r"^dns\.trusted: 192\.1\.1\.54 is not one of .*1\.53"):
        resolvers.in_use(DnsSettings(trusted=(OTHER,)))


def test_a_row_of_the_status() -> None:
    server = Upstream(FAR, trusted=False, timeout=1.0)
    dns = DnsSettings(resolvers=(FAR,))
    row = resolvers.status_row(server.report(), dns, 100.0)
    assert (row["last_answer"], row["smoothed"], row["standing"]) == (None, None, "good")
    server.asked(90.0)
    server.answered(93.0, 3.0)
    row = resolvers.status_row(server.report(), dns, 100.0)
    assert (row["last_answer"], row["smoothed"], row["standing"]) == (7.0, 3.0, "slow")
    assert row["trusted"] is False
    assert "all of its answers count as insecure" in row["why"]


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("dead", "resolver 192.1.1.53 does not answer (4 tries in a row)"),
        ("slow", "resolver 192.1.1.53 is slow: its answers take 3.0 s"),
        ("good", "resolver 192.1.1.53 answers again"),
    ],
)
def test_what_the_log_says(new: str, words: str) -> None:
    fields = {"server": "192.1.1.53", "old": "good", "new": new, "timeouts": 4, "smoothed": 3.01}
    assert resolvers.in_words(fields) == words
