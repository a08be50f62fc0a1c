"""Configurations to take apart, and shorthands to read them."""

from __future__ import annotations

from pathlib import Path

from oegw import config
from tests.support.dns_keys import base64_key

PEER_KEY = "0s" + base64_key(2048)

FULL = f"""\
version = 1

[gateway]
addresses = ["192.1.1.4", "2001:db8:1:1::4"]
identity = "@SG-A.example."
private_key = "keys/gateway.pem"
control_socket = "/run/oegw/control.sock"
trace = "trace.jsonl"
state = "state/oegw.db"

[interfaces]
outside = ["eth1", "br-wan.100"]

[dns]
resolvers = ["192.1.1.53", "2001:db8:1:1::53"]
timeout = 0.25
tries = 2
local_reverse = ["2001:db8::/32", "10.0.0.0/8"]
trusted = ["2001:db8:1:1::53"]
unsigned_delegation = "self"
records = ["ipseckey", "txt"]
questions_per_second = 100

[management]
addresses = ["198.51.100.7", "2001:db8:9::/48"]

[ike]
profiles = ["modern"]
channel_lifetime = 7200
tunnel_lifetime = 600
retransmit_first = 1
retransmit_tries = 4
half_open_limit = 50
half_open_per_source = 3
channel_proposals = ["aes256-sha256-modp2048", "3des-md5-modp1024"]
tunnel_proposals = ["aes128gcm16"]
pfs = "optional"
channel_bytes = 1000000
tunnel_bytes = 100000000
keepalive_interval = 15
dpd_interval = 0
dpd_tries = 3

[datapath]
datapath = "userspace"
encapsulation = "udp"
tunnel_interface = "oe7"
replay_window = 64
interface_id = 7
core = "python"
offloads = false
workers = 2

[intercept]
mark_mask = 0xC0
assurance_mask = 0x300
encrypted_mark = 0x400
queue = 7
hold = "first"
hold_packets = 10
hold_bytes = 100000
setups_per_source = 5
setups = 70
setups_per_second = 7

[lifespans]
silence = 1
refused = 2
bad_signature = 3
no_record = 4
malformed = 5
policy = 6.5
unused = 7
first_look = 8
look = 9
in_use = 10

[multihoming]
choice = "round-robin"
turn = 2.5
patience = 30

[publish]
clients = ["192.1.0.65", "2001:db8:1:0::65"]
precedence = 7
ttl = 600
server = "192.1.1.54"
tsig_key = "keys/update.key"

[default]
category = "opportunistic"
on_failure = "drop"

[[rule]]
name = "office"
category = "configured"
source = "192.1.0.0/24"
destination = ["192.2.0.0/24"]
peer = "192.1.1.5"
peer_key = "{PEER_KEY}"
peer_identity = "@sg-b.example"

[[rule]]
name = "web"
category = "opportunistic"
source = ["192.1.0.64/30", "192.1.0.70"]
destination = "192.3.0.0/16"
protocol = "tcp"
source_ports = "1024-65535"
destination_ports = 80
on_failure = "drop"

[[rule]]
name = "never"
category = "deny"
destination = "2001:db8:dead::/48"
override = true
"""


def parsed(text: str, directory: Path = Path("/nowhere")) -> config.Settings:
    return config.parse(text, directory / "oegw.toml")


def problems(text: str, directory: Path = Path("/nowhere")) -> list[str]:
    """All that is wrong with ``text``, without the file's name; empty if nothing is."""
    path = directory / "oegw.toml"
    lines: tuple[str, ...] = ()
    try:
        config.parse(text, path)
    except config.ConfigError as error:
        lines = error.problems
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]
