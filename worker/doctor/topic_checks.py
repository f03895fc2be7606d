"""What is wrong with the topics of a shop, from their description. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from contract.settings.reading import Settings
from worker.doctor.finding import Finding, Severity, approve
from worker.kafka.admin import TopicSetup
from worker.ops.denied_rights import Grants, list_operations

DAY_MS: Final = 86_400_000
COPIES: Final = 3  # of each partition, where there are as many brokers
COMPACTED_KINDS: Final = ("products", "erasures")
JOINED_KINDS: Final = ("scored", "impressions", "clicks", "orders", "labels")
JOINER_OUTPUTS: Final = ("feedback", "judgements")
FOLDED_KINDS: Final = ("orders", "reviews", "judgements", "clicks", "impressions", "searches")
TIMED_KINDS: Final = (*FOLDED_KINDS, "scored", "labels")
READ_KINDS: Final = (*FOLDED_KINDS, "labels", "products", "erasures")
COMPACTION_LAG_MS: Final = 7 * DAY_MS  # longer than a lane is down: until then a worker copies what compaction removes
FOLDED_MS: Final = DAY_MS  # a worker may be down this long


class TopicChecks:
    """The checks of topics, by kind; `states`: the topics by name, `brokers`: the ids of all brokers."""

    def __init__(self, settings: Settings, states: Mapping[str, TopicSetup], brokers: Sequence[int]) -> None:
        self._settings, self._broker_ids, self._brokers = settings, brokers, len(brokers)
        self._servers = settings.kafka.bootstrap_servers
        self._names = settings.topics.names_by_kind()
        self._event_topics, self._grants = settings.event_topics(), Grants.of(settings.kafka)
        self._denied = {name for name, state in states.items() if state.is_denied}
        self._states_by_name = {name: state for name, state in states.items() if not state.is_denied}
        self._states = {kind: self._states_by_name[n] for kind, n in self._names.items() if n in self._states_by_name}

    def run(self, kinds: Iterable[str]) -> list[Finding]:
        """All findings about the topics of these kinds."""
        wanted = list(kinds)
        present = [kind for kind in wanted if kind in self._states]
        findings = [self._describe_missing(kind) for kind in wanted if kind not in self._states]
        if set(JOINED_KINDS) <= set(wanted):
            joined = self._event_topics.names_of(JOINED_KINDS)
            counts = {name: self._states_by_name[name].partitions for name in joined if name in self._states_by_name}
            findings += find_different_partitions(counts, self._servers)
        findings += self._find_added_missing(wanted)
        findings += self._find_unreadable(present)
        for kind in present:
            config = self._states[kind].config
            if config is not None:
                findings += [*self._check_cleanup(kind, config), *self._check_retention(kind, config)]
                findings += [*self._check_durability(kind, config), *self._check_times(kind, config)]
        findings += self._check_dead_letters()
        findings += self._check_ids(present)
        return findings

    def approve(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """A verdict on each topic that exists and has none of these findings."""
        subjects = {finding.subject for finding in findings}
        for kind, state in self._states.items():
            if (name := self._names[kind]) not in subjects:
                config = state.config or {}
                kept = f", kept for {config['retention.ms']} ms" if "delete" in config.get("cleanup.policy", "") else ""
                times = config.get("message.timestamp.type", "times that are not known")
                yield approve(name, f"{state.partitions} partitions, {state.replicas} copies, {times}{kept}.")

    def _describe_missing(self, kind: str) -> Finding:
        name = self._names[kind]
        if name in self._denied:
            return self._describe_denied(name, f"topics.{kind}", list_operations(kind))
        options = " ".join(f"--config {key}={value}" for key, value in build_configs(self._settings)[kind].items())
        return Finding(
            Severity.ERROR,
            name,
            f"The topic should exist (topics.{kind}). Found none of that name.",
            f"kafka-topics.sh --bootstrap-server {self._servers} --create --topic {name}"
            f" --partitions {self._settings.topics.partitions} {options}".rstrip(),
        )

    def _describe_denied(self, name: str, place: str, operations: Iterable[str]) -> Finding:
        text = f"The user {self._grants.user} should be allowed to use the topic ({place}). Found it denied to see it."
        return Finding(Severity.ERROR, name, text, self._grants.topic(name, operations))

    def _find_added_missing(self, kinds: list[str]) -> Iterator[Finding]:
        for place, name in self._event_topics.name_added(kinds).items():
            if name in self._denied:
                yield self._describe_denied(name, place, ["READ"])
            elif name not in self._states_by_name:
                yield Finding(
                    Severity.ERROR,
                    name,
                    f"The topic should exist ({place}). Found none of that name.",
                    f"kafka-topics.sh --bootstrap-server {self._servers} --create --topic {name}"
                    f" --partitions {self._settings.topics.partitions}",
                )

    def _find_unreadable(self, kinds: list[str]) -> Iterator[Finding]:
        unreadable = [self._names[kind] for kind in kinds if self._states[kind].config is None]
        if unreadable:
            yield Finding(
                Severity.WARNING,
                "permissions",
                "The user should be allowed to read the settings of topics (DESCRIBE_CONFIGS). Found it denied: "
                f"they are not checked for {', '.join(unreadable)}.",
            )

    def _check_cleanup(self, kind: str, config: Mapping[str, str]) -> Iterator[Finding]:
        policies = set(config.get("cleanup.policy", "delete").split(","))
        name = self._names[kind]
        if kind in COMPACTED_KINDS:
            if "delete" in policies and is_limited(config):
                yield Finding(
                    Severity.ERROR,
                    name,
                    "The topic should be compacted, because workers read it from its beginning. Found "
                    f"cleanup.policy={config.get('cleanup.policy')} with {describe_retention(config)}: what is older "
                    "is lost.",
                    self._format_alter(name, "cleanup.policy=compact"),
                )
            lag_ms = int(config.get("min.compaction.lag.ms", "0"))
            if kind == "erasures" and "compact" in policies and lag_ms < COMPACTION_LAG_MS:
                yield Finding(
                    Severity.WARNING,
                    name,
                    f"Every erasure should stay for {COMPACTION_LAG_MS} ms before a later one of the same user "
                    f"replaces it. Found min.compaction.lag.ms={lag_ms}.",
                    self._format_alter(name, f"min.compaction.lag.ms={COMPACTION_LAG_MS}"),
                )
        elif "compact" in policies:
            yield Finding(
                Severity.ERROR,
                name,
                "The topic should keep every record: its keys repeat. Found "
                f"cleanup.policy={config.get('cleanup.policy')}: compaction deletes all but the last of a key.",
                self._format_alter(name, "cleanup.policy=delete"),
            )

    def _check_retention(self, kind: str, config: Mapping[str, str]) -> Iterator[Finding]:
        needed_ms = compute_retention_ms(self._settings, kind)
        retention_ms = int(config.get("retention.ms", "-1"))
        if kind in COMPACTED_KINDS or not needed_ms:
            return
        name = self._names[kind]
        if 0 <= retention_ms < needed_ms:
            reader = "the joiner" if kind in (*JOINED_KINDS, *JOINER_OUTPUTS) else "a worker that was down"
            yield Finding(
                Severity.WARNING,
                name,
                f"Records should stay for {needed_ms} ms, as long as {reader} reads back. "
                f"Found retention.ms={retention_ms}.",
                self._format_alter(name, f"retention.ms={needed_ms}"),
            )
        if int(config.get("retention.bytes", "-1")) >= 0:
            yield Finding(
                Severity.WARNING,
                name,
                "Records should be deleted by age alone. Found "
                f"retention.bytes={config['retention.bytes']}: a busy day shortens what is kept.",
                self._format_alter(name, "retention.bytes=-1"),
            )

    def _check_durability(self, kind: str, config: Mapping[str, str]) -> Iterator[Finding]:
        replicas, in_sync = self._states[kind].replicas, int(config.get("min.insync.replicas", "1"))
        name = self._names[kind]
        if replicas == 1 and self._brokers > 1:
            yield Finding(
                Severity.WARNING,
                name,
                f"Each partition should have copies on {self._brokers} brokers. Found 1 copy.",
                self._format_reassignment(name),
            )
        elif replicas > 1 and in_sync >= replicas:
            yield Finding(
                Severity.WARNING,
                name,
                f"One broker should be able to be away. Found min.insync.replicas={in_sync} of {replicas} copies.",
                self._format_alter(name, f"min.insync.replicas={replicas - 1}"),
            )
        elif replicas > 2 and in_sync < 2:
            yield Finding(
                Severity.WARNING,
                name,
                f"What is acknowledged should be on two brokers. Found min.insync.replicas={in_sync}.",
                self._format_alter(name, "min.insync.replicas=2"),
            )

    def _check_times(self, kind: str, config: Mapping[str, str]) -> Iterator[Finding]:
        """Records of events keep the time that their producer gave: windows, stream time and replays go by it."""
        times = config.get("message.timestamp.type", "CreateTime")
        if kind in TIMED_KINDS and times != "CreateTime":
            yield Finding(
                Severity.WARNING,
                self._names[kind],
                f"Records should keep the time of their producer. Found message.timestamp.type={times}: history "
                "that is sent again is taken for events of now.",
                self._format_alter(self._names[kind], "message.timestamp.type=CreateTime"),
            )

    def _check_dead_letters(self) -> Iterator[Finding]:
        sizes = {
            kind: int(size)
            for kind, state in self._states.items()
            if state.config and (size := state.config.get("max.message.bytes"))
        }
        largest = max((sizes[kind] for kind in READ_KINDS if kind in sizes), default=0)
        if "dead_letters" in sizes and sizes["dead_letters"] < largest:
            name = self._names["dead_letters"]
            yield Finding(
                Severity.WARNING,
                name,
                f"A dead letter should take every record that is read, up to {largest} bytes. Found "
                f"max.message.bytes={sizes['dead_letters']}.",
                self._format_alter(name, f"max.message.bytes={largest}"),
            )

    def _check_ids(self, kinds: list[str]) -> Iterator[Finding]:
        if self._settings.kafka.topic_ids and kinds and not any(self._states[kind].topic_id for kind in kinds):
            yield Finding(
                Severity.WARNING,
                "topic ids",
                "Brokers should give topics ids (Kafka 2.8 or later). Found none: a topic that is deleted and created "
                "again cannot be told from the one before. Set kafka.topic_ids = false to accept that.",
            )

    def _format_reassignment(self, name: str) -> str:
        """The command that adds copies: its file lists the brokers of each partition."""
        partitions = self._states_by_name[name].partitions
        copies = [{"topic": name, "partition": n, "replicas": self._choose_brokers(n)} for n in range(partitions)]
        plan = json.dumps({"version": 1, "partitions": copies})
        return (
            f"kafka-reassign-partitions.sh --bootstrap-server {self._servers} --execute"
            f" --reassignment-json-file <(echo '{plan}')"
        )

    def _choose_brokers(self, partition: int) -> list[int]:
        """The brokers of a partition's copies, in an order by which each broker leads some partitions."""
        return [self._broker_ids[(partition + n) % self._brokers] for n in range(min(COPIES, self._brokers))]

    def _format_alter(self, name: str, setting: str) -> str:
        return (
            f"kafka-configs.sh --bootstrap-server {self._servers} --alter --entity-type topics --entity-name {name}"
            f" --add-config {setting}"
        )


