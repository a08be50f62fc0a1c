"""SCTP, the paper's example of a transport that applications get without a change (MK-15).

In the test kernel, for the machine's own may lack it: `tests/run --kernel`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

EXAMPLES = Path(__file__).parents[4] / "oegw/docs/examples"

# The paper's server with one word changed, and its client as it is.
SERVER = (
    (EXAMPLES / "starwars_server.py")
    .read_text()
    .replace("mon_service(MON_STREAM", 'mon_service("sctp"')
)

SESSIONS = """
import asyncio, socket, threading
from oegw import moniker
from oegw.moniker import aio
from oegw.moniker.library import client

with moniker.serve("starwars", transport="sctp", sst=False) as service:
    def echo():
        for session in service:
            with session:
                while octets := session.recv(4096):
                    session.send(octets)
    threading.Thread(target=echo, daemon=True).start()
    for far in ("127.0.0.1", "::1"):
        with moniker.connect(far, "starwars") as session:
            session.send(b"x" * 100_000)
            assert session.recv_exactly(100_000) == b"x" * 100_000
            assert session.detach().proto == socket.IPPROTO_SCTP

    async def beside():
        async with aio.connect("127.0.0.1", "starwars", transport="sctp") as session:
            await session.send(b"hello")
            return await session.recv_exactly(5)
    print(asyncio.run(beside()).decode())
    with moniker.serve("starwars") as plain:  # TCP: another instance of the same name
        seen = set()
        for _ in range(60):
            client.answers.forget_all()
            found = moniker.resolve("127.0.0.1", "starwars")
            seen.add(found.transport)
        print(*sorted(seen))
try:
    moniker.connect("127.0.0.1", "starwars", transport="sctp")
except moniker.MonikerError as error:
    print(error)
"""


def test_a_server_that_moves_to_sctp_keeps_its_clients(box: Any, tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    assert '"sctp"' in SERVER
    script.write_text(SERVER)
    box.daemon()
    box.python(script, ready="starwars is served")
    assert "The end." in box.run(EXAMPLES / "starwars_client.py", "localhost")
    assert box.run("-c", "from oegw import moniker; print(moniker.resolve('localhost', 'starwars')"
                   ".transport)") == "sctp\n"  # fmt: skip


def test_sessions_over_sctp(box: Any) -> None:
    box.daemon()
    assert box.run("-c", SESSIONS).splitlines() == [
        "hello",
        "sctp tcp",
        "starwars: unknown: no such service",
    ]
