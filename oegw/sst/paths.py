"""The paths to peers' gateways: is the flag kept, and what are new flows sealed with?

A path belongs to a gateway and a public key that somebody's record names together: who names a
gateway that is not theirs learns nothing about it, and spoils nothing for it.

    first flow -> round: flagged question, again, unflagged question beside it -> state
    WORKS      an answer to a flagged question, flagged both ways
    STRIPPED   an answer says, or shows, that the flag was lost
    DROPPED    only the unflagged question was answered
    SILENT     none was

A round proposes the newest key of ours, and today's epoch.  A peer that can't take that yet does
not answer; then the round goes back to what was agreed before, and that counts.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from oegw.sst.allowance import Allowance
from oegw.sst.epochs import day_of
from oegw.sst.interface import Algorithm, IPAddress, PathState, PortKey
from oegw.sst.orders import SendProbe
from oegw.sst.probe import (
    NONCE_OCTETS,
    Kind,
    Probe,
    ProbeError,
    Terms,
    packet_with,
    verify,
)
from oegw.sst.relations import PeerKey
from oegw.sst.signal import Signal
from oegw.sst.statickey import key_id

# Our choices.
PATHS_LIMIT = 4096
LONGEST_ROUND = 3.0  # seconds, if those who wait have so much patience
PLAIN_ROUND = ((0.0, 0), (0.15, 0), (0.4, 0))  # share of a round, and which terms are tried
MIXED_ROUND = ((0.0, 0), (0.12, 0), (0.25, 1), (0.4, 1), (0.55, 2), (0.7, 0))
ROUND_END = 0.85
PATIENT_ROUNDS = 2  # bad rounds until a path that worked counts as silent, or as dropping
FIRST_RETRY = 5.0  # seconds until a bad path is probed again; then twice as long, to the interval
REFUSED_REST = 600.0  # seconds until a key is proposed again that the peer did not take
STALE_ROUNDS = 10  # intervals without use, after which a path is unknown again
ANSWERS_PER_SECOND = 20.0  # to one peer
ANSWERS_BURST = 40.0


class OwnKey(Protocol):
    """A static key of ours; `keys.StaticKey` is one."""

    @property
    def public(self) -> bytes: ...
    @property
    def key_id(self) -> bytes: ...
    def port_key(self, peer_public: bytes, algorithm: Algorithm, day: int | None) -> PortKey: ...
    def probe_key(self, peer_public: bytes) -> bytes: ...


@dataclass(slots=True)
class Round:
    """A few questions.  ``tried``: terms, the proposed ones first; ``asked``: by nonce, the terms
    and whether it was flagged; ``latest``: the terms of the latest question."""

    began: float
    span: float
    tried: list[Terms]
    plan: tuple[tuple[float, int], ...]
    step: int = 0
    asked: dict[bytes, tuple[Terms, bool]] = field(default_factory=dict)
    latest: Terms | None = None
    control_answered: bool = False
    stripped: bool = False  # an answer said so; one that says the contrary may yet come

    @property
    def next_time(self) -> float:
        if self.step < len(self.plan):
            return self.began + self.plan[self.step][0] * self.span
        return self.began + ROUND_END * self.span


@dataclass(slots=True)
class Path:
    """One way to a gateway.  ``agreed``: what new flows are sealed with, since the peer has said
    that it opens them; ``announced``: what the peer seals its new flows with, from our side."""

    gateway: IPAddress
    public_key: bytes
    peer: bytes  # its key id
    algorithms: tuple[Algorithm, ...] = ()
    shown: PeerKey | None = None  # for the status
    state: PathState = PathState.UNKNOWN
    since: float = 0.0
    last_probe: float | None = None
    agreed: Terms | None = None
    refused: float | None = None  # when the peer did not take our newest terms
    announced: Terms | None = None
    announced_sent: int = -1
    used_until: float = float("-inf")
    due: float | None = None  # when something is to be done about it
    bad_rounds: int = 0
    round: Round | None = None
    answers: Allowance = field(default_factory=lambda: Allowance(ANSWERS_PER_SECOND, ANSWERS_BURST))
    repeats: Allowance = field(
        default_factory=lambda: Allowance(ANSWERS_PER_SECOND, ANSWERS_BURST)
    )  # for questions that are late, doubled, or played again: they take nothing from the others

    @property
    def switching(self) -> bool:
        """Whether new terms are proposed: until the answer the peer may expect either."""
        return self.round is not None and self.round.tried[0] != self.agreed


@dataclass(frozen=True, slots=True)
class Decided:
    """A path's state was found; ``before`` is what it was."""

    path: Path
    before: PathState


