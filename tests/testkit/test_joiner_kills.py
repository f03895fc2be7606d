"""The joiner under kills, at small scale; and an oracle that sees what is wrong."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from contract.events import decode
from contract.joining.joiner import Joiner
from contract.messages import Example, PackedBlock, ScoredRow, read_scored_row
from contract.tasks import Task
from devservers.apache_kafka import ApacheKafka
from testkit.joiner.expected import FEEDBACK_SETTINGS, TAIL_MS, split_portions
from testkit.joiner.joiner_kills import JoinerKillOutcome, JoinerKillPlan, JoinerKillRun
from testkit.joiner.oracle import JoinCounts, JoinOracle, PublishedExample, SentPortion
from testkit.joiner.simulator import JoinSimulator

BEGIN_MS: Final = 1_764_000_000_000
FRAUD: Final = Task("fraud", "binary", ("order",), "decide")


@pytest.fixture(scope="module")
def world() -> JoinSimulator:
    made = JoinSimulator(events=1_500, hours=24, begin_ms=BEGIN_MS, seed=7)
    made.run()
    return made


def run_joiner(world: JoinSimulator) -> list[Example]:
    """What the joiner makes of the records in their order, in one life."""
    joiner, examples = Joiner(feedback=FEEDBACK_SETTINGS, tasks=[FRAUD]), list[Example]()
    for record in world.records:
        thing = read_scored_row(record.value) if record.kind == "scored" else decode(record.kind, record.value)
        if isinstance(thing, ScoredRow):
            joiner.add_row(thing)
        else:
            joiner.add_event(thing)
        joiner.advance(record.arrival_ms - 2 * 60_000)  # nothing is later than that
        examples += joiner.drain().examples
    return examples


def check_examples(
    world: JoinSimulator, examples: Sequence[Example], *, latest_ms: int = BEGIN_MS + 10 * TAIL_MS
) -> JoinCounts:
    oracle = JoinOracle(expected=world.expected, records=world.records, portions=[SentPortion(0, latest_ms)])
    return oracle.evaluate(PublishedExample(example, 1) for example in examples)


def test_what_is_joined_in_order_and_without_a_kill_is_true(world: JoinSimulator) -> None:
    verdict = check_examples(world, run_joiner(world))

    assert verdict.in_window == verdict.joined > 300
    assert (verdict.early, verdict.duplicates, verdict.wrong_features, verdict.wrong_examples) == (0, 0, 0, [])


def test_the_world_has_every_oddity(world: JoinSimulator) -> None:
    assert all(n > 3 for n in world.label_counts.values())
    assert world.orphans == world.label_counts["orphaned"]
    assert {example.revision for example in run_joiner(world)} >= {0, 1, 2, 3, 4}


def test_portions_are_all_the_records_in_their_order(world: JoinSimulator) -> None:
    parts = list(split_portions(world.records, 4))

    assert len(parts) == 4
    assert [record for part in parts for record in part] == world.records


def change_first(
    examples: list[Example], selects: Callable[[Example], bool], change: Callable[[Example], Example]
) -> list[Example]:
    """The first of those examples changed."""
    at = next(n for n, example in enumerate(examples) if selects(example))
    return [*examples[:at], change(examples[at]), *examples[at + 1 :]]


def has_click(example: Example) -> bool:
    return example.labels == {"click": 1.0}


def test_an_example_that_is_lost_is_noticed(world: JoinSimulator) -> None:
    examples = run_joiner(world)
    bought = next(e for e in examples if e.labels.get("purchase") == 1.0)

    verdict = check_examples(world, [e for e in examples if e.example_id != bought.example_id])

    assert (verdict.in_window - verdict.joined, len(verdict.wrong_examples)) == (2, 1)  # the click and the purchase


def test_an_example_that_is_said_twice_is_noticed(world: JoinSimulator) -> None:
    examples = run_joiner(world)

    assert check_examples(world, [*examples, examples[5]]).duplicates == 1


def test_a_byte_of_another_row_is_noticed(world: JoinSimulator) -> None:
    def mix(example: Example) -> Example:
        item = example.groups["item"]
        other = PackedBlock(1, item.numbers[4:] + item.numbers[:4], item.ids)
        return replace(example, groups={**example.groups, "item": other})

    assert check_examples(world, change_first(run_joiner(world), has_click, mix)).wrong_features == 1


@pytest.mark.parametrize(
    "how",
    [
        lambda e: replace(e, served={"click": 0.5}),
        lambda e: replace(e, model_version="m2"),
        lambda e: replace(e, example_id="nobody's"),
        lambda e: replace(e, groups={"item": e.groups["item"]}),
    ],
    ids=["score", "version", "id", "group"],
)
def test_what_was_not_served_so_is_noticed(world: JoinSimulator, how: Callable[[Example], Example]) -> None:
    assert check_examples(world, change_first(run_joiner(world), has_click, how)).wrong_features == 1


def test_a_label_before_its_event_is_noticed(world: JoinSimulator) -> None:
    examples = change_first(
        run_joiner(world), has_click, lambda e: replace(e, known_ms={"click": e.known_ms["click"] - 1})
    )

    assert check_examples(world, examples).early == 1


def test_silence_before_its_wait_is_over_is_noticed(world: JoinSimulator) -> None:
    def hurry(example: Example) -> Example:
        return replace(example, known_ms={"fraud": example.known_ms["fraud"] - 1})

    examples = change_first(run_joiner(world), lambda e: e.labels == {"fraud": 0.0} and e.revision == 1, hurry)

    assert check_examples(world, examples).early == 1


def test_silence_before_anything_later_was_sent_is_noticed(world: JoinSimulator) -> None:
    examples = run_joiner(world)
    quiet = [e for e in examples if e.labels == {"fraud": 0.0} and e.revision == 1]

    assert check_examples(world, examples, latest_ms=max(e.known_ms["fraud"] for e in quiet)).early > 0


def test_silence_although_a_click_lay_before_is_noticed_even_if_it_is_corrected(world: JoinSimulator) -> None:
    examples = run_joiner(world)
    click = next(e for e in examples if has_click(e) and e.revision == 1 and is_in_time(world, e))
    due_ms = click.ts_ms + 30 * 60_000
    hasty = replace(
        click, revision=0, labels={"click": 0.0, "purchase": 0.0}, known_ms={"click": due_ms, "purchase": due_ms}
    )

    verdict = check_examples(world, [hasty, *examples])

    assert verdict.early >= 1
    assert verdict.wrong_examples == []


def is_in_time(world: JoinSimulator, example: Example) -> bool:
    return world.expected[example.example_id].facts[0].in_window


@pytest.mark.parametrize(
    ("field", "value"),
    [("joined_share", 0.9998), ("early", 1), ("duplicates", 1), ("wrong_features", 1), ("orphans", 6), ("kills", 4)],
)
def test_a_run_that_falls_short_says_so(field: str, value: float) -> None:
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
