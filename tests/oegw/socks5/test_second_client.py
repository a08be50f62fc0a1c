"""The second client: written in another language, by an author who had not read the first.

`tests/vectors/socks5/second_client.js` checks the vectors, and talks to our server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from oegw.socks5.passwords import hashed
from oegw.socks5.settings import AddressIdSettings, Listener, SocksSettings, User
from tests.support.socks_server import LOOPBACK, SETTINGS, Names, Running, running

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "socks5"
PROGRAM = FOLDER / "second_client.js"
PATIENCE = 60.0
PASSWORDS = {"anna": "first word", "berta": "second word"}
KNOWN = {"four.test": ("127.0.0.1",), "six.test": ("::1",), "both.test": ("::1", "127.0.0.1")}
REVERSE = {"127.0.0.1": "four.test", "::1": "six.test"}


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


def _settings() -> SocksSettings:
    users = [User(name, hashed(word.encode(), b"salt" * 4)) for name, word in PASSWORDS.items()]
    return replace(
        SETTINGS,
        listeners=(
            *(Listener(address, 0) for address in LOOPBACK),
            *(Listener(address, 0, "password") for address in LOOPBACK),
        ),
        users=tuple(users),
        ids=AddressIdSettings(failures=100),  # the cases guess more often than a client may
    )


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a case, on each server; None: as expected."""

    errors: dict[tuple[str, str], str | None]

    def of(self, case: str) -> dict[str, str | None]:
        return {host: error for (name, host), error in self.errors.items() if name == case}


def _play(server: Running) -> Played:
    places = [
        {"host": str(listener.address), "port": port}
        for listener, port in zip(server.settings.listeners, server.server.ports, strict=True)
    ]
    (one, word), (other, other_word) = PASSWORDS.items()
    second = {"user": other, "password": other_word}
    guarded = [{**place, "user": one, "password": word, "other": second} for place in places[2:]]
    order = {"open": places[:2], "guarded": guarded, "cases": CASES}
    lines = [json.loads(line) for line in _printed("live", json.dumps(order)).splitlines()]
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
    names = Names(of=KNOWN, reverse=REVERSE)
    with running(tmp_path_factory.mktemp("socks"), _settings(), names) as server:
        return _play(server)


def test_each_case_of_the_client_is_played_here() -> None:
    assert _printed("cases").split() == CASES


@pytest.mark.parametrize("case", CASES)
def test_the_second_client_and_our_server(played: Played, case: str) -> None:
    assert played.of(case) == {"127.0.0.1": None, "::1": None}
