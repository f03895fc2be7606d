"""Ids that come and go: what a network answers on the way, and how much is remembered."""

from dataclasses import replace as changed_to

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from export.bundling import export
from model.checkpoint import Checkpoint, describe
from tests.model.small import FEATURES, SHAPE, as_inputs, draw_blocks, make_network
from tests.training.made import DAY_MS, PLAN, START_MS, make_examples
from training.examples import Examples
from training.learner import Learner, as_batch
from training.sample import one_after_another
from training.tables import as_met, rehoused

NEW, OTHER = 777_001, 777_002
SPAN = next(span for span in FEATURES.spans("item") if span.feature.name == "item")
QUICK = replace(PLAN, row_after=3, unused_days=2.0)


def learned_checkpoint() -> Checkpoint:
    """A network after a few steps, so that its optimizer remembers something of each row."""
    network = make_network()
    learner = Learner(network=network, plan=PLAN)
    learner.learn(as_batch(make_examples(200, 1)))
    about = describe(network.eval(), parent=None, created_ms=10**12, evaluation={}, positions={})
    return Checkpoint(about=about, weights=network.state_dict(), optimizer=learner.optimizer.state_dict())


def rows_with(item: int, count: int, *, after_days: float = 0.0) -> Examples:
    """Examples of one item and of no other ids, a while after the beginning."""
    examples = make_examples(4 * count, 3)
    examples = examples.take(np.flatnonzero(examples.known(examples.tasks[0]))[:count])
    for block in examples.blocks.values():
        block.ids[:] = 0
    examples.blocks["item"].ids[:, SPAN.start] = item
    examples.ts_ms[:] = START_MS + int(after_days * DAY_MS)
    return examples


def known(checkpoint: Checkpoint) -> list[int]:
    ids: list[int] = checkpoint.about.statistics.known["item"].array.tolist()
    return ids


def answers(checkpoint: Checkpoint, item: int) -> dict[str, torch.Tensor]:
    """Of rows that have this item among other ids."""
    blocks = draw_blocks(40, 9)
    blocks["item"].ids[:, SPAN.start] = item
    with torch.no_grad():
        found: dict[str, torch.Tensor] = checkpoint.network()(as_inputs(blocks))
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[task], other[task]) for task in one)


def step(checkpoint: Checkpoint, new: Examples, plan: object = QUICK) -> Checkpoint:
    return rehoused(checkpoint, checkpoint.network(), new, plan)  # type: ignore[arg-type]


def test_an_unknown_id_answers_as_before_at_the_moment_it_gets_its_row() -> None:
    before = learned_checkpoint()

    after = step(before, rows_with(NEW, 3))

    assert NEW in known(after)
    assert NEW not in known(before)
    assert same(answers(after, NEW), answers(before, NEW))


def test_an_id_that_has_its_row_learns_apart_from_the_unknown() -> None:
    after = step(learned_checkpoint(), rows_with(NEW, 3))
    network = after.network()
    learner = Learner(network=network, plan=PLAN, state=after.optimizer)

    learner.learn(as_batch(rows_with(NEW, 3)))
    moved = changed_to(after, weights=network.state_dict())

    assert not same(answers(moved, NEW), answers(after, NEW))
    row, unknown = (int(network.rows(SPAN.feature, torch.tensor(item))) for item in (NEW, OTHER))
    assert not torch.equal(network.table(SPAN.feature)[row], network.table(SPAN.feature)[unknown])


@pytest.mark.parametrize(("times", "is_known"), [((3,), True), ((2,), False), ((1, 2), True), ((1, 1), False)])
def test_appearances_are_counted_over_updates(times: tuple[int, ...], is_known: bool) -> None:
    checkpoint = learned_checkpoint()

    for count in times:
        checkpoint = step(checkpoint, rows_with(NEW, count))

    assert (NEW in known(checkpoint)) == is_known


def test_a_freed_id_answers_as_unknown_and_known_ones_bit_equal() -> None:
    begun = step(step(learned_checkpoint(), rows_with(NEW, 3)), rows_with(OTHER, 3, after_days=1))
    network = begun.network()
    Learner(network=network, plan=PLAN, state=begun.optimizer).learn(as_batch(rows_with(NEW, 3)))
    taught = changed_to(begun, weights=network.state_dict())

    after = step(taught, rows_with(OTHER, 3, after_days=2.5))

    assert known(after) == [OTHER]
    unknown = after.network().rows(SPAN.feature, torch.tensor(NEW))
    assert 1 <= int(unknown) <= after.about.statistics.known["item"].spare
    assert same(answers(after, OTHER), answers(taught, OTHER))
    assert not same(answers(after, NEW), answers(taught, NEW))


def test_an_id_that_was_met_lately_keeps_its_row() -> None:
    checkpoint = step(learned_checkpoint(), rows_with(NEW, 3))

    checkpoint = step(checkpoint, rows_with(OTHER, 3, after_days=QUICK.unused_days))

    assert {NEW, OTHER} <= set(known(checkpoint))


def test_the_first_update_takes_no_row_from_anybody_however_old_its_examples_are() -> None:
    before = learned_checkpoint()
    old, now = rows_with(NEW, 2), rows_with(OTHER, 2, after_days=99)

    after = step(before, one_after_another([old, now]))

    assert known(after) == known(before)


def test_the_optimizer_remembers_of_each_row_what_it_did() -> None:
    before = learned_checkpoint()
    network = before.network()
    number = [name for name, _ in network.named_parameters()].index(network.tables_of("item")[0])

    after = step(before, rows_with(NEW, 3))

    moments = [checkpoint.optimizer["state"][number]["exp_avg_sq"] for checkpoint in (before, after)]
    assert moments[1].shape == after.weights[network.tables_of("item")[0]].shape
    assert torch.equal(moments[1][:-1], moments[0])
    assert torch.equal(moments[1][-1], moments[0][int(network.rows(SPAN.feature, torch.tensor(NEW)))])


def test_tables_and_what_is_counted_stay_within_the_rows_of_the_shape() -> None:
    checkpoint, examples = learned_checkpoint(), make_examples(400, 3)
    chance = np.random.default_rng(4)

    for day in range(6):
        for block in examples.blocks.values():
            block.ids[:] = chance.integers(1, 2**62, block.ids.shape)
        examples.ts_ms[:] = START_MS + day * DAY_MS // 4
        checkpoint = step(checkpoint, examples, replace(QUICK, row_after=1))

    for table, vocabulary in checkpoint.about.statistics.known.items():
        assert vocabulary.rows <= SHAPE.rows
        assert len(as_met(checkpoint.met[table]).ids) <= 2 * SHAPE.rows


def test_no_update_without_examples_changes_anything() -> None:
    checkpoint = learned_checkpoint()

    assert step(checkpoint, make_examples(10, 1).take(np.zeros(0, np.int64))) is checkpoint


def test_a_checkpoint_whose_tables_have_grown_exports_to_what_torch_answers(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    grown = step(learned_checkpoint(), rows_with(NEW, 3))

    exported = export(grown, tmp_path_factory.mktemp("bundles"), {})

    assert max(exported.parity.values()) <= 1e-5
