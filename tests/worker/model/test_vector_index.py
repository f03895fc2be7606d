"""When a bundle's vectors are indexed, and what an activated index finds for histories."""

import logging
from pathlib import Path

import pytest

from contract.bundle import publish
from testkit.environment.tiny_bundle import ITEMS, make_manifest
from testkit.environment.tiny_next_item import next_item_files
from tests.worker.events import FEATURES
from tests.worker.retrieval.test_next_item import NextItemHarness
from worker.model.bundle_watcher import BundleWatcher
from worker.retrieval.next_item import NextItemSource


@pytest.mark.parametrize(("index_from_items", "is_indexed"), [(0, False), (len(ITEMS), True), (len(ITEMS) + 1, False)])
def test_the_vectors_of_a_large_bundle_are_indexed_while_it_is_loaded(
    tmp_path: Path, index_from_items: int, is_indexed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # given a bundle with a next-item part, as large as the setting says or smaller
    caplog.set_level(logging.INFO)
    publish(tmp_path, make_manifest("v1"), next_item_files())
    watcher = BundleWatcher(folder=tmp_path, features=FEATURES, index_from_items=index_from_items)
    # when
    watcher.poll(wait=True)
    watcher.close()
    # then
    assert watcher.serving
    assert watcher.serving.next_item
    assert (watcher.serving.next_item.index is not None) == is_indexed
    assert ("Indexed 4 items" in caplog.text) == is_indexed


def test_lists_by_an_index_are_those_of_the_exact_search() -> None:
    # given items that an index of as many lists finds all of, one of which is sold out
    exact, indexed = NextItemHarness(), NextItemHarness()
    assert indexed.model.next_item
    indexed.model.next_item.index_vectors()
    index = indexed.model.next_item.index
    assert index
    assert index.probes == index.lists
    indexed.source = NextItemSource(indexed.model.next_item, indexed.model.neighbours, indexed.catalogue)
    # when, then
    for harness in (exact, indexed):
        harness.catalogue.delist("i3")
        harness.source.refresh()
    for history in (["i0"], ["i2", "i1"], ["gone"], []):
        assert indexed.rank(*history, bought=["i1"]) == exact.rank(*history, bought=["i1"])
    assert indexed.source.search.index is index
