"""A record that another program wrote to a topic of ours is counted and left out by every reader of it."""

from typing import Final

import msgspec
import pytest

from contract.messages import read_example, read_scored_row, to_msgpack
from tests.training.stats.test_served_comparison import make_example
from training.experiments.outcomes import ExperimentStore
from training.feedback.decoding import decode_or_none
from training.offpolicy.served_lists import ServedListStore
from training.stats.served_scores import ServedScoreStore

EXAMPLE: Final = to_msgpack(make_example("a", 0, {"fraud": 1}))
STRANGE: Final = {
    "no value": None,
    "no bytes": b"",
    "JSON": b'{"example_id": "a"}',
    "a text that is not UTF-8": EXAMPLE.replace(b"u-a", b"u\xff\xfe"),
    "a name that is not UTF-8": EXAMPLE.replace(b"user_id", b"user\xff_d"),
    "too deep": EXAMPLE[:1] + b"\xa1x" + b"\x91" * 100_000 + b"\xc0" + EXAMPLE[1:],
    "cut": EXAMPLE[:-1],
    "of another type": msgspec.msgpack.encode([1]),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_record_is_no_message(name: str) -> None:
    assert decode_or_none(read_example, EXAMPLE) is not None
    assert decode_or_none(read_example, STRANGE[name]) is None
    assert decode_or_none(read_scored_row, STRANGE[name]) is None


@pytest.mark.parametrize("name", [name for name in STRANGE if STRANGE[name] is not None])
def test_every_store_counts_strange_records(name: str) -> None:
    value = STRANGE[name] or b""
    scores, lists, outcomes = ServedScoreStore(), ServedListStore(10), ExperimentStore("x")
    for add in (scores.add, lists.add_list, lists.add_reward, outcomes.add_list, outcomes.add_example):
        add(value)
    assert (scores.unreadable, lists.unreadable, outcomes.unreadable) == (1, 2, 2)
