"""What Prometheus sees of a process. The names are promised in docs/metrics.md; the one door to prometheus_client."""

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
    "events_recovered_total", "Records folded but not answered again, by recovery.", "kind"
)
ANSWERS: Final = counter("answers_total", "Answers published: decisions, lists, rankings, scored rows.", "kind")
DECISIONS: Final = counter("decisions_total", "Decisions by action; repeated ones are counted again.", "action")
DECISIONS_REPEATED: Final = counter(
    "decisions_repeated_total", "Decisions that an earlier life of the worker had made."
)
DEAD_LETTERS: Final = counter("dead_letters_total", "Records that could not be answered, by reason.", "reason")
CLAMPED_TIMESTAMPS: Final = counter(
    "clamped_timestamps_total", "Events dated too far ahead, moved to their record's time."
)
DEGRADED_ANSWERS: Final = counter("degraded_answers_total", "Answers given without a model.", "kind")
NON_FINITE_SCORES: Final = counter(
    "non_finite_scores_total", "Scores that were not finite; they never approve.", "task"
)
BATCH_RECORDS: Final = histogram("batch_records", "Records in a batch.", SIZE_BUCKETS)
STEP_SECONDS: Final = histogram(
    "step_seconds", "Time of one step of the protocol, a batch each.", LATENCY_BUCKETS_S, "step"
)
WAITING: Final = gauge("waiting", "1 while the worker waits for a server that does not answer.", "server")
RETRIES: Final = counter("retries_total", "Attempts that found a server unavailable.", "server")
RECOVERIES: Final = counter("recoveries_total", "Times the worker went back to what Redis has, by reason.", "reason")
LOST_LOG_RECORDS: Final = counter("lost_log_records_total", "Records that retention removed before they were merged.")
LAG_RECORDS: Final = gauge("lag_records", "Records behind the end of a partition.", "topic", "partition")
MODEL_INFO: Final = gauge("model_info", "1 for the model that serves.", "version")
BUNDLES_REFUSED: Final = counter("bundles_refused_total", "Bundles that were found unfit to serve.")
BUNDLE_SWAPS: Final = counter("bundle_swaps_total", "Bundles taken up.")
TRIAL_INFO: Final = gauge(
    "trial_info", "1 for the model on trial, with the share of users it answers.", "version", "share"
)
TRIAL_ROWS: Final = counter("trial_rows_total", "Rows that the model on trial scored, by the way of the trial.", "way")
TRIAL_FAILURES: Final = counter("trial_failures_total", "What the model on trial could not say, by reason.", "reason")
SHADOW_SECONDS: Final = histogram(
    "shadow_seconds", "Time that a shadow took beside an answer, a run each.", LATENCY_BUCKETS_S
)
BAD_PRODUCTS: Final = counter("bad_products_total", "Product records that were left out, by reason.", "reason")
BAD_ERASURES: Final = counter(
    "bad_erasures_total", "Erasure records that could not be carried out, by reason.", "reason"
)
ERASED_PEOPLE: Final = gauge("erased_people", "People whose erasure this worker knows.")
ERASED_EVENTS: Final = counter(
    "erased_events_total", "Events that an erasure covers, by kind: no answer is kept.", "kind"
)
ERASURES_PENDING: Final = gauge("erasures_pending", "Erasures that this worker has still to confirm.")
ERASURES_CONFIRMED: Final = counter("erasures_confirmed_total", "Erasures confirmed; repeated ones count again.")
CATALOGUE_ITEMS: Final = gauge("catalogue_items", "Items in the catalogue.")
LIST_AGE_SECONDS: Final = histogram(
    "list_age_seconds", "From a user's event time to the list that reflects it.", LATENCY_BUCKETS_S
)
LISTS_SHED: Final = counter(
    "lists_shed_total", "Events that brought no new list: they waited too long, or too many users did."
)
EXAMPLES: Final = counter("examples_total", "Examples published, for each label in them; revisions count.", "task")
JUDGEMENTS: Final = counter("judgements_total", "Labels sent on with the entities of what they judge.")
JOINS: Final = counter(
    "joins_total", "What became of events and rows that gave no example as they came.", "fate", "task"
)
EXAMPLES_WITHHELD: Final = counter(
    "examples_withheld_total", "Examples and judgements that an earlier life had published, not published again."
)
EXAMPLES_UNREMEMBERED: Final = gauge(
    "examples_unremembered",
    "Examples and judgements of earlier lives that may be published again: too many to remember.",
)
ORPHAN_LABELS: Final = gauge("orphan_labels", "Labels whose row never came, each counted once over all lives.", "task")
UNREADABLE_RECORDS: Final = counter("unreadable_records_total", "Records that the joiner could not decode.", "kind")
STREAM_TIME_SECONDS: Final = gauge("stream_time_seconds", "The streams' own time, by which the joiner's timers go.")
OLDEST_OPEN_SECONDS: Final = gauge("oldest_open_seconds", "Event time of the oldest thing that waits for a label.")


def set_serving_model(version: str) -> None:
    """Make `version` the one model that is shown as serving."""
    MODEL_INFO.clear()
    MODEL_INFO.labels(version).set(1)


def set_trial_model(version: str, share: float) -> None:
    """Make `version` the one model that is shown as on trial; none for an empty one."""
    TRIAL_INFO.clear()
    if version:
        TRIAL_INFO.labels(version, f"{share:g}").set(1)


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
