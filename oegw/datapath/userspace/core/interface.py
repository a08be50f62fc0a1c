"""The doors of the hot loop: what is done to every packet, in batches.

Two implementations stand behind them, pure Python (the reference) and the compiled core, and they
are alike octet by octet: the same tests run over both.  A core reads and writes the descriptors
that it is handed and knows no socket options, routes, clocks or randomness of its own.

What is ordinary it does by itself.  What is not, it hands back as *care*, in the order of arrival,
to the engines (``outbound.py``, ``inbound.py``), which do one packet at a time and know all the
rules.  So a core may always say "care", and never has to decide what the engines decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.packet.ip import Buffer

# Our choices.  Both cores keep to them, or their batches would differ.
RUN_PACKETS = 64  # UDP_MAX_SEGMENTS of older kernels
RUN_OCTETS = 65000  # under the 65507 of UDP over IPv4
SMALLEST_SEGMENT = 256  # octets of payload; smaller ones are cut with care, they are nobody's bulk
BATCH_FRAMES = 128  # frames that one ``fill`` takes at most
BATCH_OCTETS = 256 * 1024  # ``fill`` begins no further read once so many are there
JOINED_PACKETS = 64  # in one super-packet
LARGEST_FRAME = 65535 + 10
FLOWS = 65536  # that a core remembers in each direction


class Run(NamedTuple):
    """ESP packets of one SA that go out together: ``packets`` is all of them without a gap.

    Each has ``size`` octets but the last, which may be shorter; at most RUN_PACKETS of them and
    RUN_OCTETS in all.  ``count`` packets that carried ``octets`` octets of inner packets.  They
    were in the frames ``first`` to ``last``, both included.  The view is good until the next
    ``fill``.
    """

    sa: OutboundSa
    packets: memoryview
    size: int
    count: int  # type: ignore[assignment]  # hides that of tuples
    octets: int
    traffic_class: int
    dont_fragment: bool
    first: int
    last: int


class Frame(NamedTuple):
    """What was read from the tunnel device: the virtio header (empty without offloads), and the
    packet, of up to 64 KiB.  Views, good until the next ``fill``; what they show stays as it came,
    so that a frame that was sealed and could not be sent can be done again, with care."""

    header: memoryview
    packet: memoryview


class SocketWay(NamedTuple):
    """How the packets of an SA go: through which socket; ``name`` and ``control`` are to where, and
    from where, as sendmsg(2) takes them.  Known until the time ``until``."""

    descriptor: int
    version: int
    encapsulated: bool
    segments: bool  # UDP_SEGMENT may be used
    name: bytes
    control: bytes
    until: float


class Places(Protocol):
    """Counters, as memory."""

    def place(self, name: str) -> memoryview:
        """Where the counter of this name stands: an unsigned number of 64 bits."""


class Gathers(Protocol):
    """`gathering.Gathering`: what a loop tells of crowds."""

    gather_from: memoryview
    """When all workers gather: monotonic nanoseconds.  A crowd puts it off."""

    def place(self, gathered: bool) -> None:
        """Packets come one by one, or in crowds.  Said when it changes, and the former again after
        each `gathering.LOOK` turns."""


class SealingLoop(Protocol):
    """The whole of a worker's turns: wait, read, seal, send, and again.  It counts what it does.

    What is not ordinary is handed back, and the next ``turn`` goes on behind it: first of all a
    run of an SA that has no way (yet, or any more), that has reached a soft limit that was not told
    of, or that the socket refused.  While a turn is under way, the sockets' options are its own.
    """

    def way(self, sa: OutboundSa, way: SocketWay) -> None:
        """Until the SA is refreshed."""

    attended: tuple[int, ...]
    """The descriptors that it reads from."""

    def turn(self, polled: int) -> Run | int | None:
        """A run to send, the index of a frame that needs care, or None: ``polled``, the descriptor
        of an epoll with those ``attended`` and others, has another one that is ready.  That is
        looked at once for each batch.  Raises OSError, as ``fill``."""


class SealingCore(Protocol):
    """Outbound: frames of the tunnel device in, runs of ESP packets out.

    ``seal`` does a frame by itself if all of this holds, else it is care:

    - without a virtio header, or with one of GSO type none, or TCPv4, TCPv6 (with or without the
      ECN bit) or UDP_L4 that fits the packet and has NEEDS_CSUM, ``gso_size`` at least
      SMALLEST_SEGMENT;
    - ``flows.key_of(packet)`` is not None, and was learned;
    - each packet cut from it has at most ``sa.mtu`` octets;
    - the SA is not expired, has sequence numbers for all, and its hard limit of octets allows all.

    Cutting is that of ``cutting.py``: per packet the IPv4 identification counts up, lengths,
    checksums and TCP's sequence number are set anew, CWR stays on the first, PSH and FIN on the
    last.  A partial checksum (NEEDS_CSUM) is completed before anything is encrypted.

    AES-GCM's IV is the sequence number.  In CBC mode one random block for each packet, in the
    packets' order, goes through the cipher with an IV of zeros, and what comes out is the packet's
    IV (so what was sealed before, by whomever, has no part in it): ``R`` and the plaintext,
    encrypted in CBC mode with an IV of zeros, are IV and ciphertext.

    The numbers of a frame are taken from the SA's state (``OutboundSa.take``) in one step before
    any of them is used: whoever dies in between has lost numbers, and used none twice.

    A run ends where the next packet is of another SA, traffic class or DF, or is larger, after a
    packet that is smaller than ``size``, and at the limits above.
    """

    name: str  # "compiled" or "python"

    def install(self, sa: OutboundSa) -> None: ...

    def remove(self, sa: OutboundSa) -> None:
        """Also forgets its flows."""

    def refresh(self, sa: OutboundSa) -> None:
        """``sa.mtu``, ``sa.sa`` or ``sa.dont_fragment`` changed."""

    def learn(self, key: bytes, sa: OutboundSa) -> None:
        """Packets with this ``flows.key_of`` go by ``sa``.  The table is bounded: when it is full,
        all is forgotten."""

    def forget(self) -> None:
        """All flows: an SA came, went, or is preferred now."""

    def fill(self, device: int) -> int:
        """Read what waits, without waiting; the number of frames.  What was there before is gone.
        Raises OSError if nothing was read but an error other than EAGAIN; later it ends the batch,
        and comes again or is over."""

    def seal(self, now: float) -> tuple[list[Run], int | None]:
        """Go on where the last call stopped: runs to send, in this order, and then the index of a
        frame that needs care; None when all frames of the batch are done."""

    def frame(self, index: int) -> Frame: ...

    def loop(self, device: int, counters: Places, gathering: Gathers) -> SealingLoop | None:
        """To be used in place of ``fill`` and ``seal``; None: this core has none.  It takes random
        blocks from the kernel, as `os.urandom`."""


class Unopened(NamedTuple):
    """Care: an ESP packet, or what looked like one, that nothing was done to."""

    payload: memoryview
    source: bytes  # packed
    port: int
    destination: bytes  # packed
    traffic_class: int


class Unchecked(NamedTuple):
    """Care: it was opened, counted and is no replay; what it carries was not looked at."""

    sa: InboundSa
    next_header: int
    payload: memoryview
    traffic_class: int  # of the outer header


class Moved(NamedTuple):
    """The newest packet of ``sa`` came from another address or port than ``sa.peer``."""

    sa: InboundSa
    peer: tuple[bytes, int]


class Outer(Protocol):
    """A socket to receive from, as ``fill`` has it."""

    @property
    def descriptor(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def encapsulated(self) -> bool: ...


class OpeningLoop(Protocol):
    """As `SealingLoop`: wait, receive, open, deliver, and again."""

    attended: tuple[int, ...]

    def turn(self, polled: int) -> tuple[Unopened | Unchecked, bool] | bool:
        """What needs care, and whether the socket was one of ESP in UDP; or whether there is
        something that was ``moved`` or ``softened``, else another descriptor is ready.  Raises
        OSError when there were more than `vainreading.PATIENT` errors and nothing read."""

    def errors(self) -> int:
        """How many there were of sockets since one could last be read."""


class OpeningCore(Protocol):
    """Inbound: ESP packets in, frames for the tunnel device out.

    ``open`` does an ESP packet by itself if all of this holds, else it is ``Unopened``:

    - there is an SA for SPI and destination, of the same kind (UDP or not) as the socket;
    - it is not expired, and its hard limit of octets would allow a payload as long as the packet.

    A replay is counted as ``drop_in_replay``, a wrong ICV or padding as ``drop_in_invalid``, and
    that is all.  The window moves (``InboundSa.window``, in the SA's state) once the packet is
    authentic, and before anything is delivered.  Then what is inside is ordinary, or ``Unchecked``:

    - next header 4 or 41 as the packet's version says, ``flows.key_of`` of the whole payload is
      not None and was learned for this very SA;
    - RFC 6040 leaves the inner ECN field as it is.

    Ordinary packets become frames, in their order; neighbours are joined as ``joining.py`` says.
    ``append`` puts a packet between them that was done with care.
    """

    name: str

    def install(self, sa: InboundSa) -> None: ...

    def remove(self, sa: InboundSa) -> None:
        """Also forgets its flows."""

    def refresh(self, sa: InboundSa) -> None:
        """``sa.sa`` or ``sa.peer`` changed; call ``remove`` before and ``install`` after instead
        where the SA's key changes."""

    def learn(self, key: bytes, sa: InboundSa) -> None:
        """Packets with this ``flows.key_of`` fit the selectors of ``sa``.  Bounded as above."""

    def fill(self, outer: int, version: int, encapsulated: bool) -> int:
        """Read what waits in a socket of ``outside.py``, without waiting; the number of datagrams.
        One may be many ESP packets of one sender (UDP_GRO).  What was there before, frames
        included, is gone.  Raises OSError, but for EAGAIN."""

    def open(self, now: float) -> Unopened | Unchecked | None:
        """Go on where the last call stopped, up to what needs care; None when all are done."""

    def append(self, packet: Buffer) -> None:
        """The next frame is this packet, alone."""

    def deliver(self, device: int) -> int:
        """Write all frames made since ``fill``, in their order; how many packets the device did not
        take.  Each is tried once."""

    def counted(self) -> dict[str, int]:
        """``esp_in_packets``, ``esp_in_octets`` (inner), ``drop_in_replay``, ``drop_in_invalid``
        and what else was counted since the last call."""

    def moved(self) -> list[Moved]:
        """Since the last call, each SA at most once: its last one."""

    def softened(self) -> list[InboundSa]:
        """Those that reached their soft limit since the last call."""

    def loop(
        self, device: int, outer: Sequence[Outer], counters: Places, gathering: Gathers
    ) -> OpeningLoop | None:
        """To be used in place of ``fill``, ``open`` and ``deliver``, as a sealing core's."""
