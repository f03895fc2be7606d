"""What a score worker needs to forget people: the parts put together for one lane."""

from contract.erasures import Erasures
from contract.errors import StaleState
from contract.settings import Settings
from worker.broker import Broker
from worker.confirming import Confirming
from worker.doors import State
from worker.erasure_log import ErasureLog
from worker.erasure_marks import ErasureMarks
from worker.follower import Follower, Log
from worker.forgetting import FoldAgain, Forgetting
from worker.lanes import Lane
from worker.patience import Patience
from worker.positions import Positions
from worker.protocol import Protocol
from worker.slice_eraser import SliceEraser


class Erasing:
    """Reads the topic of erasures, carries them out on what this lane writes, and confirms those it has to confirm."""

    def __init__(
        self, *, settings: Settings, lane: Lane, state: State, positions: Positions, patience: Patience
    ) -> None:
        self._patience = patience
        self._past = Log(kafka=settings.kafka)
        topic, broker = settings.topics.erasures, Broker(kafka=settings.kafka)
        marks = self._marks = ErasureMarks(
            profiles=state.profiles,
            topic_id=lambda: broker.topic_ids([topic]).get(topic),
        )
        self.log = ErasureLog(follower=Follower(kafka=settings.kafka, topics=[topic]), erasures=Erasures())
        self.forgetting = Forgetting(
            lane=lane,
            erasure_log=self.log,
            eraser=SliceEraser(profiles=state.profiles, offsets_at=self._past.offsets_at),
            marks=marks,
            claims=state.claims,
            caches=state.caches,
            positions=positions,
        )
        self._confirming = Confirming(
            topics=settings.topics,
            erasure_log=self.log,
            marks=marks,
            profiles=state.profiles,
            positions=positions,
            broker=broker,
        )

    def open(self) -> None:
        """Ask Kafka what there is to read; waits until it tells."""
        self._patience.insist("kafka", self._marks.open)
        self._patience.insist("kafka", self.log.open)

    def load(self) -> bool:
        """Read on until all that was there at first is read; whether it is."""
        return self._patience.insist("kafka", self.forgetting.load)

    def tend(self, protocol: Protocol) -> None:
        """Carry out what has come, between two batches; waits for servers that are away."""
        try:
            if self._patience.insist("kafka and redis", self.forgetting.tend):
                protocol.recover(FoldAgain("Erased people did something after their erasure, which is folded anew."))
        except StaleState as error:
            protocol.recover(error)

    def confirm(self, protocol: Protocol) -> None:
        """Confirm what is carried out by all; raises `Unavailable`."""
        self._confirming.confirm(protocol)

    def close(self) -> None:
        self.log.close()
        self._past.close()
