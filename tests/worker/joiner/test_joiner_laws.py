"""Laws of joining: what an example says in the end depends on what happened, and on nothing else."""

import random

import pytest

from contract.messages import Example
from tests.worker.joiner_simulation import JoinerSimulation, expected_labels, simulate_shop


def run_simulation(
    seed: int,
    *,
    run: int = 0,
    batch_max: int = 7,
    disorder: float = 0.0,
    crashes: int = 0,
    transactions: bool = False,
) -> JoinerSimulation:
    draw = random.Random(f"{seed}-{run}")
    return JoinerSimulation(simulate_shop(seed, disorder=disorder), draw, batch_max, transactions).run(crashes=crashes)


def final_labels(reader: JoinerSimulation) -> dict[str, dict[str, float | str]]:
    return {ident: example.labels for ident, example in reader.newest().items()}


def examples_by_revision(reader: JoinerSimulation) -> dict[tuple[str, int], Example]:
    return {(example.example_id, example.revision): example for example in reader.examples}


@pytest.mark.parametrize("disorder", [0.0, 10.0])
@pytest.mark.parametrize("batch_max", [1, 7, 1_000])
def test_joining_finds_what_a_plain_look_at_everything_finds(seed: int, batch_max: int, disorder: float) -> None:
    reader = run_simulation(seed, batch_max=batch_max, disorder=disorder)

    assert final_labels(reader) == expected_labels(simulate_shop(seed, disorder=disorder))


def test_the_simulated_shop_has_every_case(seed: int) -> None:
    reader = run_simulation(seed)

    actual = [tuple(sorted(example.labels.items())) for example in reader.newest().values()]
    assert {("click", 0.0), ("click", 1.0), ("purchase", 1.0), ("fraud", 0.0), ("fraud", 1.0)} <= {
        pair for pairs in actual for pair in pairs
    }
    assert {0, 1, 2, 3, 4} <= {example.revision for example in reader.examples}
    assert (("relevance", 1.0),) in actual


@pytest.mark.parametrize("run", range(1, 6))
def test_any_order_of_arrival_says_the_same_in_the_same_revisions(seed: int, run: int) -> None:
    once, again = run_simulation(seed), run_simulation(seed, run=run, batch_max=1 + 10 * run)

    assert examples_by_revision(again) == examples_by_revision(once)
    assert len(again.examples) == len(examples_by_revision(again))


@pytest.mark.parametrize("run", range(1, 6))
def test_a_revision_says_the_same_however_events_are_late(seed: int, run: int) -> None:
    once, again = run_simulation(seed, disorder=10), run_simulation(seed, run=run, batch_max=3 * run, disorder=10)

    assert final_labels(again) == final_labels(once)
    both = examples_by_revision(once).keys() & examples_by_revision(again).keys()
    assert {key: examples_by_revision(once)[key] for key in both} == {
        key: examples_by_revision(again)[key] for key in both
    }


@pytest.mark.parametrize("run", range(5))
def test_a_crash_loses_no_example_and_repeats_only_what_was_said(seed: int, run: int) -> None:
    whole, broken = run_simulation(seed), run_simulation(seed, run=run, crashes=4)

    assert examples_by_revision(broken) == examples_by_revision(whole)


@pytest.mark.parametrize("run", range(5))
def test_a_crash_amid_late_events_leaves_the_same_labels(seed: int, run: int) -> None:
    broken = run_simulation(seed, run=run, disorder=10, crashes=4)

    assert final_labels(broken) == expected_labels(simulate_shop(seed, disorder=10))


@pytest.mark.parametrize("run", range(8))
def test_with_transactions_a_crash_repeats_nothing(seed: int, run: int) -> None:
    whole, broken = run_simulation(seed), run_simulation(seed, run=run, crashes=6, transactions=True)

    assert examples_by_revision(broken) == examples_by_revision(whole)
    assert len(broken.examples) == len(examples_by_revision(broken))
    judged = [(j.judged_event_id, j.event_id, j.task) for j in broken.judgements]
    assert len(judged) == len(set(judged)) == len(whole.judgements)


@pytest.mark.parametrize("run", range(8))
def test_with_transactions_a_label_without_a_row_counts_once_whatever_crashes(seed: int, run: int) -> None:
    log, draw = simulate_shop(seed, hours=70), random.Random(f"{seed}-{run}")

    broken = JoinerSimulation(log, draw, 7, transactions=True).run(crashes=8, batches=110)

    expected = sum(getattr(thing, "judged_event_id", "").startswith("gone") for part in log.values() for thing in part)
    assert expected > 5
    assert broken.orphans == {"fraud": expected}
