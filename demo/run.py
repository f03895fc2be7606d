"""`python -m demo run`: the whole way once, on one machine, from nothing.

A simulated shop brings its history; a model learns from it and is exported; workers answer the shop's live events; what
they answered is joined with what happened into examples; the model learns from those, and the running workers take up
the new one.
"""

from contextlib import ExitStack
from typing import Final

from demo.crew import Failed
from demo.lessons import Lessons
from demo.live import Live
from demo.shop import Shop
from demo.site import Site
from demo.summary import Outcome, show
from demo.teller import Teller

HISTORY_DAYS: Final = 8.0
LIVE_DAYS: Final = 3.0
MORE_DAYS: Final = 1.0
LESSONS_MAX: Final = 3


def run(seed: int, *, keep: bool) -> int:
    """Tell the whole story; 0 at its end. Raises `Failed` with a log's end when a part of it does not work."""
    teller, shop = Teller(), Shop(seed)
    with ExitStack() as stack:
        with teller.step("Starting an embedded Kafka and Valkey"):
            site = Site(stack)
        lessons, live = Lessons(site=site, teller=teller), Live(site=site, teller=teller, shop=shop)
        lessons.from_history(shop.history(HISTORY_DAYS), HISTORY_DAYS)
        live.open()
        live.go(LIVE_DAYS)
        first = lessons.version
        learn_from_feedback(lessons, live)
        live.meet(lessons.version)
        check_nothing_trimmed(site)
        versions = (first, lessons.version)
        show(teller.console, Outcome(site=site, shop=shop, live=live, versions=versions, seconds=teller.seconds))
        if keep:
            teller.console.print("\nThe shop goes on; Ctrl-C ends it.")
            live.stay()
    return 0


def learn_from_feedback(lessons: Lessons, live: Live) -> None:
    """Until a model is published that the gate finds no worse; each refusal is answered with more feedback."""
    for _ in range(LESSONS_MAX):
        if lessons.from_feedback():
            return
        live.go(MORE_DAYS)
    raise Failed(f"The gate should let one of {LESSONS_MAX} updates pass. Found all refused.")


def check_nothing_trimmed(site: Site) -> None:
    """The embedded Kafka keeps the latest records alone: what was counted must still be all there is."""
    if trimmed := site.witness.trimmed(site.topics):
        raise Failed(f"The embedded Kafka should still hold all that was sent. Found these cut: {trimmed}.")
