"""Laws of joining: final labels depend on the events alone, not on arrival order, batches or crashes."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from contract.messages import Example
from contract.settings.worker import FeedbackSettings
from tests.contract.joining.builders import FEEDBACK
from tests.contract.joining.memory_rows import MemoryRows
from tests.worker.joiner_simulation import JoinerSimulation, StoredRows, compute_expected_labels, simulate_shop
from worker.joiner.store.sqlite_rows import SqliteRows

FEW_IN_MEMORY: Final = FEEDBACK.model_copy(update={"rows_max": 2})


def run_simulation(
    seed: int,
    *,
    run: int = 0,
    batch_max: int = 7,
    disorder: float = 0.0,
    crashes: int = 0,
    transactions: bool = False,
    rows: StoredRows | None = None,
    feedback: FeedbackSettings = FEEDBACK,
) -> JoinerSimulation:
    logs, rng = simulate_shop(seed, disorder=disorder), random.Random(f"{seed}-{run}")
    simulation = JoinerSimulation(logs, rng, batch_max, transactions, rows=rows, feedback=feedback)
    return simulation.run(crashes=crashes)


def final_labels(simulation: JoinerSimulation) -> dict[str, dict[str, float | str]]:
    return {ident: example.labels for ident, example in simulation.newest_examples().items()}


def examples_by_revision(simulation: JoinerSimulation) -> dict[tuple[str, int], Example]:
    return {(example.example_id, example.revision): example for example in simulation.examples}


@pytest.mark.parametrize("disorder", [0.0, 10.0])
@pytest.mark.parametrize("batch_max", [1, 7, 1_000])
def test_final_labels_equal_those_of_a_simple_full_scan(seed: int, batch_max: int, disorder: float) -> None:
    simulation = run_simulation(seed, batch_max=batch_max, disorder=disorder)

    assert final_labels(simulation) == compute_expected_labels(simulate_shop(seed, disorder=disorder))


def test_the_simulated_shop_has_every_case(seed: int) -> None:
    simulation = run_simulation(seed)

    labels = [tuple(sorted(example.labels.items())) for example in simulation.newest_examples().values()]
    assert {("click", 0.0), ("click", 1.0), ("purchase", 1.0), ("fraud", 0.0), ("fraud", 1.0)} <= {
        label for example_labels in labels for label in example_labels
    }
    assert {0, 1, 2, 3, 4} <= {example.revision for example in simulation.examples}
    assert (("relevance", 1.0),) in labels


@pytest.mark.parametrize("run", range(1, 6))
def test_examples_and_revisions_do_not_depend_on_the_order_of_arrival(seed: int, run: int) -> None:
    first, second = run_simulation(seed), run_simulation(seed, run=run, batch_max=1 + 10 * run)

    assert examples_by_revision(second) == examples_by_revision(first)
    assert len(second.examples) == len(examples_by_revision(second))


@pytest.mark.parametrize("run", range(1, 6))
def test_a_revision_has_the_same_content_whatever_events_are_late(seed: int, run: int) -> None:
    first, second = run_simulation(seed, disorder=10), run_simulation(seed, run=run, batch_max=3 * run, disorder=10)

    assert final_labels(second) == final_labels(first)
    both = examples_by_revision(first).keys() & examples_by_revision(second).keys()
    assert {key: examples_by_revision(first)[key] for key in both} == {
        key: examples_by_revision(second)[key] for key in both
    }


@pytest.mark.parametrize("run", range(5))
def test_a_crash_loses_no_example_and_repeats_only_published_ones(seed: int, run: int) -> None:
    unbroken, broken = run_simulation(seed), run_simulation(seed, run=run, crashes=4)

    assert examples_by_revision(broken) == examples_by_revision(unbroken)


@pytest.mark.parametrize("run", range(5))
def test_crashes_among_late_events_leave_the_same_labels(seed: int, run: int) -> None:
    broken = run_simulation(seed, run=run, disorder=10, crashes=4)

    assert final_labels(broken) == compute_expected_labels(simulate_shop(seed, disorder=10))


@pytest.mark.parametrize("run", range(8))
def test_with_transactions_a_crash_repeats_no_output(seed: int, run: int) -> None:
    unbroken, broken = run_simulation(seed), run_simulation(seed, run=run, crashes=6, transactions=True)

    assert examples_by_revision(broken) == examples_by_revision(unbroken)
    assert len(broken.examples) == len(examples_by_revision(broken))
    judged = [(j.judged_event_id, j.event_id, j.task) for j in broken.judgements]
    assert len(judged) == len(set(judged)) == len(unbroken.judgements)


@pytest.mark.parametrize("run", range(8))
def test_with_transactions_each_orphan_counts_once_over_all_crashes(seed: int, run: int) -> None:
    logs = simulate_shop(seed, hours=70)
    rng = random.Random(f"{seed}-{run}")

    broken = JoinerSimulation(logs, rng, 7, transactions=True).run(crashes=8, batches=110)

    expected = sum(
        getattr(value, "judged_event_id", "").startswith("gone") for values in logs.values() for value in values
    )
    assert expected > 5
    assert broken.orphans == {"fraud": expected}


@pytest.fixture(params=["memory", "disk"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoredRows]:
    """A row store; each kind of row leaves the memory after the second one."""
    if request.param == "memory":
        yield MemoryRows()
        return
    store = SqliteRows(tmp_path / "rows")
    yield store
    store.close()


@pytest.mark.parametrize("disorder", [0.0, 10.0])
def test_rows_that_wait_on_disk_get_the_labels_of_a_simple_full_scan(
    seed: int, disorder: float, rows: StoredRows
) -> None:
    simulation = run_simulation(seed, disorder=disorder, rows=rows, feedback=FEW_IN_MEMORY)

    assert final_labels(simulation) == compute_expected_labels(simulate_shop(seed, disorder=disorder))


@pytest.mark.parametrize("run", range(4))
def test_rows_that_wait_on_disk_emit_the_revisions_of_rows_in_memory(seed: int, run: int, rows: StoredRows) -> None:
    first = run_simulation(seed)
    second = run_simulation(seed, run=run, batch_max=1 + 10 * run, rows=rows, feedback=FEW_IN_MEMORY)

    assert examples_by_revision(second) == examples_by_revision(first)
    assert len(second.examples) == len(examples_by_revision(second))


@pytest.mark.parametrize("run", range(6))
def test_with_stored_rows_a_crash_loses_and_repeats_no_output(seed: int, run: int, rows: StoredRows) -> None:
    unbroken = run_simulation(seed)
    broken = run_simulation(seed, run=run, crashes=6, transactions=True, rows=rows, feedback=FEW_IN_MEMORY)

    assert examples_by_revision(broken) == examples_by_revision(unbroken)
    assert len(broken.examples) == len(examples_by_revision(broken))
    judged = [(j.judged_event_id, j.event_id, j.task) for j in broken.judgements]
    assert len(judged) == len(set(judged)) == len(unbroken.judgements)


@pytest.mark.parametrize("run", range(4))
def test_crashes_among_late_events_leave_the_same_labels_of_stored_rows(seed: int, run: int, rows: StoredRows) -> None:
    broken = run_simulation(seed, run=run, disorder=10, crashes=4, rows=rows, feedback=FEW_IN_MEMORY)

    assert final_labels(broken) == compute_expected_labels(simulate_shop(seed, disorder=10))


@pytest.mark.parametrize("run", range(4))
def test_with_stored_rows_each_orphan_counts_once_over_all_crashes(seed: int, run: int, rows: StoredRows) -> None:
    logs = simulate_shop(seed, hours=70)
    rng = random.Random(f"{seed}-{run}")
    simulation = JoinerSimulation(logs, rng, 7, transactions=True, rows=rows, feedback=FEW_IN_MEMORY)

    simulation.run(crashes=8, batches=110)

    expected = sum(
        getattr(value, "judged_event_id", "").startswith("gone") for values in logs.values() for value in values
    )
    assert expected > 5
    assert simulation.orphans == {"fraud": expected}
