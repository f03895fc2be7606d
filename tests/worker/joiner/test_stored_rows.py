"""A joiner that goes on with the rows on its disk, and the stores that it should not go on with."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from contract.errors import Unavailable
from contract.joining.row_store import TableChanges
from contract.messages import to_json, to_msgpack
from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from contract.settings.worker import FeedbackSettings
from contract.units import DAY_MS
from tests.contract.joining.builders import FEEDBACK, FRAUD, make_click, make_impression, make_label, make_row
from tests.worker.joiner.test_erasures import FakeTailer, read_committed
from tests.worker.joiner.test_pipeline import CLICKS, IMPRESSIONS, LABELS, SCORED, JoinerHarness
from transport.records import Record
from worker.erasure.topic import ErasureConsumer
from worker.joiner.erasures import JoinerErasures
from worker.joiner.store.sqlite_rows import SqliteRows
from worker.joiner.store.store_folder import StoreFolder
from worker.ops.retry import Retry

ORDERS: Final = 50


class ErasureLog(FakeTailer):
    """An erasures topic that each joiner reads from its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Record] = []

    def restart(self) -> "ErasureLog":
        """The same topic for another joiner."""
        again = ErasureLog()
        again.all, again.new, again.count = self.all, list(self.all), self.count
        return again

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def erase(self, user: str, ts_ms: int = 10 * DAY_MS) -> None:
        super().erase(user, ts_ms)
        self.all.append(self.new[-1])


