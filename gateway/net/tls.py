"""TLS 1.3 contexts for listeners and for outgoing requests, and certificates reloaded while running."""

import hashlib
import os
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

RENEWAL_DAYS = 14  # a certificate with fewer left should have been renewed
PEM_BYTES_MAX = 1_000_000  # a chain is a few kilobytes, a bundle of all public authorities 300


class TlsError(Exception):
    """An unusable certificate or key; the text names the file and the remedy."""


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Returns a listener's context. With `client_ca` clients may send a certificate, which then must be valid."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    _load_pair(context, certificate, key)
    if client_ca:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    ca_file: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    *,
    more: Path | None = None,
) -> ssl.SSLContext:
    """Returns a context for requests. It trusts the authorities in `ca_file` only, or else the system's and `more`."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file:
        _load_authorities(context, ca_file)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if more:
            _load_authorities(context, more)
    if certificate and key:
        _load_pair(context, certificate, key)
    return context


@dataclass(frozen=True, slots=True)
class Certificate:
    """The dates and names of a certificate."""

    begins: datetime
    ends: datetime
    names: tuple[str, ...]

    def covers(self, host: str) -> bool:
        parent = host.partition(".")[2]
        return any(name.lower() in (host, f"*.{parent}") for name in self.names)

    def doubts(self, host: str, now: datetime) -> list[str]:
        """Returns why others refuse it or soon will, each with its remedy; `host` is empty if unknown."""
        found = []
        if now >= self.ends:
            found.append(f"ended on {self.ends:%Y-%m-%d}; renew it")
        elif self.ends - now < timedelta(days=RENEWAL_DAYS):
            found.append(f"ends on {self.ends:%Y-%m-%d}; renew it")
        if now < self.begins:
            found.append(f"begins on {self.begins:%Y-%m-%d %H:%M} UTC; wait, or set this machine's clock")
        if host and not self.covers(host):
            names = ", ".join(self.names) or "no host"
            found.append(f"is for {names}, not for {host}; get one for that host, or correct `hostname`")
        return found


def shown(certificate: Path) -> Certificate:
    """Returns the file's first certificate, which is the one sent to clients."""
    leaf = _leaf(certificate, _read(certificate))
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(alternatives.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        names = ()
    return Certificate(leaf.not_valid_before_utc, leaf.not_valid_after_utc, names)


class CertificateReloader:
    """A reloader of replaced files into a live context: new handshakes use them, open connections stay."""

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
        self._context = context
        self._certificate = certificate
        self._key = key
        self._stamps = self._stamp()
        self._digest = self._read()[2]

    def check(self, now: datetime) -> datetime | None:
        """Reloads changed files; returns the end of the new certificate, or None if nothing changed.

        An unusable pair raises TlsError, once for each change, and the old one stays in use.
        """
        stamps = self._stamp()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        certificate, key, digest = self._read()
        if digest == self._digest:
            return None
        leaf = _matching(self._certificate, certificate, self._key, key)
        if leaf.not_valid_after_utc <= now:
            raise TlsError(f"{self._certificate}: ended on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it")
        # Tried on another context first: a load that fails half-way leaves the certificate without a key.
        _load(_context(ssl.PROTOCOL_TLS_SERVER), certificate, key, self._certificate)
        _load(self._context, certificate, key, self._certificate)
        self._digest = digest
        return leaf.not_valid_after_utc

    def _read(self) -> tuple[bytes, bytes, bytes]:
        certificate, key = _read(self._certificate), _read(self._key)
        return certificate, key, hashlib.sha256(certificate + key).digest()

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(self._certificate), _stamp(self._key)]


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    certificate_pem, key_pem = _read(certificate), _read(key)
    _matching(certificate, certificate_pem, key, key_pem)
    _load(context, certificate_pem, key_pem, certificate)


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes, path: Path) -> None:
    # The ssl module reads files only; one in memory holds exactly the bytes that were checked.
    with os.fdopen(os.memfd_create("certificate", os.MFD_CLOEXEC), "wb") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        except ssl.SSLError as error:
            raise TlsError(f"{path}: can't be used ({error.reason}); make a new pair") from None


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cadata=_read(path).decode("ascii", "ignore"))
    except ssl.SSLError:
        raise TlsError(f"{path}: holds no certificate authority; it must be PEM") from None


def _matching(certificate: Path, certificate_pem: bytes, key: Path, key_pem: bytes) -> x509.Certificate:
    leaf = _leaf(certificate, certificate_pem)
    try:
        public = load_pem_private_key(key_pem, None).public_key()
    except TypeError:
        raise TlsError(
            f"{key}: is encrypted; write it without a passphrase, readable to this user only"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"{key}: holds no private key; it must be PEM") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise TlsError(f"{key}: is not the key of {certificate}; name the two files that belong together")
    return leaf


def _leaf(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise TlsError(f"{path}: holds no certificate; it must be PEM, the gateway's own first") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise TlsError(
            f"{path}: can't be read ({error.strerror}); check the path and its permissions"
        ) from None
    if len(content) > PEM_BYTES_MAX:
        raise TlsError(f"{path}: is larger than {PEM_BYTES_MAX} bytes; name a PEM file")
    return content


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Returns values that change with the file; a renewal may keep size and time, but then not the inode."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
