"""Captures on the links of the lab, by tcpdump."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from lablib import network, pcap
from lablib.errors import LabError
from lablib.run import Process, Run
from lablib.topology import Topology
from lablib.waiting import patient, wait_until

# Octets kept of a frame: all of it at an MTU of 1500.  The kernel's ring has slots of this size,
# so that a larger number would leave room for few frames (about 4,000, or 32,000 for `much`; the
# larger ring takes a test kernel two seconds to make).  A host's own TCP may put a batch of
# segments on its link as one large frame, which is then cut, and a gateway a batch of ESP in UDP;
# claims about payloads mind that.
SNAP = "2048"
RING, LARGE_RING = "8192", "65536"  # KiB
QUIET = 0.06  # seconds without a new octet in the file, after which a capture is complete


def place(topology: Topology, link: str) -> tuple[str, str]:
    """The namespace and the interface that see all of a link.

    ``wild`` is the middle host's own bridge, ``sg-a:oegw0`` a device of a host.  Raises LabError
    for an unknown name.
    """
    host, colon, device = link.partition(":")
    if colon and host in topology.hosts:
        return host, device
    if link in topology.links:
        return network.CABLES, link
    if link in topology.hosts and topology.hosts[link].bridge:
        return link, topology.hosts[link].bridge
    raise LabError(f"no link {link!r}; there are {', '.join([*topology.links, 'wild'])}")


@dataclass(slots=True)
class Capture:
    """A capture under way, or ended."""

    link: str
    path: Path
    process: Process

    @classmethod
    def begin(cls, run: Run, topology: Topology, link: str, much: bool) -> Capture:
        """Start tcpdump; it captures already when this returns, if ``ready`` is called after.

        ``much``: thousands of packets may come within a moment.
        """
        host, interface = place(topology, link)
        path = run.directory / f"{link.replace(':', '-')}.pcap"
        options = ["-n", "-U", "--immediate-mode", "-Z", "root", "-s", SNAP]
        options += ["-B", LARGE_RING if much else RING]
        process = run.start(
            f"tcpdump-{link.replace(':', '-')}",
            host,
            ["tcpdump", *options, "-i", interface, "-w", str(path)],
        )
        return cls(link, path, process)

    def ready(self) -> None:
        self.process.await_text("listening on")

    def end(self) -> list[pcap.Packet]:
        """Wait until what was sent is in the file, stop, and read it.

        Raises LabError if the kernel dropped packets of the capture: then it proves nothing.
        """
        if self.process.running:
            self._settle()
            self.process.end()
        dropped = re.search(r"(\d+) packets dropped by kernel", self.process.text())
        if dropped is None or int(dropped[1]):
            raise LabError(f"the capture on {self.link} is not complete: {self.process.text()}")
        return pcap.packets(self.path)

    def packets_so_far(self) -> list[pcap.Packet]:
        return pcap.packets(self.path)

    def _settle(self) -> None:
        size, since = -1, time.monotonic()

        def quiet() -> bool:
            nonlocal size, since
            now = self.path.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            return time.monotonic() - since > patient(QUIET)

        wait_until(f"a quiet moment on {self.link}", quiet, 5.0)
