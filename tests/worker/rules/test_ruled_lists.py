"""Lists of the browsing lane under a file of rules: their items, their scored rows, and reloads without a restart."""

import random
from pathlib import Path

import pytest

from contract.bundle import Bundle
from contract.errors import BadConfig
from contract.messages import Recommendations, read_recommendations, to_json
from contract.units import DAY_MS, HOUR_MS
from testkit.environment.tiny_bundle import make_manifest
from testkit.environment.tiny_next_item import next_item_files
from testkit.metrics import read_metric
from tests.metrics import assert_increases
from tests.worker.answers import read_answers, read_messages
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import FEATURES, NOW_MS, make_order, make_product, make_record
from worker.model.onnx_model import Model
from worker.ops import metrics


class RuledLane(BrowsingHarness):
    """The browsing lane over items i0 to i3 and eight of two brands, with a file of rules."""

    def __init__(self, path: Path, text: str, **lists: float) -> None:
        self._path = path
        path.write_text(text)
        super().__init__(rules=str(path), **lists)  # type: ignore[arg-type]
        for n in range(8):
            self.catalogue.put(make_product(f"p{n}", brand="north" if n % 2 else "south", category="mugs"))
        numbers = self.catalogue.find([*(f"p{n}" for n in range(8)), "i0", "i1", "i2", "i3"])
        self.refresher.popularity.seed(numbers)
        self.run_periodic()
        self._clicks = 0

    def change(self, text: str) -> None:
        """Write the file, and pass as many periodic runs as it takes to adopt it."""
        self._path.write_text(text)
        for second in range(1, 4):
            self.run_periodic(NOW_MS + 1_000 * second)

    def click(self, item: str = "i0", now_ms: int = NOW_MS) -> Recommendations:
        """The list after a click."""
        self._clicks += 1
        (message,) = read_messages(
            self.answer(make_click_record(f"c{self._clicks}", item, offset=self._clicks), now_ms=now_ms),
            Recommendations,
        )
        return message


def rule(action: str, name: str = "r", **fields: object) -> str:
    """A `[[rules]]` table."""
    lines = [f"{key} = {format_value(value)}" for key, value in {"name": name, "action": action, **fields}.items()]
    return "\n".join(["[[rules]]", *lines, ""])


def format_value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {format_value(part)}" for key, part in value.items()) + "}"
    return to_json(value).decode()


def ids(message: Recommendations) -> list[str]:
    return [item.item_id for item in message.items]


