"""[watch]: how `training watch`, the monitor, observes the served model."""

from typing import Annotated

from pydantic import Field

from contract.settings.section import Port, Positive, Section, Share

Seconds = Annotated[float, Field(gt=0)]
Margin = Annotated[float, Field(ge=0)]


class MonitorConfig(Section):
    """`pause_s`: wall time between two checks. `portion`: records read at a time from one partition.

    Live metrics. `rows`: examples kept for each graph, of a sample of users if there are more. `window_s`: the event
    time that metrics cover, back from the newest matured example. `first`: the k of recall at k.

    Drift. `block`: users whose rows are compared at a time, spread over at least `block_s` of event time.
    `events_per_alarm`: without drift, one false alarm in this many scored rows.

    Rollback. `rollback`: whether the monitor rolls back at all. `margin`: share of its gain that a task may lose
    against the parent; `score_margin`: the same for all tasks together. `rows_min`: matured rows before the first
    comparison. `risk`: the probability that a bundle that is no worse is ever rolled back.
    """

    http_port: Port = 9100
    pause_s: Seconds = 10.0
    portion: Positive = 5_000
    rows: Positive = 20_000
    window_s: Seconds = 7 * 86_400.0
    first: Positive = 10
    block: Annotated[int, Field(ge=100)] = 2_000
    block_s: Annotated[float, Field(ge=0)] = 86_400.0
    events_per_alarm: Positive = 1_000_000
    rollback: bool = True
    margin: Margin = 0.05
    score_margin: Margin = 0.02
    rows_min: Annotated[int, Field(ge=100)] = 1_000
    risk: Share = 0.01
