"""What applications of this host ask for over the Unix socket (`localwire`), and what they get."""

from __future__ import annotations

import grp
import json
import os
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from oegw.moniker.daemon.holdings import Holdings
from oegw.moniker.daemon.local import Visitor
from oegw.moniker.daemon.ports import Ports
from oegw.moniker.daemon.proof import NoProof, Proven, proven, socket_of
from oegw.moniker.interface import Entry, Owner, Service
from oegw.moniker.localwire import MAX_LINE_OCTETS, policy_object
from oegw.moniker.names import (
    SYSTEM,
    InvalidName,
    ServiceName,
    Version,
    Versions,
    canonical,
)
from oegw.moniker.registry import NotFound, RegistrationRefused, Registry
from oegw.moniker.rules import Asked, decide, namespace_for
from oegw.moniker.settings import MonikerSettings
from oegw.moniker.wire import SYSTEM_FIELD
from oegw.sst.allowance import Allowance
from oegw.trace import Trace

Answer = dict[str, Any]

# Our choices: lines of the trace about registrations, however often a user changes them.
LINES_PER_SECOND = 50.0
LINES_AT_ONCE = 1000.0

LOOKS = 500  # entries at a time whose sockets are looked for

# What may follow the last service of a page in its line.
_ROOM_FOR_THE_END = 256


