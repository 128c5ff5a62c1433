"""Configuration: what is read, what is refused, and that all faults are told at once."""

from dataclasses import fields
from pathlib import Path
from textwrap import dedent

import pytest

from gateway.config import file as config_file
from gateway.config.fields import variables_of
from gateway.config.sections import LimitSettings, ListenerSettings
from gateway.config.settings import RELOADABLE, Config, ConfigError, load, reloadable
from gateway.config.show import effective, example
from gateway.config.values import HostPort, Secret


def write(folder: Path, text: str) -> Path:
    file = folder / "amtp.yaml"
    file.write_text(dedent(text))
    return file


def faults_of(folder: Path, text: str, **environ: str) -> list[str]:
    """The faults, without the folder in which this test happens to run."""
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), environ)
    return [fault.replace(f"{folder}/", "") for fault in caught.value.faults]


def loaded(folder: Path, text: str, **environ: str) -> Config:
    return load(write(folder, text), environ)


GOOD = "domains: [example.com]\n"


def test_one_domain_is_enough(tmp_path: Path) -> None:
    config = loaded(tmp_path, GOOD)
    assert (config.domains, config.hostname) == (("example.com",), "example.com")
    assert [str(listener.address) for listener in config.listen] == ["127.0.0.1:8080", "127.0.0.1:8025"]
    assert not config.listen[0].serves("admin")
    assert config.listen[1].serves("admin")
    assert config.limits.body_bytes == 10_485_760


def test_development_needs_no_file_and_answers_for_localhost_in_all_roles() -> None:
    config = load(None, {"AMTP_DEVELOPMENT": "true"})
    assert config.domains == ("localhost",)
    assert [listener.roles for listener in config.listen] == [("all",)]
    assert config.listen[0].serves("agents")


def test_nothing_at_all_says_that_domains_are_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {})
    assert caught.value.faults == [
        "domains is missing; name the domains whose agents live here, such as [example.com]"
    ]


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """\
        domains: [Example.COM, bücher.example, example.com]
        data: /var/lib/amtp
        database: {url: "postgresql://u@h/d", pool_size: 12}
        listen:
          - {address: "[::1]:9000", roles: admin}
          - {address: "mx.example.com:0"}
        proxy: {trusted: [10.0.0.0/8, "fd00::/8"]}
        dns: {timeout_seconds: 0.5, nameservers: ["[::1]:5353", 127.0.0.1]}
        peers:
          Partner.example: {gateway: "https://amtp.partner.example:8443/x/", plain_http: no}
        log: {format: json}
        limits:
        """,
    )
    assert config.domains == ("example.com", "xn--bcher-kva.example")
    assert config.data == Path("/var/lib/amtp")
    assert config.database.pool_size == 12
    assert config.listen == (
        ListenerSettings(HostPort("::1", 9000), roles=("admin",)),
        ListenerSettings(HostPort("mx.example.com", 0)),
    )
    assert [str(network) for network in config.proxy.trusted] == ["10.0.0.0/8", "fd00::/8"]
    assert config.dns.timeout_seconds == 0.5
    assert config.peers["partner.example"].gateway == "https://amtp.partner.example:8443/x"
    assert config.log.format == "json"


