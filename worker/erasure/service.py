"""Erasure for one lane of the score worker: builds and connects its parts."""

from functools import partial

from contract.errors import StaleState
from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from transport.log_reader import LogReader, TopicTailer
from worker.erasure.confirmation import ErasureConfirmer
from worker.erasure.executor import ErasureExecutor, RefoldNeeded
from worker.erasure.kafka_owners import TRAINING_PROCESSES, GroupOwners, JoinerOwners, RarelyAskedOwners
from worker.erasure.link_sweeper import LinkSweeper
from worker.erasure.marks import ErasureMarks, list_places
from worker.erasure.owners import ErasureOwners, LaneOwners
from worker.erasure.progress import ErasureOffsets, ErasureProgress
from worker.erasure.slice_eraser import SliceEraser
from worker.erasure.topic import ErasureConsumer
from worker.kafka.admin import KafkaAdmin
from worker.ops.retry import Retry
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.records.intake import make_event_readers
from worker.records.lanes import LANES, Lane
from worker.state.offsets import OffsetTracker
from worker.state.resources import Stores


class ErasureService:
    """Reads the erasures topic, carries erasures out on the data of this lane, and confirms those due from it."""

    def __init__(self, *, settings: Settings, lane: Lane, stores: Stores, offsets: OffsetTracker, retry: Retry) -> None:
        self._retry = retry
        self._log_reader = LogReader(kafka=settings.kafka)
        self._topic = topic = settings.topics.erasures
        self._admin = admin = KafkaAdmin(kafka=settings.kafka)
        self._progress = ErasureProgress(
            profiles=stores.profiles, topic_id=lambda: admin.fetch_topic_ids([topic]).get(topic)
        )
        self.consumer = ErasureConsumer(
            tailer=TopicTailer(kafka=settings.kafka, topics=[topic]),
            erasures=Erasures(),
            reader=make_event_readers(settings)["erasures"],
        )
        self.executor = ErasureExecutor(
            lane=lane,
            erasure_consumer=self.consumer,
            eraser=SliceEraser(profiles=stores.profiles, offsets_at=self._log_reader.offsets_for_time),
            sweeper=LinkSweeper(profiles=stores.profiles, offsets=offsets, erasures=self.consumer.erasures),
            marks=ErasureMarks(
                progress=self._progress,
                places=list_places(stores.profiles.client, stores.answer_cache.client, settings.redis.prefix),
                fetch_confirmed=self._fetch_confirmed,
            ),
            stores=stores,
            offsets=offsets,
        )
        self.confirmer = ErasureConfirmer(
            topics=settings.event_topics(),
            erasure_consumer=self.consumer,
            progress=self._progress,
            profiles=stores.profiles,
            offsets=offsets,
            admin=admin,
            owners=self._list_owners(settings),
        )

    def _list_owners(self, settings: Settings) -> list[ErasureOwners]:
        """All that have to execute an erasure before it is confirmed."""
        progress, admin = self._progress, self._admin
        topics, event_topics = settings.topics, settings.event_topics()
        in_kafka: list[ErasureOwners] = [
            JoinerOwners(topics=event_topics, admin=admin),
            *(GroupOwners(process=p, topics=topics, progress=progress, admin=admin) for p in TRAINING_PROCESSES),
        ]
        return [
            *(LaneOwners(lane=lane, topics=event_topics, progress=progress, admin=admin) for lane in LANES.values()),
            *(RarelyAskedOwners(owners) for owners in in_kafka),
        ]

    def open(self) -> None:
        """Query topic id and end offsets; waits until Kafka answers."""
        self._retry.call("kafka", self._progress.open)
        self._retry.call("kafka", self.consumer.open)

    def load(self) -> bool:
        """Read more of the topic; whether everything it held at start is read."""
        return self._retry.call("kafka", self.executor.load)

    def apply_pending(self, pipeline: BatchPipeline) -> None:
        """Carry out new erasures, between two batches; waits while Kafka or Redis is unavailable."""
        try:
            publish = partial(pipeline.publish_extra, end_offsets={})
            if pipeline.retry.call(
                "kafka and redis", lambda: self.executor.apply_pending(publish, pipeline.forget_erased)
            ):
                pipeline.recover(RefoldNeeded("Events of erased users after their erasure have to be folded again."))
            pipeline.retry.call("redis", self.executor.mask_links)
        except StaleState as error:
            pipeline.recover(error)

    def confirm(self, pipeline: BatchPipeline) -> None:
        """Confirm erasures that all workers have carried out; raises `Unavailable`."""
        self.confirmer.confirm(pipeline)

    def close(self) -> None:
        self.consumer.close()
        self._log_reader.close()

    def _fetch_confirmed(self) -> ErasureOffsets:
        """The offsets up to which erasures are confirmed, by partition name; raises `Unavailable`."""
        (lane,) = (lane.name for lane in LANES.values() if "erasures" in lane.confirmed_kinds)
        committed = self._admin.fetch_committed(lane, self._admin.list_partitions([self._topic]))
        return {self._progress.partition_name(partition): offset for partition, offset in committed.items()}
