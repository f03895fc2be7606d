"""What a worker's readers leave out or doubt is counted, and told once a minute."""

import logging

import msgspec
import pytest

from contract.settings.reading import Settings
from testkit.metrics import read_metric
from tests.worker.events import make_order
from worker.ops import metrics
from worker.records.intake import WARN_EVERY_S, IntakeCounts, make_event_readers


class SteppedClock:
    """A clock that only advances by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_field_that_is_left_out_is_counted_by_kind_and_name() -> None:
    # given
    counted = read_metric(metrics.FIELDS_IGNORED, "orders", "device_id")
    document = {**msgspec.to_builtins(make_order("o1", "i1")), "device_id": "undefined"}
    # when
    make_event_readers(Settings())["orders"].read(msgspec.json.encode(document))
    # then
    assert read_metric(metrics.FIELDS_IGNORED, "orders", "device_id") == counted + 1


def test_times_in_another_unit_are_counted_and_warned_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    # given
    clock = SteppedClock()
    counts = IntakeCounts(clock)
    counted = read_metric(metrics.FIELDS_DOUBTFUL, "orders", "ts_ms", "s")
    # when ten of them come at once, one of another kind, and one a minute later
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            counts.count_doubtful("orders", "ts_ms", "s")
        counts.count_doubtful("clicks", "ts_ms", "us")
        clock.now_s += WARN_EVERY_S
        counts.count_doubtful("orders", "ts_ms", "s")
    # then
    assert [message.split(".")[0] for message in caplog.messages] == [
        "`ts_ms` of orders should be in the unit that `intake",
        "`ts_ms` of clicks should be in the unit that `intake",
        "`ts_ms` of orders should be in the unit that `intake",
    ]
    assert read_metric(metrics.FIELDS_DOUBTFUL, "orders", "ts_ms", "s") == counted + 11


def test_a_time_of_a_map_is_warned_of_with_the_setting_of_its_unit(caplog: pytest.LogCaptureFixture) -> None:
    # given a map of times in seconds that does not say so
    fields = {"event_id": "id", "ts_ms": "at", "user_id": "user", "item_id": "sku"}
    settings = Settings(map={"views": {"topics": "acme.views", "kind": "clicks", "fields": fields}})
    document = {"event_id": "c1", "ts_ms": 1_764_000_000, "user_id": "u1", "item_id": "A"}
    # when
    with caplog.at_level(logging.WARNING):
        make_event_readers(settings)["clicks"].read_document(document)
    # then
    (message,) = caplog.messages
    assert "the unit that `map.views.fields.ts_ms.unit` or `intake.times` declares. Found times that look" in message
