"""What `doctor` asks Kafka beyond the description of topics: brokers, rights, catalogue, clocks, lag, owners."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from contract.errors import Unavailable
from contract.settings.reading import Settings
from transport.positions import find_offset
from transport.records import TopicPartition
from worker.doctor.broker_checks import check_addresses, check_limits
from worker.doctor.bundle_checks import read_learned
from worker.doctor.finding import Finding, Severity, approve
from worker.doctor.log_checks import LEARNER, LEARNER_LAG_S_MAX, Reader, check_catalogue, check_clock, check_lag
from worker.doctor.right_checks import check_topic_rights, try_right
from worker.doctor.topic_checks import JOINED_KINDS
from worker.kafka.admin import KafkaAdmin
from worker.kafka.log_probe import LogProbe
from worker.kafka.topic_owner import explain_owner, fetch_owner, is_denied, lock_name, try_transactional_id
from worker.ops.denied_rights import Grants

OWNED_KINDS: Final = ("decisions", "rankings", "scored", "feedback", "judgements")
JOINER: Final = "feedback"
OTHER_GROUPS: Final = (JOINER, LEARNER, "monitor")


class KafkaExamination:
    """Checks of a Kafka that answers; `lanes`: the kinds of topics that each reads. Each raises `Unavailable`."""

    def __init__(self, settings: Settings, lanes: Mapping[str, Sequence[str]]) -> None:
        self._settings, self._lanes = settings, lanes
        self._admin = KafkaAdmin(kafka=settings.kafka)
        self._probe = LogProbe(kafka=settings.kafka)
        self._servers = settings.kafka.bootstrap_servers

    def check_brokers(self) -> Iterator[Finding]:
        """Addresses and limits of brokers."""
        yield from check_addresses(self._admin.list_brokers(), self._servers)
        if self._settings.kafka.topic_ids:  # the mock cluster has no settings
            yield from check_limits(self._settings.kafka, self._admin.fetch_broker_config())

    def check_rights(self) -> Iterator[Finding]:
        """Rights on topics, groups and transactional ids."""
        kafka = self._settings.kafka
        yield from check_topic_rights(
            self._settings, self._admin.fetch_operations(self._settings.topics.names_by_kind().values())
        )
        grants = Grants.of(kafka)
        some = [TopicPartition(self._settings.topics.orders, 0)]
        for name in (*self._lanes, *OTHER_GROUPS):
            group = kafka.group(name)
            yield try_right(
                f"group {group}",
                partial(self._admin.fetch_commits, name, some),
                grants.groups(),
            )
        if kafka.transactions:
            ident = f"{kafka.group_prefix}-doctor"
            yield try_right(
                f"transactional id {ident}",
                partial(try_transactional_id, kafka, ident),
                grants.transactional_ids(),
            )

    def check_owners(self) -> Iterator[Finding]:
        """Whether another shop writes a topic of answers."""
        kafka, grants = self._settings.kafka, Grants.of(self._settings.kafka)
        for topic in self._settings.topics.names_of(OWNED_KINDS).values():
            try:
                owner = fetch_owner(kafka, topic)
            except Unavailable as error:
                if not is_denied(error):
                    raise
                text = "Who writes the topic should be allowed its lock. Found the group denied to this user."
                yield Finding(Severity.WARNING, f"group {lock_name(topic)}", text, grants.lock(lock_name(topic)))
                continue
            if owner not in ("", kafka.group_prefix, kafka.former_group_prefix):
                yield Finding(Severity.ERROR, topic, explain_owner(topic, owner, kafka.group_prefix))
            else:
                yield approve(f"owner {lock_name(topic)}", f"It is {f'`{owner}`' if owner else 'not claimed yet'}.")

    def check_logs(self) -> Iterator[Finding]:
        """The age of the catalogue, clocks, and how far lanes lag."""
        topics, now_ms = self._settings.topics, time.time_ns() // 1_000_000
        reading = {**self._lanes, JOINER: JOINED_KINDS}
        kinds = dict.fromkeys(kind for read in reading.values() for kind in read)
        ends = self._fetch_ends(topics.names_of(kinds).values())
        newest_ms = self._probe.fetch_times({partition: end - 1 for partition, end in ends.items() if end})
        products_ms = [ms for partition, ms in newest_ms.items() if partition.topic == topics.products]
        yield from check_catalogue(topics.products, ends, max(products_ms, default=None), now_ms, self._servers)
        yield check_clock(newest_ms, now_ms)
        for lane, read in reading.items():
            names = set(topics.names_of(read).values())
            of_lane = {partition: end for partition, end in ends.items() if partition.topic in names}
            commits = self._admin.fetch_committed(lane, of_lane)
            ages_s = self._fetch_ages(commits, of_lane, now_ms)
            yield from check_lag(find_reader(lane), self._settings.kafka.group(lane), commits, of_lane, ages_s)
        yield from self._check_learner(now_ms)

    def _check_learner(self, now_ms: int) -> Iterator[Finding]:
        """How far the serving bundle, which holds what its learner has read, lags behind the feedback topic."""
        topic = self._settings.topics.feedback
        positions, ends = read_learned(self._settings), self._fetch_ends([topic])
        if positions is not None and any(ends.values()):
            topic_id = self._admin.fetch_topic_ids([topic]).get(topic)
            offsets = {partition: find_offset(positions, partition, topic_id) for partition in ends}
            learned = {partition: offset for partition, offset in offsets.items() if offset is not None}
            ages_s = self._fetch_ages(learned, ends, now_ms)
            yield from check_lag(find_reader(LEARNER), LEARNER, learned, ends, ages_s, LEARNER_LAG_S_MAX)

    def _fetch_ages(
        self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], now_ms: int
    ) -> dict[TopicPartition, float]:
        """How old (s) the next record of each partition is that has one."""
        waiting = {tp: positions[tp] for tp, end in ends.items() if tp in positions and positions[tp] < end}
        return {tp: (now_ms - ms) / 1000 for tp, ms in self._probe.fetch_times(waiting).items() if ms >= 0}

    def run(self) -> Iterator[Finding]:
        """All of them; a check that gets no answer is an error of its own."""
        for check in (self.check_brokers, self.check_rights, self.check_owners, self.check_logs):
            try:
                yield from check()
            except Unavailable as error:
                yield Finding(Severity.ERROR, f"kafka {self._servers}", str(error))

    def _fetch_ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        counts = self._probe.count_partitions(topics)
        return self._probe.fetch_ends(TopicPartition(topic, n) for topic, count in counts.items() for n in range(count))


def find_reader(group: str) -> Reader:
    """The processes of a group."""
    if group == LEARNER:
        return Reader("learner", "python -m training follow")
    if group == JOINER:
        return Reader("joiner", "python -m worker feedback")
    return Reader(f"lane {group}", f"python -m worker score --lane {group}")
