"""`features list`: every source with its meaning, and whether a feature uses it."""

import json

import pytest

from contract.features.declaration import Feature, FeatureSet
from contract.features.sources import list_sources
from contract.profiles.entity_kinds import BUILT_IN_KINDS, DeclaredEntity, EntityKinds
from tests.worker.events import FEATURES
from worker.maintenance.feature_list import build_list, print_list

KINDS = EntityKinds([DeclaredEntity("email", "event.attributes.email")])


def test_every_source_is_listed_with_the_features_that_use_it() -> None:
    listed = {source.source: source for source in build_list(FEATURES, BUILT_IN_KINDS)}
    assert listed.keys() == {source.name for source in list_sources()}
    assert listed["event.amount"].used_by == ("order_amount",)
    assert listed["event.amount"].events == ("orders",)
    assert not listed["event.rank"].used_by
    used = {feature.source for feature in FEATURES.features if not feature.source.startswith("ratio ")}
    assert used == {name for name, source in listed.items() if source.used_by}


def test_attributes_and_declared_entities_are_listed() -> None:
    features = FeatureSet([Feature("browser", "order", "category", "event.attributes.browser")])
    names = {source.source for source in build_list(features, KINDS)}
    assert {"event.attributes.browser", "event.attributes.email", "profile.email.orders.count_1d"} <= names


def test_a_word_selects_sources_and_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_list(FEATURES, KINDS, "email.first_links", as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[:-1]]
    assert names == ["profile.email.first_links_1d", "profile.email.first_links"]
    assert print_list(FEATURES, KINDS, "email.first_links", as_json=True) == 0
    assert [source["source"] for source in json.loads(capsys.readouterr().out)] == names
    assert print_list(FEATURES, KINDS, "nothing like it", as_json=False) == 1
