"""The daemon is found as Docker's own command finds it."""

import hashlib
import json
import ssl
from pathlib import Path

import pytest

from ringfence.backends.docker.endpoint import resolve
from ringfence.errors import BackendUnavailableError, InvalidSpecError


def configure(home: Path, *, current: str | None = None, **contexts: str) -> dict[str, str]:
    directory = home / ".docker"
    directory.mkdir()
    if current is not None:
        (directory / "config.json").write_text(json.dumps({"currentContext": current}))
    for name, host in contexts.items():
        meta = directory / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
        meta.mkdir(parents=True)
        (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": host}}}))
    return {"HOME": str(home)}


def test_without_any_configuration_it_is_the_default_socket(tmp_path: Path) -> None:
    assert resolve(None, {"HOME": str(tmp_path)}).socket == "/var/run/docker.sock"


def test_an_explicit_url_wins_over_everything(tmp_path: Path) -> None:
    env = configure(tmp_path, current="remote", remote="tcp://far.example:1")
    found = resolve("unix:///a.sock", {**env, "DOCKER_HOST": "unix:///b.sock"})
    assert found.socket == "/a.sock"


def test_docker_host_wins_over_the_context(tmp_path: Path) -> None:
    env = configure(tmp_path, current="remote", remote="tcp://far.example:1")
    found = resolve(None, {**env, "DOCKER_HOST": "unix:///b.sock"})
    assert (found.socket, found.source) == ("/b.sock", "DOCKER_HOST")


def test_the_current_context_is_followed(tmp_path: Path) -> None:
    env = configure(tmp_path, current="remote", remote="tcp://far.example:2000")
    found = resolve(None, env)
    assert (found.host, found.port, found.base) == (
        "far.example",
        2000,
        "http://far.example:2000",
    )


def test_docker_context_names_another_than_the_current_one(tmp_path: Path) -> None:
    env = configure(tmp_path, current="a", a="unix:///a", b="unix:///b")
    assert resolve(None, {**env, "DOCKER_CONTEXT": "b"}).socket == "/b"


def test_the_context_called_default_is_the_default_socket(tmp_path: Path) -> None:
    assert resolve(None, configure(tmp_path, current="default")).source == "Docker's default"


def test_a_context_that_is_missing_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="'gone'"):
        resolve(None, configure(tmp_path, current="gone"))


def test_a_broken_configuration_is_an_error(tmp_path: Path) -> None:
    env = configure(tmp_path)
    (tmp_path / ".docker" / "config.json").write_text("{")
    with pytest.raises(BackendUnavailableError, match=r"config\.json"):
        resolve(None, env)


def test_tcp_is_plain_and_has_docker_s_port() -> None:
    found = resolve("tcp://10.1.2.3", {})
    assert (found.port, found.tls, found.base) == (2375, None, "http://10.1.2.3:2375")


def test_tls_verify_asks_for_tls_and_a_verified_host(tmp_path: Path) -> None:
    env = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    found = resolve("tcp://10.1.2.3", env)
    assert found.port == 2376
    assert found.tls is not None
    assert found.tls.verify_mode is ssl.CERT_REQUIRED
    assert found.tls.check_hostname


def test_an_unreadable_certificate_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    env = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(BackendUnavailableError, match="certificates"):
        resolve("tcp://10.1.2.3", env)


def test_where_certificates_cannot_be_looked_at_nothing_goes_without_them(tmp_path: Path) -> None:
    """As for a user who may not; Python 3.14 takes such a directory for one that is not there."""
    env = configure(tmp_path, current="remote", remote="tcp://far.example:2376")
    place = tmp_path / ".docker/contexts/tls" / hashlib.sha256(b"remote").hexdigest()
    place.parent.mkdir(parents=True)
    place.symlink_to(place)
    with pytest.raises(BackendUnavailableError, match="certificates"):
        resolve(None, env)


@pytest.mark.parametrize("url", ["ssh://me@host", "npipe:////./pipe", "unix://", "tcp://"])
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(InvalidSpecError, match="cannot be used"):
        resolve(url, {})


def test_an_address_of_ipv6_keeps_its_brackets() -> None:
    assert resolve("tcp://[::1]:2375", {}).base == "http://[::1]:2375"


def test_a_url_that_a_context_names_has_that_context_s_certificates(tmp_path: Path) -> None:
    env = configure(tmp_path, remote="tcp://far.example:2376")
    digest = hashlib.sha256(b"remote").hexdigest()
    (tmp_path / ".docker" / "contexts" / "tls" / digest / "docker").mkdir(parents=True)
    assert resolve("tcp://far.example:2376", env).tls is not None
    assert resolve("tcp://near.example:2376", env).tls is None


def test_a_configuration_that_may_not_be_looked_at_has_no_certificates_for_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", refused)
    assert resolve("tcp://near.example", {"HOME": str(tmp_path)}).tls is None
