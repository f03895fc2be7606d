"""Lists of the time before us: what a shop showed of its own becomes what can be learned from like our own lists.

Impressions and clicks of that time may name no recommendation. Then an impression's own id names the list, and a click
belongs to the user's latest list that showed its item, if that was recent.
"""

from msgspec.structs import replace

from contract.events import Click, Event, Impression


class ImpressionAttributor:
    """Gives impressions and clicks the ids of lists, in the order of time. Memory: the open lists of each user."""

    def __init__(self, *, click_wait_ms: int) -> None:
        self._wait_ms = click_wait_ms
        self._open_lists: dict[str, list[Impression]] = {}

    def attribute(self, event: Event) -> Event:
        """The event with a `recommendation_id` where it belongs to a list; those of searches stay as they are."""
        if isinstance(event, Impression) and event.recommendation_id is None and not event.query:
            event = replace(event, recommendation_id=event.event_id)
            self._open_list(event)
        elif isinstance(event, Click) and event.recommendation_id is None and not event.query:
            return replace(event, recommendation_id=self._find_list(event))
        return event

    def _open_list(self, impression: Impression) -> None:
        """Open a list, and close those of its user whose clicks have been waited for."""
        since_ms = impression.ts_ms - self._wait_ms
        open_lists = [earlier for earlier in self._open_lists.get(impression.user_id, []) if earlier.ts_ms >= since_ms]
        self._open_lists[impression.user_id] = [*open_lists, impression]

    def _find_list(self, click: Click) -> str | None:
        for impression in reversed(self._open_lists.get(click.user_id, [])):
            if click.item_id in impression.items and click.ts_ms <= impression.ts_ms + self._wait_ms:
                return impression.event_id
        return None