def test_all_faults_are_told_at_once_with_line_and_key_and_remedy(tmp_path: Path) -> None:
    text = """\
        domain: [a.example]
        domains: [-x, ok.example]
        pool_size: 3
        limits:
          body_byte: 4
          batch_messages: 0
          batch_messages: 4
        listen:
          - {adress: "127.0.0.1:1"}
        log: {level: warn}
        retention: 3
        queue: {horizon_days: [1]}
        """
    assert faults_of(tmp_path, text, AMTP_LIMIT_BODY_BYTES="3", AMTP_INBOX_POISON_LAPSES="x") == [
        "environment: AMTP_LIMIT_BODY_BYTES is not a known variable"
        " (did you mean AMTP_LIMITS_BODY_BYTES?); rename or unset it",
        "AMTP_INBOX_POISON_LAPSES: inbox.poison_lapses must be a whole number (given: 'x')",
        "amtp.yaml:1: domain is not a known key (did you mean domains?); rename or remove it",
        "amtp.yaml:2: domains[0] is not a domain: write a host name, such as example.com,"
        " without a trailing dot, underscore or IP address (given: '-x')",
        "amtp.yaml:3: pool_size is not a known key (did you mean database.pool_size?); rename or remove it",
        "amtp.yaml:5: limits.body_byte is not a known key (did you mean body_bytes?); rename or remove it",
        "amtp.yaml:6: limits.batch_messages must be between 1 and 256 (given: '0')",
        "amtp.yaml:7: batch_messages is given twice (first on line 6); remove one",
        "amtp.yaml:9: listen[0].adress is not a known key (did you mean address?); rename or remove it",
        "amtp.yaml:9: listen[0].address is missing; add it",
        "amtp.yaml:10: log.level must be one of debug, info, warning, error (did you mean warning?)"
        " (given: 'warn')",
        "amtp.yaml:11: retention must be a mapping of keys to values",
        "amtp.yaml:12: queue.horizon_days must be a single value, not a list or mapping",
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("development: perhaps", "development must be true or false"),
        ("listen: [{address: 8080}]", "listen[0].address must be host:port"),
        ("listen: [{address: '[::1]'}]", "listen[0].address must be host:port"),
        ("listen: [{address: 'a:70000'}]", "has a port above 65535"),
        ("listen: 127.0.0.1:8080", "listen must be a list"),
        ("listen: [{address: 'a:1', roles: [everyone]}]", "must be one of public, agents, admin, all"),
        ("listen: [{address: 'a:1'}, {address: 'a:1'}]", "listen has a:1 twice"),
        ("listen: [{address: 'a:1', tls: true}]", "tls.certificate_file is missing"),
        ("proxy: {trusted: [10.0.0.1/8]}", "proxy.trusted[0] must be a network"),
        ("dns: {nameservers: [ns.example.com]}", "dns.nameservers[0] must be an address"),
        ("dns: {timeout_seconds: .inf}", "dns.timeout_seconds must be a number"),
        ("dns: {timeout_seconds: inf}", "dns.timeout_seconds must be a number"),
        ("queue: {attempts_max: 1.5}", "queue.attempts_max must be a whole number"),
        ("queue: {attempts_max: " + "9" * 5000 + "}", "queue.attempts_max must be a whole number"),
        ("database: {url: 'mysql://x'}", "database.url must start with postgresql://"),
        ("database: {url: '${NOT_SET}'}", "refers to ${NOT_SET}, which is not set"),
        ("database: {url_file: missing}", "missing, which is no file"),
        (
            "database: {url: 'postgresql://x', url_file: y}",
            "database.url is given twice, as url and url_file",
        ),
        ("data: [a]", "data must be a single value"),
        ('data: "a\\nb"', "contains a line break"),
        ("tls: {certificate_file: missing.pem}", "missing.pem, which is no file"),
        ("peers: [a]", "peers must be a mapping of names"),
        ("peers: {p.example: {}}", "peers.p.example.gateway is missing"),
        ("peers: {'p_q.example': {gateway: 'https://x'}}", "peers.p_q.example is not a domain"),
        ("peers: {p.example: {gateway: 'ftp://x'}}", "must be an https:// URL"),
        ("peers: {p.example: {gateway: 'https://u:geheim@x'}}", "must have no user info"),
        ("peers: {p.example: {gateway: 'http://x'}}", "use https://, or say plain_http: true"),
        ("peers: {example.com: {gateway: 'https://x'}}", "which is one of our own domains"),
        ("peers: {p.example: {gateway: 'https://x', proving_key: short}}", "is shorter than 16 characters"),
        ("peers: {p.example: {gateway: 'https://x'}, P.EXAMPLE: {gateway: 'https://y'}}", "two spellings"),
        ("inbox: {lease_seconds_default: 9999}", "is longer than inbox.lease_seconds_max"),
        ("retention: {keys_days: 6}", "is less than queue.horizon_days"),
        (
            "limits: {body_bytes: 4000000, bodies_in_flight_bytes: 20000000}",
            "share (10 %) only 2000000 bytes",
        ),
        (
            "limits: {bodies_in_flight_bytes: 268435456, owner_share_percent: 1, unsent_bytes: 2147483648}",
            "share (1 %) only 2684354 bytes",
        ),
        ("limits: {unsent_bytes: 104857600}", "share (10 %) only 10485760 bytes"),
    ],
)
def test_a_bad_value_is_named_with_its_line(tmp_path: Path, line: str, fault: str) -> None:
    faults = faults_of(tmp_path, GOOD + line)
    assert len(faults) == 1, faults
    assert faults[0].startswith(("amtp.yaml:2: ", "tls.certificate_file")), faults
    assert fault in faults[0]
    assert "geheim" not in faults[0]


