"""`python -m bench gate`: are all harmful updates refused, and healthy ones not?

A shop lives through its days; a network learns from the earlier ones, and updates come from later ones. Healthy ones
follow one another, each from the model that the one before it made. Harmful ones (`bench.gate_poisons`) all begin from
the first model. One counts as refused if it does not serve: because its labels were `doubted` before anything was
learned, because the `gate` refused it, or because checks `dropped` its poison and what then served lost no more of its
gain than the margin, in any task, on the shop's last days, which nobody learned from. `--harm` adds what the same
updates do there unguarded: the mean loss of gain of the task that each hurts most.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch

from bench.calibration import lived
from bench.gate_poisons import KINDS, Rows
from contract.errors import BadData
from contract.messages import Example, to_msgpack
from contract.settings import ModelConfig, TrainingConfig, read_settings
from model.checkpoint import Checkpoint, make_metadata, read_checkpoint, write_checkpoint
from model.network import Network
from training.analysis.baselines import ignore_epoch
from training.commands.fit import read_configs
from training.data.examples import Examples, from_rows
from training.data.split import assign_families
from training.feedback.feedback_reader import FeedbackBatch
from training.online.holdout import split_buffer
from training.online.incremental_pass import IncrementalPass
from training.online.promotion_gate import ROWS_MIN
from training.online.replay_buffer import encode_buffer, read_schema
from training.online.update import TrainFunction, UpdateResult, read_buffer, update
from training.online.update_learner import create_update_learner
from training.stats.bootstrap import PairedPredictions, Predictions
from training.trainer.fit import fit
from training.trainer.learner import predict

SHAPE: Final = ModelConfig(embedding=8, hidden=32, factors=8, experts=2, expert=32, tower=16, rows=4_096)
LEARNED: Final = 0.5  # of the days
TRUE_FROM: Final = 0.86
TRUTH_ROWS: Final = 1_500  # of each family
PASSED: Final = 0.95
CHAIN: Final = 10  # healthy updates one after the other
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Scene:
    """The first model, what updates are cut from in the order of time, what turned out to be true later.

    `said`: what the first model says of the truth.
    """

    base: Checkpoint
    later: Examples
    truth: Examples
    said: Predictions
    plan: TrainingConfig


def main(words: Sequence[str]) -> int:
    """Measure; 0: all that is harmful is refused and 95 % of what is healthy passes, 1: not so."""
    arguments, begun = parse(words), time.process_time()
    scene, each = scene_of(arguments), max(1, round(100 * arguments.scale))
    harmful = [try_harmful(scene, number, arguments.rows, harm=arguments.harm) for number in range(each)]
    healthy = list(try_healthy(scene, each, arguments.rows))
    found = summary(harmful, healthy)
    if not arguments.harm:
        del found["harm"]
    found |= {"examples": len(scene.later), "seconds": round(time.process_time() - begun, 1)}
    print(msgspec.json.encode(found).decode() if arguments.json else "\n".join(f"{k:10} {v}" for k, v in found.items()))
    return 0 if found["refused"] == found["harmful"] and found["passed"] >= PASSED * found["healthy"] else 1


@dataclass(frozen=True, slots=True)
class Tried:
    """A harmful update: what became of it (`doubted`, `gate`, `dropped`, or `served`), and its harm if unguarded."""

    kind: str
    became: str
    harm: float
    why: str


def try_harmful(scene: Scene, number: int, rows: int, *, harm: bool) -> Tried:
    kind = list(KINDS)[number % len(KINDS)]
    spoil, learning = KINDS[kind]
    honest = slice_of(scene.later, np.random.default_rng(number), rows).to_rows()
    poisoned = spoil(honest, np.random.default_rng(number))
    found = update(
        scene.base, fed(poisoned, honest), scene.plan, train=learning(scene.plan, np.random.default_rng(number))
    )
    wild = learning(scene.plan, np.random.default_rng(number))
    done = unguarded(scene, poisoned, wild) if harm else 0.0
    tried = Tried(kind, became(scene, found), done, "; ".join(found.rejections)[:200])
    hurt = f"harm {tried.harm:.3f} " if harm else ""
    say(f"{number:4} {kind:26} {tried.became:8} {hurt}{tried.why or found.left_out}")
    return tried


def became(scene: Scene, found: UpdateResult) -> str:
    if found.rejections:
        return "gate" if found.rejected_checkpoint else "doubted"
    if found.checkpoint is None:
        return "dropped"  # nothing was left to learn from
    harmless = worst(scene, found.checkpoint.build_network()) <= scene.plan.margin
    return "dropped" if harmless and set(found.left_out) - {"without a label"} else "served"


def unguarded(scene: Scene, rows: Rows, learn: TrainFunction) -> float:
    """What the task that loses most loses of its gain on the truth, where nothing is checked."""
    network, sample = scene.base.build_network(), read_buffer(scene.base)
    try:
        examples = from_rows(rows, *read_schema(scene.base.metadata))
        learn(
            create_update_learner(network, scene.base.optimizer, scene.plan),
            IncrementalPass(scene.base.build_network(), examples, split_buffer(sample).replay if sample else None),
            scene.plan,
        )
    except BadData:
        return float("inf")
    return worst(scene, network.eval())


def worst(scene: Scene, network: Network) -> float:
    """The most that a task loses of its gain on the truth; infinite where an answer is no number."""
    pair = PairedPredictions("true", scene.truth, scene.said, predict(network, scene.truth))
    judging = [task for task in network.tasks if scene.truth.has_label(task).sum() >= ROWS_MIN]
    lost = [float(pair.pair_losses(task).loss_increase.mean()) for task in judging]
    return max(lost) if np.isfinite(lost).all() else float("inf")


def try_healthy(scene: Scene, count: int, rows: int) -> Iterator[UpdateResult]:
    """Chains of updates in the order of time, each from where the last one that passed left off."""
    for first in range(0, count, CHAIN):
        at, chance = scene.base, np.random.default_rng(1_000 + first)
        ends = np.sort(chance.integers(rows, len(scene.later) + 1, CHAIN))
        for number, end in enumerate(ends[: count - first]):
            size = int(chance.integers(rows // 4, rows + 1))
            window = scene.later.take(np.arange(max(0, end - 3 * size), end))
            some = window.take(np.sort(chance.permutation(len(window))[:size])).to_rows()
            found = update(at, fed(some, some), scene.plan)
            at = found.checkpoint or at
            passed = "passed" if found.checkpoint else "REFUSED"
            say(f"{first + number:4} healthy of {size} {passed} {'; '.join(found.rejections)}")
            yield found
        say(f"     after them the task that lost most has lost {worst(scene, at.build_network()):.3f}")


def slice_of(later: Examples, chance: np.random.Generator, rows: int) -> Examples:
    """Half of what happened in some hours."""
    start = int(chance.integers(0, len(later) - 2 * rows))
    return later.take(np.sort(start + chance.permutation(2 * rows)[:rows]))


def fed(rows: Rows, honest: Rows) -> FeedbackBatch:
    """Rows as the topic gives them; its newest record is as new as the newest honest label."""
    newest_ms = max(ms for row in honest for ms in (row.ts_ms, *row.known_ms.values()))
    values = [to_msgpack(one) for row in rows for one in revisions_of(row)]
    return FeedbackBatch(values, {"shop.feedback/0": len(values)}, newest_ms)


def revisions_of(row: Example) -> Iterator[Example]:
    """What the joiner said of an example: a click at once, and what came of it as a revision."""
    if row.labels.get("click") == 1 and "purchase" in row.labels:
        yield msgspec.structs.replace(row, revision=1, labels={"click": 1.0}, known_ms={"click": row.known_ms["click"]})
    yield row


def summary(harmful: Sequence[Tried], healthy: Sequence[UpdateResult]) -> dict[str, Any]:
    names = [kind for kind in KINDS if any(tried.kind == kind for tried in harmful)]
    of = {kind: [tried for tried in harmful if tried.kind == kind] for kind in names}
    by = {
        kind: {how: n for how in ("doubted", "gate", "dropped", "served") if (n := sum(t.became == how for t in tried))}
        for kind, tried in of.items()
    }
    return {
        "harmful": len(harmful),
        "refused": sum(tried.became != "served" for tried in harmful),
        "healthy": len(healthy),
        "passed": sum(found.checkpoint is not None for found in healthy),
        "kinds": {kind: sum(tried.became != "served" for tried in some) for kind, some in of.items()},
        "tried": {kind: len(some) for kind, some in of.items()},
        "by": by,
        "harm": {kind: finite(float(np.mean([tried.harm for tried in some]))) for kind, some in of.items()},
    }


def finite(value: float) -> float | str:
    """Rounded; JSON has no infinity."""
    return round(value, 3) if np.isfinite(value) else "not finite"


def scene_of(arguments: argparse.Namespace) -> Scene:
    """The shop's examples and the first model, both made once and kept for the next time."""
    settings, features = read_settings()
    plan = read_configs(settings, features, {})[1]
    plan = plan.model_copy(update={"batch": 256, "epochs": 3})
    torch.set_num_threads(plan.threads)
    examples = lived(arguments, settings, features)
    day = (examples.ts_ms - examples.ts_ms.min()) / DAY_MS / arguments.days
    held = np.random.default_rng(0).random(len(examples)) < 0.3  # of products, which have no day of their own
    nobody = examples.user_id == ""
    day = np.where(nobody, np.where(held, np.random.default_rng(1).uniform(LEARNED, 1, len(day)), 0.0), day)
    in_turn = np.argsort(day, kind="stable")
    examples, day = examples.take(in_turn), day[in_turn]
    path = arguments.kept / f"gate-{arguments.days:g}-{arguments.people}-{arguments.items}.pt"
    base = base_of(examples.take(day < LEARNED), plan, path)
    later, truth = examples.take((day >= LEARNED) & (day < TRUE_FROM)), spread(examples.take(day >= TRUE_FROM))
    return Scene(base, later, truth, predict(base.build_network(), truth), plan)


