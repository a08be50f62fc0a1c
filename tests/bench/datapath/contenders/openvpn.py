"""OpenVPN, one UDP tunnel between two ends that know each other's certificate authority.

Its kernel module is left out (``--disable-dco``): this is about user space.
"""

from __future__ import annotations

import datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.bench.datapath.contender import Contender, Standing
from tests.bench.datapath.row import NETWORK, OTHER, OUTSIDE, SIDES
from tests.interop.processes import call

_TUNNEL = {"a": "10.9.0.1", "b": "10.9.0.2"}
_ROLE = {"a": "--tls-server", "b": "--tls-client"}
_DAY = datetime.timedelta(days=1)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )


def write_certificates(folder: Path) -> None:
    """``ca.pem``, and for each side ``a.pem`` and ``a.key``."""
    authority = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(
        _certificate("ca", authority, "ca", authority).public_bytes(pem)
    )
    for side in SIDES:
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{side}.pem").write_bytes(
            _certificate(f"sg{side}", key, "ca", authority).public_bytes(pem)
        )
        path = folder / f"{side}.key"
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )


def _begin(cipher: str, standing: Standing) -> None:
    write_certificates(standing.folder)
    knows_dco = "--disable-dco" in call(None, "openvpn", "--help", check=False).stdout
    for side in SIDES:
        other = OTHER[side]
        network = NETWORK[other].removesuffix("/16")
        words = (
            f"openvpn --dev tun0 --dev-type tun --proto udp --port 1194 "
            f"--local {OUTSIDE[side]} --remote {OUTSIDE[other]} "
            f"{_ROLE[side]} --dh none --ca ca.pem --cert {side}.pem --key {side}.key "
            f"--ifconfig {_TUNNEL[side]} {_TUNNEL[other]} --route {network} 255.255.0.0 "
            f"--data-ciphers {cipher} --cipher {cipher} --auth-nocache --verb 3"
        )
        standing.start(side, [*words.split(), *(["--disable-dco"] if knows_dco else [])])


OPENVPN = tuple(
    Contender(
        f"openvpn-{bits}", f"OpenVPN, AES-{bits}-GCM", partial(_begin, f"AES-{bits}-GCM"),
        ("openvpn",), ("openvpn", "--version"),
    )
    for bits in (256, 128)
)  # fmt: skip
