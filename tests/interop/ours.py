"""Our gateway: the real ``oegw run`` in a namespace, asked over its control socket."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop.processes import FACTOR, InteropError, Process, wait_until
from tests.interop.strongswan import flush_kernel
from tests.interop.terms import Agreed, Terms

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / ".venv" / "bin" / "oegw"
ANSWER_SECONDS = 10.0

_CONFIGURATION = """
version = 1

[gateway]
addresses = ["{local.address}"]
identity = "{local.identity}"
private_key = "{directory}/local.pem"
control_socket = "{directory}/control"
trace = "{directory}/trace.jsonl"
state = "{directory}/state.db"

[interfaces]
outside = ["outside"]

[dns]
resolvers = ["127.0.0.1"]

[ike]
channel_proposals = ["{phase1}"]
tunnel_proposals = ["{phase2}"]
pfs = "{pfs}"
{ike}
[datapath]
datapath = "{datapath}"
encapsulation = "{encapsulation}"

[default]
category = "deny"

[[rule]]
name = "interop"
category = "configured"
source = "{local.network}"
destination = "{remote.network}"
peer = "{remote.public}"
peer_identity = "{remote.identity}"
peer_key = "{remote.key.public_record}"
sst = "{port_encryption}"
"""


@dataclass(slots=True)
class Oegw:
    """One gateway; ``datapath`` is ``userspace`` or ``kernel``."""

    namespace: str
    directory: Path
    datapath: str
    process: Process | None = None
    terms: Terms | None = None

    @property
    def trace(self) -> Path:
        return self.directory / "trace.jsonl"

    @property
    def log(self) -> Path:
        return self.directory / "oegw.log"

    def configure(self, terms: Terms) -> None:
        """Write the configuration; ``start`` reads it."""
        self.terms = terms
        terms.local.key.write_private(self.directory / "local.pem")
        lines = {
            "channel_lifetime": terms.channel_lifetime,
            "tunnel_lifetime": terms.tunnel_lifetime,
            "dpd_interval": terms.dead_peer_seconds,
            "dpd_tries": 3 if terms.dead_peer_seconds else None,
        }
        text = _CONFIGURATION.format(
            local=terms.local,
            remote=terms.remote,
            directory=self.directory,
            phase1=terms.phase1,
            phase2=terms.phase2,
            pfs="required" if terms.pfs else "off",
            ike="".join(f"{key} = {value}\n" for key, value in lines.items() if value),
            datapath=self.datapath,
            encapsulation=terms.encapsulation,
            port_encryption=terms.port_encryption,
        )
        if not terms.local.identity.startswith("@"):
            text = re.sub(r"(?m)^identity = .*\n", "", text)  # its address is what it is without
        (self.directory / "oegw.toml").write_text(text)

    def start(self) -> None:
        """Start the daemon, unless it runs, and wait until it intercepts packets and answers."""
        if self.process is not None:
            return
        begun = self.position()
        self.process = Process.start(
            "oegw",
            self.namespace,
            [str(COMMAND), "run", "--config", str(self.directory / "oegw.toml")],
            self.log,
        )
        process = self.process

        def ready() -> bool:
            process.require()
            if not self.events("gateway.started", begun):
                return False
            try:
                return self.status().get("pid") is not None
            except OSError:
                return False

        wait_until("our gateway answering", ready, 30)
        name = self.status()["datapath"]["name"]
        if name != self.datapath:
            raise InteropError(f"asked for datapath {self.datapath}, got {name}")

    def initiate(self) -> None:
        """Nothing to do: the first packet of its host begins the tunnel, and waits for it."""

    def terminate(self, what: str) -> None:
        """``close``: what ``oegw close`` does, which says goodbye to the peer."""
        assert what == "close"
        assert self.terms is not None
        closed = self._ask(command="close", destination=self.terms.remote.network)["closed"]
        if closed != 1:
            raise InteropError(f"oegw close: {closed} tunnels closed")

    def forget(self) -> None:
        """Nothing to do: what it knows ends with its process."""

    def stop(self) -> None:
        """End in order: it says goodbye to its peers."""
        if self.process is not None:
            process, self.process = self.process, None
            if not process.end():
                raise InteropError("our gateway did not end within 15 s of SIGTERM")

    def lose_power(self) -> None:
        """What ``kill`` does, and nothing is left in the kernel either.

        After a mere crash the kernel's ESP goes on, and the peer has no reason to think us dead.
        """
        self.kill()
        flush_kernel(self.namespace)

    def kill(self) -> None:
        """Crash: what the daemon has set up in the kernel stays as it is."""
        assert self.process is not None
        self.process.kill()
        self.process = None

    def status(self) -> dict[str, Any]:
        """What ``oegw status --json`` prints."""
        return self._ask(command="status")

    def _ask(self, **request: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS * FACTOR)
            connection.connect(str(self.directory / "control"))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = {}
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer.update(json.loads(line))
                    if answer.get("done"):
                        break
        if "error" in answer:
            raise InteropError(f"oegw {request['command']}: {answer['error']}")
        return answer

    def channels(self) -> list[str]:
        """The established keying channels, without those that a stranger may have begun."""
        return [_channel_name(channel) for channel in _established(self.status())]

    def agreed(self) -> list[Agreed]:
        """The keyed tunnels, with the youngest keying channel as theirs.

        The status does not say which of several channels made a tunnel; there are several only
        after a new one was made in place of an old one.
        """
        status = self.status()
        keyed = [row for row in status["connections"] if row["state"] == "keyed"]
        channels = sorted(_established(status), key=lambda channel: float(channel["age"]))
        if keyed and not channels:
            raise InteropError("a tunnel without a keying channel")
        return [_agreed(channels[0], row) for row in keyed]

    def position(self) -> int:
        return self.trace.stat().st_size if self.trace.exists() else 0

    def events(self, name: str = "", since: int = 0) -> list[dict[str, Any]]:
        """The trace's lines from that size on: all, or those called ``category.event``."""
        if not self.trace.exists():
            return []
        text = self.trace.read_bytes()[since:].decode(errors="replace")
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [e for e in lines if not name or f"{e['category']}.{e['event']}" == name]

    def story(self, since: int = 0) -> str:
        """Its trace from that size on, and all that it printed."""
        trace = (
            self.trace.read_bytes()[since:].decode(errors="replace") if self.trace.exists() else ""
        )
        printed = self.log.read_text(errors="replace") if self.log.exists() else ""
        return trace + (f"printed:\n{printed}" if printed else "")


