"""Two records in words: no bit can differ unseen."""

import random

import numpy as np
import pytest

from contract.profiles.record import LAYOUT, RECORD
from contract.profiles.slices import EMPTY_RECORD
from worker.maintenance.record_diff import find_defect, find_first_difference, iterate_values


def test_every_bit_behind_the_layout_is_seen(seed: int) -> None:
    # given
    rng = random.Random(seed)
    record = np.frombuffer(EMPTY_RECORD, RECORD)["layout"].tobytes() + rng.randbytes(RECORD.itemsize - 4)
    for bit in range(32, RECORD.itemsize * 8):
        # when
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        # then
        assert find_first_difference(record, bytes(changed)) is not None
    assert find_first_difference(record, record) is None


def test_a_difference_names_the_field_and_both_values() -> None:
    # given
    one = np.frombuffer(bytearray(EMPTY_RECORD), RECORD)
    one["windows"][0]["count"][2] = (3, 4)
    # then
    assert find_first_difference(EMPTY_RECORD, one.tobytes()) == "1d count now should be 0, is 3"


def test_the_position_in_the_log_is_compared_first() -> None:
    # given
    one = np.frombuffer(bytearray(EMPTY_RECORD), RECORD)
    one["count"], one["offset"] = 1, 7
    # then
    assert find_first_difference(EMPTY_RECORD, one.tobytes()) == "offset should be -1, is 7"
    assert len({name for name, _ in iterate_values(EMPTY_RECORD)}) == len(list(iterate_values(EMPTY_RECORD)))


@pytest.mark.parametrize(
    ("source", "record", "why"),
    [
        ("orders/0", EMPTY_RECORD, None),
        ("orders~ab-C_d/12", EMPTY_RECORD, None),
        ("planets/0", EMPTY_RECORD, "family"),
        ("orders/0", EMPTY_RECORD[:-1], "472 bytes, has 471"),
        ("orders/0", b"", "472 bytes, has 0"),
        ("orders/0", b"\0" + EMPTY_RECORD[1:], f"layout should be {LAYOUT}"),
    ],
)
def test_bytes_that_cannot_be_a_slice_are_told_why(source: str, record: bytes, why: str | None) -> None:
    actual = find_defect(source, record)
    assert actual is None if why is None else why in (actual or "")
