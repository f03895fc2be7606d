"""The joiner under kills, at small scale; and an oracle that detects wrong examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from contract.events.reading import decode
from contract.features.packing import PackedBlock
from contract.joining.joiner import Joiner
from contract.messages import Example, read_scored_row
from contract.tasks import Task
from contract.units import MINUTE_MS
from devservers.apache_kafka import ApacheKafka
from testkit.joiner.expected import FEEDBACK_SETTINGS, TAIL_MS, split_portions
from testkit.joiner.joiner_kills import JoinerKillOutcome, JoinerKillPlan, JoinerKillRun
from testkit.joiner.oracle import JoinCounts, JoinOracle, PublishedExample, SentPortion
from testkit.joiner.simulator import JoinSimulator

BEGIN_MS: Final = 1_764_000_000_000
FRAUD: Final = Task("fraud", "binary", ("order",), "decide")


@pytest.fixture(scope="module")
def simulator() -> JoinSimulator:
    simulator = JoinSimulator(events=1_500, hours=24, begin_ms=BEGIN_MS, seed=7)
    simulator.run()
    return simulator


def run_joiner(simulator: JoinSimulator) -> list[Example]:
    """The examples that one joiner publishes for the records in order."""
    joiner, examples = Joiner(feedback=FEEDBACK_SETTINGS, tasks=[FRAUD]), list[Example]()
    for record in simulator.records:
        if record.kind == "scored":
            joiner.add_row(read_scored_row(record.value))
        else:
            joiner.add_event(decode(record.kind, record.value))
        joiner.advance(record.arrival_ms - 2 * MINUTE_MS)  # no record is later than that
        examples += joiner.drain().examples
    return examples


def check_examples(
    simulator: JoinSimulator, examples: Sequence[Example], *, latest_ms: int = BEGIN_MS + 10 * TAIL_MS
) -> JoinCounts:
    oracle = JoinOracle(expected=simulator.expected, records=simulator.records, portions=[SentPortion(0, latest_ms)])
    return oracle.evaluate(PublishedExample(example, 1) for example in examples)


def test_examples_joined_without_a_kill_are_correct(simulator: JoinSimulator) -> None:
    counts = check_examples(simulator, run_joiner(simulator))

    assert counts.in_window == counts.joined > 300
    assert (counts.early, counts.duplicates, counts.wrong_features, counts.wrong_examples) == (0, 0, 0, [])


def test_the_simulator_has_every_anomaly(simulator: JoinSimulator) -> None:
    assert all(n > 3 for n in simulator.label_counts.values())
    assert simulator.orphans == simulator.label_counts["orphaned"]
    assert {example.revision for example in run_joiner(simulator)} >= {0, 1, 2, 3, 4}


def test_portions_hold_all_records_in_order(simulator: JoinSimulator) -> None:
    portions = list(split_portions(simulator.records, 4))

    assert len(portions) == 4
    assert [record for portion in portions for record in portion] == simulator.records


def change_first(
    examples: list[Example], selects: Callable[[Example], bool], change: Callable[[Example], Example]
) -> list[Example]:
    """The examples with the first selected one changed."""
    index = next(n for n, example in enumerate(examples) if selects(example))
    return [*examples[:index], change(examples[index]), *examples[index + 1 :]]


def has_click(example: Example) -> bool:
    return example.labels == {"click": 1.0}


def test_a_lost_example_is_detected(simulator: JoinSimulator) -> None:
    examples = run_joiner(simulator)
    bought = next(e for e in examples if e.labels.get("purchase") == 1.0)

    counts = check_examples(simulator, [e for e in examples if e.example_id != bought.example_id])

    assert (counts.in_window - counts.joined, len(counts.wrong_examples)) == (2, 1)  # the click and the purchase


def test_a_duplicate_revision_is_detected(simulator: JoinSimulator) -> None:
    examples = run_joiner(simulator)

    assert check_examples(simulator, [*examples, examples[5]]).duplicates == 1


def test_features_of_another_row_are_detected(simulator: JoinSimulator) -> None:
    def mix(example: Example) -> Example:
        item = example.groups["item"]
        other = PackedBlock(1, item.numbers[4:] + item.numbers[:4], item.ids)
        return replace(example, groups={**example.groups, "item": other})

    assert check_examples(simulator, change_first(run_joiner(simulator), has_click, mix)).wrong_features == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda e: replace(e, served={"click": 0.5}),
        lambda e: replace(e, model_version="m2"),
        lambda e: replace(e, example_id="unknown"),
        lambda e: replace(e, groups={"item": e.groups["item"]}),
    ],
    ids=["score", "version", "id", "group"],
)
def test_an_example_that_differs_from_its_row_is_detected(
    simulator: JoinSimulator, change: Callable[[Example], Example]
) -> None:
    assert check_examples(simulator, change_first(run_joiner(simulator), has_click, change)).wrong_features == 1


def test_a_label_before_its_event_is_detected(simulator: JoinSimulator) -> None:
    examples = change_first(
        run_joiner(simulator), has_click, lambda e: replace(e, known_ms={"click": e.known_ms["click"] - 1})
    )

    assert check_examples(simulator, examples).early == 1


def test_a_negative_label_within_its_window_is_detected(simulator: JoinSimulator) -> None:
    def advance_label(example: Example) -> Example:
        return replace(example, known_ms={"fraud": example.known_ms["fraud"] - 1})

    examples = change_first(
        run_joiner(simulator), lambda e: e.labels == {"fraud": 0.0} and e.revision == 1, advance_label
    )

    assert check_examples(simulator, examples).early == 1


def test_a_negative_label_before_the_watermark_is_detected(simulator: JoinSimulator) -> None:
    examples = run_joiner(simulator)
    negatives = [e for e in examples if e.labels == {"fraud": 0.0} and e.revision == 1]

    assert check_examples(simulator, examples, latest_ms=max(e.known_ms["fraud"] for e in negatives)).early > 0


def test_a_negative_label_after_a_click_is_detected_even_if_corrected(simulator: JoinSimulator) -> None:
    examples = run_joiner(simulator)
    click = next(e for e in examples if has_click(e) and e.revision == 1 and is_in_time(simulator, e))
    due_ms = click.ts_ms + 30 * MINUTE_MS
    early_negative = replace(
        click, revision=0, labels={"click": 0.0, "purchase": 0.0}, known_ms={"click": due_ms, "purchase": due_ms}
    )

    counts = check_examples(simulator, [early_negative, *examples])

    assert counts.early >= 1
    assert counts.wrong_examples == []


def is_in_time(simulator: JoinSimulator, example: Example) -> bool:
    return simulator.expected[example.example_id].facts[0].in_window


@pytest.mark.parametrize(
    ("field", "value"),
    [("joined_share", 0.9998), ("early", 1), ("duplicates", 1), ("wrong_features", 1), ("orphans", 6), ("kills", 4)],
)
def test_a_run_that_breaks_a_promise_fails(field: str, value: float) -> None:
    good = JoinerKillOutcome(
        in_window=10, joined_share=1.0, early=0, duplicates=0, wrong_features=0, orphans=5, orphans_expected=5, kills=5
    )

    assert good.passed
    assert not replace(good, **{field: value}).passed


@pytest.mark.apache_kafka
@pytest.mark.timeout(300)
def test_a_joiner_that_is_killed_joins_every_label_once(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    plan = JoinerKillPlan(events=2_000, kills=2, seed=seed)

    run = JoinerKillRun(kafka=apache_kafka, plan=plan, folder=tmp_path, report=print, prefix=topic_prefix)
    outcome = run.run()

    assert (outcome.joined_share, outcome.early, outcome.duplicates, outcome.wrong_features) == (1.0, 0, 0, 0)
    assert outcome.orphans == outcome.orphans_expected > 0
    assert (outcome.kills, run.wrong_examples) == (2, [])
    assert outcome.in_window > 300


@pytest.mark.apache_kafka
@pytest.mark.timeout(600)
def test_joiners_that_are_suspended_in_a_transaction_while_their_shards_move_join_every_label_once(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    plan = JoinerKillPlan(events=6_000, kills=3, seed=seed, joiners=2)

    run = JoinerKillRun(kafka=apache_kafka, plan=plan, folder=tmp_path, report=print, prefix=topic_prefix)
    outcome = run.run()

    assert (outcome.joined_share, outcome.early, outcome.duplicates, outcome.wrong_features) == (1.0, 0, 0, 0)
    assert outcome.orphans == outcome.orphans_expected > 0
    assert (outcome.pauses, outcome.moves, run.wrong_examples) == (2, 1, [])
