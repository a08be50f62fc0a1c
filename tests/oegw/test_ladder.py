"""The ladder of a probe, as text and as a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from oegw.exitcodes import FAILED, Failure
from oegw.ladder import Kind, Ladder, Party, ladder_of
from oegw.laddercommand import Steps, picture_in
from oegw.laddersvg import picture
from oegw.laddertext import drawn
from policy.flow import Flow
from tests.support.playbook import ALICE, BOB

Row = dict[str, Any]
SVG = "{http://www.w3.org/2000/svg}"


def event(category: str, happened: str, /, **fields: Any) -> Row:
    return {"category": category, "event": happened, **fields}


def sent(message: str, again: bool = False) -> Row:
    return event("ike", "sent", message=message, local="192.1.1.4", remote="192.1.1.5",
                 retransmission=again)  # fmt: skip


def received(message: str) -> Row:
    return event("ike", "received", message=message, remote="192.1.1.5")


ASKED = event("dns", "query", purpose="gateway", name="66.0.2.192.in-addr.arpa.", rdtype="TXT",
              server="192.1.1.53")  # fmt: skip
ANSWERED = event("dns", "answer", purpose="gateway", status="answered", records=1)
TRUSTED = event("connection", "trust", gateway="192.1.1.5", trust="secure")
KEYED = [
    ASKED, ANSWERED, TRUSTED, sent("MM1"), received("MM2"), sent("MM3"), received("MM4"),
    sent("MM5"), received("MM6"), sent("QM1"), received("QM2"),
    event("sa", "installed", direction="in", spi="00001001"), sent("QM3"),
    event("sa", "installed", direction="out", spi="00002001"),
    event("tunnel", "keyed", source="192.1.0.65/32", destination="192.2.0.66/32", udp=True,
          cipher="aes-gcm-16-128", spi_in="00001001", spi_out="00002001"),
]  # fmt: skip


def ladder(lines: list[Row], result: str = "keyed", reason: str = "") -> Ladder:
    timed = [(0.01 * number, line) for number, line in enumerate(lines, 1)]
    return ladder_of(timed, str(ALICE), str(BOB), result, reason)


def test_the_rungs_are_the_drafts_time_points_in_their_order() -> None:
    made = ladder(KEYED)
    assert [rung.label for rung in made.rungs] == [
        "5", "5B", "5C", "5D", "5E1", "5E2", "5E3", "5E4", "5F", "5E5", "5G1", "5G2", "5G4", "5H",
        "5G4", "5H", "6",
    ]  # fmt: skip
    assert made.addresses == {
        Party.ALICE: "192.1.0.65", Party.SG_A: "192.1.1.4", Party.DNS: "192.1.1.53",
        Party.SG_B: "192.1.1.5", Party.BOB: "192.2.0.66",
    }  # fmt: skip
    assert made.rungs[2].text == "SG-B is 192.1.1.5, signed"
    unseen = [rung for rung in made.rungs if rung.kind is Kind.UNSEEN]
    assert [rung.seconds for rung in unseen] == [None, None]
    assert made.tunnel[0] == "ESP in UDP, aes-gcm-16-128"
    assert made.summary == "192.1.0.65 to 192.2.0.66: encrypted after 150.0 ms, by 192.1.1.5"


def test_a_configured_peer_asks_nobody() -> None:
    made = ladder([line for line in KEYED if line["category"] not in ("dns", "connection")])
    assert not [rung for rung in made.rungs if rung.kind is Kind.UNSEEN]


def test_silence_is_where_it_stopped() -> None:
    failed = event("gateway", "negotiation_failed", reason="silence", detail="no answer")
    made = ladder(
        [ASKED, ANSWERED, sent("MM1"), sent("MM1", again=True), failed], "clear", "silence"
    )
    assert [rung.answered for rung in made.rungs] == [True, True, True, False, False, True]
    assert made.rungs[-1].kind is Kind.FAILED
    text = drawn(made)
    assert sum("x|" in line and "(no answer)" in line for line in text) == 2
    assert any("in clear: silence" in line for line in text)
    svg = picture(made)
    assert svg.count('class="cross"') == 2
    assert "no answer" in svg


def test_what_is_dropped_ends_at_the_gateway() -> None:
    made = ladder([], "denied", "rule 'never'")
    text = drawn(made)
    [end] = [line for line in text if "dropped: rule 'never'" in line]
    assert end.index("X") < end.index("dropped")
    assert "✕ dropped: rule &#x27;never" in picture(made) or "✕ dropped: rule 'never" in picture(
        made
    )


def test_each_line_of_the_text_has_its_time_in_one_column() -> None:
    lines = drawn(ladder(KEYED))
    times = [m.end() for line in lines if (m := re.search(r"\d+\.\d(?=  )", line))]
    assert len(times) == 15
    assert len(set(times)) == 1
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    "made",
    [
        ladder(KEYED),
        ladder([], "permit", "rule 'web'"),
        ladder([ASKED], "denied", "x" * 400),
        ladder([ASKED | {"name": "<script>&\x1b[31m" + "a" * 300}], "clear", "]]> & <b>"),
    ],
)
def test_the_picture_is_well_formed_has_words_for_ears_and_nothing_from_elsewhere(
    made: Ladder,
) -> None:
    text = picture(made)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == made.summary
    spoken = root.findtext(f"{SVG}desc") or ""
    assert all(rung.text in spoken for rung in made.rungs)
    width, height = (float(number) for number in (root.get("viewBox") or "").split()[2:])
    for each in root.iter(f"{SVG}text"):
        assert 0 <= float(each.get("x", -1)) <= width
        assert 0 <= float(each.get("y", -1)) <= height
    without_namespace = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|url\(|@import|<script|href", without_namespace)
    assert "prefers-color-scheme: dark" in text


class TestTheFile:
    def test_it_is_there_as_a_whole_and_replaces_an_older_one(self, tmp_path: Path) -> None:
        path = tmp_path / "ladder.svg"
        path.write_text("older")
        with picture_in(path) as ladders:
            assert path.read_text() == "older"
            ladders.append(ladder(KEYED))
        assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"
        assert [each.name for each in tmp_path.iterdir()] == ["ladder.svg"]

    def test_a_probe_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), picture_in(tmp_path / "ladder.svg"):
            raise KeyError
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["missing/ladder.svg", ".", "/proc/ladder.svg"])
    def test_where_there_is_no_writing_it_is_said_before_anything(
        self, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(Failure) as caught, picture_in(tmp_path / name):
            raise AssertionError("begun")
        assert caught.value.code in (FAILED, 5)
        assert str(caught.value.lines[0]).startswith("--svg ")

    def test_without_a_file_nothing_is_drawn(self) -> None:
        with picture_in(None) as ladders:
            ladders.append(ladder([]))


def test_steps_are_taken_from_the_answer_as_far_as_they_say_what_happened() -> None:
    steps = Steps(Flow(ALICE, BOB, 1))
    steps.take({"step": "(5B)", "seconds": 0.5, "line": ASKED})
    steps.take({"step": "of an older gateway", "seconds": 0.6})
    made = steps.ladder({"result": "clear", "reason": None})
    assert [rung.label for rung in made.rungs] == ["5", "5B"]
