"""Whole packets sent by raw sockets: the flag leaves as it was made, and so do addresses."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from oegw.sst.interface import SstError
from oegw.sst.probe import packet_with
from oegw.sst.sender import RawSender
from oegw.sst.signal import Signal
from tests.support.intercept_net import PEER, PEER6, Net, wait_for, within
from tests.support.sst_wire import look

OWN = 0x30000


@pytest.mark.netns
@pytest.mark.parametrize(("here", "there"), [("10.2.0.1", PEER), ("fd00:2::1", PEER6)])
@pytest.mark.parametrize("flagged", [True, False])
def test_a_probe_leaves_as_it_was_made(here: str, there: str, flagged: bool) -> None:
    source, destination = ip_address(here), ip_address(there)
    packet = packet_with(b"payload", source, destination, (7, 9), Signal(), flagged=flagged)
    with Net() as net:
        capture = net.capture(net.outside, "out0")

        def send() -> None:
            sender = RawSender((source,), OWN)
            sender.open()
            sender.send(packet, destination)
            sender.close()

        within(net.gateway, send)
        (seen,) = [look(each) for each in wait_for(lambda: capture.to(there))]
        assert (seen.flagged, seen.right, seen.ports) == (flagged, True, (7, 9))
        assert (str(seen.source), seen.payload, seen.dont_fragment) == (here, b"payload", True)
        capture.close()


def test_without_the_right_to_raw_sockets_the_error_says_what_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("oegw.sst.sender.socket.socket", refuse)
    with pytest.raises(SstError, match="raw socket for probes of the path"):
        RawSender((ip_address("192.0.2.1"),), OWN).open()
