"""A set-up between two of ours beside one between two strongSwans, in the same run.

    python -m tests.bench.bench_ike_setup [--runs 20]

Needs root and strongSwan.  Each pair of gateways has a link of its own in namespaces of its own;
the time is that of the link: from message 1 of main mode to message 3 of quick mode, as tcpdump
stamped them.  Each set-up is cold: tunnel and keying channel before it were closed by both ends.
The two take turns, since the machine is not quiet.  The tables show medians, and which end's work
each gap between two messages is.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.ike_gateways import (
    BenchError,
    Gateway,
    Key,
    Ours,
    Peer,
    Theirs,
    call,
    equip,
    inside,
    namespaces,
    require_programs,
    wait_until,
    wire,
    workplace,
)

LEFT, RIGHT = "10.200.0.1", "10.200.0.2"
LEFT_NETWORK, RIGHT_NETWORK = "10.71.0.0/24", "10.72.0.0/24"
LEFT_HOST, RIGHT_HOST = "10.71.0.1", "10.72.0.1"
PAUSE = 0.1  # seconds after a set-up: Diffie-Hellman pairs are made ahead in idle moments

NAMES = ("MM1", "MM2", "MM3", "MM4", "MM5", "MM6", "QM1", "QM2", "QM3")
GAPS = (
    ("MM1 -> MM2", "responder: reads the offer, chooses"),
    ("MM2 -> MM3", "initiator: reads the choice, takes a key pair"),
    ("MM3 -> MM4", "responder: key pair, perhaps the shared secret"),
    ("MM4 -> MM5", "initiator: shared secret, keys, signature"),
    ("MM5 -> MM6", "responder: secret, verifies, signs"),
    ("MM6 -> QM1", "initiator: verifies, proposes the tunnel"),
    ("QM1 -> QM2", "responder: policy, installs its inbound SA"),
    ("QM2 -> QM3", "initiator: installs its inbound SA"),
)
_MAIN, _QUICK = 2, 32
_NANOSECONDS = 0xA1B23C4D  # magic number of a pcap file with times that fine


@dataclass(frozen=True, slots=True)
class Message:
    time: float
    source: bytes
    exchange: int
    message_id: int


def ike_messages(path: Path) -> list[Message]:
    """What of IKE is in a pcap file."""
    octets = path.read_bytes()
    if struct.unpack_from("=I", octets)[0] != _NANOSECONDS:
        raise BenchError("tcpdump's file has no nanoseconds")
    found, at = [], 24
    while at + 16 <= len(octets):
        seconds, nanoseconds, kept, _ = struct.unpack_from("=IIII", octets, at)
        frame = octets[at + 16 : at + 16 + kept]
        at += 16 + kept
        if len(frame) != kept or frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        udp = 14 + (frame[14] & 15) * 4
        port = int.from_bytes(frame[udp + 2 : udp + 4], "big")
        message = frame[udp + 8 :]
        if port == 4500:
            if message[:4] != bytes(4):  # RFC 3948 section 2.2
                continue
            message = message[4:]
        elif port != 500:
            continue
        if len(message) >= 28:
            number = int.from_bytes(message[20:24], "big")
            moment = seconds + nanoseconds * 1e-9
            found.append(Message(moment, frame[26:30], message[18], number))
    return found


def setup_of(messages: list[Message]) -> list[float]:
    """The times of the nine messages.  Raises BenchError if they are not exactly these.

    The first quick mode counts: on a busy machine the answer to the ping may be there before the
    responder has seen message 3, and then the responder begins one as well.
    """
    main = [m for m in messages if m.exchange == _MAIN]
    quick = [m for m in messages if m.exchange == _QUICK]
    quick = [m for m in quick if m.message_id == quick[0].message_id]
    nine = main + quick
    ends = [m.source for m in nine]
    initiator = ends[0] if ends else b""
    pattern = [n % 2 == 0 for n in range(6)] + [True, False, True]
    if [end == initiator for end in ends] != pattern:
        raise BenchError(f"not one set-up without retransmission: {len(main)} + {len(quick)}")
    return [m.time for m in nine]


class Capture:
    """tcpdump at the initiator's end of the link, for one set-up."""

    def __init__(self, namespace: str, path: Path) -> None:
        self._path = path
        self._log = path.with_suffix(".log")
        options = ["-n", "-U", "--immediate-mode", "--time-stamp-precision=nano", "-Z", "root"]
        with self._log.open("wb") as stream:
            self._process = subprocess.Popen(
                inside(namespace, "tcpdump", *options, "-i", "outside", "-w", str(path), "udp"),
                stdin=subprocess.DEVNULL,
                stderr=stream,
                stdout=stream,
            )
        wait_until("tcpdump listening", lambda: b"listening on" in self._log.read_bytes())

    def end(self) -> list[Message]:
        time.sleep(PAUSE)
        self._process.terminate()
        self._process.wait(10)
        return ike_messages(self._path)


