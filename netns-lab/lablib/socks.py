"""The SOCKS servers that gateways start: which process it is, and whether it is there yet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from lablib.gateway import START_SECONDS, Gateway
from lablib.run import Run
from lablib.waiting import wait_until

PORT = 1080


def server_of(run: Run, host: str) -> int:
    """The process that waits for SOCKS clients on a host; 0: none."""
    listing = run.call(host, ["ss", "-Hltnp", f"sport = :{PORT}"]).stdout
    found = re.search(r"pid=(\d+)", listing)
    return int(found[1]) if found else 0


def await_servers(run: Run, gateways: Iterable[Gateway]) -> None:
    """Wait until the servers that these gateways start, if they are to, listen."""
    for gateway in gateways:
        if "\n[socks" in gateway.configuration.read_text():
            listening = partial(server_of, run, gateway.name)
            wait_until(f"SOCKS server on {gateway.name}", listening, START_SECONDS)
