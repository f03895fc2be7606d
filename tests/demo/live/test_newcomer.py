"""The newcomer: clicks on a category that the popular page has least of."""

from contract.events.model import Click
from contract.messages import Recommendations, RecommendedItem
from demo.live.newcomer import NewcomerLists, choose_items
from demo.simulator.shop import ShopSimulator


def test_the_clicked_items_are_of_one_category_that_is_rare_on_the_page_and_are_not_on_it(seed: int) -> None:
    # given a page of items of all categories but one
    products = ShopSimulator(seed).products_by_id()
    page = tuple(item for item, product in products.items() if product.category not in (None, "toys"))[:7]

    # when
    category, clicked = choose_items(products, page)

    # then
    assert len(set(clicked)) == 3
    assert {products[item].category for item in clicked} == {category}
    assert not set(clicked) & set(page)
    assert category not in {products[item].category for item in page}


def test_the_items_of_the_category_are_counted_on_the_first_page_alone(seed: int) -> None:
    products = ShopSimulator(seed).products_by_id()
    toys = [item for item, product in products.items() if product.category == "toys"]
    books = [item for item, product in products.items() if product.category == "books"]
    after = Recommendations(
        user_id="newcomer",
        recommendation_id="r1",
        items=tuple(
            RecommendedItem(item_id=item, score=1.0, probability={}, why="neighbour")
            for item in (*toys[:6], *books[:2], *toys[6:9])
        ),
        model_version="",
        computed_ms=0,
        source_ms=0,
    )
    lists = NewcomerLists(category="toys", clicked=tuple(toys[:3]), before=tuple(books[:8]), after=after)

    assert lists.count_in_category(lists.before, products) == 0
    assert lists.count_in_category(lists.after_ids, products) == 6


def test_a_persons_clicks_follow_the_clock_of_the_shop_and_have_ids_of_their_own(seed: int) -> None:
    # given
    shop = ShopSimulator(seed)
    history = list(shop.simulate_history(1))

    # when
    clicks = shop.make_clicks("newcomer", ["i0001", "i0002", "i0003"])

    # then
    events = [record.event for record in clicks if isinstance(record.event, Click)]
    assert [event.item_id for event in events] == ["i0001", "i0002", "i0003"]
    times = [event.ts_ms for event in events]
    assert times == sorted(set(times))
    assert times[0] >= max(record.ts_ms for record in history)
    earlier_ids = {record.event.event_id for record in history if isinstance(record.event, Click)}
    assert earlier_ids
    assert not {event.event_id for event in events} & earlier_ids
