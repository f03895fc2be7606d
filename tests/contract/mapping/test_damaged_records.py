"""Records with texts that are not UTF-8, read by a map."""

import pytest

from contract.errors import BadEvent
from contract.events.model import Click
from tests.contract.intake import NOW_MS, Intake
from tests.contract.mapping.test_topic_map import CLICK_FIELDS, open_map

RECORD = b'{"id": "c1", "ms": %d, "user": "u1", "sku": "A", "x": "\xff", "device": ["\xe9"], "q": "M\xfcsli"}' % NOW_MS
FIELDS = {
    **CLICK_FIELDS,
    "query": "q",
    "device_id": "device[0]",
    "session_id": {"join": ["user", "q"]},
    "surface": {"path": "q", "table": {"*": "home"}},
    "attributes": {"plan": "q"},
}


def test_a_map_reads_the_fields_that_are_utf8() -> None:
    intake = Intake("clicks")
    _, document = open_map(FIELDS, "clicks").read(RECORD, None, ())
    event = intake.reader.read_document(document)
    assert event == Click(event_id="c1", ts_ms=NOW_MS, user_id="u1", item_id="A", attributes={"plan": []})
    assert intake.ignored == {"query": 1, "device_id": 1, "surface": 1}


@pytest.mark.parametrize("envelope", ["", "cloudevents"])
def test_a_type_that_is_not_utf8_is_a_dead_letter_and_no_other_type(envelope: str) -> None:
    kind = {"path": "type", "table": {"click": "clicks"}}
    topic_map = open_map(CLICK_FIELDS, kind, **({"envelope": envelope} if envelope else {}))
    with pytest.raises(BadEvent) as caught:
        topic_map.read(b'{"specversion": "1.0", "type": "cl\xeck"}', None, ())
    assert caught.value.reason == "not_utf8"
