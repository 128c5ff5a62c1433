"""What a gateway process follows while it runs: libraries' logs and its certificate."""

import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from gateway.config.sections import ListenerSettings, LogSettings, TlsSettings
from gateway.config.settings import Config
from gateway.config.values import HostPort
from gateway.journal.journal import Journal
from gateway.serve.expected import StartError, tell
from gateway.serve.log_route import route_logs
from gateway.serve.process import Certificates


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def journal(stream: io.StringIO) -> Iterator[Journal]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    journal = Journal(stream, form="text", level="debug")
    route_logs(journal, LogSettings(level="warning"))
    yield journal
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def test_what_libraries_log_is_a_line_of_the_journal(journal: Journal, stream: io.StringIO) -> None:
    logging.getLogger("asyncio").warning("slow callback")
    logging.getLogger("asyncio").info("nobody needs this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old habit", stacklevel=1)
    assert len(stream.getvalue().splitlines()) == 2
    assert "slow callback" in stream.getvalue()
    assert "old habit" in stream.getvalue()


def test_a_failure_that_is_logged_shows_its_place_but_no_value(journal: Journal, stream: io.StringIO) -> None:
    try:
        raise ValueError("the secret")
    except ValueError:
        logging.getLogger("asyncio").exception(
            "Task failed\nfuture: <Task exception=ValueError('the secret')>"
        )
    assert "ValueError" in stream.getvalue()
    assert "test_process.py" in stream.getvalue()
    assert "the secret" not in stream.getvalue()


def test_a_replaced_certificate_is_taken_up_and_a_broken_one_is_not(
    journal: Journal, stream: io.StringIO, tmp_path: Path
) -> None:
    authority, path = trustme.CA(), tmp_path / "tls.pem"
    authority.issue_cert("acme.test").private_key_and_cert_chain_pem.write_to_path(path)
    listen = (ListenerSettings(HostPort("127.0.0.1", 0), tls=True),)
    config = replace(Config(), listen=listen, tls=TlsSettings(certificate_file=path, key_file=path))
    certificates = Certificates(config, journal)
    assert certificates.context is not None
    certificates.check()
    assert stream.getvalue() == ""

    path.write_text("no certificate")
    certificates.check()
    authority.issue_cert("acme.test").private_key_and_cert_chain_pem.write_to_path(path)
    certificates.check()
    kept, taken = stream.getvalue().splitlines()
    assert "certificate_kept" in kept
    assert "certificate_reloaded" in taken


def test_a_certificate_that_others_refuse_is_told_at_the_start_after_a_reload_and_not_again(
    journal: Journal, stream: io.StringIO, tmp_path: Path
) -> None:
    authority, path = trustme.CA(), tmp_path / "tls.pem"

    def put(host: str, *, begins: int, ends: int) -> None:
        now = datetime.now(UTC)
        first, last = now + timedelta(days=begins), now + timedelta(days=ends)
        pair = authority.issue_cert(host, not_before=first, not_after=last)
        pair.private_key_and_cert_chain_pem.write_to_path(path)

    put("amtp.acme.test", begins=-9, ends=-1)
    listen = (ListenerSettings(HostPort("127.0.0.1", 0), tls=True),)
    tls = TlsSettings(certificate_file=path, key_file=path)
    config = replace(Config(), hostname="amtp.acme.test", listen=listen, tls=tls)
    certificates = Certificates(config, journal)
    certificates.check()
    put("other.test", begins=1, ends=90)
    certificates.check()
    certificates.check()
    put("amtp.acme.test", begins=-1, ends=90)
    certificates.check()
    journal.flush()

    told = [line for line in stream.getvalue().splitlines() if "certificate_doubtful" in line]
    assert [
        words in line
        for words, line in zip(("ended on", "begins on", "is for other.test"), told, strict=True)
    ]
    assert all("warning" in line and str(path) in line for line in told)
    shown = journal.metrics.render().decode()
    (days,) = [line for line in shown.splitlines() if line.startswith("amtp_certificate_days_left{")]
    assert 89 < float(days.split()[-1]) < 91


def test_a_gateway_without_tls_has_no_certificate_to_follow(journal: Journal, stream: io.StringIO) -> None:
    certificates = Certificates(Config(), journal)
    certificates.check()
    assert (certificates.context, stream.getvalue()) == (None, "")


def test_a_failure_ends_a_command_with_one_line_and_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    tell(StartError("The port is taken."))
    tell(ExceptionGroup("several", [ValueError("the secret")]))
    expected, fault = capsys.readouterr().err.splitlines()
    assert expected == "amtp: The port is taken."
    assert "ValueError" in fault
    assert "the secret" not in fault