class LocalDesk:
    """Answers requests, and keeps which entries a connection has."""

    def __init__(
        self,
        settings: MonikerSettings,
        registry: Registry,
        ports: Ports,
        trace: Trace,
        *,
        clock: Callable[[], float],
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.settings = settings
        self._registry = registry
        self._ports = ports
        self._trace = trace
        self._clock = clock
        self._status = status
        self._lines = Allowance(LINES_PER_SECOND, LINES_AT_ONCE)
        self._holdings = Holdings(clock)
        self._of_visitors: dict[int, set[int]] = {}
        self._visitors: dict[int, Visitor] = {}  # by entry

    def visitor_of(self, number: int) -> Visitor | None:
        """Who registered an entry, and gets its connections (RFC 1078)."""
        return self._visitors.get(number)

    async def answer(self, visitor: Visitor, request: Answer, descriptors: deque[int]) -> Answer:
        """Never raises; what is wrong is in the answer."""
        try:
            match request.get("do"):
                case "register":
                    return await self._register(visitor, request, descriptors)
                case "update":
                    return self._update(visitor.owner, request)
                case "unregister":
                    return self._unregister(visitor.owner, request)
                case "list":
                    return self._list(visitor.owner, _number(request, "after", 0))
                case "resolve":
                    return self._resolve(request)
                case "policy":
                    return {"ok": True, **policy_object(self.settings.client)}
                case "status":
                    return self._tell_status(visitor.owner)
            raise RegistrationRefused("malformed", "do: no such request")
        except (RegistrationRefused, NotFound) as error:
            code = error.code if isinstance(error.code, str) else error.code.value
            return self._refused(visitor, request, code, str(error))
        except (InvalidName, NoProof) as error:
            return self._refused(visitor, request, "malformed", str(error))

    def _refused(self, visitor: Visitor, request: Answer, code: str, text: str) -> Answer:
        if request.get("do") != "resolve":
            self._trace.drop(
                "moniker", f"local_{code}", user=visitor.owner.user, pid=visitor.owner.pid,
                detail=text,
            )  # fmt: skip
        return {"ok": False, "code": code, "text": text}

    def left(self, visitor: Visitor) -> None:
        """The connection is over, and so are its entries (MK-22)."""
        for number in sorted(self._of_visitors.pop(visitor.number, ())):
            if (entry := self._registry.remove(number)) is not None:
                self._ended(entry, "left")

    # ------------------------------------------------------------------- registration

    async def _register(self, visitor: Visitor, request: Answer, descriptors: deque[int]) -> Answer:
        if not descriptors:
            raise NoProof("the bound socket did not come along")
        with socket_of(descriptors.popleft()) as bound:  # closed again: the port stays its owner's
            proof = proven(bound)
            inode = os.fstat(bound.fileno()).st_ino
        service = self._service(visitor.owner, request, proof)
        try:
            await self._ports.taken(service.place)  # before anybody is told
            entry = self._registry.register(service, visitor.owner, self._clock())
        except BaseException:  # or it left meanwhile
            self._ports.left(service.place)
            raise
        self._of_visitors.setdefault(visitor.number, set()).add(entry.number)
        self._visitors[entry.number] = visitor
        self._holdings.add(entry.number, visitor.owner.pid, inode)
        self._tell("registered", entry)
        return {"ok": True, "number": entry.number, "namespace": service.namespace or SYSTEM_FIELD}

    def _service(self, owner: Owner, request: Answer, proof: Proven) -> Service:
        name = _text(request, "service")
        wanted = None if request.get("namespace") is None else _text(request, "namespace")
        groups = groups_of(owner) if self.settings.grants else ()
        namespace = namespace_for(self.settings.grants, owner, groups, name, wanted)
        return Service(
            canonical(name),
            Version.parse(_text(request, "version")),
            proof.transport,
            proof.port,
            proof.families,
            namespace,
            _number(request, "weight", 100),
            _truth(request, "sst"),
            _truth(request, "tcpmux"),
            _truth(request, "exported"),
            _texts(request, "text"),
            proof.address,
        )

    def _update(self, owner: Owner, request: Answer) -> Answer:
        entry = self._registry.update(
            _number(request, "number", 0),
            owner,
            weight=_number(request, "weight", 0) if "weight" in request else None,
            exported=_truth(request, "exported") if "exported" in request else None,
            text=_texts(request, "text") if "text" in request else None,
        )
        self._tell("updated", entry)
        return {"ok": True}

    def _unregister(self, owner: Owner, request: Answer) -> Answer:
        entry = self._registry.unregister(_number(request, "number", 0), owner)
        self._ended(entry, "unregistered")
        return {"ok": True}

    def given_back(self, number: int) -> bool:
        """Whether the socket of an entry is closed; then the entry is no more."""
        if self._holdings.is_held(number):
            return False
        if (entry := self._registry.remove(number)) is not None:
            self._ended(entry, "given_back")
        return True

    def look_for_given_back(self) -> None:
        """The same of the next few; to be called now and then."""
        for number in self._holdings.given_up(LOOKS):
            self.given_back(number)

    def _ended(self, entry: Entry, reason: str) -> None:
        self._holdings.remove(entry.number)
        if (visitor := self._visitors.pop(entry.number, None)) is not None:
            self._of_visitors.get(visitor.number, set()).discard(entry.number)
        self._tell(reason, entry)
        self._ports.left(entry.service.place)

    def _tell(self, event: str, entry: Entry) -> None:
        """A line of the trace (MK-32): the service is named, not only its port."""
        service = entry.service
        if not self._lines.take(self._clock()):
            self._trace.drop("moniker", f"{event}_unwritten", service=service.service)
            return
        self._trace.event(
            "moniker", event, number=entry.number, service=service.service,
            namespace=service.namespace or SYSTEM_FIELD, version=str(service.version),
            transport=service.transport, port=service.port, user=entry.owner.user,
            pid=entry.owner.pid,
        )  # fmt: skip

    # --------------------------------------------------------------------------- told

    def _list(self, owner: Owner, after: int) -> Answer:
        """A page: as many services as one line holds."""
        rows: list[Answer] = []
        room = MAX_LINE_OCTETS - _ROOM_FOR_THE_END
        for entry in self._registry.entries():
            if entry.number <= after:
                continue
            told = owner.uid in (0, entry.owner.uid) or entry.service.exported
            row = _row(entry, with_port=told)
            room -= len(json.dumps(row, separators=(",", ":"))) + 1
            if room < 0 and rows:
                return {"ok": True, "services": rows, "more": True}
            rows.append(row)
        return {"ok": True, "services": rows, "more": False}

    def _resolve(self, request: Answer) -> Answer:
        """Where a service of this host is, for an application of this host."""
        namespace = _text(request, "namespace", SYSTEM_FIELD)
        name = ServiceName(
            canonical(_text(request, "service")),
            SYSTEM if namespace == SYSTEM_FIELD else canonical(namespace, "namespace"),
            Versions.parse(_text(request, "versions", "*")),
        )
        transport = _text(request, "transport", "*")
        wanted = None if transport == "*" else transport
        asked = Asked(name.service, name.namespace, None, None, encrypted=True)
        verdict = decide(self.settings.rules, asked)
        if not verdict.allowed:
            raise RegistrationRefused("denied", "the policy of this host")
        entry = self._registry.find(name, wanted, secrets.randbelow)
        while self.given_back(entry.number):
            entry = self._registry.find(name, wanted, secrets.randbelow)
        service = entry.service
        return {
            "ok": True,
            "port": service.port,
            "transport": service.transport,
            "version": str(service.version),
            "families": service.families,
            "ttl": self.settings.lease,
            "sst": service.sst,
        }

    def _tell_status(self, owner: Owner) -> Answer:
        if owner.uid not in (0, os.geteuid()):  # the gateway beside us is who we are
            raise RegistrationRefused("denied", "the status is for root")
        return {"ok": True, "status": dict(self._status())}


def _row(entry: Entry, *, with_port: bool) -> Answer:
    service = entry.service
    row = {
        "number": entry.number,
        "namespace": service.namespace or SYSTEM_FIELD,
        "service": service.service,
        "version": str(service.version),
        "transport": service.transport,
        "families": service.families,
        "weight": service.weight,
        "user": entry.owner.user,
        "exported": service.exported,
        "text": list(service.text),
    }
    return {**row, "port": service.port} if with_port else row


def groups_of(owner: Owner) -> tuple[str, ...]:
    """The names of a user's groups.  Empty for a user whom this host does not know."""
    names = []
    with suppress(KeyError):
        names.append(grp.getgrgid(owner.gid).gr_name)
    with suppress(KeyError, OSError):
        for number in os.getgrouplist(owner.user, owner.gid):
            with suppress(KeyError):
                names.append(grp.getgrgid(number).gr_name)
    return tuple(dict.fromkeys(names))


# ------------------------------------------------------------------ what a request says


def _wrong(key: str, what: str) -> RegistrationRefused:
    return RegistrationRefused("malformed", f"{key}: {what}")


def _text(request: Answer, key: str, default: str | None = None) -> str:
    value = request.get(key, default)
    if not isinstance(value, str):
        raise _wrong(key, "is missing" if value is None else "is no text")
    return value


def _number(request: Answer, key: str, default: int) -> int:
    value = request.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(key, "is no whole number")
    return value


def _truth(request: Answer, key: str) -> bool:
    value = request.get(key, False)
    if not isinstance(value, bool):
        raise _wrong(key, "is neither true nor false")
    return value


def _texts(request: Answer, key: str) -> tuple[str, ...]:
    value = request.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _wrong(key, "is no list of texts")
    return tuple(value)
