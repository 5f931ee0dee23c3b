"""An authority for tests, and the certificates and the CRL that it issues."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY = timedelta(days=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def write_key(path: Path, key: Key, passphrase: bytes = b"") -> None:
    """Write a private key."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, form, encryption))


class Authority:
    """Issues certificates into a folder: NAME.pem with its key in NAME.key, and its own ca.pem."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._revoked: list[x509.RevokedCertificate] = []
        now = datetime.now(UTC)
        own = (
            self._builder(self._name, self._key, now - DAY, now + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, name: x509.Name, key: Key, start: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )

    def issue(
        self,
        name: str,
        *,
        usage: Sequence[x509.ObjectIdentifier] = (CLIENT,),
        starts: timedelta = -DAY,
        ends: timedelta = 365 * DAY,
        dns: Sequence[str] = (),
        key: Key | None = None,
    ) -> x509.Certificate:
        """Issue a certificate, from and to so long after now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = self._builder(_name(name), key, now + starts, now + ends).add_extension(
            x509.ExtendedKeyUsage(usage), critical=False
        )
        if dns:
            names = [x509.DNSName(one) for one in dns]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issued = builder.sign(self._key, hashes.SHA256())
        (self.folder / f"{name}.pem").write_bytes(issued.public_bytes(serialization.Encoding.PEM))
        write_key(self.folder / f"{name}.key", key)
        return issued

    def revoke(self, *certificates: x509.Certificate, ends: timedelta = 7 * DAY) -> None:
        """Write crl.pem with these certificates and those before."""
        now = datetime.now(UTC)
        self._revoked += [
            x509.RevokedCertificateBuilder()
            .serial_number(one.serial_number)
            .revocation_date(now - DAY)
            .build()
            for one in certificates
        ]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - 2 * DAY)
            .next_update(now + ends)
        )
        for one in self._revoked:
            builder = builder.add_revoked_certificate(one)
        signed = builder.sign(self._key, hashes.SHA256())
        path = self.folder / "crl.pem"
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
