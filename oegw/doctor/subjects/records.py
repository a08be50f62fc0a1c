"""Our own records in the DNS, against our own key: what a peer will find."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.outcome import (
    Gateway,
    GatewayOutcome,
    GatewaysFound,
    KeyOutcome,
    KeysFound,
    Malformed,
    Unanswered,
)
from dnsrecords.trust import Trust
from ike.events import Identity
from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, PROBLEM, WARNING, Finding, Kind, Severity, Shell
from oegw.nat import unserved
from oegw.selfknowledge import shown
from policy.flow import IPAddress

KEY_MISSING = Kind(
    "own-key-missing",
    PROBLEM,
    "the DNS has no key of this gateway",
    "a peer can't verify our signature: whoever we ask for a tunnel refuses it",
    "{publish}",
)
KEY_DIFFERS = Kind(
    "own-key-differs",
    PROBLEM,
    "the DNS has another key of this gateway than the one that it signs with",
    "a peer finds that our signature is wrong, and refuses",
    "{publish}",
)
CLIENT_MISSING = Kind(
    "client-record-missing",
    PROBLEM,
    "the DNS does not say that this gateway speaks for a host; a note where the host is only seen "
    "on a link of ours, and not named in publish.clients",
    "the host's traffic has no opportunistic tunnel, in neither direction",
    "{publish}",
)
CLIENT_KEY = Kind(
    "client-key-differs",
    PROBLEM,
    "a host delegates to this gateway with another key than ours",
    "peers negotiate with us for this host, and find that our signature is wrong",
    "{publish}",
)
CLIENT_ELSEWHERE = Kind(
    "client-delegates-elsewhere",
    PROBLEM,
    "a host in publish.clients delegates to other gateways only; a note where it is only seen on a "
    "link of ours",
    "peers send its traffic there, and refuse us as its gateway",
    "{publish}",
)
BOGUS = Kind(
    "own-records-unusable",
    PROBLEM,
    "our own records can't be read, or DNSSEC says that they are forged",
    "peers drop traffic to and from whom they are about, whatever their policy says",
    "{publish}",
)
UNANSWERED = Kind(
    "own-records-unanswered",
    WARNING,
    "nobody could say whether our own records are there",
    "if peers get no answer either, they find neither us nor our key",
    "dig {name} ANY",
)
ROLLOVER = Kind(
    "rollover-overdue",
    WARNING,
    "a change of key has been waiting for its next step for a day",
    "until the last one, two keys are published, and the old one is still good",
    "{rollover}",
)
KINDS = (
    KEY_MISSING, KEY_DIFFERS, CLIENT_MISSING, CLIENT_KEY, CLIENT_ELSEWHERE, BOGUS, UNANSWERED,
    ROLLOVER,
)  # fmt: skip

PATIENCE = 86400.0  # seconds that a change of key may wait for its operator; our choice


def look(facts: Facts) -> Iterator[Finding]:
    names, key = facts.names(), facts.own_key()
    if names.servers and not any(server.answers for server in names.servers):
        return  # said already, and by its cause
    ours: set[Identity] = {*facts.environment.addresses, *(name for name, _ in names.keys)}
    found = [_of_key(facts, name, outcome, key) for name, outcome in names.keys]
    # An address and a name: peers are content with one of them.
    if not any(each is None for each in found):
        yield from (each for each in found if each is not None)
    for client, delegations in names.clients:
        named = client in names.published
        yield from _of_client(facts, client, delegations, key, ours, named)
    rollover = facts.rollover()
    late = facts.clock().now - rollover.due if rollover is not None else 0.0
    if rollover is not None and rollover.due and late > PATIENCE:
        yield ROLLOVER.found(
            f"its next step was due {late / 86400:.0f} days ago",
            rollover=facts.mending.oegw("rollover"),
        )


def _of_key(
    facts: Facts, name: Identity, outcome: KeyOutcome, key: rsa.RSAPublicKey
) -> Finding | None:
    publish = _publish(facts, None)
    match outcome:
        case KeysFound(keys=keys):
            if key in keys:
                return None
            what = f"of {shown(name)} the DNS has {len(keys)} other keys, and not ours"
            return KEY_DIFFERS.found(what, publish=publish)
        case Malformed(detail=detail):
            return BOGUS.found(f"{shown(name)}: {detail}", publish=publish)
        case Unanswered(detail=detail):
            return UNANSWERED.found(f"{shown(name)}: {detail}", name=_owner(name))
        case _:
            return KEY_MISSING.found(f"no KEY record of {shown(name)}", publish=publish)


def _of_client(
    facts: Facts,
    client: IPAddress,
    outcome: GatewayOutcome,
    key: rsa.RSAPublicKey,
    ours: set[Identity],
    named: bool,
) -> Iterator[Finding]:
    publish = _publish(facts, client)
    severity: Severity = PROBLEM if named else NOTE
    match outcome:
        case GatewaysFound(gateways=gateways, trust=trust):
            to_us = [each for each in gateways if each.address in ours or each.fqdn in ours]
            if trust is Trust.BOGUS:
                yield BOGUS.found(f"{client}: its records are bogus", publish=publish)
            elif not to_us:
                others = ", ".join(dict.fromkeys(map(_gateway, gateways)))
                what = f"{client} delegates to {others}, and not to us"
                yield CLIENT_ELSEWHERE.found(what, severity, publish=publish)
            elif not any(each.keyless or not each.keys or key in each.keys for each in to_us):
                what = f"{client} delegates to {_gateway(to_us[0])} with another key than ours"
                yield CLIENT_KEY.found(what, publish=publish)
        case Malformed(detail=detail):
            yield BOGUS.found(f"{client}: {detail}", publish=publish)
        case Unanswered(detail=detail):
            if named:
                yield UNANSWERED.found(f"{client}: {detail}", name=_owner(client))
        case _:
            what = f"no record of {client} names a gateway"
            yield CLIENT_MISSING.found(what, severity, publish=publish)


def _gateway(gateway: Gateway) -> str:
    return str(gateway.address) if gateway.address is not None else f"@{gateway.fqdn}"


def _owner(name: Identity) -> str:
    return name.reverse_pointer if not isinstance(name, str) else name


def _publish(facts: Facts, client: IPAddress | None) -> Shell:
    """By dynamic update where that is set up, else the lines to be put into the zone."""
    settings, mending = facts.settings, facts.mending
    update = settings.publish.tsig_key is not None or settings.publish.server is not None
    words = "dns-records --update" if update else "dns-records"
    if client is not None and client not in settings.publish.clients:
        words += f" --client {client}"
    gateway = settings.gateway
    if not (gateway.addresses or gateway.fqdn or gateway.identity):
        usable = [a for a in facts.environment.addresses if not unserved(ip_network(a), ())]
        words += "".join(f" --gateway {address}" for address in usable)
    return mending.oegw(words)
