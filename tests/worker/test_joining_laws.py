"""Laws of joining: what an example says in the end depends on what happened, and on nothing else."""

import random

import pytest

from contract.rows import Example
from tests.worker.joining import Reader, shop, truth


def read(
    seed: int,
    *,
    run: int = 0,
    batch_max: int = 7,
    disorder: float = 0.0,
    crashes: int = 0,
    transactions: bool = False,
) -> Reader:
    draw = random.Random(f"{seed}-{run}")
    return Reader(shop(seed, disorder=disorder), draw, batch_max, transactions).run(crashes=crashes)


def labels(reader: Reader) -> dict[str, dict[str, float | str]]:
    return {ident: example.labels for ident, example in reader.newest().items()}


def said(reader: Reader) -> dict[tuple[str, int], Example]:
    return {(example.example_id, example.revision): example for example in reader.examples}


@pytest.mark.parametrize("disorder", [0.0, 10.0])
@pytest.mark.parametrize("batch_max", [1, 7, 1_000])
def test_joining_finds_what_a_plain_look_at_everything_finds(seed: int, batch_max: int, disorder: float) -> None:
    reader = read(seed, batch_max=batch_max, disorder=disorder)

    assert labels(reader) == truth(shop(seed, disorder=disorder))


def test_the_simulated_shop_has_every_case(seed: int) -> None:
    reader = read(seed)

    found = [tuple(sorted(example.labels.items())) for example in reader.newest().values()]
    assert {("click", 0.0), ("click", 1.0), ("purchase", 1.0), ("fraud", 0.0), ("fraud", 1.0)} <= {
        pair for pairs in found for pair in pairs
    }
    assert {0, 1, 2, 3, 4} <= {example.revision for example in reader.examples}
    assert (("relevance", 1.0),) in found


@pytest.mark.parametrize("run", range(1, 6))
def test_any_order_of_arrival_says_the_same_in_the_same_revisions(seed: int, run: int) -> None:
    once, again = read(seed), read(seed, run=run, batch_max=1 + 10 * run)

    assert said(again) == said(once)
    assert len(again.examples) == len(said(again))


@pytest.mark.parametrize("run", range(1, 6))
def test_a_revision_says_the_same_however_events_are_late(seed: int, run: int) -> None:
    once, again = read(seed, disorder=10), read(seed, run=run, batch_max=3 * run, disorder=10)

    assert labels(again) == labels(once)
    both = said(once).keys() & said(again).keys()
    assert {key: said(once)[key] for key in both} == {key: said(again)[key] for key in both}


@pytest.mark.parametrize("run", range(5))
def test_a_crash_loses_no_example_and_repeats_only_what_was_said(seed: int, run: int) -> None:
    whole, broken = read(seed), read(seed, run=run, crashes=4)

    assert said(broken) == said(whole)


@pytest.mark.parametrize("run", range(5))
def test_a_crash_amid_late_events_leaves_the_same_labels(seed: int, run: int) -> None:
    broken = read(seed, run=run, disorder=10, crashes=4)

    assert labels(broken) == truth(shop(seed, disorder=10))


@pytest.mark.parametrize("run", range(8))
def test_with_transactions_a_crash_repeats_nothing(seed: int, run: int) -> None:
    whole, broken = read(seed), read(seed, run=run, crashes=6, transactions=True)

    assert said(broken) == said(whole)
    assert len(broken.examples) == len(said(broken))
    judged = [(j.judged_event_id, j.event_id, j.task) for j in broken.judgements]
    assert len(judged) == len(set(judged)) == len(whole.judgements)


@pytest.mark.parametrize("run", range(8))
def test_with_transactions_a_label_without_a_row_counts_once_whatever_crashes(seed: int, run: int) -> None:
    log, draw = shop(seed, hours=70), random.Random(f"{seed}-{run}")

    broken = Reader(log, draw, 7, transactions=True).run(crashes=8, batches=110)

    expected = sum(getattr(thing, "judged_event_id", "").startswith("gone") for part in log.values() for thing in part)
    assert expected > 5
    assert broken.orphans == {"fraud": expected}
