"""An authority of one's own: certificates for a cluster that has none, by `cosco tls init`.

Its key signs what `renew` makes later; nothing else needs it, so it need not stay on a machine of
the cluster.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cosco.config import DAEMON_NAME, METADATA_NAME, parse_address
from cosco.errors import InvalidArgument
from cosco.process.files.whole_files import write_whole

CLIENT: Final = "client"
#: Who gets a certificate, and by which name in it he is known.
ROLES: Final = {
    "metadata": METADATA_NAME,
    "daemon": DAEMON_NAME,
    CLIENT: "client.cosco.internal",
}
CA: Final = "ca.pem"
CA_KEY: Final = "ca-key.pem"
#: How long the authority is good; of certificates its caller says it.
_CA_DAYS: Final = 3650
#: Clocks of a cluster differ by less.
_EARLIER: Final = dt.timedelta(hours=1)
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def make_authority(directory: Path, hosts: Sequence[str], days: int) -> list[Path]:
    """Make an authority, and a certificate with its key for each of ROLES.

    directory: is made if it is missing. hosts: names and addresses by which services are reached,
    beside the loopback's and this machine's own name. days: how long certificates are good.

    Returns: the files that were written.

    Raises: InvalidArgument if there is an authority already, a host is none, or a file cannot be
    written.
    """
    names = _names(hosts)
    ca_path = directory / CA
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ca_path.exists() or (directory / CA_KEY).exists():
            raise InvalidArgument(
                f"{directory} has an authority already: renew its certificates with --renew, or "
                "name another directory"
            )
        key = _new_key()
        ca = _ca_certificate(key)
        write_whole(directory / CA_KEY, _key_pem(key), 0o600)
        write_whole(ca_path, _pem(ca), 0o644)
        return [ca_path, directory / CA_KEY, *_issue_all(directory, ca, key, names, days)]
    except OSError as error:
        raise InvalidArgument(f"{directory} cannot be written: {error.strerror}") from None


def renew(directory: Path, hosts: Sequence[str], days: int) -> list[Path]:
    """Make new certificates and keys by the authority that a directory has.

    Services and clients that run take them up. hosts: none: those of the certificates before.
    Returns and Raises: as `make_authority`.
    """

    try:
        ca = x509.load_pem_x509_certificate((directory / CA).read_bytes())
        key = serialization.load_pem_private_key((directory / CA_KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidArgument(f"{directory} has no authority to renew by: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument(f"the authority of {directory} was not made by cosco tls init")
    names = _names(hosts or _hosts_before(directory))
    try:
        return _issue_all(directory, ca, key, names, days)
    except OSError as error:
        raise InvalidArgument(f"{directory} cannot be written: {error.strerror}") from None


def _issue_all(
    directory: Path,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    days: int,
) -> list[Path]:
    made = []
    for role, own_name in ROLES.items():
        key = _new_key()
        # A client's key is in more hands, and must not be able to stand for a service.
        serves = names if role != CLIENT else []
        certificate = _certificate(ca, ca_key, key, own_name, serves, days)
        cert_path, key_path = directory / f"{role}.pem", directory / f"{role}-key.pem"
        # The key first: who reads between the two finds that they do not fit, and looks again.
        write_whole(key_path, _key_pem(key), 0o600)
        write_whole(cert_path, _pem(certificate), 0o644)
        made += [cert_path, key_path]
    return made


def _hosts_before(directory: Path) -> list[str]:
    path = directory / "daemon.pem"
    try:
        before = x509.load_pem_x509_certificate(path.read_bytes())
        names = before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise InvalidArgument(
            f"{path} does not tell which hosts it was for: name them with --host ({error})"
        ) from None
    found = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    found += names.get_values_for_type(x509.DNSName)
    return [host for host in found if host != ROLES["daemon"]]


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Return the names of hosts, this machine's and the loopback's among them."""
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys([*_LOOPBACK, socket.gethostname(), *hosts]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            pass
        parse_address(f"{host}:1")  # refuses what is no host
        try:
            names.append(x509.DNSName(host))
        except ValueError:
            raise InvalidArgument(f"{host!r} is no name of a host: write it in ASCII") from None
    return names


def _ca_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _subject("cosco authority")
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + dt.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _certificate(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    own_name: str,
    names: list[x509.GeneralName],
    days: int,
) -> x509.Certificate:

    now = dt.datetime.now(dt.UTC)
    until = min(now + dt.timedelta(days=days), ca.not_valid_after_utc)
    serves = [ExtendedKeyUsageOID.SERVER_AUTH] if names else []
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, *serves])
    of_ca = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(own_name))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(until)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(own_name), *names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(usages, critical=False)
        .add_extension(of_ca, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
