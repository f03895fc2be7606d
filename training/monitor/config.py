"""How the watcher watches: the [watch] table of `shop.toml`."""

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
    """`pause_s`: between two looks, by the clock. `portion`: records of one partition that are read at a time.

    Live figures: `rows`: how many examples of one graph are kept at most, of fewer users where there are more;
    `window_s`: how far back figures go from what has just matured, in the streams' time; `first`: the k of recall among
    the first k of a list.

    Drift: `block`: so many people's rows are compared at a time, spread over `block_s` of the streams' time at least;
    `events_per_alarm`: without drift, one false alarm in so many scored rows.

    Rollback: `rollback`: whether to act at all. `margin`: how much of its gain a task may lose against the parent,
    `score_margin` all of them together; `rows_min`: matured rows before the first comparison; `risk`: the chance that a
    bundle that is not worse is ever taken back.
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
    """What the [watch] table declares; raises `BadConfig`."""
    try:
        return msgspec.convert(table, MonitorConfig, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig([f"[watch] should say how to watch. Found: {error}"]) from error
