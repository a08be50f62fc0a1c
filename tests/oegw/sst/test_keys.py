"""The file of the X25519 key: nobody else gets at it, none is lost, and one can be changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519

from oegw.sst import keys
from oegw.sst.keys import KeyFileAbsent, KeyFileError

Private = x25519.X25519PrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def pem(private: Private, passphrase: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def placed(directory: Path, octets: bytes, mode: int = 0o600) -> Path:
    path = directory / "sst.pem"
    path.write_bytes(octets)
    path.chmod(mode)
    return path


def test_what_is_made_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sst.pem"
    made = keys.generate(path)
    read = keys.read_private(path)
    assert (read.public, read.key_id) == (made.public, made.key_id)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["sst.pem"]
    assert keys.generate(tmp_path / "other.pem").public != made.public


def test_openssl_reads_the_same_key(tmp_path: Path) -> None:
    made = keys.generate(tmp_path / "sst.pem")
    program = shutil.which("openssl")
    assert program is not None, "openssl is missing: install the package openssl"
    out = subprocess.run(
        [program, "pkey", "-in", tmp_path / "sst.pem", "-pubout", "-outform", "DER"],
        check=True,
        capture_output=True,
    ).stdout
    assert out[-32:] == made.public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = placed(tmp_path, b"precious")
    with pytest.raises(KeyFileError, match=r"sst.pem: exists already; a key is never replaced"):
        keys.generate(path)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o601, 0o620, 0o602, 0o777])
def test_a_key_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = placed(tmp_path, pem(x25519.X25519PrivateKey.generate()), mode)
    with pytest.raises(KeyFileError, match=f"sst.pem: mode {mode:04o} lets others"):
        keys.read_private(path)


def test_what_is_no_usable_key_is_named(tmp_path: Path) -> None:
    good = x25519.X25519PrivateKey.generate()
    for octets, wanted in (
        (b"", "not a private key in PEM form"),
        (pem(good)[:60], "not a private key in PEM form"),
        (pem(good, b"secret"), "is encrypted"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "is not an X25519 key; oegw sst keygen"),
        (pem(rsa.generate_private_key(65537, 1024)), "is not an X25519 key"),
        (b"x" * 70000, "is too long"),
    ):
        path = placed(tmp_path, octets)
        with pytest.raises(KeyFileError) as caught:
            keys.read_private(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert wanted in str(caught.value)
        assert "PRIVATE KEY" not in str(caught.value)
    with pytest.raises(KeyFileAbsent, match=r"none.pem: No such file"):
        keys.read_private(tmp_path / "none.pem")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KeyFileError, match="not a regular file"):
        keys.read_private(tmp_path / "pipe")


def test_a_change_of_key_keeps_the_old_one_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "sst.pem"
    before = keys.generate(path)
    after, old = keys.roll(path)
    assert old == tmp_path / "sst.pem.old"
    assert keys.read_private(path).public == after.public != before.public
    assert keys.read_private(old).public == before.public
    assert old.stat().st_mode & 0o7777 == 0o600
    assert old.stat().st_nlink == path.stat().st_nlink == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_change_does_not_push_out_a_key_that_may_still_be_needed(tmp_path: Path) -> None:
    path = tmp_path / "sst.pem"
    first = keys.generate(path)
    second, old = keys.roll(path)
    with pytest.raises(KeyFileError, match=r"sst.pem.old: exists already; .*old_keys"):
        keys.roll(path)
    assert keys.read_private(path).public == second.public
    assert keys.read_private(old).public == first.public


def test_a_change_that_fails_leaves_the_key_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sst.pem"
    before = keys.generate(path)

    def full(*_: object, **__: object) -> None:
        raise KeyFileError(f"{path}: No space left on device")

    monkeypatch.setattr(keys, "write_secret", full)
    with pytest.raises(KeyFileError, match="No space left"):
        keys.roll(path)
    monkeypatch.undo()
    assert keys.read_private(path).public == before.public
    assert list(tmp_path.iterdir()) == [path]


def test_a_change_that_was_broken_off_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "sst.pem"
    before = keys.generate(path)
    path.with_name("sst.pem.old").hardlink_to(path)  # as far as it got
    after, old = keys.roll(path)
    assert keys.read_private(old).public == before.public
    assert keys.read_private(path).public == after.public


def test_without_a_key_there_is_nothing_to_change(tmp_path: Path) -> None:
    with pytest.raises(KeyFileAbsent):
        keys.roll(tmp_path / "sst.pem")
    assert not list(tmp_path.iterdir())
