"""Several scenarios, some side by side, each in a lab and a process of its own; then a table.

A scenario that is ``alone`` in its expectations measures time so finely that others beside it
would spoil it: it runs when the others are done.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from lablib.gateway import SHARED_KEYS
from lablib.outcome import NOT_RUN, Outcome
from lablib.runner import say
from lablib.scenario import HOME, Scenario

# A lab waits as much as it computes.  Measured on 2 CPUs with 28 scenarios: 237 s one by one, 119 s
# with 2 at a time, 92 s with 3, 91 s with 4.
JOBS_PER_CPU = 1.5


def default_jobs() -> int:
    return max(1, int(JOBS_PER_CPU * len(os.sched_getaffinity(0))))


@dataclass(slots=True)
class Series:
    """Scenarios under way: what waits, what runs, what came of the others."""

    scenarios: list[Scenario]
    options: list[str]  # that each of them is run with
    folder: Path
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False

    def play(self, jobs: int) -> None:
        """Run all of them, ``jobs`` at a time.  KeyboardInterrupt ends those that run."""
        self._play([s for s in self.scenarios if not s.alone], jobs)
        self._play([s for s in self.scenarios if s.alone], 1)

    def _play(self, scenarios: list[Scenario], jobs: int) -> None:
        waiting: queue.SimpleQueue[Scenario] = queue.SimpleQueue()
        for scenario in sorted(scenarios, key=lambda s: -s.seconds):  # so that none is a long tail
            waiting.put(scenario)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), daemon=True)
            for _ in range(min(jobs, len(scenarios)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():  # a join without end would not see a signal
                    thread.join(0.2)
        except KeyboardInterrupt:
            self._stop()
            for thread in threads:
                thread.join()
            raise

    def _stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()  # it takes its lab down then

    def _work(self, waiting: queue.SimpleQueue[Scenario]) -> None:
        while True:
            try:
                scenario = waiting.get_nowait()
            except queue.Empty:
                return
            outcome, printed = self._run(scenario)
            with self.lock:
                if self.stopped:
                    return
                self.outcomes[scenario.name] = outcome
                if outcome.code:
                    say(printed.rstrip())
                say(f"{outcome.verdict:6}  {outcome.seconds:5.1f} s  {scenario.name}")

    def _run(self, scenario: Scenario) -> tuple[Outcome, str]:
        path = self.folder / f"{scenario.name}.json"
        command = [sys.executable, str(HOME / "lab"), "run", scenario.name, *self.options]
        started = time.monotonic()
        with self.lock:
            if self.stopped:
                return Outcome(scenario.name, NOT_RUN), ""
            process = subprocess.Popen(
                [*command, "--outcome", str(path)],
                env={SHARED_KEYS: str(self.folder), **os.environ},  # or of a series of series
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace",
                start_new_session=True,  # Ctrl-C is for us, who then end it in order
            )  # fmt: skip
            self.running.append(process)
        printed, _ = process.communicate()
        with self.lock:
            self.running.remove(process)
        try:
            outcome = Outcome(**json.loads(path.read_text()))
        except (OSError, ValueError):
            lines = printed.strip().splitlines() or ["it said nothing"]
            seconds = round(time.monotonic() - started, 1)
            outcome = Outcome(scenario.name, NOT_RUN, seconds, lines[-1:])
        return outcome, printed


def table(scenarios: list[Scenario], outcomes: dict[str, Outcome]) -> list[str]:
    """A line for each scenario, in the order of names: its verdict, its seconds, what it is.

    Below a scenario that failed stands what failed.
    """
    width = max(len(scenario.name) for scenario in scenarios)
    lines = []
    for scenario in sorted(scenarios, key=lambda s: s.name):
        outcome = outcomes.get(scenario.name, Outcome(scenario.name, NOT_RUN))
        start = f"{outcome.verdict:6}  {outcome.seconds:5.1f} s  {scenario.name:{width}}"
        lines.append(f"{start}  {scenario.summary}")
        lines += [f"        - {text[:200]}" for text in outcome.failed]
    return lines


def run(
    scenarios: list[Scenario],
    options: list[str],
    jobs: int,
    file: Path | None = None,
    variant: str = "",
) -> int:
    """Run them, print the table and each matrix, into ``file`` as well.

    ``variant``: what ``options`` say of the datapath, in words.

    Exit code: 0 if all passed, else the worst one.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="oegw-lab-outcomes-") as folder:
        series = Series(scenarios, options, Path(folder))
        series.play(jobs)
    lines = table(scenarios, series.outcomes)
    for outcome in series.outcomes.values():
        lines += ["", *outcome.drawing] if outcome.drawing else []
    codes = [series.outcomes[s.name].code for s in scenarios]
    with_variant = f" with {variant}" if variant else ""
    passed, seconds = codes.count(0), time.monotonic() - started
    lines += [
        "",
        f"{passed} of {len(codes)} scenarios as expected{with_variant}, {jobs} at a time, "
        f"{seconds:.0f} s",
    ]
    say("\n" + "\n".join(lines))
    if file is not None:
        file.write_text("\n".join(lines) + "\n")
    return max(codes)
