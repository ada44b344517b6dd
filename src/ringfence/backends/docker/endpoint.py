"""Which Docker Engine to talk to, found as Docker's own command finds it.

In this order: an explicit URL, DOCKER_HOST, the context that DOCKER_CONTEXT names, the current
context of config.json, the default socket.
"""

import hashlib
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ringfence.errors import BackendUnavailableError, InvalidSpecError
from ringfence.policy.home import home

DEFAULT_SOCKET = "/var/run/docker.sock"
_PLAIN_PORT = 2375
_TLS_PORT = 2376


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An Engine's address. url: as records keep it; tls: None for a plain connection.

    socket: path of a unix socket, else None and host and port say where.
    source: who named it, for error messages.
    """

    url: str
    source: str
    socket: str | None = None
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None

    @property
    def base(self) -> str:
        """What URLs of requests begin with."""
        if self.socket is not None:
            return "http://docker"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def resolve(url: str | None = None, environ: Mapping[str, str] | None = None) -> Endpoint:
    """The endpoint that `url`, else the environment, else Docker's configuration names.

    Raises InvalidSpecError for a URL that cannot be used and BackendUnavailableError for a context
    or a certificate that cannot be read.
    """
    env = os.environ if environ is None else environ
    directory = Path(env.get("DOCKER_CONFIG") or home(env) / ".docker")
    if url:
        return _explicit(url, directory, env)
    if host := env.get("DOCKER_HOST"):
        return _parse(host, "DOCKER_HOST", env)
    context = env.get("DOCKER_CONTEXT") or _configured(directory).get("currentContext")
    if context and context != "default":
        return _of_context(directory, str(context), env)
    return _parse(f"unix://{DEFAULT_SOCKET}", "Docker's default", env)


def _explicit(url: str, directory: Path, env: Mapping[str, str]) -> Endpoint:
    """A URL that a context names has that context's certificates: a record keeps the URL alone."""
    tls = None
    if not url.startswith("unix:"):
        for meta in _contexts(directory):
            try:
                docker = json.loads(meta.read_bytes())["Endpoints"]["docker"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if docker.get("Host") == url:
                tls = _of_files(directory, meta.parent.name, docker)
    return _parse(url, "the endpoint given", env, tls)


def _contexts(directory: Path) -> list[Path]:
    """The files of all contexts; none where they cannot be looked for."""
    try:
        return sorted(directory.glob("contexts/meta/*/meta.json"))
    except OSError:
        return []


def _parse(
    url: str, source: str, env: Mapping[str, str], tls: ssl.SSLContext | None = None
) -> Endpoint:
    parts = urlsplit(url if "://" in url else f"tcp://{url}")
    if parts.scheme == "unix" and parts.path:
        return Endpoint(url, source, socket=parts.path)
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
        raise InvalidSpecError(
            f"{source}: {url!r} cannot be used; write unix:///path or tcp://host:port"
            + (" (for ssh, forward the socket: ssh -L)" if parts.scheme == "ssh" else ""),
            op="open",
            context={"fields": ["endpoint"]},
        )
    wants_tls = parts.scheme == "https" or bool(env.get("DOCKER_TLS_VERIFY"))
    if tls is None and wants_tls:
        tls = _certificates_of(env)
    port = parts.port or (_TLS_PORT if tls else _PLAIN_PORT)
    return Endpoint(url, source, host=parts.hostname, port=port, tls=tls)


def _certificates_of(env: Mapping[str, str]) -> ssl.SSLContext:
    directory = Path(
        env.get("DOCKER_CERT_PATH") or env.get("DOCKER_CONFIG") or home(env) / ".docker"
    )
    return _tls(directory, verify=True)


def _tls(directory: Path, *, verify: bool) -> ssl.SSLContext:
    """A TLS context from ca.pem, cert.pem and key.pem; those that are missing are not used."""
    ca, cert, key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
    try:
        context = ssl.create_default_context(cafile=str(ca) if _is_there(ca) else None)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if _is_there(cert):
            context.load_cert_chain(str(cert), str(key))
    except (OSError, ssl.SSLError) as error:
        raise _unusable(directory, error) from None
    return context


def _unusable(directory: Path, error: Exception) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"the certificates in {directory} cannot be used ({error}): put ca.pem, cert.pem and "
        "key.pem there, or set DOCKER_CERT_PATH",
        op="open",
    )


def _is_there(path: Path) -> bool:
    """OSError where that cannot be told: `Path.exists` says no then, since Python 3.14 always."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _configured(directory: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((directory / "config.json").read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BackendUnavailableError(
            f"{directory / 'config.json'} cannot be read ({error}): mend it, or set DOCKER_HOST",
            op="open",
        ) from None
    return found if isinstance(found, dict) else {}


def _of_context(directory: Path, name: str, env: Mapping[str, str]) -> Endpoint:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = directory / "contexts" / "meta" / digest / "meta.json"
    try:
        docker = json.loads(meta.read_bytes())["Endpoints"]["docker"]
        host = str(docker["Host"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendUnavailableError(
            f"the Docker context {name!r} cannot be read ({type(error).__name__}: {error}): see "
            "docker context ls, or set DOCKER_HOST",
            op="open",
        ) from None
    return _parse(host, f"the Docker context {name!r}", env, _of_files(directory, digest, docker))


def _of_files(directory: Path, digest: str, docker: Mapping[str, Any]) -> ssl.SSLContext | None:
    """A context's certificates, None when it has none. BackendUnavailableError where that cannot
    be told: without TLS anybody could be the daemon."""
    certificates = directory / "contexts" / "tls" / digest / "docker"
    verify = not docker.get("SkipTLSVerify", False)
    try:
        there = _is_there(certificates)
    except OSError as error:
        raise _unusable(certificates, error) from None
    return _tls(certificates, verify=verify) if there else None
