"""From nothing to a gateway that runs, by what `oegw init` writes and says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.misuse import environment
from tests.support.own_network import ip, own_network

pytestmark = pytest.mark.netns

# With the usual paths: so it has directories of its own in their places.
SCRIPT = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
oegw() { "$PYTHON" -P -m oegw "$@"; }
cd "$0"
oegw init --yes --dir etc --client 192.1.0.65 >first
oegw init --yes --dir etc >second
oegw check --config etc/oegw.toml >policy
oegw dns-records --config etc/oegw.toml >records
"$PYTHON" -P -m oegw run --config etc/oegw.toml &
daemon=$!
trap "kill $daemon" EXIT
until oegw status --config etc/oegw.toml >status 2>/dev/null; do kill -0 $daemon; done
oegw explain --config etc/oegw.toml 192.1.1.4 198.51.100.7 tcp 22 >explained
trap - EXIT
kill $daemon
wait $daemon
"""


def test_a_gateway_runs_by_what_it_writes(tmp_path: Path) -> None:
    surroundings = environment({
        "PYTHON": sys.executable, "SSH_CONNECTION": "198.51.100.7 50000 192.1.1.4 22",
    })  # fmt: skip
    with own_network():
        ip("link", "add", "out0", "type", "veth", "peer", "name", "far0")
        ip("link", "add", "in0", "type", "veth", "peer", "name", "near0")
        for link, address in (("out0", "192.1.1.4/24"), ("in0", "192.1.0.1/24")):
            ip("addr", "add", address, "dev", link)
            ip("link", "set", link, "up")
        ip("route", "add", "default", "via", "192.1.1.1")
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", SCRIPT, tmp_path], env=surroundings, timeout=100,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr

    def lines(name: str) -> list[str]:
        return (tmp_path / name).read_text().splitlines()

    records = [line for line in lines("first") if not line.startswith(";")]
    assert records == lines("records")
    assert [line.split()[2] for line in records] == ["KEY", "TXT", "TXT"]
    assert [line for line in lines("second") if not line.startswith(";")] == records
    assert "Outside       out0" in lines("status")
    assert any(line.startswith("rule      built-in: management") for line in lines("explained"))
    assert any("built-in: management" in line for line in lines("policy"))
