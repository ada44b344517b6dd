"""Commands beyond what the guest has room for wait for their turn."""

import asyncio
import errno

from ringfence.guest.execs import Exec
from ringfence.guest.places import Places
from ringfence.guest.protocol import U32, Answer, Ask, ExecFlag
from ringfence.guest.request import Exit, NotStarted
from ringfence.guest.session import Session

from .commands import command
from .conftest import real_place
from .puppets import Puppet, exit_payload

FILES = 96
FEW = 10
HELD_OPEN = ExecFlag.SEARCH_PATH | ExecFlag.STDIN_OPEN


async def test_the_first_that_waits_is_the_next() -> None:
    places, order = Places(1), []

    async def one(number: int) -> None:
        await places.take()
        order.append(number)
        await asyncio.sleep(0)
        places.leave()

    await asyncio.gather(*(one(number) for number in range(5)))
    assert order == list(range(5))


async def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    places = Places(1)
    await places.take()
    waiting = [asyncio.create_task(places.take()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    places.leave()
    waiting[1].cancel()  # its turn had come
    await asyncio.wait(waiting)
    assert [task.cancelled() for task in waiting] == [True, True, False]


async def test_it_narrows_down_and_never_widens() -> None:
    places = Places(9)
    await places.take()
    await places.take()
    places.narrow(2)
    places.narrow(5)
    third = asyncio.create_task(places.take())
    await asyncio.sleep(0)
    assert (third.done(), places.taken) == (False, 2)
    places.leave()
    await third
    places.narrow(1)
    fourth = asyncio.create_task(places.take())
    places.leave()
    await asyncio.sleep(0)
    assert (fourth.done(), places.taken) == (False, 1)
    places.leave()
    await fourth
    assert places.taken == 1


async def begun(guest: Puppet, number: int) -> list[int]:
    """The ids of the first so many commands, once they are there."""
    async with asyncio.timeout(20):
        while len(ids := [seen for op, seen, _ in guest.frames if op == Ask.EXEC]) < number:
            await asyncio.sleep(0.01)
    return ids


async def test_others_that_end_before_a_refusal_is_heard_take_no_places_away(
    puppet: tuple[Session, Puppet],
) -> None:
    """The guest had room for two beside each other, and all its answers come at once."""
    session, guest = puppet
    runs = [asyncio.create_task(session.run(command("true"))) for _ in range(3)]
    ids = await begun(guest, 3)
    refusal = U32.pack(errno.EMFILE) + b"\1" + U32.pack(0)
    sent: list[bytes] = []
    guest.send_bytes, real = sent.append, guest.send_bytes  # type: ignore[method-assign]
    guest.send(Answer.FAIL, ids[2], refusal)
    for number in ids[:2]:
        guest.send(Answer.STARTED, number, U32.pack(2))
        guest.send(Answer.EXIT, number, exit_payload())
    guest.send_bytes = real  # type: ignore[method-assign]
    real(b"".join(sent))
    await begun(guest, 4)
    late = asyncio.create_task(session.run(command("true")))
    for number in (await begun(guest, 5))[3:]:
        guest.send(Answer.EXIT, number, exit_payload())
    endings = await asyncio.gather(*runs, late)
    assert {type(ending) for ending in endings} == {Exit}


async def test_commands_wait_where_the_guest_may_open_few_files() -> None:
    async with real_place("prlimit", f"--nofile={FILES}:{FILES}") as place:
        runs = [place.session.run(command("sleep", "0.01")) for _ in range(2 * FILES)]
        endings = await asyncio.gather(*runs)
        assert {type(ending) for ending in endings} == {Exit}
        spawned = await asyncio.gather(
            *(place.session.spawn(command("cat", flags=HELD_OPEN)) for _ in range(FEW))
        )
        late = asyncio.create_task(place.session.run(command("true")))
        for process in spawned:
            assert isinstance(process, Exec)
            process.write_eof()
        assert isinstance(await late, Exit)


async def test_one_that_alone_is_too_many_is_refused() -> None:
    async with real_place("prlimit", "--nofile=24:24") as place:
        refused = await place.session.run(command("true"))
        assert isinstance(refused, NotStarted)
        assert refused.errno == errno.EMFILE
