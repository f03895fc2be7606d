"""A scorer whose decisions state by which run of a worker they were made."""

from collections.abc import Callable, Collection, Container, Mapping, Sequence

from contract.events.model import Event, Order, digest_content
from contract.messages import Decision, ScoredRow
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch, ProfileStore
from transport.records import TopicPartition
from worker.model.experiment import ActiveModels, TrialModel
from worker.model.onnx_model import Model
from worker.records.answers import DECISION, Answer, AnswerKind
from worker.records.batch import Batch
from worker.scoring.results import BatchResults
from worker.scoring.scorer import Scorer


class SigningScorer(Scorer):
    """Approves every order, with its own name in place of a model version."""

    answer_kinds: tuple[AnswerKind, ...] = (DECISION,)

    def __init__(self, name: str) -> None:
        self.name = name
        self.scored, self.last_scored = list[str](), list[str]()  # ids of all events, and of those of the last batch

    def kind_of(self, event: Event) -> AnswerKind | None:
        return DECISION if isinstance(event, Order) else None

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        """It needs no model."""

    def prepare(self, models: ActiveModels) -> bool:
        return True

    def run_periodic(self, profiles: ProfileStore, now_ms: int) -> None:
        """Nothing is due by the clock."""

    def is_refresh_due(self, now_ms: int) -> bool:
        return False

    def entities_to_read(self, batch: Batch, now_ms: int, refresh_max: int) -> list[str]:
        return []

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        arrivals = [batch.arrivals[row] for row in rows]
        self.last_scored = [arrival.event.event_id for arrival in arrivals]
        self.scored += self.last_scored
        return BatchResults([self._sign(arrival) for arrival in arrivals])

    def refresh(self, memory: FoldedBatch, now_ms: int, refresh_max: int) -> BatchResults:
        return BatchResults()

    def take_back(self) -> None:
        """Nothing was given by the clock."""

    def end_delays(self) -> None:
        """Nothing waits."""

    def find_waiting(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {}

    def wait_again(self, batch: Batch, arrivals: Sequence[Arrival], now_ms: int) -> None:
        """No user waits."""

    def release(self, partitions: Container[TopicPartition]) -> None:
        """No user waits."""

    def count_waiting(self) -> int:
        return 0

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        """Nothing waits for an answer by the clock."""

    def forget_erased(self, until_ms: Mapping[str, int]) -> None:
        """It remembers no user."""

    def _sign(self, arrival: Arrival) -> Answer:
        event = arrival.event
        user_id = getattr(event, "user_id", "")
        decision = Decision(
            event_id=event.event_id,
            user_id=user_id,
            ts_ms=event.ts_ms,
            probability={},
            action="approve",
            reasons=(),
            model_version=self.name,
        )
        scored = ScoredRow(
            event_id=event.event_id,
            kind="order",
            user_id=user_id,
            ts_ms=event.ts_ms,
            topic=arrival.topic,
            partition=arrival.partition,
            offset=arrival.offset,
            model_version=self.name,
            features="",
            groups={},
        )
        return Answer(DECISION, scored, decision, digest_content(event))
