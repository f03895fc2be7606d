"""The comparison of home pages: a fixed origin for each user, and clicks counted by user with intervals."""

from collections import Counter

import pytest

from contract.events.model import Click, Impression
from demo.live.home_pages import ORIGINS, HomePageCounts, Origin, assign_origin

USERS = [f"u{number:04d}" for number in range(3_000)]


def view(user: str, *items: str, ours: bool = False) -> Impression:
    return Impression(
        event_id=f"w-{user}-{items}",
        ts_ms=1,
        user_id=user,
        items=items,
        recommendation_id=f"r-{user}" if ours else None,
        surface="home",
    )


def click(user: str, item: str) -> Click:
    return Click(event_id=f"c-{user}-{item}", ts_ms=2, user_id=user, item_id=item, surface="home")


def find_users(origin: Origin, count: int) -> list[str]:
    return [user for user in USERS if assign_origin(user) == origin][:count]


def test_each_user_has_one_origin_and_a_fifth_each_see_popular_items_and_the_shops_own_pages() -> None:
    shares = {origin: count / len(USERS) for origin, count in Counter(map(assign_origin, USERS)).items()}

    assert shares == pytest.approx({"lists": 0.6, "popular": 0.2, "shop": 0.2}, abs=0.03)


def test_clicks_that_follow_no_page_do_not_count() -> None:
    # given a user who saw two pages
    (user,) = find_users("popular", 1)
    counts = HomePageCounts()
    counts.record(view(user, "a", "b"))
    counts.record(view(user, "c", "d"))

    # when an item of the page is clicked, one of the former page, and one that was on no page
    for item in ("d", "a", "x"):
        counts.record(click(user, item))
    counts.record(click("u-of-a-ring", "d"))

    # then
    assert counts.count_by_user("popular").tolist() == [[4, 1]]
    assert sum(len(counts.count_by_user(origin)) for origin in ORIGINS) == 1


def test_a_newcomer_of_the_lists_counts_for_the_lists_also_on_a_page_of_popular_items() -> None:
    (user,) = find_users("lists", 1)
    counts = HomePageCounts()
    counts.record(view(user, "a", "b"))
    counts.record(view(user, "c", "d", ours=True))

    assert counts.count_by_user("lists").tolist() == [[4, 0]]
    assert counts.personal_share("lists") == 0.5


def test_the_interval_of_the_difference_contains_0_for_equal_pages_and_not_for_a_much_better_one() -> None:
    # given users of the lists click two of four items, those of popular items one, of the shop's pages one or three
    counts = HomePageCounts()
    clicked: dict[Origin, tuple[int, int]] = {"lists": (2, 2), "popular": (1, 1), "shop": (1, 3)}
    for origin, numbers in clicked.items():
        for place, user in enumerate(find_users(origin, 100)):
            counts.record(view(user, "a", "b", "c", "d"))
            for item in "abcd"[: numbers[place % 2]]:
                counts.record(click(user, item))

    # when
    to_popular, to_shop = counts.difference("lists", "popular"), counts.difference("lists", "shop")

    # then
    assert to_popular
    assert to_popular.value == pytest.approx(0.25)
    assert to_popular.low > 0.2
    assert to_shop
    assert to_shop.value == pytest.approx(0.0)
    assert to_shop.low < 0 < to_shop.high


def test_without_users_of_an_origin_there_is_no_rate_and_no_difference() -> None:
    counts = HomePageCounts()

    assert counts.click_rate("lists") is None
    assert counts.difference("lists", "shop") is None
    assert counts.personal_share("lists") == 0
