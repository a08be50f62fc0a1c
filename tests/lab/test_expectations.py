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
    topology = lablib.lab.load_topology()
    assert scenario.gateways, "no gateway configuration"
    assert (scenario.directory / "README.md").read_text().startswith(f"# {name}\n")
    for step in scenario.steps:
        assert step["do"] in lablib.steps.STEPS
        for key in ("host", "to", "from", "source", "destination"):
            if key in step and step["do"] != "set-route":
                topology.address(step[key])
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