def find_different_partitions(counts: Mapping[str, int], servers: str) -> Iterator[Finding]:
    """Topics of the joiner with fewer partitions than another one. `counts`: partitions by name."""
    most = max(counts.values(), default=0)
    for name, count in counts.items():
        if count < most:
            yield Finding(
                Severity.ERROR,
                name,
                f"The topics that the joiner reads should have the same number of partitions, {most}. Found {count}. "
                "Records that are already there stay in their partitions.",
                f"kafka-topics.sh --bootstrap-server {servers} --alter --topic {name} --partitions {most}",
            )


def compute_retention_ms(settings: Settings, kind: str) -> int:
    """How long records of this kind are read back; 0: no process depends on it."""
    feedback = settings.feedback
    windows = (feedback.impression_wait_s, feedback.click_wait_s, feedback.purchase_window_s, feedback.fraud_window_s)
    joined_ms = (max(windows) + feedback.grace_s) * 1000
    if kind in (*JOINED_KINDS, *JOINER_OUTPUTS):
        return joined_ms
    return FOLDED_MS if kind in FOLDED_KINDS else 0


def build_configs(settings: Settings) -> dict[str, dict[str, str]]:
    """The settings of topics that the worker creates, by kind, so that these checks find nothing."""
    configs: dict[str, dict[str, str]] = {}
    for kind in settings.topics.names_by_kind():
        config = configs[kind] = {}
        if kind in COMPACTED_KINDS:
            config["cleanup.policy"] = "compact"
        elif kind in (*JOINED_KINDS, *JOINER_OUTPUTS):
            # A day more: records are deleted by the time of their segment.
            config["retention.ms"] = str(compute_retention_ms(settings, kind) + DAY_MS)
        if kind == "erasures":
            config["min.compaction.lag.ms"] = str(COMPACTION_LAG_MS)
    return configs


def is_limited(config: Mapping[str, str]) -> bool:
    """Whether records are deleted after some time or beyond some size."""
    return int(config.get("retention.ms", "-1")) >= 0 or int(config.get("retention.bytes", "-1")) >= 0


def describe_retention(config: Mapping[str, str]) -> str:
    return f"retention.ms={config.get('retention.ms')} and retention.bytes={config.get('retention.bytes')}"
