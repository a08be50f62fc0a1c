"""strongSwan's charon in a namespace, driven by swanctl.

Each instance has its own directory with strongswan.conf, swanctl.conf and keys, its own /run, and a
list of the plugins that it loads; nothing of the machine's own configuration is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop.processes import InteropError, Process, call, wait_until
from tests.interop.terms import Agreed, Terms

CHARON = "/usr/lib/ipsec/charon"
INITIATE_SECONDS = 15
TUN = "ipsec0"  # what kernel-libipsec calls its device
_NAMES = {"tunnel": ("--child", "net"), "channel": ("--ike", "peer")}
LAST = str(2**32 - 1)
FRAGMENT_SIZE = 300  # octets of an IP packet; messages 1 and 2 are smaller, 3 to 6 are larger

_CRYPTOGRAPHY = "random nonce openssl aes sha1 sha2 md5 hmac gmp gcm kdf pem pkcs1 pkcs8 pubkey"
_DAEMON = f"{_CRYPTOGRAPHY} {{kernel}} socket-default vici updown"

_SETTINGS = """
charon {{
    load = {plugins}
    install_virtual_ip = no
    install_routes = no
    port = 500
    port_nat_t = 4500
    retransmit_timeout = 1.0
    retransmit_base = 1.5
    retransmit_tries = 3
    fragment_size = {fragment_size}
    keep_alive = 5
    plugins {{
        vici {{ socket = unix://{directory}/vici }}
    }}
    filelog {{
        log {{
            path = {directory}/charon.log
            append = yes
            flush_line = yes
            time_format = %H:%M:%S
            default = 1
            ike = 2
        }}
    }}
}}
swanctl {{ load = {cryptography} }}
"""

_CONNECTION = """
connections {{
    peer {{
        version = 1
        aggressive = no
        local_addrs = {local.address}
        remote_addrs = {remote.public}
        proposals = {phase1}
        encap = {encap}
        fragmentation = {fragmentation}
        mobike = no
        send_cert = never
        send_certreq = no
        keyingtries = 1
        unique = no
        rekey_time = {channel_lifetime}s
        over_time = 600s
        rand_time = 0s
        dpd_delay = {dpd_delay}s
        dpd_timeout = {dpd_timeout}s
        local {{
            auth = pubkey
            pubkeys = local.pem
            id = {local.identity}
        }}
        remote {{
            auth = pubkey
            pubkeys = remote.pem
            id = {remote.identity}
        }}
        children {{
            net {{
                mode = tunnel
                local_ts = {local.network}
                remote_ts = {remote.network}
                esp_proposals = {esp}
                life_time = {tunnel_life}s
                rekey_time = {tunnel_lifetime}s
                rand_time = 0s
                dpd_action = clear
                start_action = none
                close_action = none
            }}
        }}
    }}
}}
"""
_TUNNEL_SECONDS, _CHANNEL_SECONDS = 3000, 14400


@dataclass(slots=True)
class StrongSwan:
    """One charon: ``plugin`` is kernel-libipsec (user space) or kernel-netlink."""

    namespace: str
    directory: Path
    plugin: str
    remote_network: str
    inside: str  # its own address there where its network is
    router: str  # towards the peer
    process: Process | None = None
    terms: Terms | None = None

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "STRONGSWAN_CONF": str(self.directory / "strongswan.conf"),
            "SWANCTL_DIR": str(self.directory),
        }

    @property
    def log(self) -> Path:
        return self.directory / "charon.log"

    def start(self) -> None:
        """Start charon, unless it runs, and wait until it answers."""
        if self.process is not None and self.process.running:
            return
        # The IPsec plugin first; kernel-netlink does routes and addresses in both cases.
        kernel = " ".join(dict.fromkeys([self.plugin, "kernel-netlink"]))
        (self.directory / "strongswan.conf").write_text(
            _SETTINGS.format(
                plugins=_DAEMON.format(kernel=kernel),
                cryptography=_CRYPTOGRAPHY,
                directory=self.directory,
                fragment_size=FRAGMENT_SIZE,
            )
        )
        script = 'mount -t tmpfs -o mode=755 tmpfs /run && exec "$@"'
        own_run = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", CHARON]
        (self.directory / "vici").unlink(missing_ok=True)
        self.process = Process.start(
            "charon", self.namespace, own_run, self.directory / "charon.out", self._environment
        )
        process = self.process

        def answers() -> bool:
            process.require()
            return (self.directory / "vici").exists() and not self._swanctl(
                "--stats", check=False
            ).returncode

        wait_until("charon answering", answers)
        self._lead_into_tunnels()
        if self.terms is not None:
            self._load()

    def _lead_into_tunnels(self) -> None:
        """Routes of our own, so that they are there before the first packet of a tunnel.

        Without a tunnel nothing passes: user-space
        ESP has no other way out, and in the kernel a policy below all of charon's blocks.
        """
        route = ["ip", "route", "replace", self.remote_network, "src", self.inside]
        if self.plugin == "kernel-libipsec":
            call(self.namespace, *route, "dev", TUN)
            return
        call(self.namespace, *route, "via", self.router)
        block = ["dir", "out", "dst", self.remote_network, "action", "block"]
        call(self.namespace, "ip", "xfrm", "policy", "update", *block, "priority", LAST)

    def configure(self, terms: Terms) -> None:
        """Write the configuration; a charon that runs takes it in place of the one before."""
        self.terms = terms
        for name in ("pubkey", "private"):
            (self.directory / name).mkdir(exist_ok=True)
        terms.local.key.write_private(self.directory / "private" / "local.pem")
        (self.directory / "pubkey" / "local.pem").write_bytes(terms.local.key.public_pem)
        (self.directory / "pubkey" / "remote.pem").write_bytes(terms.remote.key.public_pem)
        asks = terms.dead_peer_seconds
        tunnel = terms.tunnel_lifetime or _TUNNEL_SECONDS
        text = _CONNECTION.format(
            local=terms.local,
            remote=terms.remote,
            phase1=terms.phase1,
            encap="yes" if terms.encapsulation == "udp" else "no",
            fragmentation="force" if terms.fragment else "no",
            channel_lifetime=terms.channel_lifetime or _CHANNEL_SECONDS,
            tunnel_lifetime=tunnel,
            tunnel_life=tunnel + max(tunnel // 10, 2),
            dpd_delay=asks or 0,
            dpd_timeout=3 * (asks or 0),
            esp="-".join([terms.phase2, *([terms.pfs] if terms.pfs else [])]),
        )
        (self.directory / "swanctl.conf").write_text(text)
        if self.process is not None and self.process.running:
            self._load()

    def _load(self) -> None:
        done = self._swanctl("--load-all", "--clear")
        if "successfully loaded 1 connections" not in done.stdout:
            raise InteropError(f"swanctl --load-all: {done.stdout}{done.stderr}")

    def initiate(self) -> None:
        """Begin a tunnel and wait for it."""
        self._swanctl("--initiate", "--child", "net", "--timeout", str(INITIATE_SECONDS))

    def terminate(self, what: str) -> None:
        """Close the ``tunnel`` (its CHILD_SA), or the ``channel`` (its IKE_SA) and all in it."""
        self._swanctl("--terminate", *_NAMES[what], "--timeout", "10")

    def rekey(self, what: str) -> None:
        """Begin a successor of the ``tunnel`` or of the ``channel``."""
        self._swanctl("--rekey", *_NAMES[what])

    def retire(self) -> None:
        """End the channels that have a successor, which charon keeps until their life is over."""
        for _, sa in self._listed():
            if sa["state"] == "REKEYING":
                self._swanctl("--terminate", "--ike-id", sa["uniqueid"], "--timeout", "10")

    def forget(self) -> None:
        """Drop all that is left of a cell, without a word to the peer if it does not answer."""
        if self.process is None or not self.process.running:
            return
        for _ in range(5):
            ikes = list(self._listed())
            if not ikes:
                return
            for _, sa in ikes:
                self._swanctl("--terminate", "--ike-id", sa["uniqueid"], "--force", check=False)
        wait_until("charon without SAs", lambda: not list(self._listed()), 10)

    def stop(self) -> None:
        """End in order: charon says goodbye to its peers."""
        if self.process is not None:
            self.process.end()
            self.process = None

    def lose_power(self) -> None:
        """End charon, and what it left in the kernel, without a word."""
        self.kill()
        flush_kernel(self.namespace)

    def kill(self) -> None:
        """Crash: what charon has set up in the kernel stays as it is."""
        assert self.process is not None
        self.process.kill()
        self.process = None

    def channels(self) -> list[str]:
        """The established IKE SAs, by charon's number."""
        return [sa["uniqueid"] for _, sa in self._listed() if sa["state"] == "ESTABLISHED"]

    def agreed(self) -> list[Agreed]:
        """The installed tunnels."""
        return [
            _agreed(sa, child)
            for _, sa in self._listed()
            if sa["state"] == "ESTABLISHED"
            for child in sa.get("child-sas", {}).values()
            if child["state"] == "INSTALLED"
        ]

    def position(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def story(self, since: int = 0) -> str:
        """What it logged from that size on."""
        if not self.log.exists():
            return "(no log)"
        return self.log.read_bytes()[since:].decode(errors="replace")

    def _listed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in self._swanctl("--list-sas", "--raw").stdout.splitlines():
            if line.startswith("list-sa event {"):
                yield from parse_raw(line.removeprefix("list-sa event "))[0].items()

    def _swanctl(self, *arguments: str, check: bool = True) -> Any:
        command = ["swanctl", *arguments, "--uri", f"unix://{self.directory}/vici"]
        return call(None, *command, check=check, environment=self._environment)


def flush_kernel(namespace: str) -> None:
    """Forget all SAs and policies of the kernel, if it can have any."""
    if call(namespace, "ip", "xfrm", "state", "flush", check=False).returncode == 0:
        call(namespace, "ip", "xfrm", "policy", "flush")


def parse_raw(text: str, start: int = 0) -> tuple[dict[str, Any], int]:
    """A section ``{name {..} key=value list=[..] ..}`` as swanctl's ``--raw`` prints it."""
    assert text[start] == "{", text[start : start + 40]
    section: dict[str, Any] = {}
    at = start + 1
    while True:
        while text[at] == " ":
            at += 1
        if text[at] == "}":
            return section, at + 1
        end = at
        while text[end] not in "={ ":
            end += 1
        name = text[at:end]
        if text[end] == " ":
            end += 1
        if text[end] == "{":
            section[name], at = parse_raw(text, end)
        elif text[end + 1] == "[":
            close = text.index("]", end)
            section[name] = text[end + 2 : close].split()
            at = close + 1
        else:
            at = end + 1
            while text[at] not in " }":
                at += 1
            section[name] = text[end + 1 : at]


_CIPHER = {"AES_CBC": "aes{}", "3DES_CBC": "3des", "AES_GCM_16": "aes{}gcm16"}
_HASH = {"HMAC_SHA2_256_128": "sha256", "HMAC_MD5_96": "md5", "HMAC_SHA1_96": "sha1"}
_PRF = {"PRF_HMAC_SHA2_256": "sha256", "PRF_HMAC_MD5": "md5", "PRF_HMAC_SHA1": "sha1"}


def _words(sa: dict[str, str]) -> list[str]:
    words = [_CIPHER[sa["encr-alg"]].format(sa.get("encr-keysize", ""))]
    return words + ([_HASH[sa["integ-alg"]]] if "integ-alg" in sa else [])


def _group(sa: dict[str, str]) -> str:
    return sa["dh-group"].replace("MODP_", "modp") if "dh-group" in sa else "none"


def _agreed(sa: dict[str, Any], child: dict[str, Any]) -> Agreed:
    words = _words(sa)
    if _PRF[sa["prf-alg"]] != words[1]:
        raise InteropError(f"IKEv1's PRF is the hash's HMAC, and this is {sa['prf-alg']}")
    return Agreed(
        phase1="-".join([*words, _group(sa)]),
        phase2="-".join(_words(child) + (["esn"] if child.get("esn") else [])),
        pfs=_group(child),
        initiator=sa.get("initiator") == "yes",
        local_network=",".join(child["local-ts"]),
        remote_network=",".join(child["remote-ts"]),
        remote_identity=sa["remote-id"],
        spis=(child["spi-in"], child["spi-out"]),
        encapsulation="udp" if child.get("encap") == "yes" else "esp",
        channel=sa["uniqueid"],
    )