class StoredRun:
    """Joiners of one shop, one after the other, on one folder; each is killed without closing its store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topic_ids = "1"
        self.tailer = ErasureLog()
        self.harness = self.start()

    def start(self, feedback: FeedbackSettings = FEEDBACK, earlier: JoinerHarness | None = None) -> JoinerHarness:
        settings = Settings(
            feedback=feedback.model_copy(update={"store": str(self.folder), "save_ms": 0, "rows_max": 5}),
            tasks=(FRAUD,),
        )
        stores = StoreFolder(
            settings=settings, fetch_topic_ids=lambda topics: dict.fromkeys(sorted(topics), self.topic_ids)
        )
        log = earlier.consumer if earlier else None
        self.tailer = self.tailer.restart()
        erasures = JoinerErasures(ErasureConsumer(tailer=self.tailer, erasures=Erasures()))
        erasures.load(Retry(threading.Event()))
        self.harness = JoinerHarness(erasures, settings=settings, stores=stores, log=log)
        return self.harness

    @property
    def store(self) -> Path:
        (path,) = self.folder.glob("*/0")
        return path

    def contains(self, text: bytes) -> bool:
        """Whether any file of the store has this text."""
        return any(text in path.read_bytes() for path in self.store.iterdir())

    def kill(self) -> JoinerHarness:
        """Drop the process as a SIGKILL does: files stay as they are, locks are released."""
        killed = self.harness
        copy = self.folder.with_name("killed")
        shutil.copytree(self.folder, copy)
        killed.pipeline.close()
        shutil.rmtree(self.folder)
        copy.rename(self.folder)
        return killed

    def restart(self) -> JoinerHarness:
        return self.start(earlier=self.kill())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoredRun]:
    """A joiner that has joined orders, of which most are on disk only, and has saved them."""
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    run = StoredRun(tmp_path / "rows")
    run.harness.consumer.put(SCORED, *(to_msgpack(make_row("order", f"o{n}", n)) for n in range(ORDERS)))
    run.harness.consumer.put(IMPRESSIONS, to_json(make_impression(ORDERS, "x", recommendation_id=None)))
    run.harness.consumer.put(CLICKS, to_json(make_click(ORDERS, "x", recommendation_id=None)))
    run.harness.pipeline.step()
    assert run.harness.consumer.committed[SCORED] == 0
    yield run
    run.harness.pipeline.close()


def read_judgements(harness: JoinerHarness) -> list[str]:
    return [record.topic for record in harness.producer.published if record.topic == "shop.judgements"]


def join_label(harness: JoinerHarness, order: int) -> None:
    """A label comes for one of the first orders."""
    harness.consumer.put(LABELS, to_json(make_label(ORDERS + 1, 1, judged_event_id=f"o{order}")))
    for _ in range(3):
        harness.pipeline.step()


def test_a_restarted_joiner_reads_on_after_its_stored_rows(run: StoredRun) -> None:
    harness = run.restart()
    join_label(harness, 7)

    assert harness.consumer.starts[SCORED] == ORDERS
    assert harness.list_published_revisions() == [("o7", 2)]
    assert len(read_judgements(harness)) == 1
    assert harness.consumer.committed[SCORED] == 0  # where a joiner without the store would begin


def test_outputs_between_the_commits_to_kafka_and_to_the_store_are_published_once(
    run: StoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.joiner.shard.JoinerShard.save", lambda *_: None)
    join_label(run.harness, 7)
    published = run.harness.list_published_revisions()
    monkeypatch.undo()
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")

    killed = run.kill()
    harness = run.start(earlier=killed)
    harness.remember_published(killed)
    for _ in range(3):
        harness.pipeline.step()

    assert published == [("o7", 2)]
    assert harness.consumer.next[LABELS] == 1
    assert (harness.list_published_revisions(), read_judgements(harness)) == ([], [])


def test_an_older_copy_of_the_store_gives_the_same_outputs(run: StoredRun, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "older")
    join_label(run.harness, 7)
    killed = run.kill()
    shutil.rmtree(run.folder)
    (tmp_path / "older").rename(run.folder)

    harness = run.start(earlier=killed)
    harness.remember_published(killed)
    join_label(harness, 8)

    assert harness.consumer.starts[SCORED] == ORDERS
    assert harness.list_published_revisions() == [("o8", 2)]


def cut(name: str) -> Callable[[StoredRun], None]:
    def damage(run: StoredRun) -> None:
        path = run.store / name
        os.truncate(path, path.stat().st_size // 2)

    return damage


def delete(name: str) -> Callable[[StoredRun], None]:
    return lambda run: (run.store / name).unlink()


def overwrite_rows(run: StoredRun) -> None:
    """Rows are other bytes than were written."""
    path = run.store / "rows.sqlite-wal"
    path.write_bytes(path.read_bytes().replace(b"order", b"ordre"))


def recreate_topic(run: StoredRun) -> None:
    run.topic_ids = "2"


def reset_group(run: StoredRun) -> None:
    """The group's offsets were set back, without the joiner's metadata."""
    run.harness.consumer.metadata.clear()


@pytest.mark.parametrize(
    "damage",
    [
        cut("rows.sqlite-wal"),
        delete("rows.sqlite-wal"),
        cut("commit.json"),
        delete("commit.json"),
        overwrite_rows,
        recreate_topic,
        reset_group,
    ],
    ids=["short log", "no log", "short record", "no record", "other bytes", "recreated topic", "reset group"],
)
def test_a_store_that_cannot_be_used_is_thrown_away_and_the_log_is_read_again(
    run: StoredRun, damage: Callable[[StoredRun], None], caplog: pytest.LogCaptureFixture
) -> None:
    killed = run.kill()
    damage(run)

    harness = run.start(earlier=killed)
    join_label(harness, 7)

    assert "thrown away, and the log is read again" in caplog.text
    assert harness.list_published_revisions() == [("o7", 2)]
    assert harness.consumer.next[SCORED] == ORDERS


def test_a_store_of_other_settings_is_thrown_away(run: StoredRun, caplog: pytest.LogCaptureFixture) -> None:
    killed = run.kill()
    harness = run.start(FEEDBACK.model_copy(update={"fraud_window_s": 10 * 3600}), earlier=killed)
    join_label(harness, 7)

    assert "of the same feedback as this joiner" in caplog.text
    assert harness.list_published_revisions() == [("o7", 2)]


def test_a_store_of_another_shard_is_thrown_away(run: StoredRun, caplog: pytest.LogCaptureFixture) -> None:
    killed = run.kill()
    folder = StoreFolder(
        settings=Settings(feedback=FEEDBACK.model_copy(update={"store": str(run.folder)})),
        fetch_topic_ids=lambda topics: dict.fromkeys(sorted(topics), run.topic_ids),
    )
    (known,) = killed.consumer.query_offsets([SCORED]).values()
    offsets = {SCORED._replace(partition=1): known}
    run.store.rename(run.store.with_name("1"))

    store = folder.open(offsets)

    assert store is not None
    assert store.is_new
    assert "of the same tasks, topics, partitions" in caplog.text
    store.close()


def test_stores_of_shards_that_moved_away_are_deleted(run: StoredRun) -> None:
    run.store.with_name("7").mkdir()
    run.restart().pipeline.step()

    assert [path.name for path in run.store.parent.iterdir()] == ["0"]


def test_a_store_in_use_leaves_the_rows_in_memory(run: StoredRun, caplog: pytest.LogCaptureFixture) -> None:
    first = run.harness
    second = run.start(earlier=first)
    second.consumer.put(LABELS, to_json(make_label(ORDERS + 1, 1, judged_event_id=f"o{ORDERS - 1}")))
    second.pipeline.step()

    assert "one process should use" in caplog.text
    assert second.list_published_revisions() == [(f"o{ORDERS - 1}", 2)]
    first.pipeline.close()


def test_an_erased_user_is_in_no_file_before_the_erasure_counts_as_executed(run: StoredRun) -> None:
    run.harness.consumer.put(SCORED, to_msgpack(make_row("order", "secret-order", ORDERS, user="secret-user")))
    run.harness.pipeline.step()
    assert run.contains(b"secret-user")

    run.tailer.erase("secret-user")
    run.harness.pipeline.step()
    assert not run.contains(b"secret-user")
    assert read_committed(run.harness)[SCORED].offsets == {}

    run.harness.pipeline.step()
    assert read_committed(run.harness)[SCORED].offsets == {"2": 1}


def test_a_user_who_was_erased_after_the_last_save_is_erased_from_the_stored_rows(run: StoredRun) -> None:
    killed = run.kill()
    assert run.contains(b"o7")
    run.tailer.erase("u")

    harness = run.start(earlier=killed)
    join_label(harness, 7)

    assert harness.list_published_revisions() == []
    assert not run.contains(b"o7")


def test_a_full_disk_keeps_the_changes_and_what_was_written(tmp_path: Path) -> None:
    rows = SqliteRows(tmp_path / "rows.sqlite")
    rows.table("lists")
    rows.commit([TableChanges("lists", b"first")], {})
    rows._connection.execute("PRAGMA max_page_count = 1")

    with pytest.raises(Unavailable, match="full"):
        rows.commit([TableChanges("lists", bytes(100_000))], {})
    assert rows.read_state("lists") == b"first"

    rows._connection.execute("PRAGMA max_page_count = 1000")
    rows.commit([TableChanges("lists", bytes(100_000))], {})
    assert rows.read_state("lists") == bytes(100_000)
    rows.close()
