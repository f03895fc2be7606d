"""The arms of `bench learning`: their figures, comparison and aims."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.quality.online_learning.stream import RevisionStream
from contract.arrays import Array
from contract.units import HOUR_MS
from model.checkpoint import Checkpoint
from training.data.examples import Examples
from training.metrics.calibration import calibration_error
from training.metrics.losses import log_loss
from training.metrics.ranking import auc
from training.trainer.learner import predict

CADENCES: Final = {"5h": 5.0, "1h": 1.0, "30min": 0.5}  # hours between updates
BLOCK_MS: Final = 6 * HOUR_MS
LABELS_MIN: Final = 5  # of either value, for a block to have an AUC
TASKS: Final = ("click", "purchase", "relevance", "fraud")
AUC_GAIN_MIN, CPU_RATIO_MAX, AUC_RATIO_MIN, FORGETTING_MAX = 0.003, 0.1, 0.995, 0.003

PredictionsByTask = dict[str, Array]


@dataclass(slots=True)
class Arm:
    """One strategy: its predictions of each example before the label was known, and its cost."""

    name: str
    predictions: PredictionsByTask = field(default_factory=dict)
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    rejected_count: int = 0
    examples: int = 0
    predictions_before_drift: PredictionsByTask = field(default_factory=dict)  # by its last model
    reasons: list[str] = field(default_factory=list)

    def serve(self, checkpoint: Checkpoint, examples: Examples, since_ms: int, until_ms: int) -> None:
        """Predict the examples of this period with this checkpoint."""
        rows = np.flatnonzero((examples.ts_ms >= since_ms) & (examples.ts_ms < until_ms))
        if len(rows):
            for task, answers in predict(checkpoint.build_network(), examples.take(rows)).items():
                self.predictions.setdefault(task, np.full((len(examples), *answers.shape[1:]), np.nan, np.float32))[
                    rows
                ] = answers


def evaluate_arm(stream: RevisionStream, arm: Arm) -> dict[str, Any]:
    """By task: AUC in each block of hours and its weighted mean, log loss, and calibration error."""
    examples = stream.during_drift
    figures: dict[str, Any] = {"auc": {}, "log_loss": {}, "ece": {}, "blocks": {}, "old_auc": {}}
    for task in TASKS:
        y, p, ts_ms = (
            column[np.isfinite(examples.labels[task])]
            for column in (examples.labels[task], arm.predictions[task], examples.ts_ms)
        )
        block = (ts_ms - stream.size.drift_start_ms) // BLOCK_MS
        blocks = [(int(b), *compute_block_auc(y[block == b], p[block == b])) for b in np.unique(block)]
        blocks = [block_figures for block_figures in blocks if np.isfinite(block_figures[1])]
        figures["blocks"][task] = {f"{6 * b}h": round(value, 4) for b, value, _ in blocks}
        if blocks:
            figures["auc"][task] = float(np.average([b[1] for b in blocks], weights=[b[2] for b in blocks]))
        figures["log_loss"][task] = round(log_loss(y, p.astype(np.float64)), 5)
        figures["ece"][task] = round(calibration_error(y, p.astype(np.float64)), 5)
        is_known = np.isfinite(stream.before_drift.labels[task])
        value, weight = compute_block_auc(
            stream.before_drift.labels[task][is_known], arm.predictions_before_drift[task][is_known]
        )
        if weight:
            figures["old_auc"][task] = value
    counts = max(len(arm.cpu_s), 1)
    figures |= {"updates": len(arm.cpu_s), "refused": arm.rejected_count, "cpu_s": round(sum(arm.cpu_s) / counts, 3)}
    return figures | {"wall_s": round(sum(arm.wall_s) / counts, 3), "reasons": arm.reasons[:5]}


def compute_block_auc(y: Array, p: Array) -> tuple[float, float]:
    """The AUC and its weight: half the harmonic mean of the counts of positives and negatives."""
    positives = float((y >= 0.5).sum())
    negatives = len(y) - positives
    if min(positives, negatives) < LABELS_MIN:
        return float("nan"), 0.0
    return auc(y, p.astype(np.float64)), positives * negatives / (positives + negatives)


def compare_arms(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the aims; differences are means over tasks."""
    updated_arms = [name for name in CADENCES if name in figures]
    auc_by_arm = {name: average_tasks(arm["auc"]) for name, arm in figures.items()}
    differences: dict[str, Any] = {
        "online_minus_frozen_auc": {name: round(auc_by_arm[name] - auc_by_arm["frozen"], 5) for name in updated_arms},
        "by_task": {
            name: {
                task: round(value - figures["frozen"]["auc"][task], 5) for task, value in figures[name]["auc"].items()
            }
            for name in figures
            if name != "frozen"
        },
        "forgetting_by_task": {
            name: {
                task: round(figures["frozen"]["old_auc"][task] - value, 5)
                for task, value in figures[name]["old_auc"].items()
            }
            for name in figures
            if name != "frozen"
        },
    }
    if updated_arms:
        last = updated_arms[-1]
        frozen_auc = average_tasks(figures["frozen"]["old_auc"])
        differences["forgetting"] = round(
            max(frozen_auc - average_tasks(figures[name]["old_auc"]) for name in updated_arms), 5
        )
        if "retrain" in figures:
            cost = max(figures[name]["cpu_s"] for name in updated_arms)
            differences["update_to_retrain_cpu"] = round(cost / figures["retrain"]["cpu_s"], 5)
            differences["auc_to_retrain"] = round(auc_by_arm[last] / auc_by_arm["retrain"], 5)
    return differences


def average_tasks(figures_by_task: Mapping[str, float]) -> float:
    return float(np.mean(list(figures_by_task.values()))) if figures_by_task else float("nan")


def average_seeds(figures_by_seed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The comparison averaged over seeds; the figures of the arms are of the first seed."""

    def average(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: average([value[key] for value in values if key in value]) for key in values[0]}
        return round(float(np.mean(values)), 5)

    keys = [key for key in figures_by_seed[0] if key != "arms"]
    return {key: average([figures[key] for figures in figures_by_seed]) for key in keys} | {
        "arms": figures_by_seed[0]["arms"]
    }


def find_missed_aims(figures: Mapping[str, Any]) -> Iterator[str]:
    gains = list(figures["online_minus_frozen_auc"].values())
    if not gains or min(gains) < AUC_GAIN_MIN:
        yield f"Each cadence of updates should gain {AUC_GAIN_MIN} of AUC over the frozen model. Found {gains}."
    if sorted(gains) != gains:
        yield f"More frequent updates should gain more. Found {gains}."
    if figures.get("update_to_retrain_cpu", 1.0) > CPU_RATIO_MAX:
        yield f"An update should cost {CPU_RATIO_MAX} of a retrain's CPU. Found {figures.get('update_to_retrain_cpu')}."
    if figures.get("auc_to_retrain", 0.0) < AUC_RATIO_MIN:
        yield f"Updates should keep {AUC_RATIO_MIN} of a retrain's AUC. Found {figures.get('auc_to_retrain')}."
    if figures.get("forgetting", 1.0) > FORGETTING_MAX:
        yield f"At most {FORGETTING_MAX} of AUC should be lost before the drift. Found {figures.get('forgetting')}."


def format_figures(figures: Mapping[str, Any]) -> str:
    return "\n".join(f"{key:26} {value}" for key, value in figures.items() if key not in ("arms", "each_seed"))
