"""What gathers on the host where a guest does not read, or says what cannot be answered."""

from ringfence.errors import GuestError
from ringfence.guest.protocol import U64, Answer, Ask
from ringfence.guest.session import Session

from .puppets import PID, Puppet


async def test_an_offset_that_no_output_reaches_ends_the_session(
    puppet: tuple[Session, Puppet],
) -> None:
    """Whoever reads has no error of numbers: what it acknowledges would be too large to send."""
    session, guest = puppet
    far = U64.pack(2**64 - 200_000) + bytes(300_000)
    guest.answers[Ask.ATTACH] = [(Answer.STARTED, PID), (Answer.OUT, far)]
    process = await session.attach(9)
    while await process.read():
        pass
    assert isinstance(await session.lost, GuestError)
