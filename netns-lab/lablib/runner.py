"""Runs a scenario: puts the lab up, takes the steps, checks the facts, takes it down."""

from __future__ import annotations

import signal
import time
from typing import Any

from lablib import cells, facts, kernelcounters, ladder, steps
from lablib.errors import LabError
from lablib.lab import Lab, put_up
from lablib.outcome import AS_EXPECTED, NOT_AS_EXPECTED, NOT_RUN, Outcome
from lablib.run import Run
from lablib.scenario import Scenario
from lablib.stage import Missed, Stage


def say(line: str) -> None:
    """To the terminal, at once."""
    print(line, flush=True)


class Report:
    """One line for each fact, and whether all were true."""

    def __init__(self) -> None:
        self.failed_lines: list[str] = []

    @property
    def failures(self) -> int:
        return len(self.failed_lines)

    def ok(self, title: str, seen: str) -> None:
        say(f"ok      {title}: {seen}")

    def failed(self, title: str, seen: str) -> None:
        self.failed_lines.append(f"{title}: {seen}")
        say(f"FAILED  {title}: {seen}")


def check_datapaths(lab: Lab, report: Report) -> None:
    """Each gateway that was told which datapath to take says that it took it, and why."""
    for name, wanted in lab.scenario.datapaths.items():
        if lab.gateways[name].process is None:
            continue  # it starts late, or a step ended it
        seen = lab.gateways[name].status().get("datapath") or {}
        text = f"{seen.get('name')}: {seen.get('reason')}"
        right = wanted in ("auto", seen.get("name"))
        (report.ok if right else report.failed)(f"{name} runs the datapath {wanted}", text)


def check_userspace(lab: Lab, report: Report) -> None:
    """Each gateway with the datapath in user space has core, offloads and workers as told."""
    wanted = lab.scenario.userspace
    for name, each in lab.gateways.items() if str(wanted) else ():
        if each.process is None:
            continue  # it starts late, or a step ended it
        seen = each.status().get("datapath") or {}
        if seen.get("name") != "userspace":
            continue
        used = [row["name"] for row in seen["offloads"] if row["used"]]
        workers = seen["workers"]
        right = (
            wanted.core in ("", seen["core"])
            and all(wanted.core in ("", worker["core"]) for worker in workers)
            and (wanted.offloads or not used)
            and wanted.workers in (0, seen["workers_per_direction"])
            and len(workers) == 2 * seen["workers_per_direction"]
        )
        text = f"core {seen['core']}: {seen['core_reason']}; {len(workers)} workers; "
        text += f"offloads {', '.join(used) or 'none'}"
        (report.ok if right else report.failed)(f"{name} runs with {wanted}", text)


def check_kernel_counters(lab: Lab, report: Report) -> None:
    """Where the kernel's datapath was asked for, its counters and the status must agree."""
    for name, wanted in lab.scenario.datapaths.items():
        if wanted == "kernel" and lab.gateways[name].process is not None:
            title = f"{name}: the kernel's counters agree with oegw status"
            try:
                report.ok(title, kernelcounters.compared(lab, name))
            except (Missed, LabError, OSError) as error:
                report.failed(title, str(error))


def is_for(lab: Lab, entry: dict[str, Any]) -> bool:
    """Whether a step or a fact holds on this kernel; takes ``queue`` out of it."""
    queue = entry.pop("queue", "")
    fits = not queue or queue == lab.queue()
    if not fits:
        say(f"        left out, as the gateways' queue is not {queue}: {entry['text']}")
    return fits


def take_steps(lab: Lab, report: Report) -> float:
    """All steps; stops at the first one that fails.  Returns when the first one began."""
    stage = Stage(lab)
    began = time.time()
    for step in lab.scenario.steps:
        if not is_for(lab, step):
            continue
        try:
            report.ok(steps.title(step), steps.take(stage, step))
        except (Missed, LabError) as error:
            report.failed(steps.title(step), str(error))
            break
    for process in list(stage.background.values()):
        process.end()
    return began


