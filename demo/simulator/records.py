"""Happenings: records as a source makes them, in the order of their time, before anything is sent to Kafka."""

from typing import NamedTuple

import msgspec

from contract.events import Event

encode_json = msgspec.json.Encoder().encode


class SourceRecord(NamedTuple):
    """One record for the topic of `kind`. `event` is bytes where no event could be made or none should be.

    `reason` is the reason of the dead letter that the record has to become; empty where it is to be answered.
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