def base_of(examples: Examples, plan: TrainingConfig, path: Path) -> Checkpoint:
    if path.is_file():
        return read_checkpoint(path)
    fitted = fit(examples, SHAPE, plan, ignore_epoch)
    about = make_metadata(fitted.network, parent=None, created_ms=1_000, evaluation=fitted.evaluation, positions={})
    base = Checkpoint(
        metadata=about,
        weights=fitted.network.state_dict(),
        optimizer=fitted.optimizer,
        replay_buffer=encode_buffer(examples.for_tasks(fitted.network.tasks), plan.keep, plan.seed),
    )
    write_checkpoint(path.parent, base).rename(path)
    return base


def spread(examples: Examples) -> Examples:
    """At most so many rows of each family."""
    family, mixed = assign_families(examples), np.random.default_rng(0).permutation(len(examples))
    chosen = [mixed[family[mixed] == one][:TRUTH_ROWS] for one in np.unique(family)]
    return examples.take(np.sort(np.concatenate(chosen)))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench gate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="1: a hundred updates of either sort")
    parser.add_argument("--harm", action="store_true", help="learn from harmful updates unguarded as well")
    parser.add_argument("--rows", type=int, default=1_500, help="examples of an update, at most")
    parser.add_argument("--days", type=float, default=14, help="how long the shop lives")
    parser.add_argument("--people", type=int, default=600)
    parser.add_argument("--items", type=int, default=400)
    kept = Path(tempfile.gettempdir()) / "shopstream-bench-gate"
    parser.add_argument("--kept", type=Path, default=kept, help="where examples and the first model are kept")
    return parser.parse_args(words)
