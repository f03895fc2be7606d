"""A reader of one kind of record that counts, with declared tasks."""

from collections import Counter
from typing import Any, Final

import pytest

from contract.errors import BadEvent
from contract.events.reading import EventReader
from contract.settings.intake import IntakeSettings
from contract.tasks import Task
from tests.contract.test_events import encode_event

NOW_MS: Final = 1_764_000_000_000
TASKS: Final = (
    Task("fraud", "binary", ("order",), "decide"),
    Task("relevance", "graded", ("query",), "search"),
    Task("category", "multiclass", ("item",), "classify"),
    Task("satisfied", "binary", ("order",), "decide"),
    Task("delay", "regression", ("order",), "decide"),
)


class Intake:
    """A reader of one kind that counts."""

    def __init__(self, kind: str, **settings: Any) -> None:
        self.kind = kind
        self.ignored, self.doubtful = Counter[str](), Counter[tuple[str, str]]()
        self.reader = EventReader(
            kind,
            IntakeSettings(**settings),
            tasks=TASKS,
            on_ignored=lambda kind, field: self.ignored.update([field]),
            on_doubtful=lambda kind, field, unit: self.doubtful.update([(field, unit)]),
        )

    def read(self, **changes: Any) -> Any:
        return self.reader.read(encode_event(self.kind, **{"ts_ms": NOW_MS, **changes}))

    def find_reason(self, **changes: Any) -> str:
        with pytest.raises(BadEvent) as caught:
            self.read(**changes)
        return caught.value.reason
