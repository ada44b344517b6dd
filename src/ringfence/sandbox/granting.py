"""From a request to what is granted: which backend, and what policy makes of the spec."""

import os
import time
from dataclasses import replace

from ringfence.backends import registry
from ringfence.backends.base import Backend, Features, Record
from ringfence.backends.sized import with_size
from ringfence.errors import InvalidSpecError
from ringfence.policy import NO_CEILING, Ceiling, Facts, machine_ceiling, resolve
from ringfence.sandbox import binds, needs, networking
from ringfence.sandbox.steps import Steps, Where
from ringfence.spec import SandboxSpec


def choose(spec: SandboxSpec, where: Where, steps: Steps) -> tuple[SandboxSpec, Backend]:
    """The request with its backend's name, and that backend; docker when an image is asked for.
    InvalidSpecError for an image that cannot be docker's, when none was named."""
    backend = where.backend
    if backend is None:
        name = spec.backend
        if name == "auto":
            name = "docker" if spec.image is not None else "process"
            _check_name(spec.image)
        backend = registry.load(name, where.endpoint)
        steps.rest.push_async_callback(backend.aclose)
    return spec.model_copy(update={"backend": backend.name}), backend


def _check_name(image: str | None) -> None:
    if image is not None and image.startswith(("/", "./", "../", "~")):
        raise InvalidSpecError(
            f"image: {image!r} is a path, and images of docker have names: for a root file system"
            " in a directory, a tar or an OCI layout choose backend='process' (--backend process)",
            op="open",
            context={"fields": ["image", "backend"]},
        )


def grant(request: SandboxSpec, facts: Facts, features: Features, where: Where) -> SandboxSpec:
    """What is granted of a request. PolicyDeniedError, InvalidSpecError, UnsupportedError."""
    granted = with_variables(resolve(request, facts, ceiling=ceiling_of(where)), facts)
    needs.check_granted(granted, features)
    return binds.with_git(with_size(granted))


def ceiling_of(where: Where) -> Ceiling:
    """The most that may be granted there: the caller's, else this machine's."""
    return where.ceiling or machine_ceiling() or NO_CEILING


def with_owner(facts: Facts, request: SandboxSpec) -> Facts:
    """The facts with the repository's owner, where the backend did not look."""
    repository = request.repository
    if repository is None or facts.repository_uid is not None or not facts.local:
        return facts
    try:
        status = os.stat(repository.path)  # noqa: PTH116 - a spec's path is text
    except OSError:
        return facts
    return replace(facts, repository_uid=status.st_uid, repository_gid=status.st_gid)


def with_variables(granted: SandboxSpec, facts: Facts) -> SandboxSpec:
    """The spec's variables on top of the network's and the image's."""
    image = {} if facts.image is None else facts.image.env
    usable = {
        name: value
        for name, value in image.items()
        if name.isidentifier() and name.isascii() and "\0" not in value
    }
    return granted.model_copy(
        update={"env": {**usable, **networking.variables(granted.network), **granted.env}}
    )


def reserved(granted: SandboxSpec, sandbox_id: str, backend: Backend) -> Record:
    """The record of a sandbox that is about to be made: its backend's own name is not known yet."""
    now = time.time()
    return Record(
        id=sandbox_id,
        backend=backend.name,
        endpoint=getattr(backend, "endpoint", None) or "",
        native="",
        transport="",
        spec=granted,
        created=now,
        ends=None if granted.lifetime is None else now + granted.lifetime,
    )
