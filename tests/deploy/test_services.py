"""The package's services in a router: who their processes are, metrics, logs, Moniker's drop-in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from oegw.arguments import DOCUMENTATION
from oegw.powers.dropping import Cap, of_bits
from tests.deploy.crossing import Crossed
from tests.deploy.machine import Machine, await_true
from tests.deploy.site import BOB
from tests.deploy.wholesite import WholeSite

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

AUDIT = "/var/log/oegw/audit.jsonl"
_ALL = f"""[moniker]
[socks]
[audit]
file = "{AUDIT}"
"""
_FILE, _DROP_IN = "/etc/oegw/oegw.d/90-all.toml", "/etc/systemd/system/oegw.service.d"
_MEASURED = re.compile(r"<!-- processes: measured -->\n(.*?\n)\n", re.S)


@pytest.fixture(scope="module")
def router(whole_site: WholeSite, crossed: Crossed) -> Iterator[Machine]:
    """Router b of the tutorial, with all that can run."""
    assert crossed.encrypted
    router = whole_site.b
    router.write(_FILE, _ALL)
    router.run("systemctl restart oegw && systemctl start oegw-metrics")
    for child in ("moniker", "socks"):  # they come a moment later
        await_true(lambda child=child: answers(router, f"oegw {child} status"), child)
    yield router
    router.run(f"rm {_FILE}; systemctl stop oegw-metrics; systemctl restart oegw")


def answers(router: Machine, command: str) -> bool:
    return router.attempt(command).returncode == 0


def facts(router: Machine, pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = router.run(f"cat /proc/{pid}/status").splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


def names(bits: str) -> list[str]:
    """Of capabilities."""
    known = {each.value: each.name.lower() for each in Cap}
    return sorted(known.get(number, str(number)) for number in of_bits(int(bits, 16)))


def processes(router: Machine) -> dict[str, dict[str, str]]:
    """What the kernel says of those that `oegw status` names, and of the one of the metrics."""
    rows = json.loads(router.run("oegw status --json"))["processes"]
    found = {}
    for row in rows:
        found[row["name"]] = of = facts(router, row["pid"])
        assert sorted(row["capabilities"]) == names(of["CapPrm"]), row
        assert row["seccomp"] == (of["Seccomp"] == "2"), row
        assert row["no_new_privileges"] == (of["NoNewPrivs"] == "1"), row
        user = router.run(f"stat -c %U /proc/{row['pid']}/task").strip()
        uid = router.run(f"id -u {row['user']}").strip()
        assert of["Uid"].split() == [uid] * 4, (row, user)
    pid = int(router.says("systemctl show -P MainPID oegw-metrics"))
    found["metrics (`oegw-metrics.service`)"] = facts(router, pid)
    return found


def table(router: Machine, found: dict[str, dict[str, str]]) -> str:
    """In Markdown.  Filters are counted beyond those that the container's processes all have."""
    users = dict(
        reversed(line.split(":")[0:3:2])  # number, name
        for line in router.run("getent passwd").splitlines()
    )
    units = int(found["hands"]["Seccomp_filters"])
    lines = []
    for name, of in found.items():
        held = ", ".join(names(of["CapPrm"])) or "none"
        own = int(of["Seccomp_filters"]) - units if "metrics" not in name else 0
        assert of["Seccomp"] == "2", name
        assert of["NoNewPrivs"] == "1", name
        assert of["CapEff"] == of["CapPrm"] == of["CapBnd"], name
        filters = f"the unit's, {own} of ours" if own else "the unit's"
        shown = re.sub(r" \d+$", " (a worker)", name)
        lines.append(f"| {shown} | `{users[of['Uid'].split()[0]]}` | {held} | {filters} |")
    return "\n".join(dict.fromkeys(lines)) + "\n"


def test_processes_are_what_operators_are_told(router: Machine) -> None:
    measured = table(router, processes(router))
    assert measured.count("\n") == 8, measured
    page = (DOCUMENTATION / "operating.md").read_text()
    [written] = _MEASURED.findall(page)
    assert set(written.splitlines()[2:]) == set(measured.splitlines())


