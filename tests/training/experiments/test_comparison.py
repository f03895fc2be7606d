"""The comparison of an experiment, from scored rows, examples and orders as they are on the topics."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import BadConfig, BadData
from contract.events.model import Line, Order
from contract.messages import to_msgpack
from contract.profiles.erasures import NO_ERASURES
from contract.settings.experiments import ExperimentSettings
from contract.settings.reading import Settings
from contract.units import DAY_MS
from training.__main__ import parse_arguments
from training.commands import compare
from training.experiments import reading
from training.experiments.comparison import ExperimentComparison, compare_arms
from training.experiments.outcomes import ExperimentExample, ExperimentList, ExperimentStore, Outcome, sum_by_user
from training.experiments.summary import list_sentences

NAME = "longer"
FIRST_MS = 1_700_000_000_000


def make_list(user: str, arm: str, *, day: int = 0, items: tuple[str, ...] = ("a", "b")) -> ExperimentList:
    return ExperimentList(
        event_id=f"r-{user}-{day}",
        kind="recommendation",
        user_id=user,
        ts_ms=FIRST_MS + day * DAY_MS,
        items=items,
        experiments={NAME: arm, "other": "control"},
    )


def make_example(user: str, item: str, *, day: int = 0, bought: float = 0.0, revision: int = 1) -> ExperimentExample:
    known_ms = FIRST_MS + day * DAY_MS + 1
    return ExperimentExample(
        example_id=f"r-{user}-{day}~{item}",
        revision=revision,
        user_id=user,
        labels={"click": 1.0, "purchase": bought},
        known_ms={"click": known_ms, "purchase": known_ms},
        experiments={NAME: "control"},
    )


def make_order(user: str, amount: float, *, day: int = 0, ident: str = "") -> Order:
    return Order(
        event_id=ident or f"o-{user}-{day}",
        user_id=user,
        ts_ms=FIRST_MS + day * DAY_MS + 2,
        lines=(Line(item_id="a", quantity=1, unit_price=amount),),
        amount=amount,
        currency="EUR",
        payment_method="card",
    )


def fill(seed: int, *, users: int = 200, days: int = 20, effect: float = 0.0) -> ExperimentStore:
    """A store of users who click a few times a day; those of the variant more."""
    rng, store = np.random.default_rng(seed), ExperimentStore(NAME)
    for number in range(users):
        user, arm = f"u{number}", "variant" if number % 2 else "control"
        for day in range(days):
            store.add_list(to_msgpack(make_list(user, arm, day=day, items=(f"i{rng.integers(50)}",))))
            for click in range(rng.poisson(0.3 * (1 + effect * (arm == "variant")))):
                bought = float(rng.random() < 0.2)
                store.add_example(to_msgpack(make_example(user, f"i{click}", day=day, bought=bought)))
                if bought:
                    store.add_order(make_order(user, float(rng.integers(5, 50)), day=day, ident=f"{user}{day}{click}"))
    return store


def run(store: ExperimentStore, *, decides: Outcome = "clicks", share: float | None = 0.5) -> ExperimentComparison:
    return compare_arms(store, NAME, items=100, decides=decides, share=share)


def test_equal_arms_go_on(seed: int) -> None:
    comparison = run(fill(seed))

    assert (comparison.stop, comparison.better, comparison.users) == (False, None, (100, 100))
    assert list(comparison.outcomes) == ["clicks", "purchases", "revenue"]
    for outcome in comparison.outcomes.values():
        assert outcome.difference == pytest.approx(outcome.variant - outcome.control)
        assert outcome.always_low is not None
        assert outcome.always_high is not None
        assert outcome.always_low < outcome.low < outcome.difference < outcome.high < outcome.always_high
    assert comparison.coverage.users == 50
    assert 0.3 < comparison.coverage.control < 0.5
    assert comparison.days == pytest.approx(19)


def test_a_better_variant_stops_the_experiment(seed: int) -> None:
    comparison = run(fill(seed, effect=1.0))

    assert (comparison.stop, comparison.better) == (True, "variant")
    assert "The experiment may stop: the variant has more clicks." in list_sentences(comparison, {"EUR": 1})


def test_before_a_whole_day_no_sequence_exists_and_nothing_stops(seed: int) -> None:
    comparison = run(fill(seed, days=1, effect=1.0))

    assert comparison.outcomes["clicks"].always_low is None
    assert not comparison.stop


def test_later_data_do_not_change_what_the_sequence_is_tuned_by(seed: int) -> None:
    for days in (3, 20):
        store = fill(seed, days=days)
        first = compare_arms(store, NAME, items=100, decides="clicks", share=None).outcomes["clicks"]
        assert first.always_low is not None


def test_numbers_of_users_that_do_not_fit_the_share_are_told(seed: int) -> None:
    comparison = run(fill(seed, days=2), share=0.2)

    assert comparison.is_uneven
    assert any("trust no difference" in sentence for sentence in list_sentences(comparison, {}))
    assert not run(fill(seed, days=2), share=None).is_uneven


def test_users_of_both_arms_are_left_out_and_counted(seed: int) -> None:
    store = fill(seed, days=2)
    store.add_list(to_msgpack(make_list("u0", "variant", day=1)))
    comparison = run(store)

    assert (comparison.users, comparison.mixed) == ((99, 100), 1)
    assert any("1 users had lists of both arms" in sentence for sentence in list_sentences(comparison, {}))


def test_too_few_users_and_another_name_are_no_data(seed: int) -> None:
    with pytest.raises(BadData, match="Found 1 and 1; experiments on the topic are: longer, other"):
        run(fill(seed, users=2))


def test_an_outcome_counts_from_the_first_list_on_and_each_event_once() -> None:
    # given
    store = ExperimentStore(NAME)
    store.add_list(to_msgpack(make_list("u1", "control", day=1)))
    store.add_list(b"\xc1")
    for order in (make_order("u1", 7, day=0), make_order("u1", 9, day=1), make_order("u1", 9, day=1)):
        store.add_order(order)
    store.add_order(make_order("u2", 5, day=1))
    for example in (
        make_example("u1", "a", day=1, bought=1.0, revision=3),
        make_example("u1", "a", day=1, revision=2),
        make_example("u1", "b", day=1),
    ):
        store.add_example(to_msgpack(example))
    # then
    totals = {
        outcome: sum_by_user(store.list_events(outcome), ["u1"]).tolist()
        for outcome in ("clicks", "purchases", "revenue")
    }
    assert totals == {"clicks": [2], "purchases": [1], "revenue": [9]}
    assert (store.unreadable, store.currencies) == (1, {"EUR": 1})
    assert sum_by_user(store.list_events("clicks"), ["u1"], before_ms=FIRST_MS).tolist() == [0]


class FakeReader:
    """The scored topic with the lists of an experiment, and a feedback topic with clicks."""

    def __init__(self, *, topic: str, **_: object) -> None:
        self._topic = topic

    def for_each(self, _: Mapping[str, int], handle: Callable[[bytes], None]) -> None:
        for number in range(60):
            user, arm = f"u{number}", "variant" if number % 2 else "control"
            for day in range(3):
                made: Any = make_list(user, arm, day=day) if self._topic == "shop.scored" else None
                handle(to_msgpack(made or make_example(user, f"i{number % 7}", day=day)))

    def close(self) -> None: ...


def test_the_command_prints_a_table_a_page_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    monkeypatch.setattr(reading, "FeedbackReader", FakeReader)
    monkeypatch.setattr(reading, "fetch_erasures", lambda settings: NO_ERASURES)
    monkeypatch.setattr(reading, "read_events", lambda settings, kind, add: None)
    experiments = {NAME: ExperimentSettings.model_validate({"share": 0.5, "lists": {"length": 30}})}
    settings = Settings().model_copy(update={"experiments": experiments})
    args = parse_arguments(["compare", "--experiment", NAME, "--out", str(tmp_path)])
    # when
    assert compare.run(args, settings, None) == 0  # type: ignore[arg-type]  # features are not used
    # then
    printed = capsys.readouterr()
    comparison = json.loads(printed.out)
    assert (comparison["experiment"], comparison["users"], comparison["share_p"]) == (NAME, [30, 30], 1)
    assert comparison["coverage"]["items"] == 2
    assert "should go on: clicks do not differ" in printed.err
    assert "Experiment longer" in (tmp_path / "experiment.html").read_text()
    assert json.loads((tmp_path / "experiment.json").read_text())["stop"] is False


def test_an_experiment_is_compared_since_its_first_list(tmp_path: Path) -> None:
    words = ["compare", "--experiment", NAME, "--since", "24", "--out", str(tmp_path)]

    with pytest.raises(BadConfig) as raised:
        compare.run(parse_arguments(words), Settings(), None)  # type: ignore[arg-type]
    assert "`--experiment` should come without `--since`" in raised.value.errors[0]
