"""Archives of others are what they say, and nothing that they do not say."""

import asyncio
import io
import json
import tarfile
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest
from aiohttp import web

from ringfence.backends.docker import importing
from ringfence.backends.docker.supply import Supply
from ringfence.digest import Digest
from ringfence.errors import ImageError, SandboxError
from ringfence.images import Reference, layouts

from .fakes import VERSION, engine_that

CONFIG = b"{}"
OWN = str(Digest.from_bytes(CONFIG))
OTHER = f"sha256:{'0' * 64}"


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def manifest(*names: str) -> bytes:
    return json.dumps([{"Config": "config.json", "RepoTags": names, "Layers": []}]).encode()


async def loads(path: Path, directory: Path, known: dict[str, str], name: str | None = None) -> int:
    """Import it onto an engine that knows these images by name; how often it was told to load."""
    loaded = []

    def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/version"):
            return web.json_response(VERSION)
        what = request.path.split("/images/")[1]
        if what == "load":
            loaded.append(what)
            return web.json_response({})
        if request.method == "POST":
            return web.Response(status=201)
        found = {OWN: OWN, **known}.get(what.removesuffix("/json"))
        return web.json_response({"Id": found}) if found else web.Response(status=404)

    async with engine_that(answer, directory) as engine, Supply(engine) as supply:
        reference = None if name is None else Reference.parse_familiar(name)
        try:
            stored = await supply.import_(path, reference)
        except ImageError:
            return -len(loaded)
    assert stored.id == OWN
    return len(loaded)


@pytest.mark.parametrize("known", [{}, {"mine:1": OWN}])
async def test_an_archive_may_have_a_name(
    short: Path, tmp_path: Path, known: dict[str, str]
) -> None:
    path = archive(tmp_path / "a", ("config.json", CONFIG), ("manifest.json", manifest("mine:1")))
    assert await loads(path, short, known) == 1


async def test_an_archive_takes_no_name_from_another_image(short: Path, tmp_path: Path) -> None:
    """What is opened by that name would be the archive's, unless that is what was asked for."""
    members = ("config.json", CONFIG), ("manifest.json", manifest("mine:1", "python:3.12"))
    path = archive(tmp_path / "a", *members)
    assert await loads(path, short, {"python:3.12": OTHER}) == 0
    assert await loads(path, short, {"python:3.12": OTHER}, "python:3.12") == 1


class Daemon:
    """An engine that keeps what is loaded, and does not get to the name that is asked for."""

    def __init__(self, known: dict[str, str], names: tuple[str, ...]) -> None:
        self.by_name, self.names = {"other:1": OTHER, **known}, names
        self.ids = set(self.by_name.values())
        self.tagging = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        what = unquote(request.path.split("/images/")[1])
        if what == "load":
            self.ids.add(OWN)
            self.by_name |= dict.fromkeys(self.names, OWN)
        elif request.method == "DELETE":
            self._delete(what)
        elif request.method == "POST":
            self.tagging.set()
            await asyncio.sleep(0.2)
            return web.Response(status=500)
        else:
            what = what.removesuffix("/json")
            found = what if what in self.ids else self.by_name.get(what)
            if found is None:
                return web.Response(status=404)
            named = [name for name, one in self.by_name.items() if one == found]
            return web.json_response({"Id": found, "RepoTags": named})
        return web.json_response({})

    def _delete(self, what: str) -> None:
        image = self.by_name.pop(what, what)
        assert image in self.ids
        if image not in self.by_name.values():
            self.ids.remove(image)


