"""All SAs as the control process sees them: what `test_moving.py` does not show."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest

from oegw.datapath.interface import DatapathError, SaExpired, UdpEncapsulation
from oegw.datapath.userspace.installed import InstalledSas
from oegw.datapath.userspace.record import EXPIRED, SOFTENED
from tests.support.datapath_engines import PrivateRecords
from tests.support.datapath_sas import GATEWAY_A6, GATEWAY_B6, arriving, make_sa

NOW = 100.0
ELSEWHERE = ip_address("203.0.113.9")


class FullMemory(PrivateRecords):
    def allocate(self, window: int = 0) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")


def table(*versions: int, port: int | None = 4500) -> InstalledSas:
    return InstalledSas(PrivateRecords(), versions or (4, 6), port)


def test_without_memory_nothing_is_installed() -> None:
    sas = InstalledSas(FullMemory(), (4, 6), 4500)
    with pytest.raises(DatapathError, match="Cannot allocate memory"):
        sas.install(make_sa(hard_seconds=5), NOW)
    assert sas.usage() == {}
    assert sas.next_deadline() is None
    assert not sas.sends_to(make_sa().destination)


def test_a_record_is_given_back_when_no_worker_knows_it() -> None:
    records = PrivateRecords()
    sas = InstalledSas(records, (4, 6), 4500)
    sas.install(make_sa(), NOW)
    inbound = sas.install(arriving(make_sa(replay_window=4096)), NOW)
    assert inbound.window == 4096
    assert len(records.records) == 2
    removed = sas.remove(arriving(make_sa()).key)
    assert removed is inbound
    assert len(records.records) == 2
    sas.release(removed)
    assert list(records.records) == [1]
    assert sas.remove(arriving(make_sa()).key) is None


@pytest.mark.parametrize(
    ("sas", "sa"),
    [
        (table(4), make_sa(source=GATEWAY_A6, destination=GATEWAY_B6)),
        (table(port=None), make_sa(encapsulation=UdpEncapsulation())),
        (table(), make_sa(encapsulation=UdpEncapsulation(61000, 4500))),
        (table(), arriving(make_sa(encapsulation=UdpEncapsulation(4500, 61000)))),
    ],
    ids=["version", "no UDP", "our port", "our port inbound"],
)
def test_what_no_socket_of_ours_carries_is_refused(sas: InstalledSas, sa: object) -> None:
    with pytest.raises(DatapathError, match=r"no socket|our own port"):
        sas.install(sa, NOW)  # type: ignore[arg-type]
    assert sas.usage() == {}


def test_a_successor_is_told_them_in_the_order_that_decides_who_sends() -> None:
    sas = table()
    for spi in (0x1000, 0x1001, 0x1002):
        sas.install(make_sa(spi=spi), NOW)
    sas.move(make_sa(spi=0x1001).key, make_sa().source, ELSEWHERE, None)  # no newer than before
    sas.prefer(make_sa(spi=0x1000).key)
    assert [installed.sa.spi for installed in sas] == [0x1001, 0x1002, 0x1000]


def test_paths_are_those_of_outbound_sas() -> None:
    sas = table()
    there = make_sa().destination
    sas.install(arriving(make_sa()), NOW)
    assert not sas.sends_to(there)
    for spi in (0x1000, 0x1001):
        sas.install(make_sa(spi=spi), NOW)
    sas.move(make_sa(spi=0x1000).key, make_sa().source, ELSEWHERE, None)
    assert sas.sends_to(there)
    assert sas.sends_to(ELSEWHERE)
    sas.remove(make_sa(spi=0x1001).key)
    assert not sas.sends_to(there)


def test_each_limit_is_said_once_whoever_sees_it() -> None:
    sas = table()
    sa = make_sa(soft_seconds=60, hard_seconds=90)
    soft, hard = SaExpired(sa.key, hard=False), SaExpired(sa.key, hard=True)
    record = sas.install(sa, NOW).record
    assert not sas.unsaid()
    assert sas.first_said(soft)
    assert not sas.first_said(soft)
    assert sas.expire_due(NOW + 61) == []
    assert sas.expire_due(NOW + 91) == [hard]
    assert record.flag(EXPIRED)
    assert not sas.first_said(hard)
    assert not sas.unsaid()
    sas.remove(sa.key)
    assert not sas.first_said(hard)


def test_what_a_worker_did_not_live_to_say_is_found_in_the_record() -> None:
    sas = table()
    record = sas.install(make_sa(), NOW).record
    record.set_flag(SOFTENED)
    assert sas.unsaid() == [SaExpired(make_sa().key, hard=False)]
    record.set_flag(EXPIRED)
    assert sas.unsaid() == [SaExpired(make_sa().key, hard=True)]
    assert sas.unsaid() == []
    with pytest.raises(DatapathError, match="expired"):
        sas.prefer(make_sa().key)


def test_what_was_said_under_an_old_name_is_said_again() -> None:
    sas = table()
    sa = make_sa()
    installed, other = sas.install(sa, NOW), sas.install(make_sa(spi=0x2000), NOW)
    for each in (installed, other):
        each.record.set_flag(SOFTENED)
    sas.move(sa.key, sa.source, ELSEWHERE, None)
    assert not sas.first_said(SaExpired(sa.key, hard=False))  # nobody has this name now
    assert sas.unsaid((installed,)) == [SaExpired(installed.sa.key, hard=False)]
    assert sas.unsaid((installed,)) == []
