"""The folder with the stores of all shards of a joiner: `group-instance/number` below `feedback.store`."""

import fcntl
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from contract.errors import Unavailable
from contract.joining.row_store import BrokenStore
from contract.settings.reading import Settings
from transport.records import PartitionOffsets, TopicPartition
from worker.joiner.commit_metadata import decode_all_metadata
from worker.joiner.store.shard_store import LOCK_FILE, ShardStore, clear
from worker.ops import metrics

log = logging.getLogger(__name__)
LAYOUT: Final = 1  # of tables, rows and states
LIMITS: Final = {
    "rows_max",
    "parked_max",
    "said_max",
    "idle_ms",
    "store",
    "save_ms",
}  # settings that no stored row depends on


class StoreFolder:
    """Opens and deletes stores. A joiner whose store cannot be used keeps waiting rows in memory only."""

    def __init__(self, *, settings: Settings, fetch_topic_ids: Callable[[Iterable[str]], Mapping[str, str]]) -> None:
        group = settings.kafka.group("feedback")
        self._folder = Path(settings.feedback.store) / f"{group}-{settings.worker.instance}"
        self._fetch_topic_ids = fetch_topic_ids
        self._identity: Mapping[str, Any] = {  # what a store was written for; another one cannot be used
            "layout": LAYOUT,
            "group": group,
            "feedback": settings.feedback.model_dump(exclude=LIMITS),
            "tasks": msgspec.to_builtins(settings.tasks),
        }

    def open(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> ShardStore | None:
        """The store of a shard, empty if there is none that may be used; None if its folder cannot be used.

        `offsets`: of its partitions, as committed to Kafka. Raises `Unavailable` while Kafka does not answer.
        """
        (number,) = {partition.partition for partition in offsets}
        folder = self._folder / str(number)
        topic_ids = self._fetch_topic_ids({partition.topic for partition in offsets})
        names = sorted(f"{partition.topic}/{partition.partition}" for partition in offsets)
        identity = {**self._identity, "topics": dict(topic_ids), "partitions": names}
        read = {partition: metadata.read for partition, metadata in decode_all_metadata(offsets).items()}
        if (lock := lock_folder(folder)) is None:
            return None
        try:
            return open_store(folder, identity, lock, read)
        except (Unavailable, BrokenStore, OSError) as error:
            lock.close()
            log.error("Waiting rows are in memory only: %s", error)
            return None

    def keep_only(self, numbers: Iterable[int]) -> None:
        """Delete the stores of all other shards: another joiner goes on with these, and erases users from them."""
        kept = set(map(str, numbers))
        for folder in self._folder.iterdir() if self._folder.exists() else ():
            if folder.name not in kept:
                log.info("Deleting the stored rows of shard %s, which another joiner has now.", folder.name)
                shutil.rmtree(folder, ignore_errors=True)


def open_store(
    folder: Path, identity: Mapping[str, Any], lock: IO[str], read: Mapping[TopicPartition, int]
) -> ShardStore:
    """The store in a folder; one that cannot be used is thrown away. `read`: the ends that Kafka has as read."""
    try:
        store = ShardStore(folder, identity, lock)
        store.check_not_ahead(read)
        return store
    except BrokenStore as error:
        log.warning("The stored rows in %s are thrown away, and the log is read again: %s", folder, error)
        metrics.STORES_DISCARDED.inc()
        clear(folder)
        return ShardStore(folder, identity, lock)


def lock_folder(folder: Path) -> IO[str] | None:
    """The open lock of a folder, which is created; None if another process has it or it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("w")
    except OSError as error:
        log.error("Waiting rows are in memory only: `feedback.store` should be a writable folder. Found: %s", error)
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        log.error("Waiting rows are in memory only: one process should use %s. Found another one.", folder)
        return None
    return lock
