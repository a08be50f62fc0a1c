"""What the scenarios' files say must be understood, and a misspelt expectation must not pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from tests.support.lab_commands import LAB, scenario_names


@pytest.fixture(scope="module")
def lablib() -> Iterator[ModuleType]:
    sys.path.insert(0, str(LAB.parent))
    try:
        import lablib
        import lablib.crossing
        import lablib.facts
        import lablib.lab
        import lablib.ladder
        import lablib.scenario
        import lablib.steps

        yield lablib
    finally:
        sys.path.remove(str(LAB.parent))


@pytest.mark.parametrize("name", scenario_names())
def test_scenario_is_written_in_known_words(lablib: ModuleType, name: str) -> None:
    scenario = lablib.scenario.load(name)
    topology = lablib.lab.topology_of(scenario)
    assert scenario.gateways or scenario.monikers, "no configuration"
    assert (scenario.directory / "README.md").read_text().startswith(f"# {name}\n")
    for step in scenario.steps:
        assert step["do"] in lablib.steps.STEPS
        for key in ("host", "to", "from", "source", "destination"):
            if key == "host" and step.get(key) in topology.hosts:
                continue  # where something is done: wild, a bridge, has no address
            if key in step and step["do"] != "set-route":
                topology.address(step[key])
        if "gateway" in step and step["do"] != "forge":
            assert step["gateway"] in scenario.gateways
    for fact in scenario.facts:
        assert fact["kind"] in lablib.facts.FACTS
        assert "text" in fact, "each fact has a line that says what it claims"
        if "link" in fact:
            assert fact["link"] in scenario.links
        if "gateway" in fact:
            assert fact["gateway"] in scenario.gateways


def _lab(lablib: ModuleType, events: list[dict[str, object]]) -> SimpleNamespace:
    topology = lablib.lab.load_topology()
    return SimpleNamespace(
        topology=topology,
        address=topology.address,
        gateways={"sg-a": SimpleNamespace(events=lambda: events)},
        monikers={},
        captured={"west": []},
    )


TRACE = [
    {"time": 1.0, "category": "intercept", "event": "trapped", "source": "192.1.0.65/32"},
    {"time": 2.0, "category": "ike", "event": "sent", "message": "MM1", "retransmission": False},
]


@pytest.mark.parametrize(
    ("fact", "true"),
    [
        ({"kind": "events", "events": ["intercept.trapped source=@alice", "ike.sent"]}, True),
        ({"kind": "events", "events": ["ike.sent", "intercept.trapped"]}, False),
        ({"kind": "events", "events": ["intercept.trapped source=@bob"]}, False),
        ({"kind": "events", "events": ["ike.sent message=MM?"]}, True),
        ({"kind": "count", "event": "ike.sent retransmission=false", "count": 1}, True),
        ({"kind": "count", "event": "ike.sent", "count": 2}, False),
        ({"kind": "count", "event": "ike.sent", "at_least": 2}, False),
        ({"kind": "count", "event": "ike.sent", "at_most": 0}, False),
    ],
)
def test_facts_of_a_trace(lablib: ModuleType, fact: dict[str, object], true: bool) -> None:
    lab = _lab(lablib, TRACE)
    if true:
        lablib.facts.check(lab, {"gateway": "sg-a", **fact})
    else:
        with pytest.raises(lablib.steps.Missed):
            lablib.facts.check(lab, {"gateway": "sg-a", **fact})


@pytest.mark.parametrize(
    "fact",
    [
        {"kind": "cuont", "event": "ike.sent", "count": 1},
        {"kind": "count", "event": "ike.sent", "cuont": 1},
        {"kind": "count", "event": "ike.sent"},
        {"kind": "packets", "link": "west", "source": "alcie", "count": 0},
    ],
)
def test_a_misspelt_fact_is_an_error(lablib: ModuleType, fact: dict[str, object]) -> None:
    fact = {"gateway": "sg-a", **fact} if fact["kind"] == "count" else fact
    with pytest.raises(lablib.errors.LabError):
        lablib.facts.check(_lab(lablib, TRACE), fact)


def test_the_long_form_of_a_scenario_differs_in_what_it_says(lablib: ModuleType) -> None:
    short, long = (lablib.scenario.load("rekey", long=choice) for choice in (False, True))
    assert short.has_long
    assert long.has_long
    differing = [(a, b) for a, b in zip(short.steps, long.steps, strict=True) if a != b]
    assert [(a["seconds"], b["seconds"]) for a, b in differing] == [(25, 120)]
    assert not any("long" in entry for s in (short, long) for entry in (*s.steps, *s.facts))
    assert not lablib.scenario.load("alice-bob").has_long


def test_a_variant_adds_hosts_and_stands_in_for_namesakes(lablib: ModuleType) -> None:
    plain, nat = lablib.lab.load_topology(), lablib.lab.load_topology("nat")
    assert set(nat.hosts) - set(plain.hosts) == {"nat"}
    assert set(nat.links) - set(plain.links) == {"inner"}
    assert str(nat.address("sg-a")) == "192.168.0.4"
    assert nat.host("sg-b") == plain.host("sg-b")
    assert nat.host("nat").masquerade.ports == "20000-20999"
    with pytest.raises(lablib.errors.LabError):
        lablib.lab.load_topology("no-such-variant")


def test_a_crowd_has_addresses_names_and_records_of_its_own(lablib: ModuleType) -> None:
    from lablib import dns

    topology = lablib.lab.load_topology().with_crowd("bob", 50)
    crowd = topology.crowd("bob", 50)
    assert [str(crowd[0]), str(crowd[-1]), len(crowd)] == ["192.2.0.101", "192.2.0.150", 50]
    (interface,) = topology.host("bob").interfaces
    assert [str(a) for a in interface.addresses[:2]] == ["192.2.0.66/24", "192.2.0.101/24"]
    assert len(interface.addresses) == 51
    reverse = next(z for z in dns.zones(topology, []) if z.name == "0.2.192.in-addr.arpa")
    assert "150.0.2.192.in-addr.arpa. PTR bob.lab.example." in reverse.records
    for size in (0, 151):
        with pytest.raises(lablib.errors.LabError):
            topology.crowd("bob", size)


def _row(
    source: str, destination: str, spi_in: str, spi_out: str, tunnels: int = 1
) -> dict[str, object]:
    return {
        "source": source, "destination": destination, "tunnels": tunnels,
        "spi_in": spi_in, "spi_out": spi_out,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("near", "far", "complaint"),
    [
        ([_row("a/32", "b/32", "1", "2")], [_row("b/32", "a/32", "2", "1")], None),
        ([_row("a/32", "b/32", "1", "2")], [_row("b/32", "a/32", "2", "3")], "SPIs"),
        ([_row("a/32", "b/32", "1", "2", 2)], [_row("b/32", "a/32", "2", "1")], "2 and 1 tunnels"),
        ([_row("a/32", "b/32", "1", "2")], [_row("b/32", "c/32", "2", "1")], "1 and 0 tunnels"),
        ([_row("a/32", "b/32", "1", "2", 0)], [], "0 and 0 tunnels"),
        (
            [_row("a/32", "b/32", "1", "2"), _row("a/32", "b/32", "3", "4")],
            [_row("b/32", "a/32", "2", "1")],
            "2 and 1 tunnels",
        ),
    ],
)
def test_a_pair_has_one_tunnel_the_same_on_both_gateways(
    lablib: ModuleType,
    near: list[dict[str, object]],
    far: list[dict[str, object]],
    complaint: str | None,
) -> None:
    found = lablib.crossing.complaints(near, far, [("a", "b")])
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert complaint in found[0]


@pytest.mark.parametrize(
    ("kinds", "fact", "true"),
    [
        (["esp", "ike"], {}, True),
        (["udp-esp", "ike", "keepalive"], {}, True),
        (["udp-esp", "ike"], {"in": "udp"}, True),
        (["udp-esp", "esp"], {"in": "udp"}, False),
        (["udp-esp"], {"in": "ip"}, False),
        (["esp"], {"in": "ip"}, True),
        (["ike"], {}, False),
        (["esp", "echo request"], {}, False),
        (["esp", "udp"], {}, False),
        (["esp", "returned"], {}, False),
        (["esp", "returned"], {"returned": True}, True),
    ],
)
def test_what_counts_as_encrypted(
    lablib: ModuleType, kinds: list[str], fact: dict[str, object], true: bool
) -> None:
    from ipaddress import ip_address

    lab = _lab(lablib, [])
    ends = {"source": ip_address("192.1.1.4"), "destination": ip_address("192.1.1.5")}
    lab.captured["west"] = [SimpleNamespace(kind=kind, **ends) for kind in kinds]
    fact = {"kind": "encrypted", "link": "west", **fact}
    if true:
        lablib.facts.check(lab, fact)
    else:
        with pytest.raises(lablib.stage.Missed):
            lablib.facts.check(lab, fact)


@pytest.mark.parametrize(
    ("fact", "count"),
    [
        ({"type": "esp"}, 3),
        ({"type": "esp", "in": "ip"}, 1),
        ({"type": "esp", "in": "udp"}, 2),
        ({"type": "udp-esp"}, 2),
        ({"type": "ike"}, 1),
        ({}, 4),
    ],
)
def test_esp_is_esp_in_whatever_it_goes(
    lablib: ModuleType, fact: dict[str, object], count: int
) -> None:
    from ipaddress import ip_address

    from lablib.pcap import ESP, UDP, Packet

    def packet(protocol: int, inside: str = "") -> Packet:
        ends = {"source": ip_address("192.1.1.4"), "destination": ip_address("192.1.1.5")}
        return Packet(0.0, "ipv4", b"", protocol=protocol, inside=inside, **ends)

    lab = _lab(lablib, [])
    lab.captured["west"] = [
        packet(ESP), packet(UDP, "udp-esp"), packet(UDP, "udp-esp"), packet(UDP, "ike")
    ]  # fmt: skip
    told = {"kind": "packets", "link": "west", **fact}
    lablib.facts.check(lab, told | {"count": count})
    with pytest.raises(lablib.stage.Missed):
        lablib.facts.check(lab, told | {"count": count + 1})


def test_what_was_told_of_the_datapath_goes_into_the_configuration(lablib: ModuleType) -> None:
    from lablib.gateway import with_datapath
    from lablib.scenario import Userspace

    told = Userspace("python", offloads=False, workers=2)
    assert str(told) == "core python, no offloads, workers 2"
    assert told.options() == ["--core", "python", "--no-offloads", "--workers", "2"]
    before = '[datapath]\nencapsulation = "udp"\nworkers = 1\ncore = "auto"\n[[rule]]\nx = 1\n'
    assert with_datapath(before, told.keys()) == (
        '[datapath]\ncore = "python"\noffloads = false\nworkers = 2\nencapsulation = "udp"\n'
        "[[rule]]\nx = 1\n"
    )
    assert with_datapath("version = 1\n", {"core": '"python"'}).endswith(
        '\n[datapath]\ncore = "python"\n'
    )
    nothing = Userspace()
    assert (str(nothing), nothing.options(), nothing.keys()) == ("", [], {})


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"core": "compiled"}, False),
        ({"offloads": [{"name": "TSO", "used": True}]}, False),
        ({"workers_per_direction": 2}, False),
        ({"workers": []}, False),
        ({"workers": [{"core": "compiled"}] * 2}, False),
        ({"name": "kernel", "core": None}, None),  # it has none of these
    ],
)
def test_a_gateway_that_does_otherwise_than_it_was_told_is_noticed(
    lablib: ModuleType, change: dict[str, object], right: bool | None
) -> None:
    from lablib.runner import Report, check_userspace
    from lablib.scenario import Userspace

    datapath = {
        "name": "userspace", "core": "python", "core_reason": "asked for",
        "offloads": [{"name": "TSO", "used": False}], "workers_per_direction": 1,
        "workers": [{"core": "python"}] * 2,
    }  # fmt: skip
    lab = _lab(lablib, [])
    lab.scenario = SimpleNamespace(userspace=Userspace("python", offloads=False, workers=1))
    lab.gateways["sg-a"].process = object()
    lab.gateways["sg-a"].status = lambda: {"datapath": datapath | change}
    report = Report()
    check_userspace(lab, report)
    assert bool(report.failures) is (right is False)


def test_each_record_goes_into_the_zone_with_the_longest_name(lablib: ModuleType) -> None:
    from lablib import dns

    lines = dns.joined(
        '65.0.1.192.in-addr.arpa. IN TXT "a;(" ; remark (\n'
        "4.1.1.192.in-addr.arpa. IN KEY 16896 4 1 (\n  AQ\n  AB )\n"
    )
    assert len(lines) == 2
    zones = {z.name: z for z in dns.zones(lablib.lab.load_topology(), lines)}
    assert lines[0] in zones["0.1.192.in-addr.arpa"].records
    assert lines[1] in zones["1.1.192.in-addr.arpa"].records
    assert any("0.1.192.in-addr.arpa. NS" in record for record in zones[""].records)


def test_ladder_is_in_the_order_of_time_and_names_what_was_not_seen(lablib: ModuleType) -> None:
    ladder = lablib.ladder
    points = [
        ladder.Point("1", "Alice", "Alice", "-", 10.0, "click", "lab"),
        ladder.Point("5B", "SG-A", "DNS", "-", 10.003, "TXT?", "trace"),
        ladder.Point("5D", "SG-A", "SG-B", "#", 10.002, "MM1", "trace"),
        ladder.Point("6", "SG-B", "SG-A", "=", None, "ESP", "link"),
    ]
    lines = ladder.draw(points, 10.0)[1:]
    assert [line[:60].strip(" <>-#=") for line in lines] == ["(1)", "(5D)", "(5B)", "(6)"]
    assert "   2.000  MM1" in lines[1]
    assert "#>" in lines[1]
    assert "not seen" in lines[3]
    assert "<=" in lines[3]
    assert ladder.missing(points) == ["6"]
