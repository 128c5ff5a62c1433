"""TLS: 1.3 alone, names checked, and certificates replaced without a restart."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.net.tls import Certificate, CertificateReloader, TlsError, client_context, server_context, shown

NOW = datetime.now(UTC)


class Folder:
    """An authority, and the files of a server it signed for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = trustme.CA()
        self.ca = path / "ca.pem"
        self.certificate, self.key = path / "tls.crt", path / "tls.key"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.renew()

    def renew(self, *names: str, ends: datetime | None = None, by: trustme.CA | None = None) -> None:
        pair = (by or self.authority).issue_cert(*(names or ("localhost",)), not_after=ends)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        self.key.write_bytes(pair.private_key_pem.bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@asynccontextmanager
async def served(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that says whose certificate it was shown."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peercert")
        writer.write(b"known" if peer else b"unknown")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def visit(port: int, context: ssl.SSLContext, name: str = "localhost") -> tuple[str, bytes, bytes]:
    """The protocol version, the server's certificate and its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        line = writer.get_extra_info("ssl_object")
        return line.version(), line.getpeercert(binary_form=True), await reader.read()
    finally:
        writer.close()


async def test_a_visit_speaks_tls_1_3(folder: Folder) -> None:
    async with served(server_context(folder.certificate, folder.key)) as port:
        version, _, answer = await visit(port, client_context(folder.ca))
    assert (version, answer) == ("TLSv1.3", b"unknown")


async def test_the_door_refuses_tls_1_2(folder: Folder) -> None:
    old = ssl.create_default_context(cafile=str(folder.ca))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with served(server_context(folder.certificate, folder.key)) as port:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await visit(port, old)


async def test_we_refuse_a_server_that_only_speaks_tls_1_2(folder: Folder) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_cert_chain(folder.certificate, folder.key)
    async with served(old) as port:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await visit(port, client_context(folder.ca))


async def test_we_refuse_a_certificate_for_another_name(folder: Folder) -> None:
    async with served(server_context(folder.certificate, folder.key)) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="ostname"):
            await visit(port, client_context(folder.ca), name="other.example")


async def test_we_refuse_an_expired_certificate(folder: Folder) -> None:
    folder.renew(ends=NOW - timedelta(days=1))
    async with served(server_context(folder.certificate, folder.key)) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await visit(port, client_context(folder.ca))


async def test_we_refuse_an_authority_nobody_named(folder: Folder) -> None:
    async with served(server_context(folder.certificate, folder.key)) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await visit(port, client_context())


async def test_more_authorities_are_believed_beside_the_system_s_and_a_peer_s_own_alone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = folder.path / "stranger"
    stranger.mkdir()
    other = Folder(stranger)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder.ca))  # the system's
    for site in (folder, other):
        async with served(server_context(site.certificate, site.key)) as port:
            assert (await visit(port, client_context(more=other.ca)))[2] == b"unknown"
    async with served(server_context(folder.certificate, folder.key)) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await visit(port, client_context(other.ca, more=folder.ca))


NAMES = ("amtp.acme.test", "*.umbrella.test")


@pytest.mark.parametrize(
    ("begins", "ends", "host", "doubts"),
    [
        (-1, 90, "amtp.acme.test", []),
        (-1, 90, "amtp.umbrella.test", []),
        (-1, 90, "", []),
        (-9, -1, "amtp.acme.test", ["ended on"]),
        (-9, 3, "amtp.acme.test", ["ends on"]),
        (1, 90, "amtp.acme.test", ["begins on"]),
        (-1, 90, "umbrella.test", ["is for amtp.acme.test, *.umbrella.test, not for umbrella.test"]),
        (-1, 90, "a.b.umbrella.test", ["is for"]),
        (-9, -1, "other.test", ["ended on", "is for"]),
    ],
)
def test_a_certificate_is_doubted_for_its_time_and_its_hosts(
    begins: int, ends: int, host: str, doubts: list[str]
) -> None:
    certificate = Certificate(NOW + timedelta(days=begins), NOW + timedelta(days=ends), NAMES)
    found = certificate.doubts(host, NOW)
    assert len(found) == len(doubts)
    assert all(text.startswith(doubt) and "; " in text for text, doubt in zip(found, doubts, strict=True))


async def test_a_client_certificate_is_optional_but_a_wrong_one_is_refused(
    folder: Folder,
) -> None:
    stranger = folder.path / "stranger"
    stranger.mkdir()
    other = Folder(stranger)
    context = server_context(folder.certificate, folder.key, client_ca=folder.ca)
    async with served(context) as port:
        assert (await visit(port, client_context(folder.ca)))[2] == b"unknown"
        known = client_context(folder.ca, folder.certificate, folder.key)
        assert (await visit(port, known))[2] == b"known"
        answer = b""
        with suppress(ssl.SSLError, ConnectionResetError):  # or the line just ends
            _, _, answer = await visit(port, client_context(folder.ca, other.certificate, other.key))
        assert answer == b""


async def test_a_replaced_certificate_serves_the_next_visit(folder: Folder) -> None:
    context = server_context(folder.certificate, folder.key)
    reloader = CertificateReloader(context, folder.certificate, folder.key)
    async with served(context) as port:
        before = await visit(port, client_context(folder.ca))
        folder.renew(ends=NOW + timedelta(days=90))
        ends = reloader.check(NOW)
        after = await visit(port, client_context(folder.ca))
    assert before[1] != after[1]
    assert ends == shown(folder.certificate).ends
    assert abs(ends - (NOW + timedelta(days=90))) < timedelta(minutes=1)
    assert reloader.check(NOW) is None


def test_a_touched_file_with_the_same_content_is_no_change(folder: Folder) -> None:
    context = server_context(folder.certificate, folder.key)
    reloader = CertificateReloader(context, folder.certificate, folder.key)
    assert reloader.check(NOW) is None
    folder.certificate.write_bytes(folder.certificate.read_bytes())
    assert reloader.check(NOW) is None


BREAKS = {
    "is not the key of": lambda f: f.key.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes()),
    "holds no private key": lambda f: f.key.write_text("nonsense"),
    "holds no certificate": lambda f: f.certificate.write_text("nonsense"),
    "can't be read": lambda f: f.key.unlink(),
    "ended on": lambda f: f.renew(ends=NOW - timedelta(days=1)),
    "is larger than": lambda f: f.certificate.write_bytes(b"x" * 1_000_001),
}


@pytest.mark.parametrize("fault", BREAKS)
async def test_a_broken_replacement_is_told_once_and_the_old_pair_goes_on(folder: Folder, fault: str) -> None:
    context = server_context(folder.certificate, folder.key)
    reloader = CertificateReloader(context, folder.certificate, folder.key)
    async with served(context) as port:
        before = await visit(port, client_context(folder.ca))
        BREAKS[fault](folder)
        with pytest.raises(TlsError, match=fault):
            reloader.check(NOW)
        assert reloader.check(NOW) is None
        assert await visit(port, client_context(folder.ca)) == before
        folder.renew()
        assert reloader.check(NOW) is not None
        assert (await visit(port, client_context(folder.ca)))[1] != before[1]


async def test_a_pair_replaced_file_by_file_is_taken_up_when_it_is_complete(folder: Folder) -> None:
    context = server_context(folder.certificate, folder.key)
    reloader = CertificateReloader(context, folder.certificate, folder.key)
    old_key = folder.key.read_bytes()
    folder.renew()
    new_key = folder.key.read_bytes()
    folder.key.write_bytes(old_key)
    with pytest.raises(TlsError, match="is not the key of"):
        reloader.check(NOW)
    folder.key.write_bytes(new_key)
    assert reloader.check(NOW) is not None


@pytest.mark.parametrize("fault", sorted(set(BREAKS) - {"ended on"}))
def test_a_start_with_a_broken_pair_names_the_file_and_the_remedy(folder: Folder, fault: str) -> None:
    BREAKS[fault](folder)
    with pytest.raises(TlsError, match=f"{folder.path}/tls.*: {fault}.*; "):
        server_context(folder.certificate, folder.key)


def test_an_encrypted_key_is_refused_instead_of_asking_at_the_terminal(folder: Folder) -> None:
    key = load_pem_private_key(folder.key.read_bytes(), None)
    hidden = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"geheim"))
    folder.key.write_bytes(hidden)
    with pytest.raises(TlsError, match="is encrypted; write it without a passphrase"):
        server_context(folder.certificate, folder.key)


def test_authorities_that_are_none_are_refused(folder: Folder) -> None:
    folder.ca.write_text("nonsense")
    with pytest.raises(TlsError, match="holds no certificate authority"):
        client_context(folder.ca)
