"""What was said is known again, what was not is not, and memory has its bound."""

from msgspec.structs import replace

from contract.events import Judgement
from contract.joining.output import Orphan, Output
from contract.rows import Example
from tests.contract.joining.shop import joiner, label, row
from worker.said import Remembered, Said, example_key, key_of


def example(ident: str, revision: int) -> Example:
    made = joiner(row("order", ident, 0), label(1, 1, of=ident)).take().examples[0]
    return replace(made, revision=revision)


def judgement(order: str, ident: str, task: str = "fraud") -> Judgement:
    return Judgement(
        event_id=ident, ts_ms=0, user_id="u", judged_event_id=order, task=task, value=1.0, entities=("user:u",)
    )


def said(*keys: str, rows: tuple[str, ...] = (), limit: int = 100) -> Said:
    made = Said(limit=limit)
    made.remember(keys, rows)
    made.close()
    return made


def test_an_example_is_known_by_its_id_and_revision() -> None:
    earlier = said(example_key("o1", 2))

    fresh = earlier.fresh(Output([example("o1", 2), example("o1", 3), example("o2", 2)]))

    assert [(e.example_id, e.revision) for e in fresh.examples] == [("o1", 3), ("o2", 2)]


def test_a_judgement_is_known_by_what_it_judges_its_label_and_its_task() -> None:
    earlier = said(key_of(judgement("o1", "l1")))
    given = [judgement("o1", "l1"), judgement("o1", "l2"), judgement("o2", "l1"), judgement("o1", "l1", "brushing")]

    assert earlier.fresh(Output(judgements=given)).judgements == given[1:]


def test_where_one_id_ends_and_the_next_begins_is_told_apart() -> None:
    earlier = said(key_of(judgement("a b", "c")))

    assert len(earlier.fresh(Output(judgements=[judgement("a", "b c")])).judgements) == 1


def test_a_label_of_a_row_that_an_earlier_life_knew_is_no_orphan() -> None:
    earlier = said(rows=("o1",))

    fresh = earlier.fresh(Output(orphans=[Orphan("fraud", "o1", None), Orphan("fraud", "o2", None)]))

    assert fresh.orphans == [Orphan("fraud", "o2", None)]


def test_without_an_earlier_life_everything_is_new() -> None:
    given = Output([example("o1", 2)], [judgement("o1", "l1")], [Orphan("fraud", "o", None)])

    assert Said(limit=10).fresh(given) == given


def test_the_oldest_are_forgotten_first_and_counted() -> None:
    memory = Remembered(limit=5)
    for begin in (0, 4, 8):
        memory.add([str(n) for n in range(begin, begin + 4)])
    memory.close()

    assert memory.among([str(n) for n in range(12)]).tolist() == [False] * 7 + [True] * 5
    assert (len(memory), memory.forgotten) == (5, 7)


def test_what_was_forgotten_is_told() -> None:
    earlier = said(*(example_key(f"o{n}", 1) for n in range(5)), limit=2)

    assert earlier.forgotten == 3
    assert len(earlier.fresh(Output([example(f"o{n}", 1) for n in range(5)])).examples) == 3
