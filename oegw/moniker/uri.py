"""URIs that say which service: ``starwars://theforce.net/path`` (MK-12, MK-13).

    [NAMESPACE::]SERVICE[@VERSIONS]://HOST[:PORT][/REST]

PORT is that of the host's Moniker daemon, where that is not the usual one; the service's own port is
in no URI.  HOST is a name, an IPv4 address, or an IPv6 address in brackets.  Characters of a name
that a URI can't have are percent-encoded (RFC 3986 section 2.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oegw.moniker.names import ServiceName

# Our choices.
MAX_URI_CHARACTERS = 4096
MAX_HOST_CHARACTERS = 255

_HOST = re.compile(r"[^\s\x00-\x1f\x7f/?#@:\[\]%\\]+")
_REST = re.compile(r"[^\s\x00-\x1f\x7f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MonikerUri:
    """``host``: without brackets.  ``port``: of the daemon, None for the usual one.  ``rest``:
    path, query and fragment as written, empty or with its ``/``, ``?`` or ``#``."""

    name: ServiceName
    host: str
    port: int | None = None
    rest: str = ""

    @classmethod
    def parse(cls, text: str) -> MonikerUri:
        """Raises InvalidName."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError
