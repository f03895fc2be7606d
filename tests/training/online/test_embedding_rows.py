"""Allocation of embedding rows: predictions while rows are given and taken, and the counts that are kept."""

from dataclasses import replace as replace_fields

import numpy as np
import pytest
import torch

from contract.units import DAY_MS
from export.exporter import export
from model.checkpoint import Checkpoint, make_metadata
from tests.model.small import FEATURES, SHAPE, draw_blocks, make_network, to_inputs
from tests.training.examples import PLAN, START_MS, make_examples
from training.data.examples import Examples, concatenate_examples
from training.online.embedding_rows import read_id_counts, update_embedding_rows
from training.trainer.batching import to_batch
from training.trainer.learner import Learner

NEW_ID, OTHER_ID = 777_001, 777_002
ITEM_SPAN = next(span for span in FEATURES.spans("item") if span.feature.name == "item")
QUICK_CONFIG = PLAN.model_copy(update={"row_after": 3, "unused_days": 2.0})


def train_checkpoint() -> Checkpoint:
    """A network after one step, so that its optimizer has a state of each row."""
    network = make_network()
    learner = Learner(network=network, config=PLAN)
    learner.train_step(to_batch(make_examples(200, 1)))
    metadata = make_metadata(network.eval(), parent=None, created_ms=10**12, evaluation={}, positions={})
    return Checkpoint(metadata=metadata, weights=network.state_dict(), optimizer=learner.optimizer.state_dict())


def make_rows_with(item: int, count: int, *, after_days: float = 0.0) -> Examples:
    """Examples of one item without other ids, `after_days` after the start."""
    examples = make_examples(4 * count, 3)
    examples = examples.take(np.flatnonzero(examples.has_label(examples.tasks[0]))[:count])
    for block in examples.blocks.values():
        block.ids[:] = 0
    examples.blocks["item"].ids[:, ITEM_SPAN.start] = item
    examples.ts_ms[:] = START_MS + int(after_days * DAY_MS)
    return examples


def list_known_ids(checkpoint: Checkpoint) -> list[int]:
    ids: list[int] = checkpoint.metadata.statistics.known["item"].array.tolist()
    return ids


def predict_item(checkpoint: Checkpoint, item: int) -> dict[str, torch.Tensor]:
    """Predictions of rows that have this item among other ids."""
    blocks = draw_blocks(40, 9)
    blocks["item"].ids[:, ITEM_SPAN.start] = item
    with torch.no_grad():
        predictions: dict[str, torch.Tensor] = checkpoint.build_network()(to_inputs(blocks))
    return predictions


def are_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[task], right[task]) for task in left)


def update_tables(checkpoint: Checkpoint, new: Examples, config: object = QUICK_CONFIG) -> Checkpoint:
    return update_embedding_rows(checkpoint, checkpoint.build_network(), new, config)  # type: ignore[arg-type]


def test_a_new_row_changes_no_prediction_of_its_id() -> None:
    before = train_checkpoint()

    after = update_tables(before, make_rows_with(NEW_ID, 3))

    assert NEW_ID in list_known_ids(after)
    assert NEW_ID not in list_known_ids(before)
    assert are_equal(predict_item(after, NEW_ID), predict_item(before, NEW_ID))


def test_an_id_with_a_row_learns_apart_from_the_unknown_row() -> None:
    after = update_tables(train_checkpoint(), make_rows_with(NEW_ID, 3))
    network = after.build_network()
    learner = Learner(network=network, config=PLAN, state=after.optimizer)

    learner.train_step(to_batch(make_rows_with(NEW_ID, 3)))
    trained = replace_fields(after, weights=network.state_dict())

    assert not are_equal(predict_item(trained, NEW_ID), predict_item(after, NEW_ID))
    row, unknown = (int(network.embedding_rows(ITEM_SPAN.feature, torch.tensor(item))) for item in (NEW_ID, OTHER_ID))
    assert not torch.equal(
        network.embedding_table(ITEM_SPAN.feature)[row], network.embedding_table(ITEM_SPAN.feature)[unknown]
    )


