"""Swaps under load: transactions are separated, mixed batches and pauses are found, nothing is lost."""

import struct
from pathlib import Path

import pytest

from bench.performance.measure.environment import BenchEnvironment
from bench.performance.measure.kafka_segments import CONTROL, HEADER, Transaction, parse_transactions
from bench.performance.measure.swap_run import PublishedBatch, SwapResult, SwapRun, TimeWindow, find_longest_gaps
from bench.performance.swap import SwapFigures
from contract.messages import ScoredKind, ScoredRow
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.tiny_bundle import publish_tiny


def make_segment_batch(base: int, records: int, producer: int, at_ms: int, *, ends: bool = False) -> bytes:
    """A record batch as in a segment file; `ends`: a control batch that ends a transaction."""
    content = b"\0" * 10
    attributes = 0x10 | (CONTROL if ends else 0)
    length = HEADER.size - 12 + len(content)
    return HEADER.pack(base, length, 0, 2, 0, attributes, records - 1, at_ms, at_ms, producer, 0, 0, records) + content


def test_interleaved_transactions_of_two_producers_are_separated() -> None:
    # given two producers; the second begins before the first one's control batch
    segment = b"".join(
        [
            make_segment_batch(0, 3, 7, 100),
            make_segment_batch(3, 1, 7, 110),
            make_segment_batch(4, 2, 8, 120),
            make_segment_batch(6, 1, 7, 121, ends=True),
            make_segment_batch(7, 1, 8, 122, ends=True),
            make_segment_batch(8, 2, 7, 130),
            make_segment_batch(10, 1, 7, 131, ends=True),
            make_segment_batch(11, 5, 8, 140),
        ]
    )
    # then open and incomplete transactions are left out
    expected = [Transaction((0, 1, 2, 3), 110), Transaction((4, 5), 120), Transaction((8, 9), 130)]
    assert list(parse_transactions(segment)) == expected
    assert list(parse_transactions(segment + make_segment_batch(16, 1, 8, 150, ends=True)[:-1])) == expected
    assert list(parse_transactions(segment + bytes(200))) == expected


def test_the_batch_header_has_kafkas_size() -> None:
    assert HEADER.size == 61
    assert struct.calcsize(">qi") == 12


def make_row(kind: ScoredKind, version: str) -> ScoredRow:
    return ScoredRow(
        event_id="e",
        kind=kind,
        user_id="u",
        ts_ms=1,
        topic="t",
        partition=0,
        offset=0,
        model_version=version,
        features="f",
        groups={},
    )


def test_a_batch_of_two_models_is_mixed_and_an_aborted_one_has_no_lane() -> None:
    # given
    rows = {
        0: make_row("click", "v1"),
        1: make_row("recommendation", "v2"),
        2: make_row("order", "v1"),
        3: make_row("order", "v1"),
    }
    # then
    mixed, pure, aborted = (
        PublishedBatch.from_transaction(Transaction(offsets, 5), rows) for offsets in ((0, 1), (2, 3), (8, 9))
    )
    assert (mixed.lane, len(mixed.versions)) == ("browsing", 2)
    assert (pure.lane, len(pure.versions)) == ("orders", 1)
    assert (aborted.lane, len(aborted.versions)) == ("", 0)


def test_the_pause_of_a_window_is_the_longest_gap_that_begins_in_it() -> None:
    # given
    version = frozenset({"v1"})
    times_by_lane = {"orders": (0, 10, 20, 90, 100, 110), "browsing": (0, 15, 30, 45, 60, 75, 130)}
    batches = [PublishedBatch(lane, ms, version) for lane, times in times_by_lane.items() for ms in times]
    # then
    windows = [TimeWindow(0, 9), TimeWindow(15, 25), TimeWindow(21, 29), TimeWindow(75, 90)]
    assert find_longest_gaps(batches, windows) == [15, 70, 0, 55]


SWAP_RESULT = SwapResult(
    swaps=200,
    events=1,
    lost=0,
    contradicting=0,
    batches=1,
    mixed_batches=0,
    pause_ms={},
    swap_gap_ms={},
    quiet_gap_ms={},
    swap_ms={},
    rss_mb=[300.0, 320.0],
    seconds=1.0,
)


def make_figures(**changes: object) -> SwapFigures:
    values: dict[str, object] = {
        "swaps": 200,
        "lost": 0,
        "mixed_batches": 0,
        "pause_p99_ms": 50.0,
        "rss_mb": [300.0, 320.0],
        "label_to_serving_s": {"p50": 60.0, "p99": 90.0},
        "model_mb": 10.0,
        "detail": SWAP_RESULT,
    }
    return SwapFigures(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "worse",
    [
        {"lost": 1},
        {"mixed_batches": 1},
        {"pause_p99_ms": 50.1},
        {"rss_mb": [300.0, 320.1]},
        {"label_to_serving_s": {"p50": 60.1, "p99": 90.0}},
    ],
)
def test_each_aim_can_be_missed(worse: dict[str, object]) -> None:
    assert list(make_figures().missed_aims) == []
    assert len(list(make_figures(**worse).missed_aims)) == 1


@pytest.mark.apache_kafka
@pytest.mark.timeout(300)
def test_swaps_under_load_lose_no_event_and_mix_no_batch(
    apache_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    # given
    for version in ("v1", "v2"):
        publish_tiny(tmp_path / "bundles", version)
    overrides = {"SHOPSTREAM_WORKER__SWAP_POLL_MS": "20"}
    environment = BenchEnvironment(
        kafka=apache_kafka,
        redis=redis_server,
        folder=tmp_path,
        prefix=topic_prefix,
        load_prefix=topic_prefix,
        shared_kinds=(),
        overrides=overrides,
    )
    # when
    actual = SwapRun(kafka=apache_kafka, environment=environment, versions=["v1", "v2"], seed=seed).run(3, 1.0, print)
    # then
    assert (actual.swaps, actual.lost, actual.contradicting, actual.mixed_batches) == (3, 0, 0, 0)
    assert actual.events > 100
    assert actual.batches > 20
