"""Errors of sockets as reply codes."""

from __future__ import annotations

import errno
import os

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.server.failures import refusal


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ECONNREFUSED, ReplyCode.CONNECTION_REFUSED),
        (errno.ENETUNREACH, ReplyCode.NETWORK_UNREACHABLE),
        (errno.EHOSTUNREACH, ReplyCode.HOST_UNREACHABLE),
        (errno.ETIMEDOUT, ReplyCode.HOST_UNREACHABLE),
        (errno.EACCES, ReplyCode.NOT_ALLOWED),
        (errno.EPERM, ReplyCode.NOT_ALLOWED),
        (errno.EADDRNOTAVAIL, ReplyCode.NETWORK_UNREACHABLE),
        (errno.EMFILE, ReplyCode.FAILURE),
    ],
)
def test_errno(number: int, code: ReplyCode) -> None:
    found = refusal(OSError(number, os.strerror(number)))
    assert found.code == code
    assert found.reason == errno.errorcode[number].lower()


def test_what_icmp_said_is_better_known() -> None:
    assert refusal(OSError(errno.EHOSTUNREACH, ""), ReplyCode.TTL_EXPIRED).code == 6


def test_an_error_without_a_number() -> None:
    assert refusal(OSError("odd")).code == ReplyCode.FAILURE