def test_development_refuses_to_listen_beyond_loopback(tmp_path: Path) -> None:
    listen = "[{address: '127.0.0.1:1'}, {address: 0.0.0.0:80}, {address: mx.example:1}]"
    text = f"development: true\nlisten: {listen}"
    (fault,) = faults_of(tmp_path, text)
    assert fault.startswith("amtp.yaml:2: listen has 0.0.0.0:80, but development answers on loopback only")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_development_listens_on_any_loopback_address(address: str) -> None:
    config = load(None, {"AMTP_DEVELOPMENT": "on", "AMTP_LISTEN": f"[{{address: '{address}'}}]"})
    assert str(config.listen[0].address) == address


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        GOOD + "limits: {batch_messages: 5}\ndatabase: {url: postgresql://file}",
        AMTP_LIMITS_BATCH_MESSAGES="7",
        AMTP_DOMAINS="a.example, b.example",
        AMTP_DATABASE_URL="postgresql://u:${literal}@h/d",
        AMTP_LOG_LEVEL="",
        AMTP_PEERS="{p.example: {gateway: 'https://p'}}",
    )
    assert config.limits.batch_messages == 7
    assert config.domains == ("a.example", "b.example")
    assert config.database.url == "postgresql://u:${literal}@h/d"
    assert config.log.level == "info"
    assert list(config.peers) == ["p.example"]


def test_broken_yaml_in_a_variable_is_told_beside_other_faults(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, GOOD + "data: [x]", AMTP_LISTEN="[{")
    assert any(fault.startswith("AMTP_LISTEN:") and "is not YAML" in fault for fault in faults)
    assert any("data must be a single value" in fault for fault in faults)


def test_variables_that_configure_something_else_are_left_alone(tmp_path: Path) -> None:
    environ = {"AMTP_PG_BINDIR": "x", "AMTP_KEY": "x", "AMTP_TEST_ANYTHING": "x", "PATH": "x"}
    assert loaded(tmp_path, GOOD, **environ).domains == ("example.com",)


def test_every_setting_has_its_variable() -> None:
    names = variables_of(Config)
    assert names["AMTP_DOMAINS"] == ("domains",)
    assert names["AMTP_DATABASE_URL_FILE"] == ("database", "url_file")
    assert names["AMTP_LIMITS_BODY_BYTES"] == ("limits", "body_bytes")


def test_references_to_the_environment_are_expanded_and_can_be_escaped(tmp_path: Path) -> None:
    text = GOOD + 'database: {url: "postgresql://u:${PASSWORD}@h/$${d}", pool_size: "${POOL}"}'
    config = loaded(tmp_path, text, PASSWORD="geheim", POOL="20")
    assert config.database.url == "postgresql://u:geheim@h/${d}"
    assert config.database.pool_size == 20


def test_a_secret_is_read_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://from-file\n")
    assert loaded(tmp_path, GOOD + "database: {url_file: url}").database.url == "postgresql://from-file"


def test_a_secret_file_named_by_the_environment_replaces_the_files_secret(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://from-file")
    variable = {"AMTP_DATABASE_URL_FILE": str(tmp_path / "url")}
    config = loaded(tmp_path, GOOD + "database: {url: postgresql://yaml}", **variable)
    assert config.database.url == "postgresql://from-file"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "which is empty"),
        (b"\xff\xfe", "which is not text"),
        (b"a\nb", "line break"),
        (b"x", "must start"),
    ],
)
def test_a_secret_file_with_no_secret_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "url").write_bytes(content)
    (told,) = faults_of(tmp_path, GOOD + "database: {url_file: url}")
    assert told.startswith("amtp.yaml:2: database.url_file ")
    assert fault in told


def test_no_fault_shows_a_secret(tmp_path: Path) -> None:
    text = (
        GOOD
        + """\
database: {url: "${PASSWORD}"}
peers: {p.example: {gateway: "https://u:geheim@x", proving_key: geheim, bearer: "a\\ngeheim"}}
"""
    )
    faults = faults_of(tmp_path, text, PASSWORD="geheim")
    assert len(faults) == 4
    assert "geheim" not in "".join(faults)


def test_secrets_show_themselves_neither_in_a_repr_nor_in_what_is_printed(tmp_path: Path) -> None:
    text = GOOD + "peers: {p.example: {gateway: 'https://p', bearer: geheimgeheimgeheim}}"
    config = loaded(tmp_path, text, AMTP_DATABASE_URL="postgresql://u:geheim@db:5432/amtp")
    assert "geheim" not in repr(config)
    shown = effective(config)
    assert "geheim" not in str(shown)
    assert shown["database"]["url"] == "postgresql://…@db:5432/amtp"
    assert repr(Secret("geheim")) == "Secret(…)"


