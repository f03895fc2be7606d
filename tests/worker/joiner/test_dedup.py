"""Deduplication: published outputs are recognised, others are not, and memory is bounded."""

from msgspec.structs import replace

from contract.events.model import Judgement
from contract.joining.output import ForeignLabel, JoinOutput, OrphanLabel
from contract.messages import Example
from tests.contract.joining.builders import make_joiner, make_label, make_row
from worker.joiner.dedup import HashSet, PublishedOutputs, example_key, key_from_judgement


def make_example(ident: str, revision: int) -> Example:
    output = make_joiner(make_row("order", ident, 0), make_label(1, 1, judged_event_id=ident)).drain()
    return replace(output.examples[0], revision=revision)


def make_judgement(order: str, ident: str, task: str = "fraud") -> Judgement:
    return Judgement(
        event_id=ident, ts_ms=0, user_id="u", judged_event_id=order, task=task, value=1.0, entities=("user:u",)
    )


def make_published(*keys: str, rows: tuple[str, ...] = (), limit: int = 100) -> PublishedOutputs:
    published = PublishedOutputs(limit=limit)
    published.add(keys, rows)
    published.freeze()
    return published


def test_an_example_is_identified_by_id_and_revision() -> None:
    published = make_published(example_key("o1", 2))

    unpublished = published.without_published(
        JoinOutput([make_example("o1", 2), make_example("o1", 3), make_example("o2", 2)])
    )

    assert [(e.example_id, e.revision) for e in unpublished.examples] == [("o1", 3), ("o2", 2)]


def test_a_judgement_is_identified_by_judged_event_label_and_task() -> None:
    published = make_published(key_from_judgement(make_judgement("o1", "l1")))
    judgements = [
        make_judgement("o1", "l1"),
        make_judgement("o1", "l2"),
        make_judgement("o2", "l1"),
        make_judgement("o1", "l1", "brushing"),
    ]

    assert published.without_published(JoinOutput(judgements=judgements)).judgements == judgements[1:]


def test_keys_keep_the_boundary_between_two_ids() -> None:
    published = make_published(key_from_judgement(make_judgement("a b", "c")))

    assert len(published.without_published(JoinOutput(judgements=[make_judgement("a", "b c")])).judgements) == 1


def test_a_label_of_a_row_with_a_published_example_is_no_orphan() -> None:
    published = make_published(rows=("o1",))

    unpublished = published.without_published(
        JoinOutput(orphans=[OrphanLabel("fraud", "o1", None), OrphanLabel("fraud", "o2", None)])
    )

    assert unpublished.orphans == [OrphanLabel("fraud", "o2", None)]


def test_labels_of_another_user_are_passed_on_behind_published_outputs() -> None:
    outputs = JoinOutput(foreign=[ForeignLabel("l", "fraud", "o1")])

    assert make_published(rows=("o1",)).without_published(outputs) == outputs


def test_without_published_outputs_every_output_is_new() -> None:
    outputs = JoinOutput([make_example("o1", 2)], [make_judgement("o1", "l1")], [OrphanLabel("fraud", "o", None)])

    assert PublishedOutputs(limit=10).without_published(outputs) == outputs


def test_the_oldest_hashes_are_evicted_first_and_counted() -> None:
    hashes = HashSet(limit=5)
    for begin in (0, 4, 8):
        hashes.add([str(n) for n in range(begin, begin + 4)])
    hashes.freeze()

    assert hashes.contains([str(n) for n in range(12)]).tolist() == [False] * 7 + [True] * 5
    assert (len(hashes), hashes.evicted) == (5, 7)


def test_evicted_outputs_are_counted_and_published_again() -> None:
    published = make_published(*(example_key(f"o{n}", 1) for n in range(5)), limit=2)

    assert published.evicted == 3
    assert len(published.without_published(JoinOutput([make_example(f"o{n}", 1) for n in range(5)])).examples) == 3
