"""A control process with a user-space datapath that does what a test says, in a namespace.

    python -m tests.support.datapath_subject SETTINGS

SETTINGS is a JSON object, fields of `UserspaceSettings`.  Each line on its standard input is a JSON
list, ``[number, verb, argument]``, each line of its output an answer ``{"number": ..., "answer" or
"refusal": ...}`` or an event.  Several questions may be under way at once.
`tests.support.datapath_rough` asks them.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    Direction,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.userspace.datapath import UserspaceDatapath
from oegw.datapath.userspace.settings import UserspaceSettings
from oegw.datapath.userspace.state import Memory, Record
from oegw.datapath.userspace.supervisor import Place
from tests.support.datapath_sas import make_sa, selector


def sa_of(said: dict[str, Any]) -> SecurityAssociation:
    """Fields of `make_sa`, in JSON's types; ``udp``: ports, if it is ESP in UDP."""
    fields = dict(said)
    ports = fields.pop("udp", None)
    fields["direction"] = Direction(fields["direction"])
    fields["inner"] = tuple(selector(text) for text in fields["inner"])
    fields["encapsulation"] = UdpEncapsulation(*ports) if ports else None
    return make_sa(**fields)


def key_of(said: list[Any]) -> SaKey:
    direction, spi, destination = said
    return SaKey(Direction(direction), spi, ip_address(destination))


class Records:
    """Where the records of SAs are: the memory is watched while it gives them out."""

    def __init__(self) -> None:
        self._last: tuple[Memory, int] | None = None
        self._records: dict[SaKey, Record] = {}
        self._descriptor = -1
        allocate = Memory.allocate

        def watched(memory: Memory, window: int = 0) -> int:
            offset = allocate(memory, window)
            self._last = memory, offset
            return offset

        Memory.allocate = watched  # type: ignore[method-assign]

    def installed(self, key: SaKey) -> None:
        if self._last is None:
            return
        memory, offset = self._last
        self._descriptor = memory.descriptor
        self._records[key] = memory.record(offset)

    def of(self, said: list[Any]) -> Record:
        return self._records[key_of(said)]

    def no_more(self) -> None:
        """The memory may not grow."""
        size = os.fstat(self._descriptor).st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Subject:
    def __init__(self, settings: UserspaceSettings) -> None:
        self.records = Records()
        self.datapath = UserspaceDatapath(settings)

    async def asked(self, verb: str, argument: Any) -> Any:
        datapath = self.datapath
        if verb == "install":
            for said in argument:
                sa = sa_of(said)
                await datapath.install(sa)
                self.records.installed(sa.key)
            return len(argument)
        if verb == "install-at-once":
            sas = [sa_of(said) for said in argument]
            done = await asyncio.gather(
                *(datapath.install(sa) for sa in sas), return_exceptions=True
            )
            return [str(error) for error in done if error is not None]
        if verb == "remove":
            usages = [await datapath.remove(key_of(said)) for said in argument]
            return [usage and usage.packets for usage in usages]
        if verb == "prefer":
            return await datapath.prefer(key_of(argument))
        if verb == "move":
            key, source, destination, ports = argument
            ends = ip_address(source), ip_address(destination)
            encapsulation = UdpEncapsulation(*ports) if ports else None
            moved = await datapath.move(key_of(key), *ends, encapsulation)
            return [moved.direction.value, moved.spi, str(moved.destination)]
        if verb == "counters-of-workers":
            assert datapath._grounds is not None
            return datapath._grounds.counters.each()
        if verb == "usage":
            return [
                [key.direction.value, key.spi, str(key.destination), usage.packets, usage.bytes]
                for key, usage in (await datapath.usage()).items()
            ]
        if verb == "counters":
            return await datapath.counters()
        if verb == "nothing":
            return None
        if verb == "core-of-a-successor":
            return datapath.equipment(Place(Direction.OUTBOUND, 0)).core
        if verb == "break-starts":
            sys.executable = "/bin/false"  # of workers that are started from now on
            return None
        if verb == "no-more-memory":
            return self.records.no_more()
        if verb == "set-sequence":
            for key, number in argument:
                self.records.of(key).sequence = number
            return None
        if verb == "records":
            records = [self.records.of(key) for key in argument]
            return [record.used for record in records]
        assert verb == "close", verb
        return await datapath.close()

    def report(self, event: DatapathEvent) -> None:
        said: dict[str, Any] = {"event": type(event).__name__}
        if isinstance(event, SaExpired):
            said |= {"spi": event.key.spi, "direction": event.key.direction.value}
            said["hard"] = event.hard
        if isinstance(event, PeerAddressChanged):
            said |= {"spi": event.key.spi, "address": str(event.address)}
        if isinstance(event, DatapathFailed):
            said["reason"] = event.reason
        print(json.dumps(said), flush=True)


async def answer(subject: Subject, number: int, verb: str, argument: Any) -> None:
    said: dict[str, Any] = {"number": number}
    try:
        said["answer"] = await subject.asked(verb, argument)
    except DatapathError as error:
        said["refusal"] = str(error)
    except Exception as error:  # of this program
        said["error"] = repr(error)
    print(json.dumps(said), flush=True)


async def main(settings: str) -> None:
    subject = Subject(UserspaceSettings(**json.loads(settings)))
    try:
        capability = await subject.datapath.start(subject.report)
    except DatapathError as error:
        print(json.dumps({"number": 0, "refusal": str(error)}), flush=True)
        return
    print(json.dumps({"number": 0, "answer": asdict(capability)}, default=str), flush=True)
    tasks: set[asyncio.Task[None]] = set()
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        task = asyncio.create_task(answer(subject, *json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if '"close"' in line:
            await task
            return
    await subject.datapath.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
