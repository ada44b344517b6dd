"""What a backend knows of image and machine before anything starts: the input of `resolve`."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image as its own configuration describes it.

    digest: its id or repository digest. user: as in the image's config, "" when unset. env: its
    variables. cwd: its working directory, "" when unset. architecture: Go's name ("amd64").
    """

    digest: str
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    architecture: str = "amd64"


@dataclass(frozen=True, slots=True)
class Facts:
    """image: None for a backend without images. memory: bytes of the machine. cpus: its cores.
    nofile: the highest hard limit of open files it can give; ulimits: likewise of others, by name,
    where there is one that is known. repository_uid, repository_gid: owner
    of the repository's directory, None without one. local: whether the daemon shares our files.
    data_root: where a daemon keeps its data, "" for none: nothing of it is shown to a sandbox.
    runtime: what a request without one is run by, where a profile depends on it, else None.
    """

    memory: int
    cpus: float
    nofile: int
    image: ImageFacts | None = None
    repository_uid: int | None = None
    repository_gid: int | None = None
    local: bool = True
    data_root: str = ""
    ulimits: Mapping[str, int] = field(default_factory=dict)
    runtime: str | None = None
