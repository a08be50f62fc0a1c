"""Interception in a process that tests kill: traps, and never answers.

Argument: the name of a network namespace.  Prints ``ready``, and then a line per trapped packet.
"""

from __future__ import annotations

import asyncio
import sys
import time
from ipaddress import ip_network

from oegw.commands import Verdict
from oegw.intercept.interception import NftInterception
from oegw.trace import JsonTrace
from policy.flow import Flow
from policy.rule import Scope
from tests.support.intercept_net import INSIDE, OTHER_PEER, PEER6, SETTINGS, enter
from tests.support.intercept_policy import policy, protected_rule


def _print(flow: Flow, packet: int, size: int) -> None:
    print(flow.destination, packet, size, flush=True)


async def _main() -> None:
    interception = NftInterception(SETTINGS, JsonTrace(None, time.time))
    await interception.start(policy(protected_rule(PEER6)), _print)
    scope = Scope(ip_network(INSIDE), ip_network(OTHER_PEER))
    interception.install_policy(scope, Verdict.CLEAR, None, False)
    print("ready", flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    enter(sys.argv[1])
    asyncio.run(_main())
