"""An outer socket that cannot be read: no CPU is kept busy by it, and no stranger ends a worker."""

from __future__ import annotations

import errno

import pytest

from oegw.datapath.userspace.vainreading import GIVES_UP, PATIENT, PAUSE, VainReading


def test_a_few_errors_cost_no_time() -> None:
    vain = VainReading()
    assert [vain.failed(errno.ECONNREFUSED, 1.0) for _ in range(PATIENT)] == [0.0] * PATIENT
    assert vain.failed(errno.ECONNREFUSED, 1.0) == PAUSE
    vain.read()
    assert vain.failed(errno.ECONNREFUSED, 1.0) == 0.0


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EBADF])
def test_what_lasts_ends_the_worker(number: int) -> None:
    vain = VainReading()
    vain.failed(number, 100.0)
    vain.failed(number, 100.0 + GIVES_UP - 0.1)
    assert vain.reason(number, 100.0 + GIVES_UP - 0.1) is None
    vain.failed(number, 100.0 + GIVES_UP)
    reason = vain.reason(number, 100.0 + GIVES_UP)
    assert reason is not None
    assert reason.startswith("an outer socket cannot be read: ")


def test_what_was_read_in_between_begins_the_time_anew() -> None:
    vain = VainReading()
    vain.failed(errno.EPERM, 100.0)
    vain.read()
    vain.failed(errno.EPERM, 100.0 + GIVES_UP)
    assert vain.reason(errno.EPERM, 100.0 + GIVES_UP) is None


@pytest.mark.parametrize(
    "number",
    # All that the kernel makes of ICMP and ICMPv6 (net/ipv4/icmp.c, net/ipv6/icmp.c).
    [
        errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOPROTOOPT, errno.ECONNREFUSED,
        errno.EMSGSIZE, errno.EOPNOTSUPP, errno.EHOSTDOWN, errno.ENONET, errno.EACCES,
        errno.EPROTO,
    ],
)  # fmt: skip
def test_icmp_never_ends_a_worker(number: int) -> None:
    vain = VainReading()
    for second in range(1000):
        vain.failed(number, float(second))
        assert vain.reason(number, float(second)) is None