def test_without_rules_a_list_names_none(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", "rules = []")

    message = lane.click()

    assert len(message.items) == 12
    assert b"rule" not in to_json(message)


def test_new_rules_change_the_next_list_and_wrong_ones_change_nothing(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", "rules = []")
    before = ids(lane.click())
    # when
    lane.change(rule("exclude", brands=["north"]))
    # then the others keep their order
    excluded = {"p1", "p3", "p5", "p7"}
    assert ids(lane.click()) == [item for item in before if item not in excluded]
    # when
    lane.change(rule("exclude", brands=["north"])[:-5])
    assert not excluded & set(ids(lane.click()))
    lane.change("rules = []")
    # then
    assert ids(lane.click()) == before


def test_a_list_is_not_shorter_for_what_rules_exclude(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("exclude", brands=["north"]), candidates=4, length=4)

    assert ids(lane.click()) == ["i0", "p0", "p2", "p4"]


def test_a_product_that_joins_an_excluded_brand_is_on_no_list_from_then_on(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("exclude", brands=["north"]))
    assert "p0" in ids(lane.click())

    lane.catalogue.put(make_product("p0", brand="north", category="mugs"))
    lane.catalogue.put(make_product("new", brand="north"))

    assert not {"p0", "new"} & set(ids(lane.click("new")))


def test_a_pinned_item_is_scored_named_and_logged_with_its_place(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("pin", "spring", items=["p7"], position=2), length=3)
    with assert_increases(metrics.LIST_RULE_ITEMS, "spring"):
        ((message, scored),) = read_answers(lane.answer(make_click_record("c", "i0")), Recommendations)

    assert message.items[1].item_id == "p7"
    assert (message.items[1].rule, message.items[1].propensity) == ("spring", 1.0)
    assert [item.rule for item in message.items] == ["", "spring", ""]
    assert scored.rules == ("", "spring", "")
    assert scored.pinned == (1,)
    assert scored.propensities == (1.0, 1.0, 1.0)


def test_an_item_that_only_a_rule_brings_says_so(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("pin", "spring", items=["other"]))
    lane.catalogue.put(make_product("other"))  # no candidate: it has no clicks

    first = lane.click().items[0]

    assert (first.item_id, first.why, first.rule) == ("other", "rule", "spring")


def test_rules_are_in_force_from_their_start_to_their_end(tmp_path: Path) -> None:
    starts, ends = "2023-11-14T22:13:30Z", "2023-11-14T22:13:40Z"  # NOW_MS is 22:13:20
    text = rule("pin", items=["p7"]) + f"starts = {starts}\nends = {ends}\n"
    lane = RuledLane(tmp_path / "rules.toml", text)

    firsts = [ids(lane.click(now_ms=NOW_MS + ms))[0] for ms in (0, 9_999, 10_000, 19_000, 20_000, 30_000)]

    assert [first == "p7" for first in firsts] == [False, False, True, True, False, False]


def test_rules_that_exclude_every_item_give_popular_items_with_their_names(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("exclude", "everything", price={"min": 0}))

    with assert_increases(metrics.LISTS_ALL_EXCLUDED, "popular"):
        message = lane.click()

    assert ids(message)[:2] == ["p0", "p1"]
    assert {(item.why, item.rule) for item in message.items} == {("popular", "everything")}


def test_rules_that_leave_no_item_in_stock_give_an_empty_list_that_names_them(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("exclude", "cheap", price={"max": 100}))
    lane.catalogue.put(make_product("dear", price=1_000, available=False))

    with assert_increases(metrics.LISTS_ALL_EXCLUDED, "empty"):
        message = lane.click()

    assert (message.items, message.rule) == ((), "cheap")
    assert read_recommendations(to_json(message)) == message


def test_bought_items_are_hidden_for_as_long_as_a_rule_says(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("hide", after="bought", days=30))
    lane.answer(make_record(make_order("o1", "p0"), 0))

    lists = [ids(lane.click()) for _ in range(3)]

    assert all("p0" not in items and "p1" in items for items in lists)


def test_without_a_rule_bought_items_are_hidden_from_the_next_list_alone(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", "rules = []")
    results = lane.answer(make_record(make_order("o1", "p0"), 0))

    assert "p0" not in ids(read_messages(results, Recommendations)[0])
    assert "p0" in ids(lane.click())


def test_a_rule_of_zero_days_hides_no_bought_item(tmp_path: Path) -> None:
    lane = RuledLane(tmp_path / "rules.toml", rule("hide", after="bought", days=0))
    results = lane.answer(make_record(make_order("o1", "p0"), 0))

    assert "p0" in ids(read_messages(results, Recommendations)[0])


def test_bought_items_can_hide_their_category_and_only_of_chosen_items(tmp_path: Path) -> None:
    text = rule("hide", after="bought", days=1, scope="category", brands=["south"])
    lane = RuledLane(tmp_path / "rules.toml", text)
    lane.answer(make_record(make_order("o1", "p1", "i1"), 0))

    assert {"p0", "p1", "i1"} <= set(ids(lane.click()))
    lane.answer(make_record(make_order("o2", "p0"), 1))
    assert ids(lane.click()) == ["i0", "i1", "i2", "i3"]


def test_seen_items_are_hidden_also_where_they_are_pinned(tmp_path: Path) -> None:
    text = rule("hide", after="seen", days=1) + rule("pin", "pin", items=["p0"])
    lane = RuledLane(tmp_path / "rules.toml", text)

    assert ids(lane.click("p1"))[0] == "p0"
    assert not {"p0", "p1"} & set(ids(lane.click("p0")))


def test_names_that_the_catalogue_lacks_are_told_and_refuse_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = rule("exclude", "a", brands=["nrth", "north"]) + rule("pin", "b", items=["gone"])
    lane = RuledLane(tmp_path / "rules.toml", text)

    assert not {"p1", "p3"} & set(ids(lane.click()))
    assert read_metric(metrics.LIST_RULES_UNKNOWN) == 2
    assert "rule `a`: brands should be of the catalogue. Found none named `nrth`." in caplog.text
    report = lane.refresher.rules.report
    assert report is not None
    assert len(report.unknown) == 2
    # when the catalogue has them
    lane.catalogue.put(make_product("gone", brand="nrth"))
    lane.run_periodic(NOW_MS + 60_000)
    assert read_metric(metrics.LIST_RULES_UNKNOWN) == 0


def test_a_worker_with_a_wrong_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="the nearest is `exclude`"):
        RuledLane(tmp_path / "rules.toml", rule("exlude", brands=["north"]))


def test_the_propensity_of_fresh_items_is_that_of_the_draw_under_rules(tmp_path: Path) -> None:
    text = rule("exclude", items=["f0"]) + rule("cap", "c", brands=["west"], max=1) + rule("pin", "p", items=["f9"])
    lane = RuledLane(tmp_path / "rules.toml", text, explore=0.5, length=2)
    lane.catalogue.first_seen_ms[:12] = NOW_MS - 300 * DAY_MS
    for n in range(10):
        brand = "west" if n in (7, 8) else "east"
        lane.catalogue.put(make_product(f"f{n}", brand=brand, ts_ms=NOW_MS - HOUR_MS + n))
    lane.click()  # the time of the stream
    lane.run_periodic(NOW_MS + 1_000)
    # the pool has no excluded, no pinned and one item of the brand west: 7 items
    lists = [lane.click() for _ in range(300)]
    drawn = [item for message in lists for item in message.items if item.why == "fresh"]

    assert {item.propensity for item in drawn} == {1 / 7}
    assert len(drawn) == 300
    assert {item.item_id for item in drawn} == {"f1", "f2", "f3", "f4", "f5", "f6", "f8"}


def test_no_excluded_item_appears_caps_hold_and_the_order_is_otherwise_unchanged(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    lane = RuledLane(tmp_path / "rules.toml", "rules = []", explore=0.0)
    for step in range(40):
        brands = rng.sample(["north", "south", "west"], rng.randrange(1, 3))
        items = rng.sample([f"p{n}" for n in range(8)], 2)
        maximum = rng.randrange(3)
        clicked = rng.choice(["i0", "p0", "p5", "nowhere"])
        lane.change("rules = []")
        before = ids(lane.click(clicked))
        text = rule("exclude", "a", brands=brands[:1]) + rule("exclude", "b", items=items)
        lane.change(text + rule("cap", "c", per="brand", max=maximum))
        after = ids(lane.click(clicked))

        excluded = {*items, *(f"p{n}" for n in range(8) if ("north" if n % 2 else "south") == brands[0])}
        kept = [item for item in before if item not in excluded]
        expected, counts = list[str](), dict[str, int]()
        for item in kept:
            brand = {"p": "north" if int(item[1:]) % 2 else "south"}.get(item[0], "")
            counts[brand] = counts.get(brand, 0) + 1
            if not brand or counts[brand] <= maximum:
                expected.append(item)
        assert after == expected, f"step {step}: {text}"


def test_rules_act_on_the_order_of_a_ranker_and_on_what_it_retrieves(tmp_path: Path) -> None:
    # given a ranker that gives i0 to i3 shares as 2 to 3 to 4 to 5
    files = next_item_files({"popularity": 3.0})
    path = tmp_path / "rules.toml"
    path.write_text(rule("boost", "more", items=["i0"], factor=3) + rule("exclude", "gone", items=["i3"]))
    lane = BrowsingHarness(rules=str(path))
    lane.scorer.activate(Model(Bundle(make_manifest("v1"), files), FEATURES))
    # when
    (message,) = read_messages(lane.answer(make_click_record("c1", "i0")), Recommendations)
    # then the boost multiplies the share of i0
    assert [(item.item_id, item.rule) for item in message.items] == [("i0", "more"), ("i2", ""), ("i1", "")]
    assert [item.score for item in message.items] == pytest.approx([6 / 13, 4 / 13, 3 / 13], rel=1e-4)


def test_a_rule_that_excludes_no_item_of_a_shop_writes_no_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(rule("exclude", brands=["elsewhere"]))
    lane = BrowsingHarness(rules=str(path))

    # no item is popular, and the clicked one is unknown: there are no candidates
    assert read_messages(lane.answer(make_click_record("c1", "nowhere")), Recommendations) == []
