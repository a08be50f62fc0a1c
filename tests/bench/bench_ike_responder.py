"""How many set-ups per second a responder takes on one core, beside strongSwan's in the same run.

    python -m tests.bench.bench_ike_responder [--rounds 5] [--seconds 5] [--flight 8] [--peers 36]

Needs root, two cores and strongSwan.  The gateway with all its processes has one core, the load
generator (``ike_load.py``) the other.  The generator is the same program for both, plays many
peers, one after the other, and keeps a number of exchanges under way.  ``established`` is what the
gateway itself counts, and the rate comes from it: a set-up whose message 3 of quick mode the
gateway has not taken is none.  Rounds of the two take turns, since the machine is not quiet; the
milliseconds of the responder's core for each set-up depend less on what else runs than the rate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.ike_gateways import (
    ROOT,
    BenchError,
    Gateway,
    Key,
    Ours,
    Peer,
    Theirs,
    call,
    equip,
    favoured,
    inside,
    namespaces,
    require_programs,
    wait_until,
    wire,
    workplace,
)

RESPONDER = "10.200.0.1"
RESPONDER_NETWORK = "10.71.0.0/24"
LOAD_CORE, RESPONDER_CORE = 0, 1
HELD = (
    24  # tunnels that stay up while younger ones are set up: none is closed before it is all there
)


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one round; rates are per second."""

    established: int
    lost: int
    rate: float
    responder_core: float  # fraction of its core that the responder used
    load_core: float
    milliseconds: float  # of the responder's processor, for each set-up
    median: float  # milliseconds from message 1 to message 3 of quick mode
    late: float  # the same, of the slowest twentieth
    other: dict[str, int]


def peers(number: int, key: Key) -> list[Peer]:
    return [Peer(f"10.200.1.{n + 1}", f"10.72.{n + 1}.0/24", key) for n in range(number)]


def generate(namespace: str, plan: Path) -> dict[str, Any]:
    argv = inside(
        namespace, *favoured(LOAD_CORE, [sys.executable, "-m", "tests.bench.ike_load", str(plan)])
    )
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=300, start_new_session=True
    )
    if done.returncode:
        raise BenchError(f"the load generator failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def one_round(gateway: Gateway, namespace: str, plan: Path) -> Round:
    before, used = gateway.established(), gateway.seconds()
    load = generate(namespace, plan)
    wait_until(f"{gateway.name} without tunnels", lambda: not gateway.tunnels())
    used = gateway.seconds() - used
    established = gateway.established() - before
    counts = load["counts"]
    completed = counts.pop("completed", 0)
    if not established:
        raise BenchError(f"{gateway.name}: no set-up at all: {counts}\n{gateway.said()}")
    lost = sum(number for name, number in counts.items() if name.startswith("lost"))
    # The generator stops with some under way: the gateway may count a few that it does not.
    if established < completed:
        counts["not taken by the gateway"] = completed - established
    durations = load["durations"]
    return Round(
        established,
        lost,
        min(established, completed) / load["seconds"],
        used / load["seconds"],
        load["processor_seconds"] / load["seconds"],
        used / established * 1e3,
        median(durations) * 1e3,
        quantiles(durations, n=20)[-1] * 1e3,
        counts,
    )


def measure(options: argparse.Namespace) -> dict[str, list[Round]]:
    rounds: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        directory = stack.enter_context(workplace())
        own, far = Key.make(), Key.make()
        own.write_public(directory / "responder.pem")
        far.write(directory / "load.pem")
        everybody = peers(options.peers, far)
        plan = {
            "responder": RESPONDER,
            "network": RESPONDER_NETWORK,
            "key": str(directory / "load.pem"),
            "responder_key": str(directory / "responder.pem"),
            "seconds": options.seconds,
            "flight": options.flight,
            "held": HELD,
            "peers": [(peer.address, peer.network) for peer in everybody],
        }
        (directory / "plan.json").write_text(json.dumps(plan))
        (directory / "warm.json").write_text(json.dumps({**plan, "seconds": 1}))
        running: list[tuple[Gateway, str]] = []
        for kind in (Ours, Theirs):
            if options.only and kind.name != options.only:
                continue
            load, gate = stack.enter_context(namespaces("load", "gate"))
            wire(load, gate)
            equip(gate, f"{RESPONDER}/24", "10.71.0.1/24")
            equip(load, "10.200.0.2/24", "10.72.0.1/32")
            call("ip", "-n", gate, "route", "add", "default", "via", "10.200.0.2")
            call("ip", "-n", load, "route", "add", "local", "10.200.1.0/24", "dev", "lo")
            gateway = kind(gate, directory / kind.name, RESPONDER_CORE)
            stack.callback(gateway.stop)
            gateway.start(RESPONDER, RESPONDER_NETWORK, own, everybody)
            running.append((gateway, load))
            one_round(gateway, load, directory / "warm.json")
        for number in range(options.rounds):
            for gateway, load in running:
                came = one_round(gateway, load, directory / "plan.json")
                rounds.setdefault(gateway.name, []).append(came)
                print(
                    f"round {number + 1}: {gateway.name:10} {came.rate:7.1f} set-ups/s, "
                    f"{came.milliseconds:.2f} ms of its core each, {came.established} established, "
                    f"{came.lost} lost {came.other or ''}",
                    flush=True,
                )
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--flight", type=int, default=8, help="exchanges under way at once")
    parser.add_argument("--peers", type=int, default=36, help="at most 250")
    parser.add_argument("--only", choices=(Ours.name, Theirs.name))
    options = parser.parse_args()
    if options.peers < options.flight + HELD or options.peers > 250:
        parser.error(f"--peers: from {HELD} more than --flight to 250")
    try:
        require_programs()
        rounds = measure(options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"\nmedians of {options.rounds} rounds of {options.seconds:g} s, {options.flight} "
        f"exchanges under way, {options.peers} peers\n"
        "RSA-2048, MODP-2048, no PFS, AES-128-GCM in UDP\n"
    )
    print(f"{'':10} {'set-ups/s':>10} {'ms of core':>11} {'core used':>10} {'generator':>10} "
          f"{'median ms':>10} {'95 % ms':>8} {'lost':>5}")  # fmt: skip
    for name, came in rounds.items():
        print(
            f"{name:10} {median(r.rate for r in came):10.1f} "
            f"{median(r.milliseconds for r in came):11.2f} "
            f"{median(r.responder_core for r in came):10.0%} "
            f"{median(r.load_core for r in came):10.0%} "
            f"{median(r.median for r in came):10.1f} {median(r.late for r in came):8.1f} "
            f"{sum(r.lost for r in came):5}"
        )
        if median(r.load_core for r in came) > 0.9:
            print(f"{'':10} the generator is the bottleneck: {name} could take more")
    if len(rounds) == 2:
        ours, theirs = (median(r.rate for r in rounds[kind.name]) for kind in (Ours, Theirs))
        print(f"\nours / theirs: {ours / theirs:.2f}   (at least 1.0 is wanted)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