def test_the_units_filter_is_there(router: Machine) -> None:
    """And not only that of the container that this router is."""
    found = processes(router)
    without = facts(router, int(router.says("systemctl show -P MainPID ssh")))
    for name, of in found.items():
        assert int(of["Seccomp_filters"]) > int(without["Seccomp_filters"]), name


def test_workers_may_choose_their_cpu(router: Machine, whole_site: WholeSite) -> None:
    """All workers of a gateway run on one CPU while packets come one by one."""
    rows = json.loads(router.run("oegw status --json"))["processes"]
    pids = {row["name"]: row["pid"] for row in rows}
    first = re.match(r"\d+", facts(router, pids["hands"])["Cpus_allowed_list"])
    assert first is not None
    workers = [pid for name, pid in pids.items() if name.split()[0] in ("opening", "sealing")]
    assert len(workers) >= 2

    def gathered() -> bool:
        whole_site.machines["alice"].run(f"ping -c 2 -i 0.2 {BOB}")
        return all(facts(router, pid)["Cpus_allowed_list"] == first[0] for pid in workers)

    await_true(gathered, "the workers on one CPU")


def test_metrics_are_scraped(router: Machine) -> None:
    await_true(lambda: scraped(router, 1), "the service and the gateway answer")
    router.run("systemctl stop oegw")
    try:
        await_true(lambda: scraped(router, 0), "it says that the gateway is away")
    finally:
        router.run("systemctl start oegw")


def scraped(router: Machine, up: int) -> bool:
    """Whether the numbers say so of the gateway."""
    said = router.says("curl -sS http://127.0.0.1:24500/metrics")
    return re.search(f"^oegw_up {up}.0$", said, re.M) is not None


def test_what_is_the_gateways_user_s_stays_so_at_a_reload(router: Machine) -> None:
    places = "/run/oegw /run/oegw/control.sock /var/lib/oegw /var/lib/oegw/state.db* /var/log/oegw"
    look = f"stat -c '%U %n' {places}"
    before = router.run(look)
    assert "oegw /var/lib/oegw/state.db\n" in before
    router.run("systemctl reload oegw")
    assert router.run(look) == before
    assert scraped(router, 1)


def test_the_audit_log_is_rotated_and_goes_on(router: Machine, whole_site: WholeSite) -> None:
    def decided(host: int, file: str) -> bool:
        whole_site.machines["bob"].attempt(f"ping -c 1 -W 1 192.1.0.{host}")
        return f"192.1.0.{host}" in router.says(f"cat {file}")

    said = router.run("logrotate -d /etc/logrotate.d/oegw 2>&1")
    assert "error" not in said.lower()
    assert AUDIT in said
    await_true(lambda: decided(91, AUDIT), "a decision is written")
    router.run("logrotate --force /etc/logrotate.d/oegw")
    assert "192.1.0.91" in router.run(f"cat {AUDIT}.1")
    await_true(lambda: decided(92, AUDIT), "and so is another, into a new file")
    assert '"reloaded"' in router.read(AUDIT)
    assert "192.1.0.92" not in router.read(f"{AUDIT}.1")


def test_services_of_the_box_itself_are_registered(router: Machine) -> None:
    """With the drop-in on any kernel; from 6.5 on the kernel says whose process is at a socket."""
    serve = "oegw moniker run eve::http -- python3 -m http.server {port}"
    router.run("useradd eve")
    router.run(
        f"install -D -m 644 -t {_DROP_IN} /usr/share/doc/oegw/examples/moniker.conf"
        " && systemctl daemon-reload && systemctl restart oegw"
    )
    try:
        router.run(f"systemd-run --unit=eve --uid=eve {serve}")
        await_true(lambda: "http" in router.says("oegw moniker list"), "it is registered")
        router.run("systemctl kill --signal=KILL eve")
        await_true(lambda: "http" not in router.says("oegw moniker list"), "it is gone")
    finally:
        router.run(f"rm -r {_DROP_IN}; systemctl daemon-reload; systemctl restart oegw")
