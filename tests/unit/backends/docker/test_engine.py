"""Requests to the Engine: the version, quoting, and what its failures become."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from ringfence.backends.docker import images
from ringfence.backends.docker.endpoint import resolve
from ringfence.backends.docker.engine import Engine, _pieces
from ringfence.backends.docker.inspection import inspect
from ringfence.backends.docker.machine import describe
from ringfence.errors import (
    AlreadyExistsError,
    BackendUnavailableError,
    DeadlineExceededError,
    ImageNotFoundError,
    InvalidSpecError,
    NotFoundError,
    SandboxError,
    StateError,
    UnsupportedError,
)

from .fakes import VERSION, engine_that


def echo(request: web.Request) -> web.StreamResponse:
    return web.json_response({"path": request.raw_path, "method": request.method})


async def test_the_version_spoken_is_the_newest_that_both_know(short: Path) -> None:
    async with engine_that(echo, short) as engine:
        assert (await engine.get("info", "info"))["path"] == "/v1.41/info"


async def test_a_ping_tells_the_version_without_programs_being_run(short: Path) -> None:
    known = {"ApiVersion": "1.44", "MinAPIVersion": "1.50"}  # as /version it would say 1.50
    async with engine_that(echo, short, known) as engine:
        assert (await engine.get("info", "info"))["path"] == "/v1.44/info"


async def test_an_engine_of_the_future_is_spoken_to_in_a_version_it_still_knows(
    short: Path,
) -> None:
    future = {**VERSION, "ApiVersion": "1.70", "MinAPIVersion": "1.60"}
    async with engine_that(echo, short, future) as engine:
        assert (await engine.get("info", "info"))["path"] == "/v1.60/info"


async def test_an_engine_that_is_too_old_is_named_with_the_remedy(short: Path) -> None:
    old = {"Version": "19.03.1", "ApiVersion": "1.40"}
    async with engine_that(echo, short, old) as engine:
        with pytest.raises(BackendUnavailableError, match=r"19\.03\.1.*upgrade"):
            await engine.get("info", "info")


async def test_a_podman_is_refused_with_what_it_lacks(short: Path) -> None:
    """Before anything is asked of it that it would refuse in words of its own."""
    podman = {**VERSION, "ApiVersion": "1.44", "Libpod": "5.8.6"}
    async with engine_that(echo, short, podman) as engine:
        with pytest.raises(BackendUnavailableError, match=r"Podman 5\.8\.6.*seccomp.*process"):
            await engine.get("info", "info")


async def test_a_podman_whose_ping_tells_nothing_is_refused_by_its_version(short: Path) -> None:
    """A proxy before it may not let pings through: doctor called it an Engine that is well."""
    podman = {**VERSION, "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}
    async with engine_that(echo, short, podman, ping=403) as engine:
        with pytest.raises(BackendUnavailableError, match=r"Podman 4\.3\.1.*seccomp.*process"):
            await engine.get("info", "info")


@pytest.mark.parametrize(
    "parts", [None, [], [{"Name": "Engine", "Version": "20.10.24"}, {"Name": "containerd"}]]
)
async def test_an_engine_whose_ping_tells_nothing_is_spoken_to(short: Path, parts: object) -> None:
    async with engine_that(echo, short, {**VERSION, "Components": parts}, ping=403) as engine:
        assert (await engine.get("info", "info"))["path"] == "/v1.41/info"


@pytest.mark.parametrize("answer", [[], {}, {"ApiVersion": "x"}, {"ApiVersion": None}])
async def test_what_is_no_engine_is_said_to_be_none(short: Path, answer: object) -> None:
    async with engine_that(echo, short, answer) as engine:
        with pytest.raises(BackendUnavailableError, match="no Docker Engine"):
            await engine.get("info", "info")


async def test_names_are_quoted_into_urls(short: Path) -> None:
    async with engine_that(echo, short) as engine:
        answer = await engine.get("inspect", "containers", "a/../b?c", "json", all=True)
        assert answer["path"] == "/v1.41/containers/a%2F..%2Fb%3Fc/json?all=1"


@pytest.mark.parametrize(
    ("op", "status", "kind"),
    [
        ("inspect", 404, NotFoundError),
        ("image", 404, ImageNotFoundError),
        ("create", 404, ImageNotFoundError),
        ("create", 409, AlreadyExistsError),
        ("create", 400, InvalidSpecError),
        ("pause", 409, StateError),
        ("start", 500, UnsupportedError),
        ("list", 500, BackendUnavailableError),
        ("list", 599, BackendUnavailableError),
        ("list", 408, BackendUnavailableError),
        ("pull", 429, BackendUnavailableError),
        ("list", 418, InvalidSpecError),
    ],
)
async def test_a_status_becomes_its_class_with_the_engine_s_words(
    short: Path, op: str, status: int, kind: type[SandboxError]
) -> None:
    def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "the reason"}, status=status)

    async with engine_that(refuse, short) as engine:
        with pytest.raises(kind, match="the reason") as caught:
            await engine.get(op, "x")
    assert type(caught.value) is kind
    assert caught.value.context["status"] == status


async def test_a_socket_that_is_not_there_tells_how_to_get_docker(tmp_path: Path) -> None:
    engine = Engine(resolve(f"unix://{tmp_path}/none.sock"))
    with pytest.raises(BackendUnavailableError, match="systemctl start docker") as caught:
        await engine.get("info", "info")
    assert caught.value.retryable
    await engine.close()


async def test_an_engine_that_hangs_up_is_unavailable(short: Path) -> None:
    def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with engine_that(hang_up, short) as engine:
        with pytest.raises(BackendUnavailableError):
            await engine.get("info", "info")


@pytest.mark.parametrize("text", ['{"Id": "abc', "[1, ", "<html>a proxy's</html>", ""])
async def test_an_answer_that_is_no_json_is_the_engine_s_fault(short: Path, text: str) -> None:
    """A proxy's page, say, or one that was cut short: what it means can not be told."""

    def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    async with engine_that(answer, short) as engine:
        with pytest.raises(BackendUnavailableError, match=r"inspect: .* no JSON") as caught:
            await engine.get("inspect", "containers", "a", "json")
        assert caught.value.op == "inspect"
        if text.startswith(("{", "[")):
            with pytest.raises(BackendUnavailableError, match=r"create: .* no JSON"):
                await engine.post("create", "containers", "create", body={})


