"""What strangers get out of our gateway: ike-scan's questions, and floods of anything."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.interop.bed import Bed
from tests.interop.cells import Cell, Role, usual
from tests.interop.ours import ROOT
from tests.interop.processes import FACTOR, Process, call
from tests.interop.site import NEAR_OUTSIDE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.netns,
    pytest.mark.parametrize(("cell", "role"), [pytest.param(usual(), Role.OURS, id="usual")]),
]

# (encryption, length, hash, authentication, group) as IANA's numbers; the first is what the
# gateway of the usual cell accepts.
AES, TRIPLE_DES, MD5, SHA2, PRE_SHARED, RSA = 7, 5, 1, 4, 1, 3
SUPPORTED = f"(1={AES},14=256,2={SHA2},3={RSA},4=14)"
UNSUPPORTED = {
    "a pre-shared key": f"(1={AES},14=256,2={SHA2},3={PRE_SHARED},4=14)",
    "another key length": f"(1={AES},14=128,2={SHA2},3={RSA},4=14)",
    "another group": f"(1={AES},14=256,2={SHA2},3={RSA},4=2)",
    "another hash": f"(1={AES},14=256,2={MD5},3={RSA},4=14)",
    "3DES, which is not configured": f"(1={TRIPLE_DES},2={MD5},3={RSA},4=2)",
    "no authentication method": f"(1={AES},14=256,2={SHA2},4=14)",
}
FLOOD_SECONDS = 60
_COUNTING = """
table inet counting {
    counter came { }
    counter went { }
    chain input {
        type filter hook input priority -500
        iifname outside counter name came
    }
    chain output {
        type filter hook output priority 500
        oifname outside counter name went
    }
}
"""


def scan(bed: Bed, *arguments: str, seconds: float = 60.0) -> str:
    """What ike-scan prints, asking our gateway from the middle."""
    command = ["ike-scan", "--sport=0", "--retry=1", *arguments, NEAR_OUTSIDE]
    return call(bed.site.middle, *command, seconds=seconds).stdout


def octets(bed: Bed) -> dict[str, int]:
    """IP octets that came to our gateway and that it sent, on the outside interface."""
    command = ["nft", "-j", "list", "counters", "table", "inet", "counting"]
    listed = json.loads(call(bed.site.near.gateway, *command).stdout)
    return {
        entry["counter"]["name"]: entry["counter"]["bytes"]
        for entry in listed["nftables"]
        if "counter" in entry
    }


@pytest.mark.timeout(200 * FACTOR)
def test_answers(bed: Bed, cell: Cell, role: Role) -> None:
    """The acceptable proposal gets an SA, others a refusal at most, aggressive mode nothing."""
    bed.begin(cell, role)
    answer = scan(bed, f"--trans={SUPPORTED}")
    assert "Main Mode Handshake returned" in answer
    assert "Enc=AES" in answer
    assert "KeyLength=256" in answer
    assert "Group=14:modp2048" in answer
    assert "Auth=RSA_Sig" in answer
    for why, transform in UNSUPPORTED.items():
        answer = scan(bed, f"--trans={transform}")
        assert "Handshake returned" not in answer, why
        refused = "NO-PROPOSAL-CHOSEN" in answer
        assert refused or "0 returned handshake; 0 returned notify" in answer, (why, answer)
    # Among others the acceptable one is found, and it alone is the answer.
    answer = scan(bed, *(f"--trans={t}" for t in [*UNSUPPORTED.values(), SUPPORTED]))
    assert answer.count("Main Mode Handshake returned") == 1
    for mode in (["--aggressive", "--id=x", "--dhgroup=14"], ["--ikev2"]):
        answer = scan(bed, f"--trans={SUPPORTED}", *mode)
        assert "Handshake returned" not in answer, (mode, answer)


@pytest.mark.timeout(200 * FACTOR)
def test_backoff(bed: Bed, cell: Cell, role: Role) -> None:
    """Message 2 is sent once for each message 1: a forged sender's victim gets no second one."""
    bed.begin(cell, role)
    answer = scan(bed, f"--trans={SUPPORTED}", "--showbackoff=8")
    rows = re.findall(rf"(?m)^{re.escape(NEAR_OUTSIDE)}\t(\d+)\t", answer)
    assert rows == ["1"], answer


@pytest.mark.timeout(300 * FACTOR)
def test_no_amplification(bed: Bed, cell: Cell, role: Role) -> None:
    """A minute of scans and forgeries: fewer octets go out than came in, and it still works."""
    bed.begin(cell, role)
    near = bed.site.near.gateway
    call(near, "nft", "-f", "-", text=_COUNTING)
    try:
        flood = Process.start(
            "flood",
            bed.site.middle,
            [sys.executable, "-m", "tests.interop.flood", NEAR_OUTSIDE, str(FLOOD_SECONDS), "7"],
            bed.directory / "flood.log",
            {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        while flood.running:
            scan(bed, f"--trans={SUPPORTED}")
        flood.require_success()
        counted = octets(bed)
        print(f"octets came: {counted['came']}, went: {counted['went']}; datagrams {flood.text()}")
        assert 0 < counted["went"] <= counted["came"]
        assert bed.near.process is not None
        bed.near.process.require()
    finally:
        call(near, "nft", "delete", "table", "inet", "counting")
    bed.bring_up()
    bed.check_negotiated()
    printed = Path(bed.near.directory / "oegw.log").read_text()
    assert "Traceback" not in printed
