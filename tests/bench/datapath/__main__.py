"""Our datapath beside plain forwarding and other people's tunnels: see README.md.

python -m tests.bench.datapath [--rounds 5] [--seconds 3] [--only CONTENDER,...] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from tests.bench.datapath import machine, page, profile, urgency
from tests.bench.datapath.claims import claims
from tests.bench.datapath.contender import Contender
from tests.bench.datapath.contenders import ours
from tests.bench.datapath.contenders.fastd import FASTD
from tests.bench.datapath.contenders.nebula import NEBULA
from tests.bench.datapath.contenders.openvpn import OPENVPN
from tests.bench.datapath.contenders.plain import PLAIN
from tests.bench.datapath.contenders.strongswan import STRONGSWAN
from tests.bench.datapath.contenders.tinc import TINC
from tests.bench.datapath.contenders.wireguard import WIREGUARD, wireguard
from tests.bench.datapath.drawing import drawing
from tests.bench.datapath.figures import Run
from tests.bench.datapath.revision import unpacked
from tests.bench.datapath.rounds import MEASURES, Rounds
from tests.bench.datapath.table import markdown
from tests.interop.processes import InteropError

NOT_UNLESS_ASKED = {"strongswan-cbc"}
_CROWDS = ("ours-compiled", "ours-python")  # whose figures with many SAs are told


def _list(text: str) -> list[str]:
    return [each for each in text.split(",") if each]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.datapath", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each TCP transfer")
    parser.add_argument("--only", type=_list, default=[], help="contenders, by name")
    parser.add_argument("--without", type=_list, default=[], help="contenders, by name")
    parser.add_argument(
        "--measure", type=_list, default=list(MEASURES), help=f"of {','.join(MEASURES)}"
    )
    parser.add_argument(
        "--before", metavar="REVISION", help="ours at another commit, or in a folder"
    )
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME:KEY=VALUE,...",
        help="one more of ours: settings, or algorithm, udp, sas",
    )  # fmt: skip
    parser.add_argument("--wireguard-go", metavar="PATH", help="one more wireguard-go")
    parser.add_argument(
        "--urgent", action="store_true", help="before all else that this machine does"
    )
    parser.add_argument("--list", action="store_true", help="the contenders, and what is missing")
    parser.add_argument("--out", type=Path, help="folder for figures.json, table.md, bars.svg")
    parser.add_argument(
        "--load", type=Path, metavar="JSON", help="figures of an earlier run: measure nothing"
    )
    parser.add_argument("--docs", action="store_true", help=f"write {page.PAGE} and what it shows")
    parser.add_argument(
        "--claims",
        action="store_true",
        help="say of each claim whether it holds; exit code 1 if not all do",
    )
    parser.add_argument(
        "--profile", metavar="CONTENDER", help="where the time goes in one TCP stream"
    )
    arguments = parser.parse_args()
    strange = set(arguments.measure) - set(MEASURES)
    if strange:
        parser.error(f"--measure {','.join(sorted(strange))}: there is {','.join(MEASURES)}")
    return arguments


def _contenders(
    arguments: argparse.Namespace, folder: Path
) -> tuple[list[Contender], list[ours.Variant]]:
    """Those asked for; and of ours those that are measured with many SAs, too."""
    variants = [*ours.VARIANTS, *map(ours.described, arguments.variant)]
    everybody = [*PLAIN, *OPENVPN, *WIREGUARD, *TINC, *FASTD, *NEBULA, *STRONGSWAN]
    if arguments.wireguard_go:
        path = arguments.wireguard_go
        everybody.append(wireguard("wireguard-go-other", f"wireguard-go, {path}", path))
    everybody += [variant.contender() for variant in variants]
    if arguments.before:
        everybody.append(
            ours.before(unpacked(ours.ROOT, arguments.before, folder), arguments.before)
        )
    names = {each.name for each in everybody}
    for name in [*arguments.only, *arguments.without, *filter(None, [arguments.profile])]:
        if name not in names:
            raise InteropError(f"no contender {name!r}: there are {', '.join(sorted(names))}")
    left_out = set(arguments.without) | (set() if arguments.only else NOT_UNLESS_ASKED)
    chosen = [
        each
        for each in everybody
        if each.name not in left_out and (not arguments.only or each.name in arguments.only)
    ]
    if arguments.profile:
        chosen = [each for each in everybody if each.name == arguments.profile]
    crowds = [
        each for each in variants if each.name in _CROWDS and each.name in {c.name for c in chosen}
    ]
    return chosen, crowds


def _measured(
    arguments: argparse.Namespace, contenders: list[Contender], crowds: list[ours.Variant]
) -> Run:
    run = Run(
        machine=machine.described(ours.ROOT),
        asked={
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "measures": " ".join(arguments.measure),
        },
    )
    rounds = Rounds(
        run, contenders, crowds, set(arguments.measure), arguments.rounds, arguments.seconds
    )
    try:
        rounds.play()
    except KeyboardInterrupt:
        print("interrupted: what was measured until now follows", file=sys.stderr)
    run.asked["minutes"] = round((time.monotonic() - rounds.began) / 60, 1)
    return run


def _written(run: Run, arguments: argparse.Namespace) -> None:
    print(markdown(run))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("figures.json", run.serialize()),
            ("table.md", markdown(run)),
            ("bars.svg", drawing(run)),
        ):
            (arguments.out / name).write_text(text, encoding="utf-8")
    if arguments.docs:
        page.write(ours.ROOT, run)


def _ended(*_: object) -> NoReturn:
    """All namespaces and programs are still taken down, and once that has begun, to the end."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(143)


def main() -> int:
    arguments = _arguments()
    if arguments.urgent:
        urgency.begin()
    signal.signal(signal.SIGTERM, _ended)
    with tempfile.TemporaryDirectory(prefix="oegw-bench-") as name:
        folder = Path(name)
        try:
            contenders, crowds = _contenders(arguments, folder)
            if arguments.list:
                for each in contenders:
                    print(f"{each.name:<20}{each.title:<44}{' '.join(each.missing())}")
                return 0
            if arguments.profile:
                print(profile.profile(contenders[0], arguments.seconds))
                return 0
            run = (
                Run.parse(arguments.load.read_text(encoding="utf-8"))
                if arguments.load
                else _measured(arguments, contenders, crowds)
            )
        except InteropError as error:
            print(error, file=sys.stderr)
            return 2
    _written(run, arguments)
    found = claims(run)
    if arguments.claims:
        for claim in found:
            print(claim.line())
        return 0 if all(claim.holds for claim in found) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
