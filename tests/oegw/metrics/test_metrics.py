"""What Prometheus gets, and what is made for it: names, types, labels, dashboard, alerts."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from oegw.metrics.collector import FRESH, GatewayCollector, text
from oegw.metrics.families import families
from oegw.seeingarguments import METRICS_LISTEN, listen_address
from tests.support.control_socket import serving
from tests.support.overviews import connection, overview

Row = dict[str, Any]
DEPLOY = Path(__file__).parents[3] / "oegw" / "deploy"
COUNTERS = {
    "datapath.esp_in_packets": 7, "datapath.esp_in_octets": 700, "datapath.esp_out_packets": 9,
    "datapath.esp_out_octets": 900, "datapath.drop_in_replay": 3, "ike.drop.garbage": 2,
    "intercept.clear_outbound": 4, "intercept.clear_outbound_octets": 400,
    "intercept.trapped": 11, "intercept.inbound_secure": 5, "ike.sent": 6, "ike.received": 5,
    "verdict.clear": 1, "verdict.encrypt": 2, "dns.query": 8, "sst.plane.sealed": 12,
    "sst.plane.flows": 3, "gateway.negotiation_failed": 1,
}  # fmt: skip
ALL = overview(
    5.0,
    connection(1),
    connection(2, "clear", category="configured"),
    counters=COUNTERS,
    socks={"under_way": {"relayed": 2, "binding": 0}, "octets": {"to_client": 50}},
    moniker={"services": 3, "leases": [1, 2], "more_leases": 4},
    sst={"peers": [{"state": "works"}, {"state": "works"}, {"state": "probing"}]},
    silent_gateways={"192.1.1.9": 3.0},
)


def scraped(answer: Row | None = ALL) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text(lambda: answer))}


def value(name: str, answer: Row | None = ALL, **labels: str) -> float:
    family = scraped(answer)[name.removesuffix("_total")]
    [found] = [s.value for s in family.samples if s.name == name and s.labels == labels]
    return float(found)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("oegw_up", {}, 1),
        ("oegw_build_info", {"version": "0.1.0", "datapath": "userspace", "core": "compiled"}, 1),
        ("oegw_esp_bytes_total", {"direction": "in"}, 700),
        ("oegw_esp_packets_total", {"direction": "out"}, 9),
        ("oegw_clear_bytes_total", {}, 400),
        ("oegw_drops_total", {"place": "datapath", "trigger": "in_replay"}, 3),
        ("oegw_drops_total", {"place": "ike", "trigger": "garbage"}, 2),
        ("oegw_connections", {"state": "keyed", "category": "opportunistic"}, 1),
        ("oegw_connections", {"state": "clear", "category": "configured"}, 1),
        ("oegw_connections", {"state": "denied", "category": "opportunistic"}, 0),
        ("oegw_keyed_connections", {"trust": "insecure"}, 1),
        ("oegw_tunnel_arrivals_total", {"assurance": "secure"}, 5),
        ("oegw_tunnels", {}, 3),
        ("oegw_keying_channels", {}, 2),
        ("oegw_ike_messages_total", {"direction": "out"}, 6),
        ("oegw_decisions_total", {"decision": "encrypt"}, 2),
        ("oegw_negotiation_failures_total", {}, 1),
        ("oegw_silent_gateways", {}, 1),
        ("oegw_dns_lookups_total", {}, 8),
        ("oegw_resolver_up", {"resolver": "192.1.1.53"}, 1),
        ("oegw_held_packets", {}, 2),
        ("oegw_held_bytes", {}, 168),
        ("oegw_worker_restarts_total", {"worker": "sealing 0"}, 0),
        ("oegw_socks_up", {}, 1),
        ("oegw_socks_sessions", {"stage": "relayed"}, 2),
        ("oegw_socks_bytes_total", {"way": "to_client"}, 50),
        ("oegw_moniker_leases", {}, 6),
        ("oegw_sst_peers", {"state": "works"}, 2),
        ("oegw_sst_packets_total", {"fate": "sealed"}, 12),
    ],
)
def test_each_number_has_its_place(name: str, labels: dict[str, str], expected: float) -> None:
    assert value(name, **labels) == expected


def test_of_a_gateway_that_is_down_nothing_is_said_but_that() -> None:
    assert sorted(scraped(None)) == ["oegw_scrape_duration_seconds", "oegw_up"]
    assert value("oegw_up", None) == 0


def test_what_is_not_configured_is_not_there() -> None:
    names = set(scraped(overview()))
    assert not [name for name in names if re.match("oegw_(socks|moniker|sst)", name)]


def test_names_and_texts_are_as_prometheus_has_them() -> None:
    """The rules of `promtool check metrics`, and ours."""
    for family in families(ALL, 0.1):
        assert re.fullmatch(r"oegw(_[a-z]+)+", family.name), family.name
        assert family.kind in ("gauge", "counter")
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert family.help.endswith(".")
        assert not re.search(r"milli|_ms|_count|_sum|_bucket|octets", family.name), family.name
        assert len(set(family.samples)) == len({labels for labels, _ in family.samples})
        assert all(len(labels) == len(family.labels) for labels, _ in family.samples), family.name


def test_labels_are_few_whatever_peers_do() -> None:
    rows = [connection(n) for n in range(400)]
    refusals = [{"peer": f"192.9.0.{n}"} for n in range(200)]
    gateways = {f"192.8.0.{n}": 1.0 for n in range(200)}
    many = overview(1.0, *rows, refusals=refusals, silent_gateways=gateways, counters=COUNTERS)
    samples = [labels for family in families(many, 0.1) for labels, _ in family.samples]
    assert len(samples) < 80
    assert not [each for labels in samples for each in labels if each.startswith("192.") and
                each != "192.1.1.53"]  # fmt: skip


def test_several_scrapers_ask_once() -> None:
    asked, now = [], 0.0

    def ask() -> Row:
        asked.append(now)
        return ALL

    collector = GatewayCollector(ask, lambda: now)
    assert [m.name for m in collector.collect()] == [m.name for m in collector.collect()]
    now = FRESH
    list(collector.collect())
    assert asked == [0.0, FRESH]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (METRICS_LISTEN, (ip_address("127.0.0.1"), 24500)),
        ("[::1]:9100", (ip_address("::1"), 9100)),
        ("0.0.0.0:1", (ip_address("0.0.0.0"), 1)),
    ],
)
def test_listen_addresses(given: str, expected: object) -> None:
    assert listen_address(given) == expected


@pytest.mark.parametrize(
    "given", ["", "9100", ":9100", "::1:9100", "[127.0.0.1]:1", "localhost:1", "127.0.0.1:0",
              "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:²"],
)  # fmt: skip
def test_what_is_no_listen_address(given: str) -> None:
    with pytest.raises(ArgumentTypeError):
        listen_address(given)


# ------------------------------------------------------------------------- the command


async def gateway(message: Mapping[str, Any]) -> AsyncIterator[Row]:
    assert message == {"command": "overview", "neighbours": True}
    yield ALL | {"done": True}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


def command(path: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "oegw", "metrics", "--socket", str(path), *arguments]


def test_it_serves_whether_the_gateway_is_there_or_not(path: Path, port: int) -> None:
    with subprocess.Popen(
        command(path, "--listen", f"127.0.0.1:{port}"), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"oegw: metrics: http://127.0.0.1:{port}/metrics\n"

        def scrape() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain")
                body: bytes = answer.read()
            return body.decode()

        assert "oegw_up 0.0" in scrape()
        assert "no oegw is running there" in process.stderr.readline()
        with serving(path, gateway):
            deadline = 50
            while "oegw_up 1.0" not in (found := scrape()):  # an answer is good for a second
                deadline -= 1
                assert deadline, found
                signal.sigtimedwait((), 0.1)
            assert 'oegw_esp_bytes_total{direction="in"} 700.0' in found
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == f"oegw: metrics: {path}: the gateway answers again\n"


def test_a_port_that_is_taken_is_said_so(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            command(path, "--listen", where), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"oegw: metrics: {where}: Address already in use\n"


def test_once_prints_them(path: Path) -> None:
    with serving(path, gateway):
        done = subprocess.run(
            command(path, "--once"), capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "oegw_tunnels 3.0" in done.stdout


# ------------------------------------------------------- what is made for these metrics

METRIC = re.compile(r"\boegw_[a-z_]+\b")
KNOWN = {family.name: set(family.labels) for family in families(ALL, 0.1)}


def dashboard() -> Row:
    loaded: Row = json.loads((DEPLOY / "grafana" / "oegw.json").read_text(encoding="utf-8"))
    return loaded


def expressions() -> Iterator[tuple[str, str]]:
    """Title and expression of each query of the dashboard and of each alert."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    rules = (DEPLOY / "prometheus" / "oegw.rules.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)\n\s+expr: (.*)\n", rules)
    assert len(alerts) == rules.count("- alert:") > 5
    yield from alerts


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_what_is_asked_for_is_there(title: str, expression: str) -> None:
    names = METRIC.findall(expression)
    assert names, title
    for name in names:
        assert name in KNOWN, f"{title}: {name}"
        if name.endswith("_total"):
            assert re.search(r"\b(rate|increase)\(", expression), f"{title}: {name} is a counter"
    labels = {label for name in names for label in KNOWN[name]} | {"job", "instance"}
    used = set(re.findall(r"(\w+)(?:=~|=|!=)\"", expression))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        used |= {each.strip() for each in grouped.split(",")}
    assert used <= labels, f"{title}: {used - labels}"


def test_each_number_that_moves_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = {name for _, expression in expressions() for name in METRIC.findall(expression)}
    asked |= set(METRIC.findall(json.dumps(dashboard()["templating"])))
    quiet = {name for name in KNOWN if name not in asked}
    assert quiet <= {
        "oegw_build_info", "oegw_reloads_total", "oegw_warnings", "oegw_held_bytes",
        "oegw_ike_channels_total", "oegw_tunnels_closed_total", "oegw_refused_peers",
        "oegw_dns_answers_total", "oegw_socks_up", "oegw_socks_sessions", "oegw_moniker_up",
        "oegw_moniker_services", "oegw_moniker_leases", "oegw_sst_peers",
    }  # fmt: skip


def test_the_dashboard_hangs_together() -> None:
    board = dashboard()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert "$job" in target["expr"]
            assert "$instance" in target["expr"]
            assert target["datasource"]["uid"] == "${datasource}"
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
    variables = [each["name"] for each in board["templating"]["list"]]
    assert variables == ["datasource", "job", "instance"]
