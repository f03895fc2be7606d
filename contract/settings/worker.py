"""[worker], [lists], [[rules]], [feedback]: how score workers and the joiner work."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from contract.settings.section import NonNegative, Port, Positive, Section, refuse_bool


class WorkerSettings(Section):
    """How a score worker works. `instance` identifies a worker within its lane and must be stable over restarts.

    A batch has the records that are there, at most `batch_max`, and fewer if they would take longer than `latency_ms`.
    `wait_ms`: how long to wait for the first record. `stop_s`: the process ends at the latest so long after SIGTERM. A
    partition that does not advance although it has records makes the worker not ready after `blocked_s`, and not live
    after `stall_s`.
    """

    instance: str = "0"
    batch_max: Positive = 2_000
    latency_ms: Positive = 100
    wait_ms: Positive = 20
    http_port: Port = 9100
    swap_poll_ms: Positive = 1_000
    stop_s: Positive = 20
    blocked_s: Positive = 30
    stall_s: Positive = 120
    on_lost_log: Literal["stop", "accept"] = "stop"
    dead_letter_share_max: Annotated[float, Field(gt=0, le=1)] = 0.5
    dead_letter_window: Positive = 10_000
    items_max: Annotated[int, Field(gt=0, le=10_000_000)] = 2_000_000  # of the catalogue; further ones are left out


class ListSettings(Section):
    """Recommendation lists: how many candidates are ranked, how many are kept, and for how long.

    `batch_share`: the share of `worker.latency_ms` that lists get in a full batch, users who wait longest first; in an
    idle lane they get all of it. Of more than `waiting_max` users, those who wait longest keep their present list, so
    that memory is bounded. `explore`: the share of a list for
    fresh items, those of the last `fresh_days`. `category_max`, `seller_max`: items of one category or seller on a
    list, 0 for no limit. `shed_ms`: events that waited longer than this in Kafka trigger no new list, 0 for never.
    `item_lists_ms`: of each second, for lists of items, 0 for none.
    `trending_half_life_s`: in event time, of the weight of a person's latest visit to an item.
    `index_from_items`: items of a bundle from which on vectors are searched by an index, 0 for never.
    `rules`: the file of list rules, see `contract.settings.list_rules`; empty: none.
    """

    candidates: Annotated[int, Field(gt=0, le=1_000)] = 100
    batch_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    waiting_max: Positive = 100_000
    length: Positive = 20
    refresh_ms: NonNegative = 1_000
    ttl_s: Positive = 14 * 86_400
    decision_ttl_s: Positive = 7 * 86_400
    purchase_value: Annotated[float, Field(ge=0)] = 5.0  # clicks that a purchase is worth in a list's score
    explore: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    fresh_days: Positive = 14
    category_max: NonNegative = 0
    seller_max: NonNegative = 0
    shed_ms: NonNegative = 0
    item_lists_ms: Annotated[int, Field(ge=0, le=500)] = 20
    trending_half_life_s: Annotated[int, Field(ge=60, le=30 * 86_400)] = 6 * 3_600
    index_from_items: NonNegative = 100_000
    rules: str = ""


class LogSettings(Section):
    """The log on stderr: `text` for a terminal, or one `json` object per line; the lowest level that is written."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


Bound = Annotated[float, BeforeValidator(refuse_bool), Field(allow_inf_nan=False)]


class Rule(Section):
    """A feature's value gives an action and a reason, whatever the model predicts; an absent value never does.

    A number `above` or `below` a bound, or between `above` and `below`; or a category that `equals` a text.
    """

    feature: str
    above: Bound | None = None
    below: Bound | None = None
    equals: str | None = None
    action: Literal["review", "decline"]
    reason: str

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        if (self.equals is None) == (self.above is None and self.below is None):
            raise ValueError("should have `above`, `below` or both, or `equals` alone")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("should have an `above` that is less than its `below`")
        return self

    @property
    def feature_kind(self) -> Literal["number", "category"]:
        """The kind of feature that it compares."""
        return "number" if self.equals is None else "category"


class LabelDelay(NamedTuple):
    """A label of 0 is emitted after `wait_ms` and may be corrected to 1 until `window_ms` have passed."""

    wait_ms: int
    window_ms: int


class FeedbackSettings(Section):
    """How long the joiner waits for labels, in event time, and how much may be pending.

    `grace_s`: how much longer a row is kept for labels that arrive out of order. `idle_ms`, in wall time: a partition
    silent for this long no longer holds back the watermark. At most `rows_max` rows of a kind are in memory; the others
    wait in the folder `store` on disk. Without one (empty), the oldest are evicted, which is counted, and so are events
    that came before their row, beyond `parked_max` of a kind; each partition number has its share of both. `save_ms`,
    in wall time: how often the store is written; a restart reads again what was read since. `said_max`: published
    examples and judgements that a restarted joiner remembers for each partition number to avoid duplicates; 8 bytes
    each.
    """

    impression_wait_s: Positive = 86_400
    click_wait_s: Positive = 30 * 60
    purchase_wait_s: Positive = 60 * 60
    purchase_window_s: Positive = 7 * 86_400
    fraud_window_s: Positive = 30 * 86_400
    grace_s: Positive = 60 * 60
    idle_ms: NonNegative = 2_000
    rows_max: Positive = 200_000
    parked_max: Positive = 100_000
    said_max: Positive = 50_000_000
    store: str = "joiner-rows"
    save_ms: NonNegative = 10_000

    def delays_by_task(self) -> dict[str, LabelDelay]:
        """The tasks whose first label may be corrected, by name; times count from the label they go through."""
        return {"purchase": LabelDelay(self.purchase_wait_s * 1000, self.purchase_window_s * 1000)}
