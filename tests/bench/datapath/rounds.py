"""The run itself: all contenders stand side by side and are measured in turns."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.accounts import memory
from tests.bench.datapath import associations, road, roundtrip, small, tcp
from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.contenders.ours import Variant
from tests.bench.datapath.figures import About, Run
from tests.interop.processes import InteropError

MEASURES = ("tcp1", "tcp4", "udp", "rtt", "cpu", "memory", "sas", "road")
_CROWD_ROUNDS = 3
_ROAD_ROUNDS = 3
_FAILURES = 3  # then a contender is measured no more


@dataclass(slots=True)
class Rounds:
    """``play`` measures; what it found, so far, is in ``run``.

    A contender that does not come up or fails is told of, and the others go on.  What does nothing
    costs nothing, so all of them stand from the first round to the last; each second round goes
    backwards, so that a drift of the machine does not favour who comes first.
    """

    run: Run
    contenders: list[Contender]
    crowds: list[Variant]
    measures: set[str]
    rounds: int
    seconds: float
    began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        elapsed = time.monotonic() - self.began
        print(f"{elapsed:5.0f} s  {line}", file=sys.stderr, flush=True)

    def play(self) -> None:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oegw-bench-")))
            if self.measures == {"road"}:
                self.contenders = [each for each in self.contenders if each.name in road.BY_ROAD]
            standing = {each.name: self._begun(each, folder, stack) for each in self.contenders}
            crowds = self._begun_crowds(folder, stack, standing)
            roads = self._begun_roads(folder, stack)
            for number in range(self.rounds):
                names = [name for name, each in standing.items() if each is not None]
                if number % 2:
                    names.reverse()
                for name in names:
                    self._measured(name, standing[name], number)
                for name, (few, crowd) in crowds.items() if number < _CROWD_ROUNDS else ():
                    self._measured_crowd(name, few, crowd, number)
                for name, by_road in roads.items() if number < _ROAD_ROUNDS else ():
                    self._measured_road(name, by_road, number)
            if "memory" in self.measures:
                self._measured_memory(standing)

    def _begun(self, contender: Contender, folder: Path, stack: ExitStack) -> Standing | None:
        name = contender.name
        about = About(
            contender.title,
            contender.ours,
            contender.in_clear,
            contender.said_version(),
            contender.missing(),
        )
        self.run.contenders[name] = about
        if about.missing:
            self.say(f"{name}: not installed: {', '.join(about.missing)}")
            return None
        try:
            standing = stack.enter_context(contender.standing(folder))
        except InteropError as error:
            self._failed(name, "it does not come up", error)
            return None
        if "memory" in self.measures and not contender.in_clear:
            self.run.add(name, {"memory": memory(standing.pids())})
        about.version = standing.says or about.version
        self.say(f"{name}: stands")
        return standing

    def _begun_crowds(
        self, folder: Path, stack: ExitStack, standing: dict[str, Standing | None]
    ) -> dict[str, tuple[Standing, Standing]]:
        """For each variant of ours, the one with one tunnel and the one with many."""
        found = {}
        for variant in self.crowds:
            few = standing.get(variant.name)
            if few is None or not {"sas", "memory"} & self.measures:
                continue
            contender = associations.many(variant).contender()
            try:
                crowd = stack.enter_context(contender.standing(folder))
            except InteropError as error:
                self._failed(variant.name, "with many SAs it does not come up", error)
                continue
            self.run.add(variant.name, associations.installing(crowd))
            if "memory" in self.measures:
                self.run.add(variant.name, associations.memory_of_each(few, crowd))
            self.say(f"{contender.name}: stands")
            if "sas" in self.measures:
                found[variant.name] = few, crowd
        return found

    def _begun_roads(self, folder: Path, stack: ExitStack) -> dict[str, Standing]:
        """Those that are measured with the relay between their gateways, in rows with one."""
        found: dict[str, Standing] = {}
        below = folder / "road"
        below.mkdir()
        for contender in self.contenders if "road" in self.measures else ():
            name = contender.name
            if name not in road.BY_ROAD or contender.missing():
                continue
            try:
                found[name] = stack.enter_context(contender.standing(below, road.RoughRow()))
            except InteropError as error:
                self._failed(name, "by the road it does not come up", error)
                continue
            self.say(f"{name}: stands by the road")
        return found

    def _measured(self, name: str, standing: Standing | None, number: int) -> None:
        assert standing is not None
        if len(self.run.contenders[name].failures) >= _FAILURES:
            return
        try:
            standing.require()
            for found in self._each(name, standing):
                self.run.add(name, found)
                self.say(f"round {number + 1}: {name}: {_shown(found)}")
        except InteropError as error:
            self._failed(name, f"round {number + 1}", error)

    def _each(self, name: str, standing: Standing) -> Iterator[dict[str, float]]:
        if {"tcp1", "cpu"} & self.measures:
            bulk = tcp.bulk(standing, self.seconds)
            yield {"tcp1": bulk.mbits}
            if "cpu" in self.measures:
                yield {"cpu_gateways": bulk.gateways}
                if bulk.machine is not None:
                    yield {"cpu_machine": bulk.machine}
        if "tcp4" in self.measures:
            yield {"tcp4": tcp.bulk(standing, self.seconds, 4).mbits}
        if "udp" in self.measures:
            yield {"udp": small.packets(standing, self.run.median(name, "udp"))}
        if "rtt" in self.measures:
            idle = roundtrip.idle(standing)
            yield {"rtt_idle": idle.median, "rtt_idle_p99": idle.p99}
            loaded = roundtrip.loaded(standing)
            yield {"rtt_loaded": loaded.median, "rtt_loaded_p99": loaded.p99}

    def _measured_crowd(self, name: str, few: Standing, crowd: Standing, number: int) -> None:
        """One after the other, so that both meet the same machine."""
        pair = [(few, "few"), (crowd, "many")]
        try:
            for standing, which in reversed(pair) if number % 2 else pair:
                known = self.run.median(name, f"{which}_udp")
                found = associations.throughput(standing, self.seconds, which, known)
                self.run.add(name, found)
                self.say(f"round {number + 1}: {name}: {_shown(found)}")
        except InteropError as error:
            self._failed(name, f"round {number + 1}, many SAs", error)

    def _measured_road(self, name: str, standing: Standing, number: int) -> None:
        try:
            standing.require()
            for found in road.throughput(standing, rough_first=number % 2 == 1):
                self.run.add(name, found)
                self.say(f"round {number + 1}: {name}: {_shown(found)}")
        except InteropError as error:
            self._failed(name, f"round {number + 1}, by the road", error)

    def _measured_memory(self, standing: dict[str, Standing | None]) -> None:
        """Of many tunnels that stay: therefore at the end."""
        for contender in self.contenders:
            peer, name = standing[contender.name], contender.name
            if peer is None or contender.crowd is None:
                continue
            try:
                self.run.add(name, associations.memory_of_peers(peer, contender.crowd))
            except InteropError as error:
                self._failed(name, "with many tunnels", error)

    def _failed(self, name: str, what: str, error: InteropError) -> None:
        self.run.contenders[name].failures.append(f"{what}: {error}")
        self.say(f"{name}: {what}: {error}")


def _shown(found: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.5g}" for key, value in found.items())
