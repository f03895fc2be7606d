"""Source records: what a simulator or data set produces in order of time, before it is sent to Kafka."""

from typing import NamedTuple

import msgspec

from contract.events.model import Event

encode_json = msgspec.json.Encoder().encode


class SourceRecord(NamedTuple):
    """One record for the topic of `kind`. `event` is bytes where the record is malformed or passed through unparsed.

    `reason` is that of the dead letter that the record must become; empty if the record should be answered.
    """

    kind: str
    key: str
    event: Event | bytes
    ts_ms: int
    reason: str = ""

    @property
    def value(self) -> bytes:
        """The record's value on the wire."""
        return self.event if isinstance(self.event, bytes) else encode_json(self.event)
