"""The table of handlers: which events each lane answers, with which kind of answer, and by whom."""

from collections.abc import Mapping
from typing import Final

from contract.events.model import Click, Order, Search
from contract.graphs import DECIDE, RECOMMEND, SEARCH
from worker.records.answers import CLICK, DECISION, LIST, RANKING
from worker.scoring.browsing import ListRefresher
from worker.scoring.clicks import ClickHandler
from worker.scoring.orders import OrderHandler
from worker.scoring.scorer import EventHandling, LaneHandlers
from worker.scoring.search_ranker import SearchRanker, names_items

HANDLERS: Final[Mapping[str, LaneHandlers]] = {
    "orders": LaneHandlers((EventHandling(event=Order, kind=DECISION, graph=DECIDE, build=OrderHandler),)),
    "browsing": LaneHandlers(
        (
            EventHandling(event=Click, kind=CLICK, graph=RECOMMEND, build=ClickHandler),
            EventHandling(event=Search, kind=RANKING, graph=SEARCH, build=SearchRanker, accepts=names_items),
        ),
        build_refresher=ListRefresher,
        refreshed_kind=LIST,
    ),
}