@pytest.mark.parametrize(("counts", "is_known"), [((3,), True), ((2,), False), ((1, 2), True), ((1, 1), False)])
def test_examples_of_an_id_are_counted_over_updates(counts: tuple[int, ...], is_known: bool) -> None:
    checkpoint = train_checkpoint()

    for count in counts:
        checkpoint = update_tables(checkpoint, make_rows_with(NEW_ID, count))

    assert (NEW_ID in list_known_ids(checkpoint)) == is_known


def test_a_freed_id_is_unknown_and_other_predictions_are_bit_equal() -> None:
    first = update_tables(train_checkpoint(), make_rows_with(NEW_ID, 3))
    second = update_tables(first, make_rows_with(OTHER_ID, 3, after_days=1))
    network = second.build_network()
    Learner(network=network, config=PLAN, state=second.optimizer).train_step(to_batch(make_rows_with(NEW_ID, 3)))
    trained = replace_fields(second, weights=network.state_dict())

    after = update_tables(trained, make_rows_with(OTHER_ID, 3, after_days=2.5))

    assert list_known_ids(after) == [OTHER_ID]
    unknown = after.build_network().embedding_rows(ITEM_SPAN.feature, torch.tensor(NEW_ID))
    assert 1 <= int(unknown) <= after.metadata.statistics.known["item"].spare
    assert are_equal(predict_item(after, OTHER_ID), predict_item(trained, OTHER_ID))
    assert not are_equal(predict_item(after, NEW_ID), predict_item(trained, NEW_ID))


def test_a_recently_seen_id_keeps_its_row() -> None:
    checkpoint = update_tables(train_checkpoint(), make_rows_with(NEW_ID, 3))

    checkpoint = update_tables(checkpoint, make_rows_with(OTHER_ID, 3, after_days=QUICK_CONFIG.unused_days))

    assert {NEW_ID, OTHER_ID} <= set(list_known_ids(checkpoint))


def test_the_first_update_frees_no_row_however_old_its_examples() -> None:
    before = train_checkpoint()
    old, recent = make_rows_with(NEW_ID, 2), make_rows_with(OTHER_ID, 2, after_days=99)

    after = update_tables(before, concatenate_examples([old, recent]))

    assert list_known_ids(after) == list_known_ids(before)


def test_the_optimizer_state_follows_the_rows() -> None:
    before = train_checkpoint()
    network = before.build_network()
    number = [name for name, _ in network.named_parameters()].index(network.table_parameters("item")[0])

    after = update_tables(before, make_rows_with(NEW_ID, 3))

    moments = [checkpoint.optimizer["state"][number]["exp_avg_sq"] for checkpoint in (before, after)]
    assert moments[1].shape == after.weights[network.table_parameters("item")[0]].shape
    assert torch.equal(moments[1][:-1], moments[0])
    assert torch.equal(moments[1][-1], moments[0][int(network.embedding_rows(ITEM_SPAN.feature, torch.tensor(NEW_ID)))])


def test_tables_and_counts_stay_within_the_configured_rows() -> None:
    checkpoint, examples = train_checkpoint(), make_examples(400, 3)
    rng = np.random.default_rng(4)

    for day in range(6):
        for block in examples.blocks.values():
            block.ids[:] = rng.integers(1, 2**62, block.ids.shape)
        examples.ts_ms[:] = START_MS + day * DAY_MS // 4
        checkpoint = update_tables(checkpoint, examples, QUICK_CONFIG.model_copy(update={"row_after": 1}))

    for table, vocabulary in checkpoint.metadata.statistics.known.items():
        assert vocabulary.rows <= SHAPE.rows
        assert len(read_id_counts(checkpoint.id_counts[table]).ids) <= 2 * SHAPE.rows


def test_an_update_without_examples_changes_nothing() -> None:
    checkpoint = train_checkpoint()

    assert update_tables(checkpoint, make_examples(10, 1).take(np.zeros(0, np.int64))) is checkpoint


def test_a_checkpoint_with_new_rows_exports_to_equal_predictions(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    grown = update_tables(train_checkpoint(), make_rows_with(NEW_ID, 3))

    exported = export(grown, tmp_path_factory.mktemp("bundles"), {})

    assert max(exported.parity.values()) <= 1e-5
