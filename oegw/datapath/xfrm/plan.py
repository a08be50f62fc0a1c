"""What the kernel is told for SAs: states, policies, priorities, and which SA sends."""

from __future__ import annotations

from dataclasses import dataclass

from oegw.datapath.interface import Direction, IPAddress, SaKey, SecurityAssociation, Selector
from oegw.datapath.userspace.transform import GCM
from oegw.datapath.xfrm.layout import AF_INET, AF_INET6, family_of
from oegw.datapath.xfrm.policy import Action, Policy, PolicyDirection, Template, everything
from oegw.datapath.xfrm.settings import XfrmSettings
from oegw.datapath.xfrm.state import (
    LARGEST_REPLAY_WINDOW,
    Algorithm,
    Consumed,
    Limits,
    ReplayState,
    State,
)
from oegw.intercept.interface import Marks

# Specification values (RFC 4303 section 2.2).
_LAST_SEQUENCE = 2**32 - 1

# Our choices.
_SEQUENCE_MARGIN = 16  # the last 1/16 of the sequence numbers is for the successor to come
_MAPPING_INTERVAL = 1  # seconds between two reports of a peer that moved and is still there
_CONFIGURED = 100_000  # less than any opportunistic priority, more than any specificity
_OPPORTUNISTIC = 300_000
_GUARD = 2**31 - 1

_CIPHERS = {
    "aes-cbc": "cbc(aes)",
    "3des-cbc": "cbc(des3_ede)",
}
_AEADS = {GCM: ("rfc4106(gcm(aes))", 16)}
_INTEGRITIES = {
    "hmac-sha2-256-128": ("hmac(sha256)", 16),  # truncation by ALG_AUTH_TRUNC: its default is 96
    "hmac-sha1-96": ("hmac(sha1)", 12),
    "hmac-md5-96": ("hmac(md5)", 12),
}

Selectors = tuple[Selector, Selector]


def state_of(
    sa: SecurityAssociation,
    settings: XfrmSettings,
    replay: ReplayState | None = None,
    consumed: Consumed | None = None,
) -> State:
    """The kernel's state of an SA; ``replay`` and ``consumed`` go on if it moved.

    The kernel's windows end at 4096 packets: a larger one is made that small, which
    refuses more late packets and no fewer replayed ones.
    """
    aead = cipher = integrity = None
    if sa.cipher in _AEADS:
        name, icv = _AEADS[sa.cipher]
        aead = Algorithm(name, sa.encryption_key, icv)
    else:
        cipher = Algorithm(_CIPHERS[sa.cipher], sa.encryption_key)
    if sa.integrity is not None:
        name, icv = _INTEGRITIES[sa.integrity]
        integrity = Algorithm(name, sa.integrity_key, icv)
    outbound = sa.direction is Direction.OUTBOUND
    own = Marks(settings.mark_mask).own
    counted = outbound and not sa.extended_sequence_numbers
    return State(
        source=sa.source,
        destination=sa.destination,
        spi=sa.spi,
        selectors=(sa.source_selector, sa.destination_selector),
        interface_id=settings.interface_id,
        reqid=settings.interface_id,
        aead=aead,
        cipher=cipher,
        integrity=integrity,
        extended=sa.extended_sequence_numbers,
        replay=replay or ReplayState(min(sa.replay_window, LARGEST_REPLAY_WINDOW)),
        encapsulation=sa.encapsulation,
        limits=Limits(
            sa.soft_bytes,
            sa.hard_bytes,
            sa.soft_seconds,
            sa.hard_seconds,
            _LAST_SEQUENCE - _LAST_SEQUENCE // _SEQUENCE_MARGIN if counted else None,
            _LAST_SEQUENCE if counted else None,
        ),
        consumed=consumed or Consumed(),
        mark=(own, settings.mark_mask) if outbound else None,
        mapping_interval=0 if outbound else _MAPPING_INTERVAL,
        copy_dont_fragment=settings.copy_dont_fragment,
    )


