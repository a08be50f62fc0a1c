"""What the mind may ask of the hands, and what it is answered: all of it, there is nothing else.

``Call``: the mind waits for the answer, so that what it does next comes after it.  ``Ask``: the
answer comes when it does.  ``Telling``: without an answer.  Verdicts on packets are `packets.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from oegw.datapath.interface import (
    Capability,
    DatapathFailed,
    KeyingDatagram,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    UnknownSpiReceived,
    Usage,
    WorkerReport,
)

Address = IPv4Address | IPv6Address


class Role(Enum):
    """A process beside the mind that may ask a little itself."""

    MONIKER = "moniker"
    SOCKS = "socks"


# ------------------------------------------------------------------------------ nftables


@dataclass(frozen=True, slots=True)
class Nft:
    """One transaction in the nft language; ``flags`` are those of libnftables' output."""

    command: str
    flags: int
    dry: bool


@dataclass(frozen=True, slots=True)
class Spoken:
    failed: bool
    output: str
    words: str  # of libnftables, about what failed


@dataclass(frozen=True, slots=True)
class NfMessage:
    """One message of a transaction, as `oegw.sst.plane.wire.Message`."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class NfTransaction:
    messages: tuple[NfMessage, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """What a system call ended with: 0, or an error number."""

    number: int


@dataclass(frozen=True, slots=True)
class TakeImprint:
    """`oegw.intercept.imprint` of a table, ours or another's."""

    family: str
    table: str


@dataclass(frozen=True, slots=True)
class Imprint:
    text: str


@dataclass(frozen=True, slots=True)
class Iptables:
    """``words`` are behind ``action``, which is -S, -A or -D."""

    program: str
    table: str
    action: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IptablesDone:
    code: int
    output: str
    words: str


# --------------------------------------------------------------------------------- queues


@dataclass(frozen=True, slots=True)
class OpenQueue:
    """The descriptor that packets come out of is handed over."""

    number: int
    length: int
    whole: bool


@dataclass(frozen=True, slots=True)
class QueueOpened:
    said: tuple[str, ...]  # warnings


@dataclass(frozen=True, slots=True)
class CountQueue:
    number: int


@dataclass(frozen=True, slots=True)
class QueueCounted:
    overflows: int
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class CloseQueue:
    number: int


# ---------------------------------------------------------------------- connection tracking


@dataclass(frozen=True, slots=True)
class Knows:
    """Whether the kernel tracks a connection with such packets."""

    source: Address
    destination: Address
    protocol: int
    source_port: int
    destination_port: int


@dataclass(frozen=True, slots=True)
class Known:
    known: bool


@dataclass(frozen=True, slots=True)
class MarksOf:
    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class MarksFound:
    marks: frozenset[int]


@dataclass(frozen=True, slots=True)
class ForgetSources:
    """`oegw.intercept.conntrack.forget_other_sources`."""

    source: Address
    destination: Address
    outside: Address


@dataclass(frozen=True, slots=True)
class Number:
    number: int


# ------------------------------------------------------------------------------- datapath


@dataclass(frozen=True, slots=True)
class MakeDatapath:
    pass


@dataclass(frozen=True, slots=True)
class StartDatapath:
    pass


@dataclass(frozen=True, slots=True)
class TakeKeying:
    """The sockets of IKE at the datapath's port are handed over, where they can be."""


@dataclass(frozen=True, slots=True)
class KeyingTaken:
    """What the descriptors are: sockets of these versions, then ``beginnings`` ways to workers, and
    one from them.  No version: no descriptor, the datapath passes IKE on."""

    versions: tuple[int, ...]
    beginnings: int


@dataclass(frozen=True, slots=True)
class CloseDatapath:
    pass


@dataclass(frozen=True, slots=True)
class InstallSa:
    sa: SecurityAssociation


@dataclass(frozen=True, slots=True)
class RemoveSa:
    key: SaKey


@dataclass(frozen=True, slots=True)
class Removed:
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class MoveSa:
    key: SaKey
    source: Address
    destination: Address
    encapsulation: UdpEncapsulation | None


@dataclass(frozen=True, slots=True)
class Moved:
    key: SaKey


@dataclass(frozen=True, slots=True)
class PreferSa:
    key: SaKey


@dataclass(frozen=True, slots=True)
class MendDatapath:
    """`Datapath.mend`."""


@dataclass(frozen=True, slots=True)
class Mended:
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadUsage:
    pass


