"""Runs all that needs the test kernel: the jobs of ``jobs.toml``, in guests side by side.

What a job prints appears at once, behind its name, and stands in ``build/kernel/NAME.log`` as well;
what a failed lab leaves behind is copied to ``build/kernel/NAME``.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kernel.building import HERE, ROOT, BuildFailed, Kernel, built, interrupted, say

RESULTS = ROOT / "build" / "kernel"
PATIENCE = (
    5.0  # a process starts 15 times as slowly as on the host, but few deadlines are of starts
)
MEMORY = 1536  # MB; half of it is room for what a job writes, captures above all
TIMEOUT = 900.0
TOGETHER = 6  # lab scenarios in one guest: fewer starts, and yet enough guests for all CPUs
KEYS = "OEGW_LAB_KEYS"  # in the environment: where labs share the keys that they make
TABLE = "table"  # the file with what became of each of them

# After a failure what the lab kept is brought out, because it would vanish with the guest.
_BRING_OUT = """
"$@"; code=$?
[ $code = 0 ] || [ ! -d /run/oegw-lab ] || cp -r /run/oegw-lab/. "$0"
exit $code
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One command in a guest of its own, or (``here``) one that boots guests itself."""

    name: str
    what: str
    command: tuple[str, ...]
    memory: int = MEMORY
    timeout: float = TIMEOUT
    patience: float = PATIENCE
    here: bool = False
    virtual: bool = False  # its time: nobody waits for what only sleeps
    scenarios: tuple[str, ...] = ()  # of the lab, which the command is then completed with
    datapath: str = ""

    def command_line(self, kernel: Kernel, folder: Path, keys: Path) -> list[str]:
        """``keys``: a folder that the guests of a round have in common."""
        if self.here:
            return list(self.command)
        settings = {"OEGW_LAB_PATIENCE": f"{self.patience:g}", "PYTHONUNBUFFERED": "1"}
        settings[KEYS] = str(keys)
        settings["PYTEST_ADDOPTS"] = f"-p no:cacheprovider -o timeout={self.timeout:g}"
        return [
            str(HERE / "boot"), "--kernel", str(kernel.image), "--memory", str(self.memory),
            "--timeout", f"{self.timeout:g}", "--share", str(folder), "--share", str(keys),
            *(["--time-travel"] if self.virtual else []),
            *(word for pair in settings.items() for word in ("--env", "=".join(pair))),
            "--", "sh", "-c", _BRING_OUT, str(folder), *self._inside(folder),
        ]  # fmt: skip

    def _inside(self, folder: Path) -> tuple[str, ...]:
        if not self.scenarios:
            return self.command
        table = ("--table", str(folder / TABLE))
        return (*self.command, "--datapath", self.datapath, *table, *self.scenarios)


def _scenarios(words: list[str], datapath: str, without: frozenset[str]) -> list[str]:
    """All that there are, but for those that are about another datapath, and ``without``."""
    if words != ["all"]:
        return words
    chosen = {word.rpartition("=")[2] for word in datapath.split(",")}
    names = []
    for path in sorted((ROOT / "netns-lab" / "scenarios").glob("*/expect.toml")):
        only = tomllib.loads(path.read_text()).get("only_datapath")
        if only is None or chosen == {only}:
            names.append(path.parent.name)
    if unknown := without.difference(names):
        raise ValueError(f"jobs.toml: no scenario to be without: {', '.join(sorted(unknown))}")
    return [name for name in names if name not in without]


def _lab(scenarios: tuple[str, ...], name: str, datapath: str, virtual: bool) -> Job:
    what = f"lab with datapath {datapath}: {', '.join(scenarios)}"
    command = ("netns-lab/lab", "run", "--jobs", "1")
    timeout = TIMEOUT + 60.0 * len(scenarios)
    return Job(
        name, what, command, timeout=timeout, virtual=virtual, scenarios=scenarios,
        datapath=datapath,
    )  # fmt: skip


def load(path: Path = HERE / "jobs.toml") -> list[Job]:
    """The jobs of a file, one for each scenario.

    Raises TypeError for a key that no job has, and ValueError for a scenario that isn't there.
    """
    table: dict[str, Any] = tomllib.loads(path.read_text())
    jobs = [Job(**{**entry, "command": tuple(entry["command"])}) for entry in table["job"]]
    for entry in table["lab"]:
        datapath = entry["datapath"]
        sides = "-".join(word.rpartition("=")[2] for word in datapath.split(","))
        without = frozenset(entry.get("without", ()))
        for scenario in _scenarios(entry["scenarios"], datapath, without):
            name, virtual = f"{scenario}@{sides}", entry.get("virtual", False)
            jobs.append(_lab((scenario,), name, datapath, virtual))
    return jobs


def grouped(jobs: list[Job]) -> list[Job]:
    """The same, but scenarios of one datapath and one kind of time share guests: `TOGETHER` one
    after the other."""
    result = [job for job in jobs if not job.scenarios]
    numbers: Counter[str] = Counter()
    kinds = dict.fromkeys((job.datapath, job.virtual) for job in jobs if job.scenarios)
    for datapath, virtual in kinds:
        singles = [
            job
            for job in jobs
            if job.scenarios and (job.datapath, job.virtual) == (datapath, virtual)
        ]
        for start in range(0, len(singles), TOGETHER):
            numbers[datapath] += 1
            number = numbers[datapath]
            some = singles[start : start + TOGETHER]
            sides = some[0].name.rpartition("@")[2]
            names = tuple(name for job in some for name in job.scenarios)
            together = _lab(names, f"lab-{number}@{sides}", datapath, some[0].virtual)
            result.append(some[0] if len(some) == 1 else together)
    return result


@dataclass(slots=True)
class Round:
    """Jobs under way: what waits, what runs, what came of the others."""

    kernel: Kernel
    jobs: list[Job]
    keys: Path  # where its labs share theirs
    waiting: queue.SimpleQueue[Job] = field(default_factory=queue.SimpleQueue)
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    codes: dict[str, tuple[int, float]] = field(default_factory=dict)  # by name: code, seconds
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False

    def play(self, guests: int) -> None:
        """Run all jobs, ``guests`` at a time.  KeyboardInterrupt ends those that run."""
        for job in self.jobs:
            self.waiting.put(job)
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(guests)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self.stop()
            for thread in threads:
                thread.join()
            raise

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()  # `boot` ends its guest then

    def _work(self) -> None:
        while True:
            try:
                job = self.waiting.get_nowait()
            except queue.Empty:
                return
            started = time.monotonic()
            code = self._run(job)
            self.codes[job.name] = code, time.monotonic() - started
            verdict = "ok" if code == 0 else f"FAILED with exit code {code}"
            self._print(job, f"{verdict}, {time.monotonic() - started:.0f} s")

    def _run(self, job: Job) -> int:
        folder = RESULTS / job.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TABLE).unlink(missing_ok=True)  # of an earlier round
        with self.lock:
            if self.stopped:
                return 130
            process = subprocess.Popen(
                job.command_line(self.kernel, folder, self.keys),
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            self.running.append(process)
        deadline = threading.Timer(job.timeout + 30, process.terminate)
        deadline.start()
        with (RESULTS / f"{job.name}.log").open("w") as log:
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                self._print(job, line.rstrip("\n"))
        code = process.wait()
        deadline.cancel()
        with self.lock:
            self.running.remove(process)
        if not any(folder.iterdir()):
            folder.rmdir()
        return code

    def _print(self, job: Job, line: str) -> None:
        with self.lock:
            print(f"{job.name} | {line}", flush=True)


def _prepared() -> bool:
    """Install what the jobs need, and compile our modules, which a guest would do each time."""
    setup = [str(ROOT / "netns-lab" / "setup"), "runtime", "lab", "test", "kernel"]
    if subprocess.run(setup, stdout=2).returncode:
        return False
    rooms = ["oegw", "ike", "policy", "dnsrecords", "tests", "netns-lab"]
    subprocess.run([str(ROOT / ".venv/bin/python"), "-m", "compileall", "-q", *rooms], cwd=ROOT)
    return True


def _boots(kernel: Kernel) -> bool:
    """Whether the kernel runs a command and says what it should.  Tells how long it took."""
    started = time.monotonic()
    command = [str(HERE / "boot"), "--kernel", str(kernel.image), "--timeout", "60"]
    answer = subprocess.run([*command, "--", "uname", "-rm"], stdout=subprocess.PIPE, text=True)
    if answer.returncode or not answer.stdout:
        say(f"{kernel.image} does not boot: exit code {answer.returncode}")
        return False
    say(f"{answer.stdout.strip()} boots and ends in {time.monotonic() - started:.1f} s")
    return True


def _report(round_: Round) -> int:
    """A line for each job; the number of those that failed or did not run."""
    failures = 0
    print("\njobs in the test kernel:")
    for job in round_.jobs:
        code, seconds = round_.codes.get(job.name, (130, 0.0))
        failures += code != 0
        verdict = "ok    " if code == 0 else "FAILED"
        print(f"{verdict} {seconds:5.0f} s  {job.name}: {job.what}")
    for job in round_.jobs:
        path = RESULTS / job.name / TABLE
        if path.exists():
            print(f"\n{job.name}:\n{path.read_text().rstrip()}")
    print(f"\n{len(round_.jobs) - failures} of {len(round_.jobs)} jobs passed", flush=True)
    return failures


def main(arguments: list[str]) -> int:
    """Exit code 0 only if the kernel was built and booted, and every job passed."""
    parser = argparse.ArgumentParser(prog="run", description="Run what needs the test kernel.")
    parser.add_argument("names", nargs="*", help="only jobs with such names; * and ? as in a shell")
    parser.add_argument("--list", action="store_true", help="the jobs, without running them")
    parser.add_argument("--guests", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    options = parser.parse_args(arguments)
    jobs = [
        job
        for job in load()
        if not options.names or any(fnmatch.fnmatch(job.name, name) for name in options.names)
    ]
    if options.list:
        for job in jobs:
            print(f"{job.name:34} {job.what}")
        return 0
    if not jobs:
        parser.error(f"no job is called {' or '.join(options.names)}; --list shows them")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        if not _prepared():
            say("netns-lab/setup could not install what the jobs need")
            return 1
        kernel = built()
        if not _boots(kernel):
            return 1
        with tempfile.TemporaryDirectory(prefix="oegw-lab-keys-") as keys:
            round_ = Round(kernel, grouped(jobs), Path(keys))
            round_.play(max(1, options.guests))
        return 1 if _report(round_) else 0
    except BuildFailed as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; the guests are ended")
        return 130