@pytest.mark.parametrize("names", [(), ("mine:1",), ("mine:1", "mine:2")])
@pytest.mark.parametrize("known", [{}, {"here:1": OWN}])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_image_that_cannot_be_named_goes_again_unless_it_was_there(
    short: Path, tmp_path: Path, names: tuple[str, ...], known: dict[str, str], *, cancelled: bool
) -> None:
    path = archive(tmp_path / "a", CONFIGURED, ("manifest.json", manifest(*names)))
    daemon = Daemon(known, names)
    before = set(daemon.ids)
    async with engine_that(daemon.answer, short) as engine, Supply(engine) as supply:
        reference = Reference.parse_familiar("other:1")
        task = asyncio.create_task(supply.import_(path, reference))
        await daemon.tagging.wait()
        if cancelled:
            task.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else SandboxError):
            await task
    assert daemon.ids == before
    assert daemon.by_name["other:1"] == OTHER
    assert set(names) <= daemon.by_name.keys() if known else len(daemon.by_name) == 1


@pytest.mark.parametrize("again", ["./manifest.json", "x/../manifest.json", "manifest.json"])
async def test_an_archive_says_what_it_is_once(short: Path, tmp_path: Path, again: str) -> None:
    """An engine unpacks it all, and goes by the last one."""
    members = ("config.json", CONFIG), ("manifest.json", manifest())
    path = archive(tmp_path / "a", *members, (again, manifest("python:3.12")))
    assert await loads(path, short, {"python:3.12": OTHER}) == 0


CONFIGURED = ("config.json", CONFIG)


@pytest.mark.parametrize(
    "members",
    [
        [("manifest.json", data)]
        for data in (
            b'[{"Config": "config.json"}, {"Config": "other.json"}]',
            b"[]",
            b"5",
            b'[{"Config": 5}]',
            b'[{"Config": null}]',
            b'[{"Config": "missing.json"}]',
            b'["config.json"]',
            b"[" * 100_000,
            b'[{"Config": "config.json", "RepoTags": 5}]',
            b'[{"Config": "config.json", "repotags": ["python:3.12"]}]',
            b'[{"Config": "config.json", "RepoTag\xc5\xbf": ["python:3.12"]}]',
            b'[{"Config": "config.json", "config": "other.json"}]',
        )
    ]
    + [
        [("manifest.json", manifest()), ("x/../oci-layout", b"{}"), ("x/../index.json", b"{}")],
        [("manifest.json", manifest()), ("x/../config.json", b"[]")],
    ],
)
async def test_an_archive_that_is_refused_is_not_loaded(
    short: Path, tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    """Of two images, or of what only an engine would read so, nothing stays on the daemon."""
    path = archive(tmp_path / "a", CONFIGURED, ("other.json", b"[]"), *members)
    assert await loads(path, short, {"python:3.12": OTHER}) == 0


async def test_an_archive_of_more_members_than_docker_s_have_is_refused(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of their names are held while it is looked at."""
    members = [CONFIGURED, ("manifest.json", manifest()), *((str(n), b"") for n in range(98))]
    path = archive(tmp_path / "a", *members)
    monkeypatch.setattr(importing, "_MOST_MEMBERS", 100)
    assert await loads(path, short, {}) == 1
    monkeypatch.setattr(importing, "_MOST_MEMBERS", 99)
    with path.open("rb") as file, pytest.raises(ImageError, match="over 99 members"):
        importing._names_in(file)
    assert await loads(path, short, {}) == 0


async def test_a_layout_is_not_read_on_the_event_loop(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def find(*_: object, **__: object) -> layouts.Manifest:
        threads.append(threading.current_thread())
        raise ImageError("there is none", op="import")

    monkeypatch.setattr(layouts, "find", find)
    (tmp_path / "oci-layout").write_text("{}")
    assert await loads(tmp_path, short, {}) == 0
    assert threading.current_thread() not in threads
    assert len(threads) == 1


async def test_an_archive_s_manifest_is_a_file_of_its_own(short: Path, tmp_path: Path) -> None:
    """What a link leads to may be another file once all is unpacked."""
    path = archive(tmp_path / "a", CONFIGURED, ("real", manifest()))
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("manifest.json")
        link.type, link.linkname = tarfile.SYMTYPE, "real"
        file.addfile(link)
    assert await loads(path, short, {}) == 0