def check_facts(lab: Lab, report: Report, wanted: tuple[dict[str, Any], ...]) -> None:
    for fact in wanted:
        if not is_for(lab, fact):
            continue
        try:
            report.ok(facts.title(fact), facts.check(lab, fact))
        except (Missed, LabError, OSError) as error:
            report.failed(facts.title(fact), str(error))


def show_ladder(lab: Lab, report: Report, began: float) -> None:
    """Draw the ladder that the scenario asks for; a point that was not seen is a failure."""
    opportunistic = lab.scenario.ladder == "opportunistic"
    points = (ladder.opportunistic if opportunistic else ladder.plain)(lab, began)
    for line in ladder.draw(points, began):
        say(line)
    title = f"each point of the ladder of section {'3.2' if opportunistic else '3.1'} was seen"
    missing = ladder.missing(points)
    if missing:
        report.failed(title, "not seen: " + ", ".join(f"({label})" for label in missing))
    else:
        report.ok(title, f"{len(points)} points")


def check_gateways_alive(lab: Lab, report: Report) -> None:
    """No gateway may have ended by itself, nor printed a traceback; a step may have ended it."""
    for gateway in lab.gateways.values():
        log = gateway.run.directory / f"oegw-{gateway.name}.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        title = f"gateway {gateway.name} runs and printed no traceback"
        if "Traceback" in text:
            report.failed(title, text[-1500:])
        elif gateway.process is None:
            report.ok(f"gateway {gateway.name} printed no traceback", "a step ended it")
        elif not gateway.process.running:
            report.failed(title, f"it is gone; it said: {text[-500:]}")
        else:
            report.ok(title, "so it is")


def leave_behind(run: Run) -> None:
    """Say what a failure leaves for the one who looks for its cause."""
    say(f"left in {run.directory}:")
    for path in sorted(run.directory.iterdir()):
        if path.suffix in (".log", ".jsonl", ".pcap", ".toml") and path.stat().st_size:
            say(f"  {path.name} ({path.stat().st_size} octets)")


def run_scenario(scenario: Scenario, identifier: str | None = None, keep: bool = False) -> Outcome:
    """From putting up to taking down.  The outcome's code is that of `lab run`."""
    started = time.monotonic()
    run = Run.create(identifier)
    report = Report()
    code, drawing = NOT_RUN, []
    variant = f" ({scenario.userspace})" if str(scenario.userspace) else ""
    say(f"{scenario.name}{variant}: {scenario.summary}")
    try:
        lab = put_up(run, scenario, lambda line: say(f"        {line}"))
        check_datapaths(lab, report)
        check_userspace(lab, report)
        began = take_steps(lab, report)
        lab.end_captures()
        if scenario.late:
            check_datapaths(lab, report)
            check_userspace(lab, report)
        check_kernel_counters(lab, report)
        if scenario.ladder:
            show_ladder(lab, report, began)
        check_facts(lab, report, scenario.facts)
        if lab.matrix is not None:
            drawing = cells.draw(lab.matrix, scenario.name)
            for line in drawing:
                say(line)
        check_gateways_alive(lab, report)
        code = NOT_AS_EXPECTED if report.failures else AS_EXPECTED
    except LabError as error:
        report.failed("the lab", str(error))
    finally:
        finish(run, code != AS_EXPECTED, keep)
    verdicts = ("all as expected", f"{report.failures} not as expected", "could not be run")
    seconds = time.monotonic() - started
    say(f"{scenario.name}{variant}: {verdicts[code]} ({seconds:.1f} s)")
    return Outcome(scenario.name, code, round(seconds, 1), report.failed_lines, drawing)


def finish(run: Run, failed: bool, keep: bool) -> None:
    """Take the lab down, unless it shall stay; after a failure its files stay."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # taking down takes a second; let it be finished
    if keep:
        say(f"kept: lab --id {run.identifier} exec HOST -- CMD; lab --id {run.identifier} down")
        return
    run.close(keep_files=failed)
    if failed:
        leave_behind(run)
