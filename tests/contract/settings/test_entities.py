"""[entities]: valid declarations, and every mistake with the nearest right name."""

from pathlib import Path

import pytest

from contract.errors import BadConfig
from contract.profiles.entity_kinds import DECLARED_MAX
from contract.settings.reading import Settings, read_settings
from tests.checkout import ROOT


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings are read from."""
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "shop.toml"))
    monkeypatch.setenv("SHOPSTREAM_FEATURES", str(ROOT / "features.toml"))
    return tmp_path / "shop.toml"


def read(config: Path, text: str) -> Settings:
    config.write_text(text)
    return read_settings()[0]


def read_errors(config: Path, text: str) -> list[str]:
    with pytest.raises(BadConfig) as caught:
        read(config, text)
    return caught.value.errors


def test_declared_kinds_follow_the_built_in_ones(config: Path) -> None:
    text = '[entities.store]\nsource = "event.attributes.store"\n[entities.payment]\nsource = "event.payment_method"'
    kinds = read(config, text).entity_kinds()
    assert kinds.names == ("user", "device", "ip", "card", "item", "seller", "store", "payment")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[entities.email]\nsource = "event.atributes.email"', "the nearest is `event.attributes.email`"),
        ('[entities.pay]\nsource = "event.payment_metod"', "the nearest is `event.payment_method`"),
        ('[entities.price]\nsource = "event.amount"', "`entities.price.source` should be `event.attributes.NAME`"),
        ("[entities.email]\nignore_case = true", "`entities.email.source` should be given"),
        (
            '[entities.email]\nsource = "event.attributes.e"\ncase = 1',
            "should be one of the settings source, ignore_case",
        ),
        ('[entities.device]\nsource = "event.attributes.d"', "`entities.device` should have a name of its own"),
        ('[entities.E-Mail]\nsource = "event.attributes.e"', "should be a lower-case word"),
        (
            "\n".join(f'[entities.e{n}]\nsource = "event.attributes.e{n}"' for n in range(DECLARED_MAX + 1)),
            f"should declare at most {DECLARED_MAX}",
        ),
        (
            '[[rules]]\nfeature = "device_first_link_1d"\nabove = 1\naction = "review"\nreason = "r"',
            "`rules.0.feature` should be a declared number of the groups user, order, context. "
            "Found `device_first_link_1d`; the nearest is `device_first_links_1d`",
        ),
        (
            '[[tasks]]\nname = "fraud"\nkind = "binary"\ngroups = ["user", "item"]\ngraph = "decide"',
            "`tasks.0.groups` of task `fraud` should be what graph decide reads: user, order, context. Found item.",
        ),
        (
            '[[tasks]]\nname = "fraud"\nkind = "binary"\ngroups = ["order"]\ngraph = "decide"\nhide = ["curency"]',
            "`tasks.0.hide` of task `fraud` should name declared features. Found `curency`; the nearest is `currency`.",
        ),
        (
            '[[rules]]\nfeature = "item_price"\nabove = 1\naction = "review"\nreason = "r"',
            "Found `item_price`",
        ),
        (
            '[[rules]]\nfeature = "order_amount"\nequals = "1"\naction = "review"\nreason = "r"',
            "`rules.0.feature` should be a declared category",
        ),
        (
            '[[rules]]\nfeature = "order_amount"\naction = "review"\nreason = "r"',
            "`rules.0` should have `above`, `below` or both, or `equals` alone",
        ),
        (
            '[[rules]]\nfeature = "order_amount"\nabove = true\naction = "review"\nreason = "r"',
            "`rules.0.above` should be a number",
        ),
    ],
)
def test_a_mistake_is_told_once_with_its_place(config: Path, text: str, words: str) -> None:
    (error,) = read_errors(config, text)
    assert words in error


def test_a_wrong_entity_gives_no_further_errors_of_features_that_use_it(config: Path, tmp_path: Path) -> None:
    # given a feature on an entity whose source is wrong
    features = tmp_path / "features.toml"
    features.write_text(
        '[[features]]\nname = "x"\ngroup = "order"\nkind = "number"\nsource = "profile.email.first_links"'
    )
    text = '[entities.email]\nsource = "emial"'
    # then
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPSTREAM_FEATURES", str(features))
        assert len(read_errors(config, text)) == 1
