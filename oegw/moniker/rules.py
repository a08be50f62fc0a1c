"""Who may register which name, and who may ask for it (MK-17, MK-18, MK-21)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from unicodedata import normalize

from oegw.moniker.interface import IPAddress, Owner
from oegw.moniker.names import SYSTEM, InvalidName, canonical
from oegw.moniker.registry import RegistrationRefused
from oegw.moniker.settings import Grant, IPNetwork, ServiceRule
from oegw.moniker.wire import SYSTEM_FIELD, Code

# Our choice, that of Debian, Fedora and others: below it are the system's own accounts.
FIRST_USER = 1000


def namespace_for(
    grants: Sequence[Grant],
    owner: Owner,
    groups: Collection[str],
    service: str,
    wanted: str | None,
) -> str:
    """The namespace in which ``owner`` may register ``service``.

    ``groups``: names of the owner's groups.  ``wanted`` None: the system's for whom it is open to,
    else the owner's own; SYSTEM or ``-``: the system's.  Raises RegistrationRefused.
    """
    try:
        service = canonical(service)
        if wanted == SYSTEM_FIELD:
            wanted = SYSTEM
        elif wanted:
            wanted = canonical(wanted, "namespace")
    except InvalidName as error:
        raise RegistrationRefused("malformed", str(error)) from None
    own = _own_namespace(owner)
    if wanted is None:
        if _may(grants, owner, groups, service, SYSTEM):
            return SYSTEM
        if own is None:
            raise RegistrationRefused(
                "denied",
                f"user {owner.user}: this name can't be a namespace, and nothing is granted",
            )
        return own
    if wanted == own or _may(grants, owner, groups, service, wanted):
        return wanted
    where = f"namespace {wanted}" if wanted else "the system's namespace"
    raise RegistrationRefused(
        "denied", f"user {owner.user} may not register {service} in {where}: [[moniker.grant]]"
    )


def _own_namespace(owner: Owner) -> str | None:
    """The user's name.  ``Bob`` has none of his own, for it would be that of ``bob``."""
    try:
        return owner.user if canonical(owner.user, "namespace") == owner.user else None
    except InvalidName:
        return None


def _may(
    grants: Sequence[Grant], owner: Owner, groups: Collection[str], service: str, namespace: str
) -> bool:
    if owner.uid == 0 or (namespace == SYSTEM and owner.uid < FIRST_USER):
        return True
    return any(
        _is_of(grant.user, owner, groups)
        and _like(service, grant.service)
        and namespace == _granted_namespace(grant.namespace)
        for grant in grants
    )


def _is_of(user: str, owner: Owner, groups: Collection[str]) -> bool:
    return user[1:] in groups if user.startswith("@") else user == owner.user


def _granted_namespace(namespace: str) -> str:
    return SYSTEM if namespace in (SYSTEM, SYSTEM_FIELD) else _folded(namespace)


def _like(name: str, pattern: str) -> bool:
    """``name`` is canonical; ``*`` and ``?`` of ``pattern`` stand for others, ``[`` for itself."""
    return fnmatchcase(name, _canonical_pattern(pattern))


@lru_cache(maxsize=1024)
def _canonical_pattern(pattern: str) -> str:
    return _folded(pattern).replace("[", "[[]")


def _folded(text: str) -> str:
    """As `names.canonical` does it, without a judgement."""
    return normalize("NFC", normalize("NFC", text).casefold())


# ---------------------------------------------------------------- policy by service name


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rule is matched with.  ``client`` None: an application of this host's.

    ``host``: where the service is, or would be.  ``encrypted``: the question came so.
    """

    service: str
    namespace: str
    client: IPAddress | None
    host: IPAddress | None
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``code``: DENIED or CLEAR where not ``allowed``.  ``origin``: of the rule that decided, for
    logs; empty where none did."""

    allowed: bool
    code: Code | None = None
    origin: str = ""


def decide(rules: Sequence[ServiceRule], asked: Asked) -> Verdict:
    """The first rule that matches decides; without one it is allowed.

    A rule that allows with ``encrypted`` decides for questions in clear as well: they are refused.
    """
    for rule in rules:
        if not _matches(rule, asked):
            continue
        if rule.allow and rule.encrypted and not asked.encrypted:
            return Verdict(False, Code.CLEAR, rule.origin)
        return Verdict(rule.allow, None if rule.allow else Code.DENIED, rule.origin)
    return Verdict(True)


def _matches(rule: ServiceRule, asked: Asked) -> bool:
    return (
        _like(asked.service, rule.service)
        and _like(asked.namespace or SYSTEM_FIELD, rule.namespace)
        and _within(asked.client, rule.clients)
        and _within(asked.host, rule.hosts)
    )


def _within(address: IPAddress | None, prefixes: Sequence[IPNetwork]) -> bool:
    return not prefixes or (address is not None and any(address in prefix for prefix in prefixes))
