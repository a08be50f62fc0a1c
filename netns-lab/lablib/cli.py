"""The command line of the lab."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

from lablib import capture, scenario, several
from lablib.errors import LabError
from lablib.lab import load_topology, put_up
from lablib.run import Run
from lablib.runner import run_scenario, say

DEMO = "demo"  # the scenario of the command of this name
STANDING = "lab"  # the run that `up` makes, unless --id names another
TUN = Path("/dev/net/tun")

EXAMPLES = """examples:
  lab demo                            Alice pings Bob, with the draft's ladder in milliseconds
  lab list                            the scenarios
  lab run carol-drop                  one scenario; exit code 0 if all its facts are true
  lab run --all                       all of them, and a table at the end
  lab up; lab exec alice -- ping bob  a lab that stays until `lab down`
  lab capture west                    what passes on the public link
"""


def prepare() -> None:
    """Install what is missing.  Raises LabError if that fails or we are not root."""
    if os.geteuid():
        raise LabError("the lab makes network namespaces: run it as root")
    setup = Path(__file__).resolve().parent.parent / "setup"
    if subprocess.run([str(setup), "runtime", "lab"]).returncode:
        raise LabError("netns-lab/setup could not install what the lab needs (see above)")
    if not TUN.exists():
        TUN.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(TUN, 0o666 | 0o020000, os.makedev(10, 200))


def _up(arguments: argparse.Namespace) -> int:
    prepare()
    wanted = scenario.load(arguments.scenario)
    run = Run.create(arguments.id or STANDING)
    try:
        put_up(run, wanted, say, with_gateways=not arguments.bare)
    except BaseException:
        run.close(keep_files=True)
        say(f"logs are in {run.directory}")
        raise
    gateways = "without gateways" if arguments.bare else f"with the gateways of {wanted.name}"
    say(f"up {gateways}; files in {run.directory}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    identifiers = Run.identifiers() if arguments.all else [arguments.id or STANDING]
    for identifier in identifiers:
        Run.open(identifier).close()
        say(f"{identifier} is down")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    run = Run.open(arguments.id or STANDING)
    load_topology(run.variant).host(arguments.host)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise LabError("exec: no command after --")
    line = run.inside(arguments.host, command)
    os.execvp(line[0], line)


def _capture(arguments: argparse.Namespace) -> int:
    run = Run.open(arguments.id or STANDING)
    host, interface = capture.place(load_topology(run.variant), arguments.link)
    options = ["-n", "-U", "--immediate-mode", "-Z", "root", "-i", interface]
    if arguments.write:
        options += ["-w", str(Path(arguments.write).resolve())]
    line = run.inside(host, ["tcpdump", *options])
    os.execvp(line[0], line)


def _userspace(arguments: argparse.Namespace) -> scenario.Userspace:
    return scenario.Userspace(arguments.core, arguments.offloads, arguments.workers)


def _chosen(arguments: argparse.Namespace, one: scenario.Scenario) -> scenario.Scenario:
    one = scenario.with_datapaths(one, arguments.datapath) if arguments.datapath else one
    return replace(one, userspace=_userspace(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.all == bool(arguments.scenarios):
        raise LabError("run: give names of scenarios, or --all")
    names = scenario.names() if arguments.all else arguments.scenarios
    loaded = [scenario.load(name, arguments.long) for name in dict.fromkeys(names)]
    if arguments.all and arguments.long:
        loaded = [one for one in loaded if one.has_long]
    unfit = [one for one in loaded if not scenario.fits(one, arguments.datapath or "")]
    if unfit and not arguments.all:
        raise LabError(f"{unfit[0].name} is for datapath {unfit[0].only_datapath} only")
    for one in unfit:
        say(f"left out: {one.name}, which is for datapath {one.only_datapath} only")
        loaded.remove(one)
    wanted = [_chosen(arguments, one) for one in loaded]
    prepare()
    if len(wanted) == 1 and not (arguments.all or arguments.table):
        outcome = run_scenario(wanted[0], arguments.id, arguments.keep)
        if arguments.outcome:
            outcome.write(Path(arguments.outcome))
        return outcome.code
    if arguments.id or arguments.keep or arguments.outcome:
        raise LabError("run: --id and --keep are for one scenario")
    options = ["--long"] if arguments.long else []
    options += ["--datapath", arguments.datapath] if arguments.datapath else []
    options += _userspace(arguments).options()
    table = Path(arguments.table) if arguments.table else None
    jobs = arguments.jobs or several.default_jobs()
    return several.run(wanted, options, jobs, table, str(_userspace(arguments)))


def _demo(arguments: argparse.Namespace) -> int:
    prepare()
    return run_scenario(_chosen(arguments, scenario.load(DEMO)), arguments.id, arguments.keep).code


def _list(_: argparse.Namespace) -> int:
    for name in scenario.names():
        say(f"{name:22} {scenario.load(name).summary}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="lab",
        description="The reference network of the draft in network namespaces.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--id", help="which run, 1 to 8 letters and digits (default: the one of up)"
    )
    commands = result.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, action: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        return command

    up = add("up", _up, "build the network, name service and gateways, and leave them running")
    up.add_argument("scenario", nargs="?", default="demo", help="whose configuration (demo)")
    up.add_argument("--bare", action="store_true", help="without gateways and their records")
    down = add("down", _down, "end what `up` started and remove it")
    down.add_argument("--all", action="store_true", help="every run that left something behind")
    execute = add("exec", _exec, "run a command on a host")
    execute.add_argument("host")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    watch = add("capture", _capture, "show what passes on a link: as1, west, wild, east, as3")
    watch.add_argument("link")
    watch.add_argument("--write", metavar="FILE", help="write a capture file instead")
    one = add("run", _run, "run scenarios by name, check their facts; a table, if several")
    one.add_argument("scenarios", nargs="*", metavar="scenario")
    one.add_argument("--all", action="store_true", help="all there are; with --long: that have one")
    one.add_argument("--jobs", type=_positive, metavar="N", help="labs side by side (3 on 2 CPUs)")
    one.add_argument("--long", action="store_true", help="in the longer form, if there is one")
    one.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    one.add_argument("--table", metavar="FILE", help="where to write the table as well")
    one.add_argument("--outcome", help=argparse.SUPPRESS)  # a file, for the process that started us
    demo = add("demo", _demo, "Alice pings bob, from the name to the tunnel")
    demo.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    for command in (one, demo):
        command.add_argument(
            "--datapath", help="of all gateways: auto, kernel, userspace; or sg-a=kernel,sg-b=..."
        )
        command.add_argument(
            "--core", choices=scenario.CORES, default="", help="of the datapath in user space"
        )
        command.add_argument(
            "--no-offloads", dest="offloads", action="store_false", help="nor its offloads"
        )
        command.add_argument(
            "--workers", type=_positive, default=0, metavar="N", help="its processes, each way"
        )
    add("list", _list, "list the scenarios")
    return result


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: list[str]) -> int:
    """Exit codes: 0 done, 1 a fact is false, 2 it could not be done, 130 interrupted."""
    arguments = parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # the first, too: a shell's jobs ignore it
        signal.signal(number, _interrupted)
    try:
        return int(arguments.action(arguments))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lab: interrupted; what it started is taken down", file=sys.stderr)
        return 130
