"""The process that has the key signs, and that is all that it does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from ike.errors import WrongSignature
from ike.signer import verifying_key
from oegw.keys import write_private
from oegw.powers.powers import DistantSigner, SignerGone
from oegw.powers.signer import DIGESTS, REFUSED
from tests.support.ike_pair import private_key

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0


@contextmanager
def a_signer(path: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes], dict[str, str]]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "oegw.powers.signer", str(theirs.fileno()), ""],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    with ours:
        ours.send(os.fsencode(path))
        yield ours, process, json.loads(ours.recv(65536))
    process.wait(PATIENCE)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("key") / "gateway.pem"
    write_private(found, private_key("signer"))
    return found


def test_it_tells_the_public_key_signs_and_ends_with_who_asks(path: Path) -> None:
    with a_signer(path) as (channel, process, told):
        public = load_der_public_key(bytes.fromhex(told["public"]))
        assert isinstance(public, rsa.RSAPublicKey)
        assert public == private_key("signer").public_key()
        signer = DistantSigner(channel)
        for length in DIGESTS:
            digest = os.urandom(length)
            assert verifying_key((public,), signer.sign(digest), digest) == public
            with pytest.raises(WrongSignature):
                verifying_key((public,), signer.sign(os.urandom(length)), digest)
        assert process.poll() is None
    assert process.returncode == 0


def test_nothing_else_gets_an_answer_of_it(path: Path) -> None:
    with a_signer(path) as (channel, _, told):
        key = private_key("signer").private_numbers()
        secrets = [n.to_bytes((n.bit_length() + 7) // 8, "big") for n in (key.d, key.p, key.q)]

        @given(st.binary(min_size=1, max_size=300))
        def whatever_comes(octets: bytes) -> None:
            channel.send(octets)
            answer = channel.recv(65536)
            if len(octets) not in DIGESTS:
                assert answer == REFUSED
            assert len(answer) in (len(REFUSED), 256)
            assert not any(secret in answer for secret in secrets)

        whatever_comes()
        assert set(told) == {"public"}
        with pytest.raises(SignerGone, match="signs nothing"):
            DistantSigner(channel).sign(b"no digest")


def test_its_process_has_no_right_and_no_file_of_the_key(path: Path) -> None:
    with a_signer(path) as (_, process, _):
        there = Path(f"/proc/{process.pid}")
        told = dict(line.split(":\t", 1) for line in (there / "status").read_text().splitlines())
        assert int(told["CapPrm"], 16) == int(told["CapBnd"], 16) == 0
        assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
        names = [os.readlink(each) for each in (there / "fd").iterdir()]  # noqa: PTH115
        assert str(path) not in names


def test_one_that_has_ended_signs_nothing(path: Path) -> None:
    with a_signer(path) as (channel, process, _):
        process.kill()
        process.wait()
        with pytest.raises(SignerGone):
            DistantSigner(channel).sign(bytes(20))


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(0o640, "mode 0640 lets others at the private key"), (None, "No such file")],
)
def test_a_file_that_is_no_good_is_named(tmp_path: Path, mode: int | None, reason: str) -> None:
    path = tmp_path / "gateway.pem"
    if mode is not None:
        write_private(path, private_key("signer"))
        path.chmod(mode)
    with a_signer(path) as (_, process, told):
        assert set(told) == {"error"}
        assert reason in told["error"]
        assert str(path) in told["error"]
    assert process.returncode == 1