def priority(sa: SecurityAssociation) -> int:
    """Lower rules: configured first, then the longer prefixes (destination before source), then
    who names a protocol, then who names ports."""
    source, destination = sa.source_selector, sa.destination_selector
    bits = source.network.max_prefixlen
    specificity = destination.network.prefixlen * (bits + 1) + source.network.prefixlen
    specificity = specificity * 2 + bool(source.protocol)
    specificity = specificity * 3 + bool(source.port) + bool(destination.port)
    return (_CONFIGURED if sa.configured else _OPPORTUNISTIC) - specificity


def standing_policies(settings: XfrmSettings) -> list[Policy]:
    """What is there without any SA.  Out: nothing passes.  In: what came through an SA of
    ours; that its addresses, protocol and ports are that SA's, the kernel has looked up in the
    state already."""
    ours = settings.interface_id
    policies = []
    for family in (AF_INET, AF_INET6):
        each = everything(family)
        block = Policy(PolicyDirection.OUT, each, _GUARD, ours, Action.BLOCK)
        through = Template(family, reqid=ours)
        policies += [
            block,
            Policy(PolicyDirection.IN, each, _GUARD, ours, template=through),
            Policy(PolicyDirection.FORWARD, each, _GUARD, ours, template=through),
        ]
    return policies


@dataclass(slots=True)
class _Sender:
    sa: SecurityAssociation
    live: bool = True


class Senders:
    """The outbound SAs by their selectors, oldest first, and the policy that follows.

    Of several, a configured one sends, and of these the newest, or the one preferred since.  If
    none is live any more, the policy blocks: what was for this tunnel does not fall to a wider one.
    """

    def __init__(self, settings: XfrmSettings) -> None:
        self._settings = settings
        self._by_selectors: dict[Selectors, list[_Sender]] = {}

    def add(self, sa: SecurityAssociation) -> None:
        self._by_selectors.setdefault(_selectors(sa), []).append(_Sender(sa))

    def remove(self, sa: SecurityAssociation) -> None:
        senders = self._by_selectors.get(_selectors(sa), [])
        senders[:] = [each for each in senders if each.sa.key != sa.key]
        if not senders:
            self._by_selectors.pop(_selectors(sa), None)

    def prefer(self, sa: SecurityAssociation) -> tuple[_Sender, ...]:
        """It counts as the newest from now on; returns the order before."""
        senders = self._by_selectors[_selectors(sa)]
        before = tuple(senders)
        senders.sort(key=lambda each: each.sa.key == sa.key)
        return before

    def restore(self, sa: SecurityAssociation, before: tuple[_Sender, ...]) -> None:
        """Undo ``prefer``, of which nothing came."""
        self._by_selectors[_selectors(sa)][:] = before

    def expire(self, sa: SecurityAssociation) -> None:
        """It carries nothing more, and is still there."""
        for each in self._by_selectors.get(_selectors(sa), []):
            if each.sa.key == sa.key:
                each.live = False

    def replace(self, key: SaKey, sa: SecurityAssociation) -> None:
        """The SA ``key`` is now ``sa``, of the same selectors, and no newer than before."""
        for each in self._by_selectors.get(_selectors(sa), []):
            if each.sa.key == key:
                each.sa = sa

    def policy(self, sa: SecurityAssociation) -> Policy | None:
        """The policy of the selectors of ``sa``; None if no SA has them."""
        senders = self._by_selectors.get(_selectors(sa))
        if not senders:
            return None
        live = [(each.sa.configured, place) for place, each in enumerate(senders) if each.live]
        chosen = senders[max(live)[1]] if live else senders[-1]
        return policy_of(chosen.sa, self._settings, blocked=not live)


def policy_of(sa: SecurityAssociation, settings: XfrmSettings, *, blocked: bool) -> Policy:
    """Packets of the selectors of ``sa`` go through it, or nowhere."""
    ours = settings.interface_id
    return Policy(
        PolicyDirection.OUT,
        _selectors(sa),
        priority(sa),
        ours,
        Action.BLOCK if blocked else Action.ALLOW,
        None if blocked else _template(sa.source, sa.destination, sa.spi, ours),
    )


def _template(source: IPAddress, destination: IPAddress, spi: int, reqid: int) -> Template:
    return Template(family_of(destination), reqid, source, destination, spi)


def _selectors(sa: SecurityAssociation) -> Selectors:
    return sa.source_selector, sa.destination_selector
