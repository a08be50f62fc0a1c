"""The desk of probes: questions answered, answers heard, and what follows from a path's state."""

from __future__ import annotations

from dataclasses import replace

from oegw.sst.books import Books, Wait
from oegw.sst.interface import Caught, IPAddress, Leg, PathState
from oegw.sst.paths import Decided, Path
from oegw.sst.probe import Kind, Probe, ProbeError, addresses_of, payload_of
from oegw.sst.relations import PeerKey
from oegw.sst.statickey import key_id


class Prober:
    def __init__(self, books: Books) -> None:
        self._books = books

    def packet(self, caught: Caught, now: float, wall: float, until: float) -> Path | None:
        """Take in a probe; returns the path whose state it decided."""
        books = self._books
        try:
            source, destination = addresses_of(caught.packet)
            if destination not in books.addresses:  # on its way to a gateway behind us
                books.plane.release(caught.number, caught.packet)
                return None
            payload, ports = payload_of(caught.packet)
            probe = Probe.parse(payload)
            if probe.kind is Kind.ANSWER:
                decided = books.paths.receive_answer(
                    probe, payload, source, destination, flagged=caught.flagged, now=now
                )
                books.plane.drop(caught.number)  # it has arrived
                return self.decided(decided) if decided is not None else None
            path = self._path(source, probe, caught, now, until)
            if path is None:
                return None
            news = books.paths.receive_question(
                path, probe, payload, source, destination, ports,
                flagged=caught.flagged, now=now, wall=wall,
            )  # fmt: skip
        except ProbeError as error:
            books.drop(caught, error.trigger)
            return None
        books.plane.drop(caught.number)
        if news:
            self._announced(path)
        return None

    def too_late(self, caught: Caught) -> None:
        self._books.drop(caught, "probe_stranger")

    def decided(self, decided: Decided) -> Path:
        """Trace it, and have flows asked again that were declined while it was bad."""
        books, path = self._books, decided.path
        if path.state is decided.before:
            return path
        fields = {
            "peer": path.gateway,
            "family": path.gateway.version,
            "state": path.state.value,
            "before": decided.before.value,
            "key": path.peer.hex(),
        }
        if path.state is not PathState.WORKS:
            books.trace.event("sst", "path_downgraded", **fields)
            return path
        books.trace.event("sst", "path_works", **fields)
        for _, remote in [each for each in books.declined if each[0] is Leg.OUTSIDE]:
            if any(_is_of(key, path) for key in books.relation_keys(remote)):
                books.forget_declines(Leg.OUTSIDE, remote)
        return path

    def _path(
        self, source: IPAddress, probe: Probe, caught: Caught, now: float, until: float
    ) -> Path | None:
        """Whose question it is; None if it is held, until the DNS says that.  Raises ProbeError."""
        books = self._books
        path = books.paths.by_key_id(source, probe.terms.own)
        if path is not None:
            return path
        if books.known(source, now) is None:
            wait: Wait | None = books.ask(source, now, stranger=True)
            if wait is None:
                raise ProbeError("too_many_strangers")
            if until <= now or not books.hold(caught, wait, source, until, stranger=True):
                raise ProbeError("probe_stranger")
            return None
        for key in books.relation_keys(source):
            if key_id(key.public_key) == probe.terms.own:
                return books.paths.of(replace(key, gateway=source), now)
        raise ProbeError("probe_stranger")

    def _announced(self, path: Path) -> None:
        """Flows that were opened by guess are looked at again, now that we know."""
        books, terms = self._books, path.announced
        books.trace.event(
            "sst", "announced", peer=path.gateway, key=path.peer.hex(),
            day=None if terms is None else terms.day,
            algorithm=None if terms is None else terms.algorithm.value,
        )  # fmt: skip
        for relation in books.relations:
            if not relation.guesses or not any(_is_of(k, path) for k in relation.known_keys):
                continue
            wrong = [flow for flow, guess in relation.guesses.items() if guess != terms]
            relation.guesses.clear()
            for flow in wrong:
                books.mistake(flow)
            if wrong:
                books.plane.forget(Leg.OUTSIDE, relation.remote)


def _is_of(key: PeerKey, path: Path) -> bool:
    return (key.gateway, key.public_key) == (path.gateway, path.public_key)
