"""BIND in nsd's place: an authoritative server that takes dynamic updates (RFC 2136)."""

from __future__ import annotations

import base64
import secrets
from ipaddress import IPv4Address
from pathlib import Path

from lablib.run import Process, Run
from lablib.topology import twin_address

KEY_FILE = "update.key"  # in the run's directory: what updates are signed with


def write_key(path: Path, name: str) -> str:
    """A fresh key for TSIG, in the form that BIND has; returns its text."""
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    text = f'key "{name}" {{\n  algorithm hmac-sha256;\n  secret "{secret}";\n}};\n'
    path.touch(mode=0o600)
    path.write_text(text)
    return text


def start_updatable(run: Run, addresses: list[str], zones: list[tuple[str, str]]) -> Process:
    """Serve ``zones``, as pairs of a name and a file, on ``addresses`` of host dns."""
    directory = run.directory
    key = write_key(directory / KEY_FILE, "lab-update")
    both = [*addresses, *(str(twin_address(IPv4Address(a))) for a in addresses)]
    lines = [
        key,
        f'options {{ directory "{directory}"; pid-file "named.pid";'
        ' session-keyfile "named.session"; recursion no; dnssec-validation no;'
        " allow-query { any; }; notify no;"
        f" listen-on {{ {''.join(f'{a}; ' for a in both if ':' not in a)}}};"
        f" listen-on-v6 {{ {''.join(f'{a}; ' for a in both if ':' in a)}}}; }};",
        "controls { };",
    ]
    lines += [
        f'zone "{name or "."}" {{ type primary; file "zones/{file}"; check-names ignore;'
        " update-policy { grant lab-update zonesub ANY; }; };"
        for name, file in zones
    ]
    configuration: Path = directory / "named.conf"
    configuration.write_text("\n".join(lines) + "\n")
    return run.start("named", "dns", ["named", "-g", "-n", "1", "-c", str(configuration)])
