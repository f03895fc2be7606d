"""Attribution of historic impressions and clicks to lists, so that they become list examples like logged ones.

Historic events may not name a recommendation. Then an impression is a list with the impression's own id, and a click
belongs to the user's latest list with its item, if that list is recent enough.
"""

from msgspec.structs import replace

from contract.events.model import Click, Event, Impression


class ImpressionAttributor:
    """Adds list ids to impressions and clicks, in order of time. Memory: the open lists of each user."""

    def __init__(self, *, click_wait_ms: int) -> None:
        """`click_wait_ms`: how long a list is open for clicks."""
        self._wait_ms = click_wait_ms
        self._open_lists: dict[str, list[Impression]] = {}

    def attribute(self, event: Event) -> Event:
        """The event, with a `recommendation_id` if it belongs to a list; events of searches are not changed."""
        if isinstance(event, Impression | Click) and not event.user_id:
            return event  # a guest's: which events are of one person is not known
        if isinstance(event, Impression) and event.recommendation_id is None and not event.query:
            event = replace(event, recommendation_id=event.event_id)
            self._open_list(event)
        elif isinstance(event, Click) and event.recommendation_id is None and not event.query:
            return replace(event, recommendation_id=self._find_list(event))
        return event

    def _open_list(self, impression: Impression) -> None:
        """Open a list, and close those of its user that are too old for clicks."""
        since_ms = impression.ts_ms - self._wait_ms
        open_lists = [earlier for earlier in self._open_lists.get(impression.user_id, []) if earlier.ts_ms >= since_ms]
        self._open_lists[impression.user_id] = [*open_lists, impression]

    def _find_list(self, click: Click) -> str | None:
        for impression in reversed(self._open_lists.get(click.user_id, [])):
            if click.item_id in impression.items and click.ts_ms <= impression.ts_ms + self._wait_ms:
                return impression.event_id
        return None
