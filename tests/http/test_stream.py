"""What a stream writes at once."""

from gateway.http.stream import PIECE_BYTES, together


def test_small_items_leave_together_and_nothing_is_lost() -> None:
    items = [bytes([65 + number]) * 20_000 for number in range(10)]
    pieces = list(together(items))
    assert b"".join(pieces) == b"".join(items)
    assert len(pieces) == 3
    assert all(PIECE_BYTES <= len(piece) < PIECE_BYTES + 20_000 for piece in pieces[:-1])


def test_where_there_is_nothing_nothing_leaves() -> None:
    assert list(together([])) == []
