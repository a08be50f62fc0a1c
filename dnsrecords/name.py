"""Domain names as identities: compared without case and without a trailing dot."""

from __future__ import annotations

import re

from dnsrecords.errors import MalformedName, shown

# Specification: RFC 1035 section 2.3.4, less the octets of the wire form's length and root.
MAX_NAME = 253

# Our choice: letters, digits, hyphen and underscore only.  Whatever else the
# DNS could carry has no business in the name of a gateway.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)


def normal_fqdn(text: str) -> str:
    """``text`` in lower case without a trailing dot.

    Raises MalformedName for what is no name of a host.  A last label of digits
    alone is refused: it is an address written where a name belongs.
    """
    name = text[:-1] if text.endswith(".") else text
    if not 1 <= len(name) <= MAX_NAME:
        raise MalformedName(f"{shown(text)}: a domain name has 1 to {MAX_NAME} characters")
    labels = name.lower().split(".")
    # Some letters become ASCII in lower case, so the test for that comes first.
    if not name.isascii() or not all(_LABEL.fullmatch(label) for label in labels):
        raise MalformedName(f"{shown(text)} is not a domain name")
    if labels[-1].isdigit():
        raise MalformedName(f"{shown(text)} ends like an address, not like a domain name")
    return ".".join(labels)
