"""Odd records: the corpus is whole, mutations repeat, and every reader answers or refuses each record."""

from collections import defaultdict
from pathlib import Path

import pytest

from bench.guarantees.poison.command import KINDS_MIN, PoisonOutcome, check_intake, count_kinds
from bench.guarantees.poison.corpus import make_corpus
from bench.guarantees.poison.documents import make_fields, write_object
from bench.guarantees.poison.framed import are_packages_installed
from bench.guarantees.poison.intake_check import Findings, ShopIntake
from bench.guarantees.poison.mutations import Mutator
from bench.guarantees.poison.record_forms import OddRecord
from bench.guarantees.poison.shops import make_shops
from contract.events.model import KINDS, REASONS
from contract.events.reading import READERS

MUTATED = 6_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_event_of_each_kind_is_read_with_every_field(kind: str) -> None:
    event = READERS[kind].read(write_object(make_fields(kind, "e1")))
    assert all(getattr(event, name) is not None for name in event.__struct_fields__)


def test_every_topic_has_the_kinds_of_odd_records() -> None:
    # given
    corpus = list(make_corpus())
    forms = defaultdict[str, set[str]](set)
    for record in corpus:
        forms[record.kind].add(record.form)
    # then
    assert forms.keys() == KINDS.keys()
    assert count_kinds(corpus)[0] >= KINDS_MIN
    assert corpus == list(make_corpus())


def test_mutations_repeat_with_their_seed(seed: int) -> None:
    assert list(Mutator(seed).make(300)) == list(Mutator(seed).make(300))
    assert list(Mutator(seed).make(300)) != list(Mutator(seed + 1).make(300))


@pytest.mark.timeout(400)
def test_every_odd_record_is_an_event_with_its_answer_or_a_dead_letter(tmp_path: Path, seed: int) -> None:
    # given
    outcome = PoisonOutcome(seed=seed, mutated=MUTATED)
    corpus = list(make_corpus())[::3]
    # when
    check_intake(outcome, corpus, tmp_path)
    # then
    assert (outcome.uncaught, outcome.unanswered, outcome.unscored) == (0, 0, 0)
    shops = 3 + are_packages_installed()
    assert outcome.records == shops * len(corpus) + MUTATED
    assert REASONS.keys() - outcome.reasons.keys() <= {"bad_schema", "cannot_score", "too_large_to_keep"}
    assert ("bad_schema" in outcome.reasons) == are_packages_installed()
    assert outcome.outcomes["events"] > MUTATED


def test_an_error_that_is_not_caught_is_found_with_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a reader that fails on one value
    findings = Findings()
    shop = ShopIntake(make_shops(tmp_path)[0], tmp_path, findings)
    monkeypatch.setattr("contract.events.document.read_currency", lambda text: 1 // (text != "points"))
    fields = {**make_fields("orders", "o1"), "amount": b'"19.98"', "currency": b'"points"'}
    records = [OddRecord("odd", "orders", b"u", write_object(make_fields("orders", f"o{n}"))) for n in range(9)]
    # when
    shop.check([*records, OddRecord("odd", "orders", b"u", write_object(fields))])
    # then
    assert findings.uncaught == 1
    assert any("ZeroDivisionError" in sentence and "points" in sentence for sentence in findings.faults.values())
