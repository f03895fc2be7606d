"""The configuration of the model monitor: the [watch] table of `shop.toml`."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from contract.errors import BadConfig

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Seconds = Annotated[float, Meta(gt=0)]
Margin = Annotated[float, Meta(ge=0)]


class MonitorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`pause_s`: between two checks. `portion`: records of one partition that are read at a time.

    Live metrics. `rows`: examples kept of one graph; above it, those of fewer users are kept. `window_s`: event time
    that metrics cover, back from the newest matured rows. `first`: the k of recall at k.

    Drift. `block`: users whose rows are compared at a time, spread over at least `block_s` of event time.
    `events_per_alarm`: scored rows per false alarm, where nothing drifts.

    Rollback. `rollback`: whether a worse bundle is rolled back, or only reported. `margin`: the gain that a task may
    lose against the parent; `score_margin`: all tasks together. `rows_min`: matured rows before the first test.
    `risk`: the probability that a bundle that is not worse is ever rolled back.
    """

    http_port: Annotated[int, Meta(ge=0, le=65_535)] = 9100
    pause_s: Seconds = 10.0
    portion: Count = 5_000
    rows: Count = 20_000
    window_s: Seconds = 7 * 86_400.0
    first: Count = 10
    block: Annotated[int, Meta(ge=100)] = 2_000
    block_s: Annotated[float, Meta(ge=0)] = 86_400.0
    events_per_alarm: Count = 1_000_000
    rollback: bool = True
    margin: Margin = 0.05
    score_margin: Margin = 0.02
    rows_min: Annotated[int, Meta(ge=100)] = 1_000
    risk: Share = 0.01


def read_monitor_config(table: Mapping[str, object]) -> MonitorConfig:
    """The [watch] table as a config; raises `BadConfig`."""
    try:
        return msgspec.convert(table, MonitorConfig, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig([f"[watch] should be settings of the monitor. Found: {error}"]) from error
