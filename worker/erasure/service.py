"""What a score worker needs to forget people: the parts put together for one lane."""

from contract.errors import StaleState
from contract.profiles.erasures import Erasures
from contract.settings import Settings
from transport.log_reader import LogReader, TopicTailer
from worker.erasure.confirmation import ErasureConfirmer
from worker.erasure.executor import ErasureExecutor, RefoldNeeded
from worker.erasure.progress import ErasureProgress
from worker.erasure.slice_eraser import SliceEraser
from worker.erasure.topic import ErasureConsumer
from worker.kafka.admin import KafkaAdmin
from worker.ops.retry import Retry
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.records.lanes import Lane
from worker.state.offsets import OffsetTracker
from worker.state.resources import Stores


class ErasureService:
    """Reads the topic of erasures, carries them out on what this lane writes, and confirms those it has to confirm."""

    def __init__(self, *, settings: Settings, lane: Lane, stores: Stores, offsets: OffsetTracker, retry: Retry) -> None:
        self._retry = retry
        self._log_reader = LogReader(kafka=settings.kafka)
        topic, admin = settings.topics.erasures, KafkaAdmin(kafka=settings.kafka)
        progress = self._progress = ErasureProgress(
            profiles=stores.profiles,
            topic_id=lambda: admin.fetch_topic_ids([topic]).get(topic),
        )
        self.consumer = ErasureConsumer(tailer=TopicTailer(kafka=settings.kafka, topics=[topic]), erasures=Erasures())
        self.executor = ErasureExecutor(
            lane=lane,
            erasure_consumer=self.consumer,
            eraser=SliceEraser(profiles=stores.profiles, offsets_at=self._log_reader.offsets_for_time),
            progress=progress,
            decision_store=stores.decision_store,
            answer_cache=stores.answer_cache,
            offsets=offsets,
        )
        self._confirmer = ErasureConfirmer(
            topics=settings.topics,
            erasure_consumer=self.consumer,
            progress=progress,
            profiles=stores.profiles,
            offsets=offsets,
            admin=admin,
        )

    def open(self) -> None:
        """Ask Kafka what there is to read; waits until it tells."""
        self._retry.call("kafka", self._progress.open)
        self._retry.call("kafka", self.consumer.open)

    def load(self) -> bool:
        """Read on until all that was there at first is read; whether it is."""
        return self._retry.call("kafka", self.executor.load)

    def apply_pending(self, pipeline: BatchPipeline) -> None:
        """Carry out what has come, between two batches; waits for servers that are away."""
        try:
            if self._retry.call("kafka and redis", self.executor.apply_pending):
                pipeline.recover(RefoldNeeded("Erased people did something after their erasure, which is folded anew."))
        except StaleState as error:
            pipeline.recover(error)

    def confirm(self, pipeline: BatchPipeline) -> None:
        """Confirm what is carried out by all; raises `Unavailable`."""
        self._confirmer.confirm(pipeline)

    def close(self) -> None:
        self.consumer.close()
        self._log_reader.close()