class Paths:
    """All of them; what is to be sent goes to ``send``."""

    def __init__(
        self,
        own: Sequence[OwnKey],
        addresses: Sequence[IPAddress],
        algorithms: Sequence[Algorithm],
        signal: Signal,
        random: Callable[[int], bytes],
        send: Callable[[SendProbe], None],
        *,
        patience: float,
        interval: float,
        lifespan: float,
        daily: bool,
    ) -> None:
        self._own = {key.key_id: key for key in own}
        self._current = next(iter(self._own), None)
        self._addresses = {address.version: address for address in reversed(addresses)}
        self._algorithms = tuple(algorithms)
        self._signal = signal
        self._random = random
        self._send = send
        self._span = min(patience, LONGEST_ROUND)
        self._interval = interval
        self._lifespan = lifespan
        self._daily = daily
        self._paths: OrderedDict[tuple[IPAddress, bytes], Path] = OrderedDict()
        self._agenda: list[tuple[float, int, Path]] = []  # a heap; what ``due`` denies is over
        self._noted = 0
        self._sent = -1

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths.values())

    def find(self, gateway: IPAddress, public_key: bytes) -> Path | None:
        return self._paths.get((gateway, public_key))

    def of(self, key: PeerKey, now: float) -> Path:
        """The path to the gateway of a key, new if need be."""
        path = self._paths.get((key.gateway, key.public_key))
        if path is None:
            path = Path(key.gateway, key.public_key, key_id(key.public_key), since=now)
            self._paths[key.gateway, key.public_key] = path
            if len(self._paths) > PATHS_LIMIT:
                self._paths.popitem(last=False)[1].due = None
        self._paths.move_to_end((key.gateway, key.public_key))
        if key.algorithm not in path.algorithms:
            path.algorithms += (key.algorithm,)
        path.shown = key
        return path

    def rest(self, key: PeerKey) -> None:
        """A host has another key now: this one is not announced again until a new flow wants it.

        Else the peer would hear of both by turns, and could not tell which one new flows have.
        """
        path = self.find(key.gateway, key.public_key)
        if path is not None:
            path.used_until = float("-inf")

    def forget(self, gateway: IPAddress) -> None:
        for place in [place for place in self._paths if place[0] == gateway]:
            self._paths.pop(place).due = None

    # -------------------------------------------------------------------- asking

    def use(self, path: Path, now: float, wall: float) -> bool:
        """A flow wants this path: probe it if that is due.  True: it is worth waiting for."""
        path.used_until = max(path.used_until, now + max(self._lifespan, self._interval))
        unused = path.last_probe is not None and now - path.last_probe > (
            self._interval * STALE_ROUNDS
        )
        if unused and path.round is None:
            self._become(path, PathState.UNKNOWN, now)
        if path.round is None and self._is_due(path, now, wall):
            self._begin(path, now, wall)
        self._note(path)
        return path.round is not None and (path.state is PathState.UNKNOWN or path.switching)

    def _is_due(self, path: Path, now: float, wall: float) -> bool:
        if path.last_probe is None or path.state is PathState.UNKNOWN:
            return True
        if now >= self._due_again(path):
            return True
        if path.state is not PathState.WORKS or path.agreed is None:
            return False
        return path.agreed != self._proposed(path, now, wall)

    def _begin(self, path: Path, now: float, wall: float) -> None:
        newest = self._proposed(path, now, wall)
        if newest is None or path.gateway.version not in self._addresses:
            path.last_probe = now
            self._become(path, PathState.SILENT, now)
            return
        others = [] if path.agreed is None else [path.agreed]
        others += [replace(newest, own=own) for own in self._own]
        tried = list(dict.fromkeys((newest, *others)))[:3]
        steps: Sequence[tuple[float, int]] = MIXED_ROUND if len(tried) > 1 else PLAIN_ROUND
        plan = tuple((share, number) for share, number in steps if number < len(tried))
        path.round = Round(now, self._span, tried, plan)
        path.last_probe = now
        self._step(path, path.round, now, wall)

    def _proposed(self, path: Path, now: float, wall: float) -> Terms | None:
        """The newest terms; after a refusal, for a while, today's with the key that was taken."""
        newest = self._newest(path, wall)
        if newest is None or path.refused is None or path.agreed is None:
            return newest
        if now - path.refused >= REFUSED_REST:
            return newest
        return replace(path.agreed, day=newest.day)

    def _newest(self, path: Path, wall: float) -> Terms | None:
        """What new flows should be sealed with, as far as it is ours to say."""
        chosen = [algorithm for algorithm in self._algorithms if algorithm in path.algorithms]
        if not chosen or self._current is None:
            return None
        return Terms(chosen[0], self.day(wall), self._current, path.peer)

    def day(self, wall: float) -> int | None:
        """Today's epoch."""
        return day_of(wall) if self._daily else None

    def _step(self, path: Path, round_: Round, now: float, wall: float) -> None:
        _, number = round_.plan[round_.step]
        terms = round_.latest = round_.tried[number]
        self._ask(path, round_, terms, wall, flagged=True)
        if round_.step:
            self._ask(path, round_, terms, wall, flagged=False)
        round_.step += 1

    def _ask(self, path: Path, round_: Round, terms: Terms, wall: float, *, flagged: bool) -> None:
        nonce = self._random(NONCE_OCTETS)
        round_.asked[nonce] = terms, flagged
        # Strictly ascending, even if the clock is set back while we run.
        self._sent = max(self._sent + 1, int(wall * 1_000_000))
        probe = Probe(Kind.QUESTION, terms, self._sent, nonce, flagged)
        source = self._addresses[path.gateway.version]
        ports = int.from_bytes(self._random(4))
        self._transmit(
            probe, self._own[terms.own], path.public_key, source, path.gateway,
            (ports >> 16 or 1, ports & 0xFFFF or 1),
        )  # fmt: skip

    def _transmit(
        self,
        probe: Probe,
        own: OwnKey,
        public_key: bytes,
        source: IPAddress,
        destination: IPAddress,
        ports: tuple[int, int],
    ) -> None:
        payload = probe.serialize(own.probe_key(public_key), source, destination)
        packet = packet_with(
            payload, source, destination, ports, self._signal, flagged=probe.sent_flagged
        )
        self._send(SendProbe(source, destination, packet))

    # ----------------------------------------------------------------- receiving

    def receive_answer(
        self, probe: Probe, payload: bytes, source: IPAddress, destination: IPAddress, *,
        flagged: bool, now: float,
    ) -> Decided | None:  # fmt: skip
        """An answer, and whether it came flagged.  Raises ProbeError."""
        for path in self._of_gateway(source):
            round_ = path.round
            if round_ is None or probe.nonce not in round_.asked:
                continue
            terms, was_flagged = round_.asked[probe.nonce]
            if probe.terms != terms.reversed() or probe.sent_flagged is not was_flagged:
                raise ProbeError("probe_forged")
            key = self._own[terms.own].probe_key(path.public_key)
            verify(payload, key, source, destination)
            del round_.asked[probe.nonce]
            if not was_flagged:
                round_.control_answered = True
                return None
            if not (probe.arrived_flagged and flagged):
                # Perhaps a copy that a bystander made, who can't stop the true one: that counts,
                # if it comes before the next question is due.
                round_.asked[probe.nonce] = terms, was_flagged
                round_.stripped = True
                return None
            if terms != round_.latest:
                return None  # the peer has heard other terms since: wait for that answer
            if terms != round_.tried[0]:
                path.refused = now
            path.agreed = terms
            return self._decide(path, PathState.WORKS, now)
        raise ProbeError("probe_unasked")

    def receive_question(
        self, path: Path, probe: Probe, payload: bytes, source: IPAddress, destination: IPAddress,
        ports: tuple[int, int], *, flagged: bool, now: float, wall: float,
    ) -> bool:  # fmt: skip
        """A question of the holder of ``path``'s key: answer it.  True if it announces other terms
        than those we knew.  Raises ProbeError."""
        terms = probe.terms.reversed()
        own = self._own.get(terms.own)
        if own is None or terms.peer != path.peer:
            raise ProbeError("probe_unknown_key")
        verify(payload, own.probe_key(path.public_key), source, destination)
        today = day_of(wall)
        if terms.algorithm not in self._algorithms:
            raise ProbeError("probe_algorithm")
        if terms.day is not None and not today - 1 <= terms.day <= today + 1:
            raise ProbeError("probe_day")
        fresh = probe.sent > path.announced_sent
        if not (path.answers if fresh else path.repeats).take(now):
            raise ProbeError("probe_rate")
        self._transmit(
            probe.answered(arrived_flagged=flagged), own, path.public_key, destination, source,
            (ports[1], ports[0]),
        )  # fmt: skip
        if not fresh:
            return False  # late, or played again: an old announcement does not come back
        path.announced_sent = probe.sent
        changed = path.announced != terms
        path.announced = terms
        if changed:
            self._doubt_others(path, now)
        return changed

    def _doubt_others(self, path: Path, now: float) -> None:
        """A gateway has said another key than those by which we knew it: it may have begun anew,
        and then it has forgotten what we agreed on.  New flows wait until it says that again."""
        for other in self._of_gateway(path.gateway):
            if other is not path and other.state is PathState.WORKS and other.round is None:
                self._become(other, PathState.UNKNOWN, now)

    def by_key_id(self, gateway: IPAddress, peer: bytes) -> Path | None:
        """The path from a gateway whose key has this id."""
        return next((path for path in self._of_gateway(gateway) if path.peer == peer), None)

    def _of_gateway(self, gateway: IPAddress) -> list[Path]:
        return [path for (address, _), path in self._paths.items() if address == gateway]

    # ---------------------------------------------------------------------- time

    def handle_timer(self, now: float, wall: float) -> list[Decided]:
        """Ask again, give up, and look at paths in use again."""
        decided = []
        due = []
        while (moment := self.next_timer()) is not None and moment <= now:
            due.append(heapq.heappop(self._agenda)[2])
            due[-1].due = None
        for path in due:
            found = self._is_time(path, now, wall)
            if found is not None:
                decided.append(found)
            if path.round is not None or now < path.used_until:  # else nobody wants to know
                self._note(path)
        return decided

    def next_timer(self) -> float | None:
        while self._agenda:
            moment, _, path = self._agenda[0]
            if path.due == moment:
                return moment
            heapq.heappop(self._agenda)
        return None

    def _is_time(self, path: Path, now: float, wall: float) -> Decided | None:
        round_ = path.round
        if round_ is None:
            if now < path.used_until:
                self._begin(path, now, wall)
            return None
        if round_.stripped:
            return self._decide(path, PathState.STRIPPED, now)
        if round_.step < len(round_.plan):
            self._step(path, round_, now, wall)
            return None
        return self._failed(path, control=round_.control_answered, now=now, wall=wall)

    def _note(self, path: Path) -> None:
        """When its turn is.  Whoever is asked often, of many paths, must not look at them all."""
        due = None
        if path.round is not None:
            due = path.round.next_time
        elif path.last_probe is not None and self._due_again(path) < path.used_until:
            due = self._due_again(path)
        if due == path.due:
            return
        path.due = due
        if due is not None:
            self._noted += 1
            heapq.heappush(self._agenda, (due, self._noted, path))

    def seconds_to_probe(self, path: Path, now: float) -> float:
        """Until the path may have another state than it has now."""
        return max(0.0, self._due_again(path) - now)

    def _due_again(self, path: Path) -> float:
        interval = self._interval
        if path.state is not PathState.WORKS:
            interval = min(interval, FIRST_RETRY * 2.0 ** min(path.bad_rounds - 1, 32))
        return (path.last_probe or 0.0) + interval

    def _failed(self, path: Path, *, control: bool, now: float, wall: float) -> Decided | None:
        path.bad_rounds += 1
        if path.state is PathState.WORKS and path.bad_rounds < PATIENT_ROUNDS:
            path.round = None
            self._begin(path, now, wall)  # a loss or two proves nothing
            return None
        return self._decide(path, PathState.DROPPED if control else PathState.SILENT, now)

    def _decide(self, path: Path, state: PathState, now: float) -> Decided:
        before = path.state
        path.round = None
        if state is PathState.WORKS:
            path.bad_rounds = 0
        elif state is PathState.STRIPPED:
            path.bad_rounds += 1
        self._become(path, state, now)
        self._note(path)
        return Decided(path, before)

    def _become(self, path: Path, state: PathState, now: float) -> None:
        if path.state is not state:
            path.state, path.since = state, now
