"""What `bench learning` measures of each way of going on, and what it aims at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.learning_stream import Stream
from model.checkpoint import Checkpoint
from training.data.arrays import Array
from training.data.examples import Examples
from training.metrics.calibration import calibration_error
from training.metrics.losses import log_loss
from training.metrics.ranking import auc
from training.trainer.learner import predict

HOUR_MS: Final = 3_600_000
CADENCES: Final = {"5h": 5.0, "1h": 1.0, "30min": 0.5}
BLOCK_MS: Final = 6 * HOUR_MS
LEAST: Final = 5  # of either label, for a block to have an AUC
TASKS: Final = ("click", "purchase", "relevance", "fraud")
GAIN, COST, EQUAL, FORGOTTEN = 0.003, 0.1, 0.995, 0.003

Answers = dict[str, Array]


@dataclass(slots=True)
class Arm:
    """One way of going on: what it said of each coming example before anybody knew, and what it cost."""

    name: str
    said: Answers = field(default_factory=dict)
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    refused: int = 0
    examples: int = 0
    old: Answers = field(default_factory=dict)  # what its last model says of the old examples
    reasons: list[str] = field(default_factory=list)

    def answer(self, checkpoint: Checkpoint, coming: Examples, since_ms: int, until_ms: int) -> None:
        """Serve that time."""
        rows = np.flatnonzero((coming.ts_ms >= since_ms) & (coming.ts_ms < until_ms))
        if len(rows):
            for task, answers in predict(checkpoint.build_network(), coming.take(rows)).items():
                self.said.setdefault(task, np.full((len(coming), *answers.shape[1:]), np.nan, np.float32))[rows] = (
                    answers
                )


def arm_figures(stream: Stream, arm: Arm) -> dict[str, Any]:
    """Of each task: AUC in each block of hours, and their mean weighted by what a block tells; log loss and level."""
    coming = stream.coming
    found: dict[str, Any] = {"auc": {}, "log_loss": {}, "ece": {}, "blocks": {}, "old_auc": {}}
    for task in TASKS:
        y, p, at = (of[np.isfinite(coming.labels[task])] for of in (coming.labels[task], arm.said[task], coming.ts_ms))
        block = (at - stream.scale.begins_ms) // BLOCK_MS
        blocks = [(int(b), *block_auc(y[block == b], p[block == b])) for b in np.unique(block)]
        blocks = [one for one in blocks if np.isfinite(one[1])]
        found["blocks"][task] = {f"{6 * b}h": round(value, 4) for b, value, _ in blocks}
        if blocks:
            found["auc"][task] = float(np.average([b[1] for b in blocks], weights=[b[2] for b in blocks]))
        found["log_loss"][task] = round(log_loss(y, p.astype(np.float64)), 5)
        found["ece"][task] = round(calibration_error(y, p.astype(np.float64)), 5)
        old = np.isfinite(stream.old.labels[task])
        value, weight = block_auc(stream.old.labels[task][old], arm.old[task][old])
        if weight:
            found["old_auc"][task] = value
    counts = max(len(arm.cpu_s), 1)
    found |= {"updates": len(arm.cpu_s), "refused": arm.refused, "cpu_s": round(sum(arm.cpu_s) / counts, 3)}
    return found | {"wall_s": round(sum(arm.wall_s) / counts, 3), "reasons": arm.reasons[:5]}


def block_auc(y: Array, p: Array) -> tuple[float, float]:
    """The AUC, and how much it can tell: the harmonic mean of both labels' counts."""
    yes = float((y >= 0.5).sum())
    no = len(y) - yes
    if min(yes, no) < LEAST:
        return float("nan"), 0.0
    return auc(y, p.astype(np.float64)), yes * no / (yes + no)


def compared(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that the aims are about; the differences are means over tasks."""
    ours = [name for name in CADENCES if name in figures]
    of = {name: overall(one["auc"]) for name, one in figures.items()}
    found: dict[str, Any] = {
        "online_minus_frozen_auc": {name: round(of[name] - of["frozen"], 5) for name in ours},
        "by_task": {
            name: {t: round(v - figures["frozen"]["auc"][t], 5) for t, v in figures[name]["auc"].items()}
            for name in figures
            if name != "frozen"
        },
        "forgetting_by_task": {
            name: {t: round(figures["frozen"]["old_auc"][t] - v, 5) for t, v in figures[name]["old_auc"].items()}
            for name in figures
            if name != "frozen"
        },
    }
    if ours:
        last = ours[-1]
        old = overall(figures["frozen"]["old_auc"])
        found["forgetting"] = round(max(old - overall(figures[name]["old_auc"]) for name in ours), 5)
        if "retrain" in figures:
            cost = max(figures[name]["cpu_s"] for name in ours)
            found["update_to_retrain_cpu"] = round(cost / figures["retrain"]["cpu_s"], 5)
            found["auc_to_retrain"] = round(of[last] / of["retrain"], 5)
    return found


def overall(of_tasks: Mapping[str, float]) -> float:
    return float(np.mean(list(of_tasks.values()))) if of_tasks else float("nan")


def mean(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over seeds of what is compared; the figures of the arms are those of the first seed."""

    def of(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], Mapping):
            return {key: of([part[key] for part in parts if key in part]) for key in parts[0]}
        return round(float(np.mean(parts)), 5)

    keys = [key for key in found[0] if key != "arms"]
    return {key: of([one[key] for one in found]) for key in keys} | {"arms": found[0]["arms"]}


def missed(told: Mapping[str, Any]) -> Iterator[str]:
    gains = list(told["online_minus_frozen_auc"].values())
    if not gains or min(gains) < GAIN:
        yield f"Each way of learning on should gain {GAIN} of AUC over standing still. Found {gains}."
    if sorted(gains) != gains:
        yield f"Learning on more often should gain more. Found {gains}."
    if told.get("update_to_retrain_cpu", 1.0) > COST:
        yield f"An update should cost {COST} of a retrain's CPU. Found {told.get('update_to_retrain_cpu')}."
    if told.get("auc_to_retrain", 0.0) < EQUAL:
        yield f"Updates should keep {EQUAL} of a retrain's AUC. Found {told.get('auc_to_retrain')}."
    if told.get("forgetting", 1.0) > FORGOTTEN:
        yield f"At most {FORGOTTEN} of AUC should be forgotten. Found {told.get('forgetting')}."


def text(told: Mapping[str, Any]) -> str:
    return "\n".join(f"{key:26} {value}" for key, value in told.items() if key not in ("arms", "each_seed"))
