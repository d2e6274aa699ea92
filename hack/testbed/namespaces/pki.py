"""Certificates of one cluster: two authorities, the service account key, a certificate per user.

They are made anew by each `up` and end with the cluster, so a year of validity is plenty.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Identity:
    """Who a certificate is for: Kubernetes reads the user from CN and the groups from O."""

    file: str
    user: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class Authority:
    """A certificate authority that writes what it signs into one folder."""

    def __init__(self, folder: Path, file: str, name: str) -> None:
        self._folder = folder
        self._name = _subject(name, ())
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write(folder, file, self._key, certificate)

    def issue(self, who: Identity) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = _builder(_subject(who.user, who.groups), self._name, key).add_extension(
            x509.ExtendedKeyUsage(usage), critical=False
        )
        if who.hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in who.hosts])
            builder = builder.add_extension(names, critical=False)
        _write(self._folder, who.file, key, builder.sign(self._key, hashes.SHA256()))


def write_service_account_key(folder: Path) -> None:
    """The key that signs service account tokens; the API server wants RSA here."""
    _write(folder, "service-accounts", rsa.generate_private_key(65537, 2048), None)


def _subject(user: str, groups: tuple[str, ...]) -> x509.Name:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name(names)


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, file: str, key: PrivateKey, certificate: x509.Certificate | None) -> None:
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{file}.key"
    path.touch(mode=0o600)
    path.write_bytes(private)
    if certificate is not None:
        (folder / f"{file}.crt").write_bytes(certificate.public_bytes(pem))
