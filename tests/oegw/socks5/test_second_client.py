"""The second client: written in another language, by an author who had not read the first.

`tests/vectors/socks5/second_client.js` checks the vectors, and talks to our server.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.interface import Demand, Refused, Resolved
from oegw.socks5.passwords import hashed
from oegw.socks5.relay import SpliceRelay
from oegw.socks5.server.service import Server
from oegw.socks5.settings import AddressIdSettings, Listener, Rule, SocksSettings, User
from oegw.socks5.wire import IPAddress

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "socks5"
PROGRAM = FOLDER / "second_client.js"
PATIENCE = 60.0
PASSWORDS = {"anna": "first word", "berta": "second word"}
FOUR, SIX = ip_address("127.0.0.1"), ip_address("::1")
KNOWN = {"four.test": (FOUR,), "six.test": (SIX,), "both.test": (SIX, FOUR)}
REVERSE = {FOUR: "four.test", SIX: "six.test"}


def _node(*arguments: str) -> list[str]:
    node = shutil.which("node")
    assert node, "netns-lab/setup test installs it"
    return [node, str(PROGRAM), *arguments]


def _printed(*arguments: str) -> str:
    done = subprocess.run(_node(*arguments), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_reads_and_writes_every_vector_as_we_do() -> None:
    file = json.loads((FOLDER / "messages.json").read_text())
    seen = f"{len(file['messages'])} messages, {len(file['malformed'])} malformed"
    assert _printed("vectors", str(FOLDER / "messages.json")).strip() == seen


def test_it_would_see_a_wrong_vector(tmp_path: Path) -> None:
    file = json.loads((FOLDER / "messages.json").read_text())
    file["messages"] = [m for m in file["messages"] if m["fields"].get("port") == 80]
    file["messages"][-1]["fields"]["port"] = 81
    (tmp_path / "wrong.json").write_text(json.dumps(file))
    done = subprocess.run(
        _node("vectors", str(tmp_path / "wrong.json")), capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert file["messages"][-1]["name"].encode() in done.stderr


# ------------------------------------------------------------------ with a server of ours


class Names:
    """The names that the client's cases use."""

    async def resolve(self, name: str, transport: str) -> Resolved:
        if name not in KNOWN:
            raise Refused(ReplyCode.HOST_UNREACHABLE, "no_such_name")
        return Resolved(KNOWN[name], 60.0)

    async def name_of(self, address: IPAddress) -> str:
        if address not in REVERSE:
            raise Refused(ReplyCode.HOST_UNREACHABLE, "no_such_name")
        return REVERSE[address]


class AnyFlow:
    """A host without a gateway: nothing is demanded."""

    async def allow(
        self, destination: IPAddress, port: int, transport: str, demand: Demand
    ) -> None:
        """Allowed."""

    def prepare(self, sock: object, demand: Demand) -> None:
        """As it is."""


class Quiet:
    def event(self, category: str, event: str, **fields: Any) -> None:
        """Not looked at here."""

    def drop(self, category: str, trigger: str, **fields: Any) -> None:
        """Nor this."""


def _settings(folder: Path) -> SocksSettings:
    users = [User(name, hashed(word.encode(), b"salt" * 4)) for name, word in PASSWORDS.items()]
    return SocksSettings(
        present=True,
        socket=folder / "socks.sock",
        listeners=(
            *(Listener(address, 0) for address in (FOUR, SIX)),
            *(Listener(address, 0, "password") for address in (FOUR, SIX)),
        ),
        users=tuple(users),
        rules=(Rule(True, destinations=(ip_network("127.0.0.0/8"), ip_network("::1"))),),
        ids=AddressIdSettings(failures=100),  # the cases guess more often than a client may
    )


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a case, on each server; None: as expected."""

    errors: dict[tuple[str, str], str | None]

    def of(self, case: str) -> dict[str, str | None]:
        return {host: error for (name, host), error in self.errors.items() if name == case}


async def _play(settings: SocksSettings, cases: list[str]) -> Played:
    server = Server(settings, Names(), AnyFlow(), SpliceRelay(), Quiet())
    await server.start()
    try:
        places = [
            {"host": str(listener.address), "port": port}
            for listener, port in zip(settings.listeners, server.ports, strict=True)
        ]
        (one, word), (other, other_word) = PASSWORDS.items()
        second = {"user": other, "password": other_word}
        guarded = [{**p, "user": one, "password": word, "other": second} for p in places[2:]]
        order = json.dumps({"open": places[:2], "guarded": guarded, "cases": cases})
        client = await asyncio.create_subprocess_exec(
            *_node("live", order), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, complained = await asyncio.wait_for(client.communicate(), PATIENCE)
        assert client.returncode == 0, complained.decode()
    finally:
        await server.close()
    lines = [json.loads(line) for line in said.splitlines()]
    return Played({(line["case"], line["host"]): line["error"] for line in lines})


CASES = [
    "no_method_fits",
    "wrong_password",
    "connect_and_flag",
    "pieces_and_optimism",
    "associate_then_connect",
    "combined_connect",
    "combined_failure",
    "bind",
    "combined_bind",
    "preferences",
    "preferences_refused",
    "unknown_ids",
    "ids_of_others",
    "unknown_commands",
    "udp",
    "combined_udp",
    "control_channel",
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All cases in one process of the client, since each would need its time to start."""
    return asyncio.run(_play(_settings(tmp_path_factory.mktemp("socks")), CASES))


def test_each_case_of_the_client_is_played_here() -> None:
    assert _printed("cases").split() == CASES


@pytest.mark.parametrize("case", CASES)
def test_the_second_client_and_our_server(played: Played, case: str) -> None:
    assert played.of(case) == {"127.0.0.1": None, "::1": None}
