"""Taking a bundle back: where matured labels show that it is worse than its parent, workers are pointed to that again.

Both are judged on the very rows that the bundle served: by what it said then, and by what the parent's checkpoint says of
them now. A bundle that was gone back to is never left for its own parent: that takes a new bundle in between. What was
taken back is kept with its reasons.

    BUNDLES/withdrawn/VERSION.json    version, where workers were pointed to, reasons, when, and whether it is done
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct

from contract.bundle import current_version, read_bundle, read_manifest, replace_durably
from contract.errors import BadBundle
from contract.rows import Example
from contract.tasks import Task
from export.pointer import rollback
from model.checkpoint import path_of, read_checkpoint
from model.network import Network
from training.excess import Excess, Pairs, excess, pairs_of
from training.examples import gathered
from training.learner import PREDICT_ROWS
from training.live import Live, Matured
from training.looks import Looks
from training.watching import Watching

SCORE = "all tasks together"


class Withdrawn(Struct, frozen=True, kw_only=True):
    """What is kept of a bundle that was taken back; `is_done`: workers have been pointed to `to`."""

    version: str
    to: str
    reasons: tuple[str, ...]
    decided_ms: int
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of looking at the bundle that serves. `excess`: by question; `reasons`: why it is worse, if it is."""

    version: str
    excess: dict[str, Excess]
    reasons: tuple[str, ...] = ()


class Judge:
    """Compares one version with its parent as rows mature; `network`: the parent's."""

    def __init__(self, *, version: str, network: Network, looks: Looks, watching: Watching) -> None:
        self.version = version
        self._network, self._looks, self._watching = network, looks, watching
        self._tasks = [task for task in network.tasks if task.kind != "multiclass"]

    def look(self, live: Live) -> Verdict:
        """Ask every question that is due; each look uses its part of the risk."""
        rows = {task.name: self._comparable(live, task) for task in self._tasks}
        parts: dict[str, Pairs | None] = {}
        found, reasons = dict[str, Excess](), list[str]()
        for task in self._tasks:
            self._ask(task.name, [task], rows, parts, found, reasons)
        self._ask(SCORE, self._tasks, rows, parts, found, reasons)
        return Verdict(self.version, found, tuple(reasons))

    def _ask(
        self,
        question: str,
        tasks: Sequence[Task],
        rows: dict[str, Matured],
        parts: dict[str, Pairs | None],
        found: dict[str, Excess],
        reasons: list[str],
    ) -> None:
        """One question: a task alone, or all of those that have enough rows."""
        asked = [task for task in tasks if len(rows[task.name]) >= self._watching.rows_min]
        ts_ms = np.array([row.ts_ms for task in asked for row in rows[task.name].rows], np.int64)
        if not asked or not self._looks.is_due(question, ts_ms):
            return
        for task in asked:
            if task.name not in parts:
                parts[task.name] = self._pairs(task, rows[task.name])
        known = {task.name: pairs for task in asked if (pairs := parts[task.name]) is not None}
        if not known:
            return
        part = self._looks.take(question, ts_ms)
        margin = self._watching.score_margin if question == SCORE else self._watching.margin
        weights = {task.name: task.weight if question == SCORE else 1.0 for task in asked}
        one = excess(known, weights, margin, len(ts_ms))
        if one is None:
            return
        found[question] = one
        if one.p < part * self._watching.risk / (len(self._tasks) + 1):
            reasons.append(
                f"{question} should lose at most {margin:g} of the parent's gain. Found {one.lost:.4f} on "
                f"{one.rows} rows, with p = {one.p:.2g}."
            )

    def _comparable(self, live: Live, task: Task) -> Matured:
        """The rows that the version served and the parent can read."""
        matured = live.matured(task, self.version)
        of = [r.model_version == self.version and r.features == self._network.features.digest for r in matured.rows]
        return matured.where(np.array(of, np.bool_))

    def _pairs(self, task: Task, matured: Matured) -> Pairs | None:
        now = said_now(self._network, task, matured.rows).astype(np.float64)
        return pairs_of(task, matured.y, matured.w, [row.user_id for row in matured.rows], matured.p, now)


@torch.no_grad()
def said_now(network: Network, task: Task, rows: Sequence[Example]) -> npt.NDArray[np.float32]:
    """What a network says of rows (N,) in life, as a worker would say it. Raises `BadData` for blocks of other widths."""
    (view,) = (view for view in network.views if task.name in {one.name for one in view.tasks})
    found = list[npt.NDArray[np.float32]]()
    for start in range(0, len(rows), PREDICT_ROWS):
        some = rows[start : start + PREDICT_ROWS]
        blocks = {group: gathered(group, some, network.features) for group in view.groups}
        inputs = {g: (torch.from_numpy(block.numbers), torch.from_numpy(block.ids)) for g, block in blocks.items()}
        answers = network.answers(view, network.logits(view, network.parts(view, inputs)))
        found.append(answers[task.name].numpy())
    return np.concatenate(found)


def parent_of(bundles: Path, version: str) -> str:
    """The bundle that may serve again in the place of this one; raises `BadBundle` with the reason where none may."""
    parent = read_manifest(bundles, version).parent
    if parent is None:
        raise BadBundle(f"Bundle {version} has no parent to be compared with.")
    taken = {one.version: one for one in withdrawn(bundles)}
    if version in taken and taken[version].is_done:
        raise BadBundle(f"Bundle {version} was taken back before, and somebody has pointed to it again: it stays.")
    if version in {one.to for one in taken.values()}:
        raise BadBundle(f"Bundle {version} is what was gone back to: it stays until a new one comes.")
    if parent in taken:
        raise BadBundle(f"Bundle {version} has the parent {parent}, which was taken back: there is none to go back to.")
    return parent


def parent_network(bundles: Path, parent: str) -> Network:
    """The parent as it was trained; raises `BadBundle` where its checkpoint is gone."""
    return read_checkpoint(path_of(bundles, parent)).network()


def withdrawn(bundles: Path) -> list[Withdrawn]:
    """Every bundle that was taken back; a file that cannot be read is none."""
    found = list[Withdrawn]()
    for path in sorted((bundles / "withdrawn").glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Withdrawn))
        except (OSError, msgspec.MsgspecError):
            continue
    return found


def unfinished(bundles: Path, version: str) -> Withdrawn | None:
    """The decision to take this version back, if a watcher died before it was carried out."""
    return next((one for one in withdrawn(bundles) if one.version == version and not one.is_done), None)


def withdraw(bundles: Path, verdict: Verdict, parent: str) -> Withdrawn | None:
    """Write down why, point to the parent, write down that it is done; None where another bundle serves by now.

    Raises `BadBundle`, with nothing changed, for a parent that is not whole.
    """
    read_bundle(bundles, parent)
    decision = Withdrawn(
        version=verdict.version, to=parent, reasons=verdict.reasons, decided_ms=time.time_ns() // 1_000_000
    )
    keep(bundles, decision)
    return finish(bundles, decision)


def finish(bundles: Path, decision: Withdrawn) -> Withdrawn | None:
    """Carry a decision out; None, and it is forgotten, where another bundle serves by now."""
    if current_version(bundles) != decision.version:
        path_in(bundles, decision.version).unlink(missing_ok=True)
        return None
    rollback(bundles)
    done = msgspec.structs.replace(decision, is_done=True)
    keep(bundles, done)
    return done


def keep(bundles: Path, decision: Withdrawn) -> None:
    path = path_in(bundles, decision.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, msgspec.json.encode(decision))


def path_in(bundles: Path, version: str) -> Path:
    return bundles / "withdrawn" / f"{version}.json"
