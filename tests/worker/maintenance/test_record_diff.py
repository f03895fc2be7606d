"""The difference of two records in words: every flipped bit is found."""

import random

import numpy as np
import pytest

from contract.profiles.record import LAYOUT, RECORD
from contract.profiles.slices import EMPTY_RECORD
from worker.maintenance.record_diff import find_defect, find_first_difference, iterate_values


def test_every_flipped_bit_after_the_layout_is_found(seed: int) -> None:
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
    record = np.frombuffer(bytearray(EMPTY_RECORD), RECORD)
    record["windows"][0]["count"][2] = (3, 4)
    # then
    assert find_first_difference(EMPTY_RECORD, record.tobytes()) == "1d count now should be 0, is 3"


def test_the_offset_is_compared_first() -> None:
    # given
    record = np.frombuffer(bytearray(EMPTY_RECORD), RECORD)
    record["count"], record["offset"] = 1, 7
    # then
    assert find_first_difference(EMPTY_RECORD, record.tobytes()) == "offset should be -1, is 7"
    assert len({name for name, _ in iterate_values(EMPTY_RECORD)}) == len(list(iterate_values(EMPTY_RECORD)))


@pytest.mark.parametrize(
    ("source", "record", "defect"),
    [
        ("orders/0", EMPTY_RECORD, None),
        ("orders~ab-C_d/12", EMPTY_RECORD, None),
        ("planets/0", EMPTY_RECORD, "family"),
        ("orders/0", EMPTY_RECORD[:-1], "472 bytes, has 471"),
        ("orders/0", b"", "472 bytes, has 0"),
        ("orders/0", b"\0" + EMPTY_RECORD[1:], f"layout should be {LAYOUT}"),
    ],
)
def test_bytes_that_cannot_be_a_slice_have_a_defect(source: str, record: bytes, defect: str | None) -> None:
    actual = find_defect(source, record)
    assert actual is None if defect is None else defect in (actual or "")
