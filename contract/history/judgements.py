"""Judgements of a history: its labels, joined with its orders by the joiner's own code."""

from collections.abc import Iterable, Iterator
from typing import Final

from contract.events.model import Label, Order
from contract.history.format import HistoricEvent
from contract.joining.joiner import Joiner
from contract.messages import ScoredRowBuilder
from contract.profiles.entity_updates import Arrival, extract_updates
from contract.settings.worker import FeedbackSettings

ROWS_MAX: Final = 5_000_000  # orders that wait for labels in memory


def add_judgements(events: Iterable[HistoricEvent], feedback: FeedbackSettings) -> Iterator[HistoricEvent]:
    """The events, with a judgement in place of each label that meets an order before it; other labels are left out."""
    joiner = Joiner(feedback=feedback.model_copy(update={"rows_max": ROWS_MAX}), tasks=())
    row_builder = ScoredRowBuilder("", "")
    for historic in events:
        event = historic.event
        if isinstance(event, Order):
            entities = tuple(entity for entity, _ in extract_updates(event))
            joiner.add_row(row_builder.build("order", Arrival("", 0, event), {}, entities=entities))
        if historic.kind != "labels":
            yield historic
            continue
        assert isinstance(event, Label)
        joiner.add_event(event)
        joiner.advance(event.ts_ms)
        for judgement in joiner.drain().judgements:
            yield HistoricEvent("judgements", judgement)