_CIPHERS = {"3des-cbc": "3des", "aes-cbc-128": "aes128", "aes-cbc-256": "aes256"}
_ESP = {
    "aes-gcm-16-128": "aes128gcm16",
    "aes-gcm-16-256": "aes256gcm16",
    "3des-cbc-192": "3des",
    **_CIPHERS,
}
_HASHES = {"hmac-sha2-256": "sha256", "hmac-md5": "md5", "hmac-sha1": "sha1"}
_INTEGRITY = {"hmac-sha2-256-128": "sha256", "hmac-md5-96": "md5", "hmac-sha1-96": "sha1"}


def _established(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [channel for channel in status["channels"] if channel["proposal"]]


def _channel_name(channel: dict[str, Any]) -> str:
    return f"{channel['remote']} {channel['initiator']}"


def _agreed(channel: dict[str, Any], row: dict[str, Any]) -> Agreed:
    cipher, hash_, group = channel["proposal"].rpartition(": ")[2].split()
    esp, *rest = row["cipher"].split()
    phase2 = [_ESP[esp], *(_INTEGRITY.get(word, word) for word in rest)]
    return Agreed(
        phase1="-".join([_CIPHERS[cipher], _HASHES[hash_], group.lower().replace("-", "")]),
        phase2="-".join(phase2),
        pfs=None,
        initiator=bool(channel["initiator"]),
        local_network=row["source"],
        remote_network=row["destination"],
        remote_identity=channel["identity"],
        spis=(row["spi_in"], row["spi_out"]),
        channel=_channel_name(channel),
        encapsulation=row["encapsulation"],
    )
