"""Whole workers and joiners over topics that are recreated with fewer partitions."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pytest

from contract.messages import to_json
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from tests.kafka import BlockingProducer, read_topics, recreate_topics
from tests.worker.events import make_click, make_search
from tests.worker.joiner.test_shards import run_joiner, send_click, send_list
from tests.worker.joiner.test_worker import TOPICS, JoinerTopics
from tests.worker.probes.worker_process import WorkerProcess
from transport.records import TopicPartition
from worker.kafka.log_probe import LogProbe
from worker.records.lanes import LANES

pytestmark = pytest.mark.apache_kafka
JOINED: Final = TOPICS[:5]


def read_assigned(kafka: KafkaSettings, group: str, topics: Iterable[str]) -> set[TopicPartition]:
    """The partitions of these topics that the members of a group have."""
    with closing(LogProbe(kafka=kafka)) as probe:
        return {partition for partition in probe.fetch_assigned(group) or () if partition.topic in topics}


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


class BrowsingLane:
    """Workers of the browsing lane, whose searches have five partitions at first."""

    def __init__(self, environment: RunEnvironment, count: int) -> None:
        self.environment, self.searches, self._rows = environment, environment.topics.searches, 0
        environment.kafka.create_topics({self.searches: 5})
        environment.create_topics()
        self.workers = [
            WorkerProcess(environment, lane="browsing", variables={"SHOPSTREAM_WORKER__INSTANCE": str(number)})
            for number in range(count)
        ]
        for number, worker in enumerate(self.workers):
            worker.output = environment.folder / f"{number}.log"

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def has(self, searches: int) -> bool:
        """Whether all workers are ready and have every partition, `searches` of them of searches."""
        names = self.environment.topics.names_of(LANES["browsing"].kinds).values()
        expected = {TopicPartition(name, n) for name in names for n in range(searches if name == self.searches else 4)}
        group = self.environment.group_id("browsing")
        return all(worker.is_ready() for worker in self.workers) and expected == read_assigned(
            self.environment.kafka_settings, group, names
        )

    def click(self, *ids: str) -> None:
        """Send clicks, and wait until each has its scored row."""
        topics = self.environment.topics
        with BlockingProducer(self.environment.kafka.bootstrap) as producer:
            clicks = [make_click(ident, "i", ts_ms=time.time_ns() // 1_000_000) for ident in ids]
            producer.send(topics.clicks, [(ident, to_json(click)) for ident, click in zip(ids, clicks, strict=True)])
        self._rows += len(ids)
        bootstrap = self.environment.kafka.bootstrap
        self.workers[0].wait_for(lambda: len(read_topics(bootstrap, topics.scored)) == self._rows)

    def search(self) -> None:
        """Send a search to every partition that there should be now."""
        with BlockingProducer(self.environment.kafka.bootstrap) as producer:
            for number in range(4):
                producer.send(self.searches, [("u", to_json(make_search(f"s{number}")))], partition=number)

    def has_folded_searches(self) -> bool:
        lags = [worker.lag("searches", number) for worker in self.workers for number in range(4)]
        return all(worker.is_ready() for worker in self.workers) and sum(lag == 0 for lag in lags) == 4

    def kill(self) -> None:
        for worker in self.workers:
            worker.kill()


@pytest.fixture
def environment(
    apache_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> RunEnvironment:
    redis_server.flush()
    return RunEnvironment(kafka=apache_kafka, redis=redis_server, folder=tmp_path, prefix=topic_prefix)


@pytest.fixture(params=[1, 2])
def lane(environment: RunEnvironment, request: pytest.FixtureRequest) -> Iterator[BrowsingLane]:
    """One or two workers with all partitions, which have scored a click."""
    lane = BrowsingLane(environment, request.param)
    lane.start()
    try:
        lane.workers[0].wait_for(lambda: lane.has(searches=5))
        lane.click("first")
        yield lane
    finally:
        lane.kill()


@pytest.mark.parametrize("state", ["killed", "frozen", "running"])
def test_workers_go_on_after_a_topic_is_recreated_with_fewer_partitions(lane: BrowsingLane, state: str) -> None:
    # given workers that are down, frozen or at work
    for worker in lane.workers:
        if state == "killed":
            worker.kill()
        elif state == "frozen":
            worker.pause()
    # when a topic of theirs is recreated with fewer partitions
    recreate_topics(lane.environment.kafka, {lane.searches: 4})
    lane.search()
    if state == "killed":
        lane.start()
    elif state == "frozen":
        for worker in lane.workers:
            worker.resume()
    # then they score, and read the new topic
    lane.click("second", "third")
    lane.workers[0].wait_for(lambda: lane.has(searches=4) and lane.has_folded_searches())


def test_joiners_go_on_after_their_topics_are_recreated_with_fewer_partitions(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    # given two joiners of five shards, one of which is down while all joined topics are recreated
    apache_kafka.create_topics({f"{topic_prefix}{kind}": 5 for kind in JOINED})
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    names = {f"{topic_prefix}{kind}": 4 for kind in JOINED}
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, group_prefix=f"{topic_prefix}group")
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(run_joiner(kafka, make_folder(tmp_path / n) / "joiner.log", n)) for n in ("0", "1")
        )
        first.wait_for(lambda: all(process.fetch("/readyz")[0] == 200 for process in (first, second)))
        send_list(kafka, 0)
        send_click(kafka, 0)
        first.wait_for(lambda: len(kafka.read_examples()) == 1)
        second.kill()
        recreate_topics(apache_kafka, names)
        second.start()
        # when the new topics have rows and clicks
        for number in range(1, 4):
            send_list(kafka, number)
            send_click(kafka, number)
        # then they are joined, each by the joiner that has its shard
        first.wait_for(lambda: len(kafka.read_examples()) == 4)
        first.wait_for(
            lambda: (
                read_assigned(settings, settings.group("feedback"), names)
                == {TopicPartition(name, number) for name in names for number in range(4)}
            )
        )
        first.wait_for(lambda: all(process.fetch("/readyz") == (200, "ok\n") for process in (first, second)))
