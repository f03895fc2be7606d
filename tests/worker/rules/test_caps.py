"""Lists within caps: the soft ones of the settings, the strict ones of rules, with fresh items last."""

from tests.worker.rules.rule_sets import BRANDS, arrange, make_catalogue, make_rule

# i0 to i2 are shoes, i3 and i4 hats, i5 a mug; i6 and i7 have no category.


def test_a_list_has_the_best_candidates_up_to_its_length() -> None:
    catalogue = make_catalogue()

    assert list(arrange(catalogue, length=4)) == ["i0", "i1", "i2", "i3"]
    assert list(arrange(catalogue)) == [f"i{n}" for n in range(8)]


def test_a_soft_cap_puts_further_items_last_and_is_named_there() -> None:
    catalogue = make_catalogue()

    # items without a category are not capped
    assert list(arrange(catalogue, length=4, category_max=1)) == ["i0", "i3", "i5", "i6"]
    assert arrange(catalogue, length=6, category_max=1) == {
        "i0": "",
        "i3": "",
        "i5": "",
        "i6": "",
        "i7": "",
        "i1": "lists.category_max",
    }


def test_the_items_of_a_seller_are_capped() -> None:
    catalogue = make_catalogue()
    for n in (0, 1, 3):
        catalogue.seller[n] = catalogue.sellers.encode("s")

    assert list(arrange(catalogue, length=4, seller_max=2)) == ["i0", "i1", "i2", "i4"]


def test_fresh_items_replace_the_worst_candidates_at_the_end() -> None:
    catalogue = make_catalogue()

    assert list(arrange(catalogue, length=4, fresh=2)) == ["i0", "i1", "i6", "i7"]
    assert list(arrange(catalogue, length=4, fresh=1, category_max=2)) == ["i0", "i1", "i3", "i7"]


def test_a_strict_cap_makes_a_list_shorter_rather_than_be_exceeded() -> None:
    catalogue = make_catalogue()

    actual = arrange(catalogue, make_rule("cap", per="brand", max=1))

    assert list(actual) == ["i0", "i1", "i5", "i6"]  # i5 has no brand
    assert arrange(catalogue, make_rule("cap", per="brand", max=0)) == {"i5": ""}


def test_a_cap_of_selected_items_counts_them_together() -> None:
    catalogue = make_catalogue()

    actual = arrange(catalogue, make_rule("cap", categories=["shoes", "hats"], max=2))

    assert list(actual) == ["i0", "i1", "i5", "i6", "i7"]


def test_pinned_and_fresh_items_count_for_a_strict_cap() -> None:
    catalogue = make_catalogue()
    cap, pin = make_rule("cap", per="brand", max=2), make_rule("pin", items=["i3"])

    # i3 is pinned and i7 is fresh, both of the brand north
    actual = list(arrange(catalogue, cap, pin, fresh=1))

    assert actual == ["i3", "i1", "i4", "i5", "i6", "i7"]
    assert [BRANDS[int(item[1:])] for item in actual].count("north") == 2


def test_diversity_moves_up_what_is_unlike_the_items_before_it_and_says_so() -> None:
    catalogue = make_catalogue()

    actual = arrange(catalogue, make_rule("diversify", strength=0.8), length=4)

    assert next(iter(actual)) == "i0"
    assert actual["i5"] == "diversify"
    assert list(arrange(catalogue, make_rule("diversify", strength=0.001))) == [f"i{n}" for n in range(8)]
