"""The Prometheus metrics of a worker; docs/metrics.md promises their names. No other file imports prometheus_client."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZE_BUCKETS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)


def counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"shopstream_{name}", text, labels, registry=REGISTRY)


def gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"shopstream_{name}", text, labels, registry=REGISTRY)


def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"shopstream_{name}", text, labels, buckets=buckets, registry=REGISTRY)


EVENTS: Final = counter("events_total", "Records read, by kind of event.", "kind")
EVENTS_RECOVERED: Final = counter(
    "events_recovered_total", "Records folded again by recovery, without an answer.", "kind"
)
ANSWERS: Final = counter("answers_total", "Answers published, by kind.", "kind")
DECISIONS: Final = counter("decisions_total", "Decisions by action; repeated ones are counted again.", "action")
DECISIONS_REPEATED: Final = counter(
    "decisions_repeated_total", "Decisions already made, by an earlier attempt or process."
)
DECISION_CONFLICTS: Final = counter(
    "decision_conflicts_total", "Decisions of orders whose id another order has; repeated ones are counted again."
)
WRITES_FENCED: Final = counter(
    "writes_fenced_total", "Answers not written since others carry out an erasure that this worker has not read yet."
)
UNREADABLE_KEYS: Final = counter(
    "unreadable_keys_total", "Keys in Redis of another type or content than written, replaced or deleted.", "kind"
)
DEAD_LETTERS: Final = counter("dead_letters_total", "Records that could not be answered, by reason.", "reason")
SKIPPED_RECORDS: Final = counter(
    "skipped_records_total", "Records of a map's topic that are none of those that the map reads.", "topic"
)
FIELDS_IGNORED: Final = counter(
    "fields_ignored_total", "Values of events that could not be read and were taken as absent.", "kind", "field"
)
FIELDS_DOUBTFUL: Final = counter(
    "fields_doubtful_total",
    "Values that look like another unit than declared (`s`, `ms`, `us`, `ns`), or lack a rate (`no_rate`).",
    "kind",
    "field",
    "found",
)
MOST_SHARED_ID_USERS: Final = gauge(
    "most_shared_id_users", "Users of the device, address or card that most of the latest users share.", "kind", "id"
)
REJOINS: Final = counter(
    "rejoins_total", "Times that this member joined its group again with a new client, fenced or without a broker."
)
REFUSED_RECORDS: Final = counter(
    "refused_records_total",
    "Records that their topic did not take, by topic and what became of them.",
    "topic",
    "outcome",
)
DROPPED_HEADERS: Final = counter(
    "dropped_headers_total", "Headers that were left out, because their name is not UTF-8."
)
ATTRIBUTES_ABSENT: Final = counter(
    "attributes_absent_total",
    "Events without a declared attribute, by feature read: missing, or of another type.",
    "attribute",
    "reason",
)
CLAMPED_TIMESTAMPS: Final = counter(
    "clamped_timestamps_total", "Events with a time too far ahead, set to their record's timestamp."
)
DEGRADED_ANSWERS: Final = counter("degraded_answers_total", "Answers without a model.", "kind")
NON_FINITE_SCORES: Final = counter(
    "non_finite_scores_total", "Scores that were not finite; they never approve an order.", "task"
)
BATCH_RECORDS: Final = histogram("batch_records", "Records in a batch.", SIZE_BUCKETS)
STEP_SECONDS: Final = histogram("step_seconds", "Time of one step of a batch.", LATENCY_BUCKETS_S, "step")
WAITING: Final = gauge("waiting", "1 while a server does not answer and the worker retries.", "server")
RETRIES: Final = counter("retries_total", "Failed attempts to reach a server.", "server")
RECOVERIES: Final = counter("recoveries_total", "Recoveries from the state in Redis, by reason.", "reason")
HISTORY_BUCKETS_LOST: Final = gauge(
    "history_buckets_lost", "Buckets of profiles that lack events of their history, when partitions were last assigned."
)
LOST_LOG_RECORDS: Final = counter("lost_log_records_total", "Records that retention deleted before they were merged.")
LAG_RECORDS: Final = gauge(
    "lag_records",
    "Records from the answered offset to a partition's end; at least 1 while the end is not known.",
    "topic",
    "partition",
)
LAG_SECONDS: Final = gauge("lag_seconds", "Age of the next record of a partition, 0 without lag.", "topic", "partition")
BLOCKED_SECONDS: Final = gauge(
    "blocked_seconds", "How long a partition or the worker stands still for this reason.", "reason"
)
OPEN_TRANSACTION_OFFSET: Final = gauge(
    "open_transaction_offset", "First offset of an open transaction that holds a partition back.", "topic", "partition"
)
MODEL_INFO: Final = gauge("model_info", "1 for the serving model.", "version")
BUNDLES_REFUSED: Final = counter("bundles_refused_total", "Bundles rejected as unfit to serve.")
BUNDLE_SWAPS: Final = counter("bundle_swaps_total", "Bundles activated.")
PROFILE_SHARE: Final = gauge(
    "profile_share", "Share of users with a profile: found by the first batches, and in the model's training.", "of"
)
TRIAL_INFO: Final = gauge("trial_info", "1 for the trial model, with its share of users.", "version", "share")
TRIAL_ROWS: Final = counter("trial_rows_total", "Rows that the trial model scored, as shadow or canary.", "way")
TRIAL_FAILURES: Final = counter("trial_failures_total", "Trial model failures, by reason.", "reason")
SHADOW_SECONDS: Final = histogram("shadow_seconds", "Shadow inference time, per run of a graph.", LATENCY_BUCKETS_S)
BAD_PRODUCTS: Final = counter("bad_products_total", "Rejected product records, by reason.", "reason")
BAD_ERASURES: Final = counter("bad_erasures_total", "Rejected erasure records, by reason.", "reason")
ERASED_PEOPLE: Final = gauge("erased_people", "Users with a known erasure.")
ERASED_EVENTS: Final = counter("erased_events_total", "Events covered by an erasure, by kind.", "kind")
ERASURES_PENDING: Final = gauge("erasures_pending", "Erasures that this worker has not confirmed yet.")
LINKS_MASKED: Final = counter("links_masked_total", "Slices in which links with erased users were masked.")
ERASURES_WAITING: Final = gauge(
    "erasures_waiting_for", "Owners of data that pending erasures of this worker wait for, by kind of owner.", "owners"
)
ERASURES_CONFIRMED: Final = counter("erasures_confirmed_total", "Confirmed erasures; repeated ones count again.")
CATALOGUE_ITEMS: Final = gauge("catalogue_items", "Items in the catalogue.")
LIST_RULES: Final = gauge("list_rules", "List rules of the file that were read last.")
LIST_RULES_REFUSED: Final = gauge("list_rules_refused", "1 while the file of list rules is refused.")
LIST_RULES_UNKNOWN: Final = gauge("list_rules_unknown", "Names in list rules that the catalogue does not have.")
LIST_RULE_ITEMS: Final = counter("list_rule_items_total", "Items that a list rule put where they are.", "rule")
LISTS_ALL_EXCLUDED: Final = counter("lists_all_excluded_total", "Lists for which rules leave no item.", "answer")
RETRIEVAL_RECALL: Final = gauge(
    "retrieval_recall", "Share of the items nearest to users that the index found, 1 for an exact search."
)
RETRIEVAL_INDEX_ITEMS: Final = gauge("retrieval_index_items", "Items in the index, 0 for an exact search.")
RETRIEVAL_INDEX_FAILURES: Final = counter(
    "retrieval_index_failures_total", "Indexes that were given up for an exact search, by reason.", "reason"
)
RETRIEVAL_EXACT_USERS: Final = counter(
    "retrieval_exact_users_total", "Users searched exactly since the index found too few items."
)
NON_FINITE_VECTORS: Final = counter(
    "non_finite_vectors_total", "Vectors of users that were not finite; they get no items by vector."
)
LIST_AGE_SECONDS: Final = histogram(
    "list_age_seconds",
    "From the time of a user's event until the list that reflects it is in Redis.",
    LATENCY_BUCKETS_S,
)
LIST_WAITING_USERS: Final = gauge("list_waiting_users", "Users that wait for a new list.")
LIST_WAITING_SECONDS: Final = gauge(
    "list_waiting_seconds", "How long the user that waits longest for a new list has waited, 0 if none waits."
)
LISTS_SHED: Final = counter(
    "lists_shed_total", "Events that did not refresh a list: too old, or too many users waiting."
)
ITEM_LISTS_WRITTEN: Final = counter("item_lists_total", "Written lists of items: similar, and bought together.")
ITEM_LISTS_DUE: Final = gauge("item_lists_due", "Items whose lists this worker has to write.")
EXAMPLES: Final = counter("examples_total", "Published examples, per label; revisions count.", "task")
JUDGEMENTS: Final = counter("judgements_total", "Labels forwarded with the entities that they concern.")
JOINS: Final = counter("joins_total", "Outcomes of events and rows that gave no example on arrival.", "fate", "task")
EXAMPLES_WITHHELD: Final = counter(
    "examples_withheld_total", "Duplicates of already published examples and judgements, dropped."
)
EXAMPLES_UNREMEMBERED: Final = gauge(
    "examples_unremembered",
    "Published examples and judgements beyond the deduplication set; they may be repeated.",
)
ORPHAN_LABELS: Final = gauge("orphan_labels", "Labels without a row, each counted once over all restarts.", "task")
UNREADABLE_RECORDS: Final = counter("unreadable_records_total", "Records that the joiner could not decode.", "kind")
UNTRUSTED_TIMES: Final = counter(
    "untrusted_times_total",
    "Records dated in the future without a Kafka time that confirms it; they do not move the stream time.",
    "kind",
)
MISPLACED_ROWS: Final = counter(
    "misplaced_rows_total", "Scored rows with another partition number than their event; the joiner may miss labels."
)
STREAM_TIMES_RESET: Final = counter("stream_times_reset_total", "Committed stream times in the future that were reset.")
WAITING_ROWS: Final = gauge("waiting_rows", "Rows and events that wait in the joiner, in memory or on disk.")
STORE_BYTES: Final = gauge("store_bytes", "Size of the stores of waiting rows on disk.")
STORES_DISCARDED: Final = counter(
    "stores_discarded_total", "Stores of waiting rows that could not be used; the log was read again."
)
JOINER_SHARDS: Final = gauge("joiner_shards", "Partition numbers that this joiner joins.")
STREAM_TIME_SECONDS: Final = gauge("stream_time_seconds", "The watermark (event time) of the joiner's slowest shard.")
STREAM_TIME_HELD_SECONDS: Final = gauge(
    "stream_time_held_seconds",
    "How far a partition with more to read holds the stream time of its shard back, in event time.",
    "topic",
    "partition",
)
OLDEST_OPEN_SECONDS: Final = gauge("oldest_open_seconds", "Event time of the oldest row that waits for a label.")


def set_serving_model(version: str) -> None:
    """Show `version`, and no other, as the serving model."""
    MODEL_INFO.clear()
    MODEL_INFO.labels(version).set(1)


def set_trial_model(version: str, share: float) -> None:
    """Show `version`, and no other, as the trial model; an empty one: no trial."""
    TRIAL_INFO.clear()
    if version:
        TRIAL_INFO.labels(version, f"{share:g}").set(1)


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
