"""[placements]: the places of a shop that show lists, and which lists fill each of them."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator

from contract.settings.section import Positive, Section

ListName: TypeAlias = Literal["personal", "similar", "together", "trending", "popular"]
# The key of each list, without the shop's prefix. Braces mark what a reader puts in: an id, escaped as in every key.
KEYS: Final[dict[ListName, str]] = {
    "personal": "rec:{user_id}",
    "similar": "similar:{item_id}",
    "together": "together:{item_id}",
    "trending": "trending",
    "popular": "rec:popular",
}


def check_distinct(lists: tuple[ListName, ...]) -> tuple[ListName, ...]:
    if not lists or len(set(lists)) < len(lists):
        raise ValueError("should name at least one list, and each one once")
    return lists


Lists: TypeAlias = Annotated[tuple[ListName, ...], AfterValidator(check_distinct)]


class Placement(Section):
    """`length`: items that it shows. `lists`: each fills what the ones before have left."""

    length: Positive = 20
    lists: Lists = ("personal", "trending", "popular")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its lists, in order."""
        return tuple(KEYS[name] for name in self.lists)


class ProductPlacement(Placement):
    """On the page of one item."""

    length: Positive = 12
    lists: Lists = ("similar", "together", "trending")


class CartPlacement(Placement):
    """With the items of a cart, each of which has its lists."""

    length: Positive = 12
    lists: Lists = ("together", "similar", "trending")


class PlacementSettings(Section):
    """The lists of the start page, of a product page and of the cart."""

    home: Placement = Placement()
    product: ProductPlacement = ProductPlacement()
    cart: CartPlacement = CartPlacement()

    def by_name(self) -> dict[str, Placement]:
        return {"home": self.home, "product": self.product, "cart": self.cart}