# Hostile files


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: &x [1]\nb: *x", "amtp.yaml:1: uses an anchor or alias"),
        ("a: *x", "amtp.yaml:1: uses an anchor or alias"),
        ("a: !!python/object/apply:os.system [true]", "amtp.yaml:1: uses a tag"),
        ("[" * 900_000, "is nested deeper than 16 levels"),
        ("a: " + "{a: " * 500, "is nested deeper than 16 levels"),
        ("? [a]\n: b", "has a list or mapping as a key"),
        ("a: b: c", "amtp.yaml:1: is not YAML"),
        ("a: 'b", "is not YAML"),
        ("a: \x00", "is not YAML"),
        ("domains: [a.example]\n---\nb: 1", "amtp.yaml:3: holds a second document"),
        ("- a", "must be a mapping of keys to values"),
        ("a", "must be a mapping of keys to values"),
        ("#" * 1_000_001, "is larger than 1000000 bytes"),
        ("domains: [x.example]\n<<: {a: 1}", "<< is not a known key"),
    ],
)
def test_a_hostile_or_broken_file_is_refused_in_one_line(tmp_path: Path, text: str, fault: str) -> None:
    (told,) = faults_of(tmp_path, text)
    assert fault in told
    assert len(told) < 300


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "amtp.yaml"
    with pytest.raises(ConfigError, match=r"can't be read \(No such file or directory\)"):
        load(file, {})
    file.write_bytes(b"domains: [a]\n\xff")
    with pytest.raises(ConfigError, match=r"amtp.yaml:2: is not UTF-8"):
        load(file, {})


def test_a_flood_of_unknown_keys_is_cut_short(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, GOOD + "".join(f"key{i}: 1\n" for i in range(50_000)))
    assert len(faults) == 50


def test_a_key_can_steer_no_terminal(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, GOOD + '"\\e[31m\\nred": 1')
    assert fault.isprintable()


def test_the_file_is_the_given_one_or_the_environments_or_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file.find_file(None, {}) is None
    write(tmp_path, GOOD)
    assert config_file.find_file(None, {}) == Path("amtp.yaml")
    assert config_file.find_file(None, {"AMTP_CONFIG": "/b"}) == Path("/b")
    assert config_file.find_file(Path("/c"), {"AMTP_CONFIG": "/b"}) == Path("/c")


# Reload and example


def test_a_reload_takes_up_what_it_can_and_names_what_waits(tmp_path: Path) -> None:
    old = loaded(tmp_path, GOOD)
    new = loaded(
        tmp_path,
        """\
        domains: [example.com, new.example]
        database: {pool_size: 9}
        log: {level: debug}
        limits: {body_bytes: 2048, connections: 7}
        proxy: {trusted: [10.0.0.0/8]}
        retention: {messages_days: 3}
        queue: {delay_report_hours: 2, attempts_max: 9}
        peers: {p.test: {gateway: "https://gw.p.test"}}
        """,
    )
    merged, lines = reloadable(old, new)
    assert lines == [
        "domains: changed; takes effect after a restart",
        "database.pool_size: changed; takes effect after a restart",
        "proxy.trusted: in effect now",
        "limits.body_bytes: changed; takes effect after a restart",
        "limits.connections: in effect now",
        "retention.messages_days: in effect now",
        "queue.attempts_max: changed; takes effect after a restart",
        "queue.delay_report_hours: in effect now",
        "peers.p.test: in effect now",
        "log.level: in effect now",
    ]
    assert (merged.log.level, merged.limits.connections, merged.proxy) == ("debug", 7, new.proxy)
    assert (merged.domains, merged.database.pool_size, merged.limits.body_bytes) == (old.domains, 8, 10 << 20)


def test_every_limit_takes_effect_at_once_but_the_size_that_others_are_told_in_the_dns() -> None:
    reloaded = RELOADABLE["limits"]
    assert reloaded is not None
    assert {field.name for field in fields(LimitSettings)} - reloaded == {"body_bytes"}


def test_a_reload_without_a_change_names_nothing(tmp_path: Path) -> None:
    assert reloadable(loaded(tmp_path, GOOD), loaded(tmp_path, GOOD)) == (loaded(tmp_path, GOOD), [])


EXAMPLE = Path(__file__).parents[2] / "amtp.example.yaml"


def test_the_example_is_what_the_declarations_say() -> None:
    assert EXAMPLE.read_text() == example(), "run `amtp check-config --example > amtp.example.yaml`"


def test_the_example_is_a_good_configuration_as_it_stands(tmp_path: Path) -> None:
    assert load(EXAMPLE, {}) == loaded(tmp_path, GOOD, AMTP_DATA=str(EXAMPLE.parent / "data"))


def test_the_examples_defaults_are_the_defaults(tmp_path: Path) -> None:
    lines = []
    for line in EXAMPLE.read_text().splitlines():
        name, colon, value = line.strip().removeprefix("# ").partition(": ")
        is_setting = line.startswith("  # ") and colon and name.isidentifier() and value[:1].isalnum()
        suggestion = name in ("certificate_file", "key_file", "client_ca_file", "ca_file")
        lines.append(line.replace("# ", "", 1) if is_setting and not suggestion else line)
    settings = "\n".join(lines)
    assert "\n  pool_size: 8" in settings
    assert loaded(tmp_path, settings, AMTP_DATA="data") == loaded(tmp_path, GOOD, AMTP_DATA="data")