@dataclass(frozen=True, slots=True)
class UsageRead:
    usage: dict[SaKey, Usage]


@dataclass(frozen=True, slots=True)
class CountDatapath:
    pass


@dataclass(frozen=True, slots=True)
class Counted:
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class ListWorkers:
    pass


@dataclass(frozen=True, slots=True)
class Workers:
    reports: tuple[WorkerReport, ...]


@dataclass(frozen=True, slots=True)
class SendKeying:
    data: bytes = field(repr=False)
    source: Address
    destination: Address
    port: int


# ------------------------------------------------------------------------------ processes


@dataclass(frozen=True, slots=True)
class OpenSigner:
    """Another process that reads the key's file anew; the descriptor to it is handed over."""


@dataclass(frozen=True, slots=True)
class SignerOpened:
    public_key: bytes  # DER, SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class OpenDoor:
    """A descriptor by which a process in ``role`` asks for itself is handed over."""

    role: Role


@dataclass(frozen=True, slots=True)
class GiveFiles:
    """Files that the mind and its children are to read or write become theirs, as at the start."""


@dataclass(frozen=True, slots=True)
class SaveGuard:
    """What is loaded at the next boot: the text of our tables, as nft reads it."""

    text: str


@dataclass(frozen=True, slots=True)
class GuardSaved:
    """``problem``: why it is not, for the operator; else empty."""

    problem: str


@dataclass(frozen=True, slots=True)
class Heed:
    """Answered at once, by hands that do not hang."""


@dataclass(frozen=True, slots=True)
class ListProcesses:
    """``others``: processes that the mind started, by name."""

    others: dict[str, int]


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """``capabilities``: names of what it may do; ``seccomp``: whether its system calls are
    filtered."""

    name: str
    pid: int
    user: str
    capabilities: tuple[str, ...]
    seccomp: bool
    no_new_privileges: bool


@dataclass(frozen=True, slots=True)
class Processes:
    rows: tuple[ProcessRow, ...]


@dataclass(frozen=True, slots=True)
class Done:
    pass


class Trouble(Enum):
    """Which error of ours a refusal is."""

    DATAPATH = "datapath"
    INTERCEPT = "intercept"
    SST = "sst"
    KEY_FILE = "key file"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Refused:
    trouble: Trouble
    text: str
    number: int = 0  # of a system call's error


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A process of ours ended that was not to; all end."""

    reason: str


@dataclass(frozen=True, slots=True)
class KernelChanged:
    """Something of ours may be gone.  ``rules``: it is about packet rules, else about routing;
    ``deleted``: something was, and not just added; ``author``: the process, as far as it is known.
    """

    rules: bool
    deleted: bool
    author: str


Call = (
    TakeImprint | Nft | NfTransaction | OpenQueue | CountQueue | CloseQueue | Knows | MarksOf
    | ListWorkers
)  # fmt: skip
Ask = (
    Heed
    | Iptables | ForgetSources | MakeDatapath | StartDatapath | TakeKeying | CloseDatapath
    | InstallSa | RemoveSa | MoveSa | PreferSa | MendDatapath | ReadUsage | CountDatapath
    | OpenSigner | OpenDoor | GiveFiles | SaveGuard | ListProcesses
)  # fmt: skip
News = (
    SaExpired | UnknownSpiReceived | PeerAddressChanged | KeyingDatagram | DatapathFailed
    | PartFailed | KernelChanged
)  # fmt: skip

ANSWERS: dict[type, Any] = {
    TakeImprint: Imprint,
    Nft: Spoken,
    NfTransaction: Code,
    OpenQueue: QueueOpened,
    CountQueue: QueueCounted,
    CloseQueue: Done,
    Knows: Known,
    MarksOf: MarksFound,
    ListWorkers: Workers,
    Iptables: IptablesDone,
    ForgetSources: Number,
    MakeDatapath: Done,
    StartDatapath: Capability,
    TakeKeying: KeyingTaken,
    CloseDatapath: Done,
    InstallSa: Done,
    RemoveSa: Removed,
    MoveSa: Moved,
    PreferSa: Done,
    MendDatapath: Mended,
    ReadUsage: UsageRead,
    CountDatapath: Counted,
    OpenSigner: SignerOpened,
    OpenDoor: Done,
    GiveFiles: Done,
    SaveGuard: GuardSaved,
    Heed: Done,
    ListProcesses: Processes,
}
"""What each is answered with, unless it is `Refused`."""
