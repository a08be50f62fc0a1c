"""Records that appear and go away while the lab runs."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from tests.support.lab_commands import LAB, ROOT

ASKING = """
import sys
sys.path.insert(0, sys.argv[1])
from lablib import lab, publishing, scenario
from lablib.run import Run
from lablib.stage import Missed, Stage
run = Run.create()
try:
    built = lab.put_up(run, scenario.load("demo"), print, with_gateways=False)
    stage = Stage(built)
    def ask():
        found = run.call("alice", ["getent", "ahostsv4", "late.lab.example"]).stdout.split()
        print("alice finds", found[0] if found else "nothing", flush=True)
    ask()
    publishing.publish(stage, {"lines": "late.lab.example. A 192.1.1.99"})
    ask()
    publishing.withdraw(stage, {"name": "late.lab.example", "forget": True})
    ask()
    publishing.publish(stage, {"lines": "late.lab.example. 1 IN A 192.1.1.98", "forget": True})
    ask()
    for step, name in ((publishing.withdraw, "other"), (publishing.withdraw, "bob")):
        try:
            step(stage, {"name": f"{name}.lab.example"})
        except Missed as error:
            print("refused:", error)
finally:
    run.close()
"""


@pytest.mark.lab
@pytest.mark.netns
def test_records_come_and_go_and_a_resolver_keeps_its_answers_unless_it_is_told_to_forget() -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", ASKING, str(ROOT / "netns-lab")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    found = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("alice ")]
    # The second is the answer "no such name", which the resolver may keep for 30 s.
    assert found == ["nothing", "nothing", "nothing", "192.1.1.98"], done.stdout + done.stderr
    assert done.stdout.count("refused: there is no such record") == 2


def test_serial_is_read_from_an_answer_to_the_question_and_from_no_other() -> None:
    sys.path.insert(0, str(LAB.parent))
    try:
        from lablib import serials
    finally:
        sys.path.remove(str(LAB.parent))
    asked = serials.question(7, "lab.example")
    soa = b"\xc0\x0c" + struct.pack("!2HIH", 6, 1, 60, 4 + 20) + b"\xc0\x0c\xc0\x0c"
    answer = asked[:2] + b"\x84\0\0\1\0\1\0\0\0\0" + asked[12:] + soa
    answer += struct.pack("!5I", 42, 1, 2, 3, 4)
    assert serials.serial_in(answer, asked) == 42
    assert serials.serial_in(b"\0\x08" + answer[2:], asked) is None
    assert serials.serial_in(asked, asked) is None
    assert serials.serial_in(b"", asked) is None
