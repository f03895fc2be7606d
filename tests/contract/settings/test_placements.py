"""[placements]: what a shop may set of each, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.settings.placements import PlacementSettings


def test_a_placement_keeps_its_own_defaults_for_what_is_not_set() -> None:
    placements = PlacementSettings.model_validate({"product": {"length": 5}, "cart": {"lists": ["popular"]}}).by_name()

    assert placements["product"].length == 5
    assert placements["product"].keys == ("similar:{item_id}", "together:{item_id}", "trending")
    assert (placements["cart"].length, placements["cart"].keys) == (12, ("rec:popular",))
    assert placements["home"].keys == ("rec:{user_id}", "trending", "rec:popular")


@pytest.mark.parametrize(
    "table",
    [
        {"home": {"lists": []}},
        {"home": {"lists": ["personal", "personal"]}},
        {"home": {"lists": ["bestsellers"]}},
        {"home": {"length": 0}},
        {"checkout": {"length": 5}},
    ],
)
def test_a_wrong_placement_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PlacementSettings.model_validate(table)
