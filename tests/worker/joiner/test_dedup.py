"""What was said is known again, what was not is not, and memory has its bound."""

from msgspec.structs import replace

from contract.events import Judgement
from contract.joining.output import JoinOutput, OrphanLabel
from contract.messages import Example
from tests.contract.joining.builders import make_joiner, make_label, make_row
from worker.joiner.dedup import HashSet, PublishedOutputs, example_key, key_from_judgement


def make_example(ident: str, revision: int) -> Example:
    made = make_joiner(make_row("order", ident, 0), make_label(1, 1, judged_event_id=ident)).drain().examples[0]
    return replace(made, revision=revision)


def make_judgement(order: str, ident: str, task: str = "fraud") -> Judgement:
    return Judgement(
        event_id=ident, ts_ms=0, user_id="u", judged_event_id=order, task=task, value=1.0, entities=("user:u",)
    )


def make_published(*keys: str, rows: tuple[str, ...] = (), limit: int = 100) -> PublishedOutputs:
    made = PublishedOutputs(limit=limit)
    made.add(keys, rows)
    made.freeze()
    return made


def test_an_example_is_known_by_its_id_and_revision() -> None:
    earlier = make_published(example_key("o1", 2))

    fresh = earlier.without_published(JoinOutput([make_example("o1", 2), make_example("o1", 3), make_example("o2", 2)]))

    assert [(e.example_id, e.revision) for e in fresh.examples] == [("o1", 3), ("o2", 2)]


def test_a_judgement_is_known_by_what_it_judges_its_label_and_its_task() -> None:
    earlier = make_published(key_from_judgement(make_judgement("o1", "l1")))
    given = [
        make_judgement("o1", "l1"),
        make_judgement("o1", "l2"),
        make_judgement("o2", "l1"),
        make_judgement("o1", "l1", "brushing"),
    ]

    assert earlier.without_published(JoinOutput(judgements=given)).judgements == given[1:]


def test_where_one_id_ends_and_the_next_begins_is_told_apart() -> None:
    earlier = make_published(key_from_judgement(make_judgement("a b", "c")))

    assert len(earlier.without_published(JoinOutput(judgements=[make_judgement("a", "b c")])).judgements) == 1


def test_a_label_of_a_row_that_an_earlier_life_knew_is_no_orphan() -> None:
    earlier = make_published(rows=("o1",))

    fresh = earlier.without_published(
        JoinOutput(orphans=[OrphanLabel("fraud", "o1", None), OrphanLabel("fraud", "o2", None)])
    )

    assert fresh.orphans == [OrphanLabel("fraud", "o2", None)]


def test_without_an_earlier_life_everything_is_new() -> None:
    given = JoinOutput([make_example("o1", 2)], [make_judgement("o1", "l1")], [OrphanLabel("fraud", "o", None)])

    assert PublishedOutputs(limit=10).without_published(given) == given


def test_the_oldest_are_forgotten_first_and_counted() -> None:
    memory = HashSet(limit=5)
    for begin in (0, 4, 8):
        memory.add([str(n) for n in range(begin, begin + 4)])
    memory.freeze()

    assert memory.contains([str(n) for n in range(12)]).tolist() == [False] * 7 + [True] * 5
    assert (len(memory), memory.evicted) == (5, 7)


def test_what_was_forgotten_is_told() -> None:
    earlier = make_published(*(example_key(f"o{n}", 1) for n in range(5)), limit=2)

    assert earlier.evicted == 3
    assert len(earlier.without_published(JoinOutput([make_example(f"o{n}", 1) for n in range(5)])).examples) == 3
