"""The second client: written in another language, by an author who had not read the first.

`tests/vectors/socks5/second_client.js` checks the vectors, and talks to our server.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from oegw.socks5 import wire
from oegw.socks5.passwords import hashed
from oegw.socks5.settings import AddressIdSettings, Listener, SocksSettings, User
from oegw.socks5.wire import MalformedMessage
from tests.support.socks_messages import PARSERS, VECTORS, VECTORS_FILE, message_of
from tests.support.socks_server import LOOPBACK, SETTINGS, Names, Running, running

PROGRAM = VECTORS_FILE.with_name("second_client.js")
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
    seen = f"{len(VECTORS['messages'])} messages, {len(VECTORS['malformed'])} malformed"
    assert _printed("vectors", str(VECTORS_FILE)).strip() == seen


def test_it_would_see_a_wrong_vector(tmp_path: Path) -> None:
    file = json.loads(VECTORS_FILE.read_text())
    file["messages"] = [m for m in file["messages"] if m["fields"].get("port") == 80]
    file["messages"][-1]["fields"]["port"] = 81
    (tmp_path / "wrong.json").write_text(json.dumps(file))
    done = subprocess.run(
        _node("vectors", str(tmp_path / "wrong.json")), capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert file["messages"][-1]["name"].encode() in done.stderr


def _mutated(dice: random.Random) -> tuple[str, bytes]:
    """A message of the vectors, changed in an octet or three; never too short, if of a stream."""
    vector = dice.choice(VECTORS["messages"] + VECTORS["malformed"])
    octets = bytearray.fromhex(vector["hex"])
    for _ in range(dice.choice((1, 1, 2, 3))):
        place = dice.randrange(min(len(octets), 8)) if dice.random() < 0.7 else -1
        octets[place] = dice.choice((0, 1, 3, 4, 5, 8, 0x80, 0xC3, 0xFF, dice.randrange(256)))
    behind = dice.randbytes(dice.choice((0, 3)) if vector["message"] == "datagram" else 600)
    return vector["message"], bytes(octets) + behind


def _ours(kind: str, octets: bytes) -> Any:
    """As the second client tells it, but for the message, which is in our form."""
    try:
        if kind == "datagram":
            return wire.parse_datagram(octets), len(octets)
        return PARSERS[kind](octets) or "missing"
    except MalformedMessage:
        return "malformed"


def _theirs(kind: str, read: dict[str, Any]) -> Any:
    if "error" in read:  # what is missing in a datagram will never come
        return "malformed" if kind == "datagram" else read["error"]
    return message_of(kind, read["fields"]), read["taken"]


def _agree(tmp_path: Path, dice: random.Random, rounds: int) -> None:
    mutated = [_mutated(dice) for _ in range(rounds)]
    file = tmp_path / "octets.json"
    file.write_text(json.dumps([{"message": k, "hex": o.hex()} for k, o in mutated]))
    lines = _printed("read", str(file)).rstrip("\n").split("\n")  # a name may have other ends
    seen: Counter[str] = Counter()
    for (kind, octets), line in zip(mutated, lines, strict=True):
        ours, theirs = _ours(kind, octets), _theirs(kind, json.loads(line))
        seen[ours if isinstance(ours, str) else "message"] += 1
        if kind == "credentials" and "\ufffd" in line:  # octets to us, and to them a text
            assert ours[1] == theirs[1]
        else:
            assert ours == theirs, f"{kind} {octets[:40].hex(' ')}"
    assert seen["message"] > rounds / 4
    assert seen["malformed"] > rounds / 10
    assert not seen["missing"]


def test_both_read_the_same_in_what_was_tampered_with(tmp_path: Path) -> None:
    _agree(tmp_path, random.Random(8), 2000)


@pytest.mark.fuzz
def test_both_read_the_same_in_much_that_was_tampered_with(tmp_path: Path) -> None:
    _agree(tmp_path, random.Random(9), 20_000)


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