@pytest.mark.parametrize("answer", [{"error": "log in"}, ["log in"], None, "log in"])
async def test_json_that_describes_nothing_is_no_answer(short: Path, answer: object) -> None:
    """A gateway's, say."""
    async with engine_that(lambda request: web.json_response(answer), short) as engine:
        with pytest.raises(BackendUnavailableError, match=r"inspect: .* no JSON of an Engine's"):
            await inspect(engine, "abc")
        with pytest.raises(BackendUnavailableError, match=r"image: .* no JSON of an Engine's"):
            await images.look_up(engine, "busybox")
        with pytest.raises(BackendUnavailableError, match=r"info: .* no JSON of an Engine's"):
            await describe(engine)


@pytest.mark.parametrize("begin", ["<html>", "\n\n<!DOCTYPE html>", "\ufeff<html>", "Please "])
async def test_a_page_in_place_of_an_empty_answer_is_no_success(short: Path, begin: str) -> None:
    """A proxy's, of a login say, however it begins: the container was not started."""
    page = web.Response(text=f"{begin}log in", content_type="text/html")
    async with engine_that(lambda request: page, short) as engine:
        with pytest.raises(
            BackendUnavailableError, match=r"start: .*no JSON of an Engine's.*log in"
        ):
            await engine.post("start", "containers", "abc", "start")


@pytest.mark.parametrize("status", [401, 403, 407])
async def test_a_refusal_of_the_user_says_who_refuses(short: Path, status: int) -> None:
    def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "denied by plugin opa"}, status=status)

    async with engine_that(refuse, short) as engine:
        with pytest.raises(BackendUnavailableError, match=r"plugin opa.*or a proxy before it"):
            await engine.get("info", "info")
        with pytest.raises(BackendUnavailableError, match=r"plugin opa$"):
            await engine.get("pull", "distribution", "a", "json")  # a registry's, as it may be


@asynccontextmanager
async def answering(
    head: str, text: str, directory: Path
) -> AsyncIterator[tuple[Engine, list[str]]]:
    """What gives one answer to everything, as no Engine does; the paths that were asked for."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        lines = [f"HTTP/1.1 {head}", f"Content-Length: {len(text)}", "Connection: close", "", text]
        writer.write("\r\n".join(lines).encode())
        writer.close()

    async with await asyncio.start_unix_server(serve, directory / "e.sock"):
        engine = Engine(resolve(f"unix://{directory}/e.sock"))
        yield engine, seen
        await engine.close()


async def test_a_redirection_is_not_followed_and_no_engine(short: Path) -> None:
    away = "302 Found\r\nLocation: http://elsewhere.example/login"
    async with answering(away, "", short) as (engine, seen):
        with pytest.raises(BackendUnavailableError, match="status 302"):
            await engine.get("info", "info")
    assert seen == ["/_ping", "/version"]


async def test_an_engine_that_wants_tls_says_how_to_have_it(short: Path) -> None:
    words = "Client sent an HTTP request to an HTTPS server."
    async with answering("400 Bad Request", words, short) as (engine, _):
        with pytest.raises(BackendUnavailableError, match=r"HTTPS server.*DOCKER_TLS_VERIFY=1"):
            await engine.get("info", "info")


async def test_an_answer_that_does_not_come_is_a_deadline(short: Path) -> None:
    async with engine_that(echo, short) as engine:
        await engine.get("info", "info")
        with pytest.raises(DeadlineExceededError):
            await engine.request("info", "GET", ("info",), {}, seconds=0)


@pytest.mark.parametrize("name", ["a b", "../containers/x", "a//b", "x?y", "", "-x", "a\nb"])
async def test_what_is_no_reference_never_reaches_the_engine(short: Path, name: str) -> None:
    async with engine_that(echo, short) as engine:
        with pytest.raises(InvalidSpecError, match="reference"):
            await images.look_up(engine, name)


async def test_an_image_is_needed(short: Path) -> None:
    async with engine_that(echo, short) as engine:
        with pytest.raises(InvalidSpecError, match="needs one"):
            await images.look_up(engine, None)


async def test_a_body_that_is_closed_when_the_answer_came_first_ends_without_an_error() -> None:
    body = io.BytesIO(b"x" * 1_000_000)
    pieces = _pieces(body)
    first = await anext(pieces)
    body.close()
    assert [piece async for piece in pieces] == []
    assert (
        b"".join([first, *[piece async for piece in _pieces(io.BytesIO(b"rest"))]])[-4:] == b"rest"
    )
