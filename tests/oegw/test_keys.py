"""Files of private keys: nobody else gets at them, and none is lost."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from oegw import keys
from oegw.keys import KeyFileAbsent, KeyFileError

PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL


@cache
@cache
def key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return keys.generate(bits)


def pem(
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
    form: serialization.PrivateFormat = PKCS8,
    passphrase: bytes | None = None,
) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return private.private_bytes(serialization.Encoding.PEM, form, encryption)


def placed(directory: Path, octets: bytes, mode: int = 0o600) -> Path:
    path = directory / "gateway.pem"
    path.write_bytes(octets)
    path.chmod(mode)
    return path


def test_generated_keys_have_the_size_asked_for() -> None:
    assert key().key_size == 2048
    assert key().public_key().public_numbers().e == 65537
    for bits in (2047, 8193, 0, -1):
        with pytest.raises(ValueError, match="bits are not within"):
            keys.generate(bits)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "gateway.pem"
    keys.write_private(path, key())
    assert keys.read_private(path).private_numbers() == key().private_numbers()
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["gateway.pem"]


@pytest.mark.parametrize("mask", [0, 0o777])
def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "gateway.pem"
    before = os.umask(mask)
    try:
        keys.write_private(path, key())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_key_is_never_overwritten_unasked(tmp_path: Path) -> None:
    path = placed(tmp_path, b"precious")
    with pytest.raises(KeyFileError, match=r"gateway.pem: exists already.*--force"):
        keys.write_private(path, key())
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]
    keys.write_private(path, key(), force=True)
    assert keys.read_private(path).key_size == 2048
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_key_is_private_even_if_the_old_file_was_open_to_all(tmp_path: Path) -> None:
    path = placed(tmp_path, b"old", 0o644)
    keys.write_private(path, key(), force=True)
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_directory_that_is_missing_too_deep_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        keys.write_private(tmp_path / "a" / "b" / "gateway.pem", key())


def test_a_path_without_a_name_is_an_error() -> None:
    with pytest.raises(KeyFileError, match=r"^/: is a directory"):
        keys.write_private(Path("/"), key())


@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL])
def test_both_pem_forms_are_read(tmp_path: Path, form: serialization.PrivateFormat) -> None:
    assert keys.read_private(placed(tmp_path, pem(key(), form))).key_size == 2048


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o601, 0o620, 0o602, 0o777])
def test_a_key_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = placed(tmp_path, pem(key()), mode)
    with pytest.raises(KeyFileError, match=f"gateway.pem: mode {mode:04o} lets others"):
        keys.read_private(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_modes_without_others_are_fine(tmp_path: Path, mode: int) -> None:
    assert keys.read_private(placed(tmp_path, pem(key()), mode)).key_size == 2048


def test_what_is_no_usable_key_is_named(tmp_path: Path) -> None:
    public = (
        key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for octets, wanted in (
        (b"", "not a private key in PEM form"),
        (b"\x00" * 100, "not a private key in PEM form"),
        (public, "not a private key in PEM form"),
        (pem(key())[:200], "not a private key in PEM form"),
        (pem(key(), passphrase=b"secret"), "is encrypted"),
        (pem(key(), TRADITIONAL, b"secret"), "is encrypted"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "is not an RSA key"),
        (b"x" * (keys.MAX_FILE + 1), "is too long"),
    ):
        path = placed(tmp_path, octets)
        with pytest.raises(KeyFileError) as caught:
            keys.read_private(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert wanted in str(caught.value)
        assert "PRIVATE KEY" not in str(caught.value)


def test_a_key_of_a_size_that_peers_refuse_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = placed(tmp_path, pem(key()))
    monkeypatch.setattr(keys, "MAX_MODULUS_BITS", 2047)
    with pytest.raises(KeyFileError, match="an RSA key of 2048 bits; peers take 2047 at most"):
        keys.read_private(path)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    path = placed(tmp_path, pem(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(KeyFileError, match="an RSA key of 1024 bits is too short: 2048 are the"):
        keys.read_private(path)


def test_a_missing_key_is_told_apart_from_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileAbsent, match=r"gateway.pem: No such file"):
        keys.read_private(tmp_path / "gateway.pem")


def test_things_that_are_no_files_do_not_stop_the_reader(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="directory"):
        keys.read_private(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KeyFileError, match="not a regular file"):
        keys.read_private(tmp_path / "pipe")
    with pytest.raises(KeyFileError, match="null"):
        keys.read_private(Path("a\x00b"))
