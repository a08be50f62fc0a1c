"""The name servers that are asked: reachable, and validating where their word counts."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, PROBLEM, WARNING, Finding, Kind, Shell

SILENT = Kind(
    "resolver-silent",
    PROBLEM,
    "a name server does not answer; a warning where another one does",
    "look-ups wait for it, or fail: no gateway is found, and no peer's key",
    "apt-get install unbound && {setting}",
)
NOT_VALIDATING = Kind(
    "resolver-not-validating",
    WARNING,
    "a name server whose word about DNSSEC counts never says that an answer is secure",
    "signed records are believed no more than others, and a forged answer is not noticed",
    "{mend}",
)
UNTRUSTED = Kind(
    "resolver-untrusted",
    NOTE,
    "no name server is on this box or in dns.trusted",
    "all records count as insecure, whoever has signed them: whoever is on the way to the server "
    "can redirect what should be encrypted",
    "apt-get install unbound && {setting}",
)
KINDS = (SILENT, NOT_VALIDATING, UNTRUSTED)


_UNBOUND = Shell("unbound-anchor; unbound-control reload")


def look(facts: Facts) -> Iterator[Finding]:
    servers = facts.names().servers
    values = {"resolvers": '["127.0.0.1"]'}
    if facts.settings.dns.trusted:  # who is not asked must not be named
        values["trusted"] = '["127.0.0.1"]'
    local = facts.mending.setting("dns", values)
    nobody = not any(server.answers for server in servers)
    for server in servers:
        if not server.answers:
            yield SILENT.found(
                f"{server.address} does not answer: {server.detail}",
                PROBLEM if nobody else WARNING,
                setting=local,
            )
        elif server.trusted and not server.validates:
            from_here = server.address.is_loopback
            yield NOT_VALIDATING.found(
                f"{server.address} does not flag what is signed as secure",
                mend=_UNBOUND if from_here else Shell(f"apt-get install unbound && {local}"),
            )
    if not any(server.trusted for server in servers):
        named = ", ".join(str(server.address) for server in servers)
        yield UNTRUSTED.found(f"{named} is neither on this box nor in dns.trusted", setting=local)
