"""Following: learn once from the feedback that came since, and publish what is not worse.

Every example is predicted before it is learned from, which is the most honest figure there is (progressive validation).
The newest examples are held out for the gate; the next update learns from them first. Positions move on inside the
checkpoint, so a bundle and what it has learned from cannot come apart.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import msgspec

from contract.bundle import current_version
from contract.errors import BadBundle, BadData
from contract.rows import Example, read_example
from contract.settings import Delay
from export.interactions import read_interactions
from model.checkpoint import About, Checkpoint, describe, path_of, read_checkpoint
from model.network import Network
from training.delay import late_in
from training.doubts import doubts
from training.evaluation import Evaluation, judge
from training.examples import Examples, from_rows
from training.feed import Fed
from training.gate import judged, unfinished
from training.gentle import gentle_learner
from training.interactions import interactions_of, latest_interactions
from training.judges import parted
from training.labels import expected_instead
from training.learner import Learner, predict
from training.lesson import Lesson, Predictions, learn_progressively
from training.news import News, in_turn, joined, news_in, read_news, waits_in
from training.paired import Judged
from training.plan import Plan
from training.sample import Sample, meaning, read_sample, sample_of, together
from training.screen import screened
from training.tables import rehoused

Learn = Callable[[Learner, Lesson, Plan], Predictions]


@dataclass(frozen=True, slots=True)
class Update:
    """What came of one look at the feedback. `checkpoint`: the better model, or None with `refused` saying why.

    `figures`: what the gate found, by set and task; `aside`: the network that it refused.
    """

    examples: int
    left_out: dict[str, int]
    progressive: Evaluation = field(default_factory=dict)
    held_out: Evaluation = field(default_factory=dict)
    refused: Sequence[str] = ()
    checkpoint: Checkpoint | None = None
    figures: Mapping[str, dict[str, float]] = field(default_factory=dict)
    aside: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """What an update has to do with: what came, and what the checkpoint carries.

    `parts` are learned from now, `held` judges first and is learned by the next update, `waiting` is what the next one
    gets besides: of the latest news yes may be known and no not yet, for which tasks have their `waits`. `replayed` is
    learned from again, `judging` never. `learned`: what the next sample is drawn from.
    """

    waits: Mapping[str, int]
    parts: list[News]
    held: News
    waiting: News
    learned: list[Examples]
    replayed: Sample | None
    judging: Examples | None

    @classmethod
    def of(cls, new: News, sample: Sample | None, waited: list[News], held_out: float) -> "Material":
        replayed, judging = parted(sample) if sample else (None, None)
        before, everything = [sample.examples] if sample else [], [*waited, new]
        waits = waits_in([new.examples, *before])
        now_ms = int(new.due_ms({}).max())
        ripe = [part.due_ms(waits) <= now_ms for part in everything]
        if not any(of.any() for of in ripe):
            ripe = [~of for of in ripe]  # so little that nothing else is to be had
        *due, last = [part.take(of) for part, of in zip(everything, ripe, strict=True)]
        unripe = [part.take(~of) for part, of in zip(everything, ripe, strict=True)]
        latest = last.latest(held_out, waits)
        held, parts = last.take(latest), [*due, last.take(~latest)]
        learned = [*before, *(part.examples for part in parts)]
        return cls(waits, parts, held, joined([held, *unripe]), learned, replayed, judging)

    def judges(self) -> dict[str, Examples]:
        """The sets that judge, by name."""
        return {"recent": self.held.unlearned()} | ({"kept": self.judging} if self.judging else {})

    def said_before(self, present: Network) -> tuple[Examples, Predictions] | None:
        """What the present model says of the kept examples that judge, if there are some."""
        return (self.judging, predict(present, self.judging)) if self.judging else None

    def lesson(self, teacher: Network, delays: Mapping[str, Delay]) -> Lesson:
        return Lesson(teacher, in_turn(self.parts, self.waits), self.replayed, late_in(self.parts, delays))


def present_checkpoint(bundles: Path) -> Checkpoint:
    """The checkpoint behind the bundle that serves now; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a present bundle to go on from. Found none; `export` publishes one.")
    return read_checkpoint(path_of(bundles, version))


