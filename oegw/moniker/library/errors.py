"""What can go wrong between an application and a named service, each with its class (MK-11).

All are `MonikerError`.  Those that a program which knows sockets expects as an OSError of the
standard library are that as well.  No text has a port in it (MK-5).
"""

from __future__ import annotations

from oegw.moniker.names import MonikerError
from oegw.moniker.registry import RegistrationRefused as RegistrationRefused
from oegw.moniker.wire import Code


class ServiceRefused(MonikerError):  # noqa: N818  (it names the fact)
    """The far daemon answered, and its answer is no; ``code`` says why."""

    code: Code

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class ServiceUnknown(ServiceRefused):
    """There is no such service, or none in that version, or not over that transport."""


class ServiceDenied(ServiceRefused, PermissionError):  # noqa: N818
    """A policy refuses it: the far host's, its gateway's, or this host's own (MK-17)."""


class ServiceBusy(ServiceRefused):
    """Too many questions, leases or connections there: later."""


class KeyRefused(ServiceRefused):
    """The far daemon has not got the key that the question was encrypted to, or wants one."""


class HostUnreachable(MonikerError, ConnectionError):  # noqa: N818
    """No address of the host, or no daemon at any, or no service where the daemon says."""


class TooSlow(MonikerError, TimeoutError):  # noqa: N818
    """It was not done within the time that the caller gave it."""


class AnswerUnusable(MonikerError, ConnectionError):  # noqa: N818
    """Something answered that is neither a daemon of ours nor TCPMUX, or not to our question."""


class NotEncrypted(MonikerError, ConnectionError):  # noqa: N818
    """Encryption is required, and there is no key to encrypt to."""


class DaemonAbsent(MonikerError, ConnectionError):  # noqa: N818
    """The daemon of this host doesn't answer at its socket."""


class NoPortLeft(MonikerError, OSError):  # noqa: N818
    """After many tries no random port was free."""


class TransportUnavailable(MonikerError, OSError):  # noqa: N818
    """This host's kernel has not got the transport."""


class PolicyUnreadable(MonikerError):  # noqa: N818
    """What applications of this host may ask for can't be read, so nothing is asked (MK-17)."""


class NotOfThisKind(MonikerError, TypeError):  # noqa: N818
    """A stream was asked for what only datagrams have, or the reverse."""


REFUSALS: dict[Code, type[ServiceRefused]] = {
    Code.UNKNOWN: ServiceUnknown,
    Code.VERSION: ServiceUnknown,
    Code.TRANSPORT: ServiceUnknown,
    Code.DENIED: ServiceDenied,
    Code.GATEWAY: ServiceDenied,
    Code.BUSY: ServiceBusy,
    Code.KEY: KeyRefused,
    Code.CLEAR: KeyRefused,
    Code.MALFORMED: ServiceRefused,
}