def one_setup(left: Gateway, right: Gateway, directory: Path) -> tuple[list[float], float, float]:
    """The times of the messages, and the seconds of processor of both ends."""
    capture = Capture(left.namespace, directory / "link.pcap")
    try:
        used = left.seconds(), right.seconds()
        left.begin(LEFT_HOST, RIGHT_HOST)
        wait_until("the tunnel", lambda: left.tunnels() == right.tunnels() == 1)
        used = left.seconds() - used[0], right.seconds() - used[1]
    finally:
        messages = capture.end()
    left.close(RIGHT)
    wait_until("no tunnel", lambda: left.tunnels() == right.tunnels() == 0)
    time.sleep(PAUSE)
    return setup_of(messages), *used


def measure(runs: int) -> dict[str, list[list[float]]]:
    times: dict[str, list[list[float]]] = {}
    with ExitStack() as stack:
        directory = stack.enter_context(workplace())
        keys = Key.make(), Key.make()
        pairs: list[tuple[Gateway, Gateway]] = []
        for kind in (Ours, Theirs):
            names = stack.enter_context(namespaces("left", "right"))
            wire(*names)
            ends = ((LEFT, LEFT_NETWORK, LEFT_HOST), (RIGHT, RIGHT_NETWORK, RIGHT_HOST))
            pair: list[Gateway] = []
            for own, name in enumerate(names):
                address, network, host = ends[own]
                far_address, far_network, _ = ends[1 - own]
                equip(name, f"{address}/24", f"{host}/24")
                call("ip", "-n", name, "route", "add", "default", "via", far_address)
                gateway = kind(name, directory / f"{kind.name}-{own}", None)
                stack.callback(gateway.stop)
                gateway.start(
                    address, network, keys[own], [Peer(far_address, far_network, keys[1 - own])]
                )
                pair.append(gateway)
            pairs.append((pair[0], pair[1]))
            one_setup(*pairs[-1], directory)  # the first one is not counted
        for number in range(runs):
            for left, right in pairs:
                moments, *_ = one_setup(left, right, directory)
                times.setdefault(left.name, []).append(moments)
                total = (moments[-1] - moments[0]) * 1e3
                print(f"{number + 1}: {left.name:10} {total:6.2f} ms", flush=True)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    try:
        require_programs()
        times = measure(options.runs)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    ours, theirs = times[Ours.name], times[Theirs.name]
    print(f"\nmilliseconds on the wire, medians of {options.runs} set-ups of each, in turns")
    print("RSA-2048, MODP-2048, no PFS, AES-128-GCM in UDP, ESP in user space\n")
    print(f"{'':12} {'ours':>7} {'theirs':>7}")
    for number, (gap, whose) in enumerate(GAPS):
        columns = [
            median(moments[number + 1] - moments[number] for moments in each) * 1e3
            for each in (ours, theirs)
        ]
        print(f"{gap:12} {columns[0]:7.2f} {columns[1]:7.2f}   {whose}")
    totals = [[(m[-1] - m[0]) * 1e3 for m in each] for each in (ours, theirs)]
    print(f"{'':12} {'-------':>7} {'-------':>7}")
    print(f"{'in all':12} {median(totals[0]):7.2f} {median(totals[1]):7.2f}")
    print(f"{'fastest':12} {min(totals[0]):7.2f} {min(totals[1]):7.2f}")
    print(f"{'slowest':12} {max(totals[0]):7.2f} {max(totals[1]):7.2f}")
    ratio = median(totals[0]) / median(totals[1])
    print(f"\nours / theirs: {ratio:.2f}   (at most 1.0 is wanted, 0.5 aimed for)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
