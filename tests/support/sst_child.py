"""A plane in a process that tests kill.  Argument: the name of a network namespace."""

from __future__ import annotations

import asyncio
import sys
import time

from oegw.sst.plane.kernel import NftPlane
from oegw.trace import JsonTrace
from tests.support.intercept_net import enter
from tests.support.sst_plane import SETTINGS, Keyed, only


async def _main() -> None:
    plane = NftPlane(SETTINGS, JsonTrace(None, time.time))
    await plane.start(only(required=True), Keyed(plane))
    print("ready", flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    enter(sys.argv[1])
    asyncio.run(_main())
