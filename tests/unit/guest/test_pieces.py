"""What is kept of a stream until it is taken."""

from hypothesis import given
from hypothesis import strategies as st

from ringfence.guest.pieces import CHUNK_BYTES, SMALL_BYTES, Pieces
from ringfence.guest.streams import Output

SIZES = st.one_of(
    st.integers(0, 20), st.integers(SMALL_BYTES - 2, SMALL_BYTES + 2), st.just(CHUNK_BYTES)
)


@given(st.lists(st.tuples(SIZES, st.integers(1, CHUNK_BYTES)), max_size=30))
def test_what_is_taken_is_what_was_added(steps: list[tuple[int, int]]) -> None:
    pieces = Pieces()
    added, taken = bytearray(), bytearray()
    for number, (size, wanted) in enumerate(steps):
        chunk = bytes([number]) * size
        pieces.add(memoryview(chunk))
        added += chunk
        if number % 2 and pieces:
            part = pieces.take(wanted)
            assert 1 <= len(part) <= wanted
            taken += part
        assert len(pieces) == len(added) - len(taken)
    assert bytes(taken) + bytes(pieces) == added
    while pieces:
        taken += pieces.take(CHUNK_BYTES)
    assert taken == added


def test_an_empty_frame_is_no_end_of_a_stream() -> None:
    output = Output(None, collect=False)
    output.add(0, memoryview(b""))
    assert not output.data
    output.add(0, memoryview(b"x"))
    output.add(1, memoryview(b""))
    assert output.take(10) == b"x"
    assert not output.data


def test_a_large_frame_is_copied_once() -> None:
    pieces = Pieces()
    pieces.add(memoryview(bytes(CHUNK_BYTES)))
    whole = bytes(pieces)
    assert pieces.take(CHUNK_BYTES) is whole


def test_small_frames_take_no_piece_each() -> None:
    pieces = Pieces()
    for _ in range(CHUNK_BYTES):
        pieces.add(memoryview(b"x"))
    assert len(pieces.take(CHUNK_BYTES)) == CHUNK_BYTES