def update(
    checkpoint: Checkpoint,
    fed: Fed,
    plan: Plan,
    delays: Mapping[str, Delay] = MappingProxyType({}),
    learn: Learn = learn_progressively,
) -> Update:
    """Learn from what was fed, if there is anything to learn from; the checkpoint given stays as it is.

    `delays`: the tasks whose first label may be corrected.
    """
    new, left_out = usable(fed.values, checkpoint)
    sample = kept(checkpoint)
    rows, unfit = screened(new.examples, sample.examples if sample else None, fed.newest_ms, plan.user_share)
    new, left_out = new.take(rows), left_out | unfit
    if not len(new):
        return Update(0, left_out)
    present, material = checkpoint.network(), Material.of(new, sample, waited(checkpoint), plan.held_out)
    news, expected = new.unlearned(), checkpoint.about.evaluation
    said = predict(present, news)
    unlearned = Update(len(new), left_out, judge(present.tasks, news, said))
    if doubted := list(doubts(present.tasks, (news, said), material.said_before(present), plan.jump, expected)):
        return replace(unlearned, refused=doubted)
    begun = rehoused(checkpoint, present, new.first_met(), plan)
    network = begun.network()
    learner = gentle_learner(network, begun.optimizer, plan)
    try:
        attempt = tried(learner, material.lesson(present, delays), material.judges(), plan, learn)
    except BadData as error:
        return replace(unlearned, refused=[str(error)])
    found = replace(attempt, examples=len(new), left_out=left_out)
    about = successor(checkpoint, network, found.held_out, fed.positions)
    if found.refused:
        return replace(found, aside=Checkpoint(about=about, weights=network.state_dict()))
    better = Checkpoint(
        about=about,
        weights=network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        sample=sample_of(together(material.learned), plan.keep, plan.seed),
        waiting=material.waiting.parquet(),
        met=begun.met,
        interactions=latest_interactions(read_interactions(checkpoint.interactions), interactions_of(new.examples)),
    )
    return replace(found, checkpoint=better)


def tried(learner: Learner, lesson: Lesson, judges: Mapping[str, Examples], plan: Plan, learn: Learn) -> Update:
    """Take a lesson, then let the judges compare what the teacher says with what is said now.

    Raises `BadData` where learning comes to no end.
    """
    network, before = learner.network, {which: predict(lesson.teacher, of) for which, of in judges.items()}
    guesses = learn(learner, lesson, plan)
    network.eval()
    sets = [Judged(which, of, before[which], predict(network, of)) for which, of in judges.items()]
    verdict = judged(network.tasks, sets, plan.margin)
    return Update(
        0,
        {},
        judge(network.tasks, lesson.arriving, guesses),
        judge(network.tasks, sets[0].examples, sets[0].after),
        [*unfinished(network), *verdict.refused],
        figures=verdict.figures,
    )


def successor(checkpoint: Checkpoint, network: Network, evaluation: Evaluation, positions: Mapping[str, int]) -> About:
    """What is said of the network that comes after a checkpoint; its version sorts behind, whatever the clock says."""
    return describe(
        network,
        parent=checkpoint.about.version,
        created_ms=max(time.time_ns() // 1_000_000, checkpoint.about.created_ms + 1),
        evaluation=evaluation,
        positions=positions,
    )


def usable(values: Sequence[bytes], checkpoint: Checkpoint) -> tuple[News, dict[str, int]]:
    """The examples that this model can learn from, and how many were left out for which reason."""
    features, tasks, classes = meaning(checkpoint.about)
    rows, left_out = list[Example](), {"unreadable": 0, "of other features": 0, "without a label": 0}
    for value in values:
        try:
            row = read_example(value)
        except msgspec.MsgspecError:
            left_out["unreadable"] += 1
            continue
        labels = {t.name: row.labels[t.name] for t in tasks if t.name in row.labels}
        labels = {t.name: labels[t.name] for t in tasks if t.name in labels and not expected_instead(t, labels[t.name])}
        if row.features != features.digest:
            left_out["of other features"] += 1
        elif not labels:
            left_out["without a label"] += 1
        else:
            rows.append(msgspec.structs.replace(row, labels=labels))
    news = news_in(rows, from_rows(rows, features, tasks, classes))
    return news, {why: count for why, count in left_out.items() if count}


def kept(checkpoint: Checkpoint) -> Sample | None:
    """The examples that the checkpoint carries to be learned from again, if any."""
    return read_sample(checkpoint.sample, checkpoint.about) if checkpoint.sample else None


def waited(checkpoint: Checkpoint) -> list[News]:
    """The examples that judged the checkpoint, and are to be learned from now; none or one."""
    return [read_news(checkpoint.waiting, checkpoint.about)] if checkpoint.waiting else []
