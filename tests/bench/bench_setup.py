"""From the first packet to its release: cold runs in the lab, with the time of each step.

    .venv/bin/python tests/bench/bench_setup.py [--runs 20] [--bits 2048]

Each run builds the lab anew: new namespaces, new keys, new name servers, new gateways, nothing
cached anywhere.  Alice sends one ping to Bob.  The times come from the traces of both gateways
and from captures; all share one clock.  Medians over the runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "netns-lab"))

from lablib import scenario, steps
from lablib.lab import Lab, put_up
from lablib.run import Run

Event = dict[str, Any]
Row = tuple[str, str, Callable[[Event], bool]]


def _is(category: str, event: str, **fields: str) -> Callable[[Event], bool]:
    def matches(line: Event) -> bool:
        return (line["category"], line["event"]) == (category, event) and all(
            line.get(key) == value for key, value in fields.items()
        )

    return matches


# What ends each step, whose trace shows it.  The first step begins when Alice's packet is on
# her link, the last ends when its ESP packet is on the public link.
STEPS: tuple[Row, ...] = (
    ("interception: Alice's link to the gateway's decision", "sg-a", _is("intercept", "trapped")),
    ("start of the TXT look-up (5B)", "sg-a", _is("dns", "query", purpose="gateway")),
    ("DNS: TXT of Bob (5C)", "sg-a", _is("dns", "answer", purpose="gateway")),
    ("MM1 made and sent (5D)", "sg-a", _is("ike", "sent", message="MM1")),
    ("MM2 (5E1)", "sg-a", _is("ike", "received", message="MM2")),
    ("MM3 made and sent: our Diffie-Hellman half (5E2)", "sg-a", _is("ike", "sent", message="MM3")),
    ("MM4: the peer's half (5E3)", "sg-a", _is("ike", "received", message="MM4")),
    ("MM5 made and sent: secret, signature (5E4)", "sg-a", _is("ike", "sent", message="MM5")),
    # The KEY of SG-A (5F) has been looked up since MM1.
    ("MM6: MM5 read and verified, ours made (5E5)", "sg-a", _is("ike", "received", message="MM6")),
    ("QM1 made and sent (5G1)", "sg-a", _is("ike", "sent", message="QM1")),
    ("QM1 read", "sg-b", _is("dns", "query", purpose="authority")),
    ("DNS: TXT of Alice (5G2, 5G3)", "sg-b", _is("dns", "answer", purpose="authority")),
    ("SG-B installs its inbound SA", "sg-b", _is("sa", "installed", direction="in")),
    ("QM2 (5G4)", "sg-a", _is("ike", "received", message="QM2")),
    ("SG-A installs its SAs, QM3 (5H)", "sg-a", _is("tunnel", "keyed")),
    ("release of the held packet (6)", "sg-a", _is("hold", "released", verdict="tunnel")),
)
NEIGHBOURS = (
    ("alice", "192.1.0.1"),
    ("sg-a", "192.1.1.53"),
    ("sg-b", "192.1.1.53"),
    ("sg-a", "192.1.1.5"),
)
ON_THE_WIRE = "encryption, until it is on the public link"


def one_run(bits: int) -> dict[str, float]:
    """Milliseconds of each step of one cold run."""
    plan = replace(scenario.load("alice-bob"), bits=bits, links=("as1", "west"))
    run = Run.create()
    try:
        lab = put_up(run, plan, lambda line: None)
        # The neighbour caches are warm on any network that is in use.
        for host, neighbour in NEIGHBOURS:
            run.call(host, ["ping", "-c", "1", "-W", "1", neighbour], 5)
        steps.ping(steps.Stage(lab), {"host": "alice", "to": "192.2.0.66", "answered": 1})
        return _measure(lab)
    finally:
        run.close()


def _measure(lab: Lab) -> dict[str, float]:
    lab.end_captures()
    alice, bob = lab.address("alice"), lab.address("bob")
    first = next(p for p in lab.captured["as1"] if (p.source, p.destination) == (alice, bob))
    moment = first.time
    result = {}
    for title, name, matches in STEPS:
        then = next(e["time"] for e in lab.gateways[name].events() if matches(e))
        result[title] = (then - moment) * 1e3
        moment = then
    esp = next(p for p in lab.captured["west"] if p.kind == "esp")
    result[ON_THE_WIRE] = (esp.time - moment) * 1e3
    result["first packet to release"] = (esp.time - first.time) * 1e3
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--bits", type=int, default=2048, help="of the RSA keys")
    options = parser.parse_args()
    results = []
    for number in range(options.runs):
        results.append(one_run(options.bits))
        total = results[-1]["first packet to release"]
        print(f"run {number + 1} of {options.runs}: {total:.1f} ms", flush=True)
    print(f"\nmedians of {len(results)} cold runs, RSA-{options.bits}, in milliseconds")
    for title in results[0]:
        values = [r[title] for r in results]
        if title == "first packet to release":
            print(f"{'':56} ------")
        print(f"{title:56} {median(values):6.2f}   ({min(values):.2f} to {max(values):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
