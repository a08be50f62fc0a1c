"""Between applications and the daemon of their host: JSON lines over a Unix socket.

A request is one object with ``do`` and a ``tag`` (the caller's number); an answer has the same
``tag`` and ``ok`` (true, or false with ``code`` and ``text``).  Who calls is known by SO_PEERCRED
(MK-21).

    register    service, version; perhaps namespace (absent: the caller's own), weight, sst,
                tcpmux, exported, text.  The bound socket comes along by SCM_RIGHTS: by it the
                daemon learns transport, port and families, and that the caller has them.
                Answer: number, namespace
    update      number, and what of weight, exported, text changes
    unregister  number
    list        perhaps after (a number).  Answer: services in the order of their numbers, objects
                with number, namespace, service, version, transport, families, weight, user,
                exported, text (list of strings); port in the caller's own and exported ones only,
                and in all for root; more: whether there are others after the last of them
    resolve     namespace, service, versions, transport.  Answer: port, transport, version,
                families, ttl, sst
    policy      Answer: rules, encrypt: what applications may ask for (MK-17)
    status      Answer: status, an object for `oegw moniker status`; for root, and the daemon's user

Without being asked the daemon sends ``{"event": "tcpmux", "number": N, "peer": [HOST, PORT]}`` with
an accepted connection by SCM_RIGHTS (RFC 1078).  Entries end with the connection, and with the
process that made it.  No line, in either direction, is longer than MAX_LINE_OCTETS.
"""

from __future__ import annotations

from typing import Any

from oegw.moniker.settings import ClientSettings

MAX_LINE_OCTETS = 16384


def policy_object(client: ClientSettings) -> dict[str, Any]:
    """What ``policy`` is answered with."""
    rules = [
        {
            "allow": rule.allow,
            "service": rule.service,
            "namespace": rule.namespace,
            "clients": [str(each) for each in rule.clients],
            "hosts": [str(each) for each in rule.hosts],
            "encrypted": rule.encrypted,
            "origin": rule.origin,
        }
        for rule in client.rules
    ]
    return {"encrypt": client.encrypt, "rules": rules}
