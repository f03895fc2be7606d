"""Which device, address, card and guest most users have in common: a text that is no id, if it is not a fraud ring."""

import logging
from collections import Counter, deque
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Final

from contract.events.guests import to_guest_user
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.redis_keys import escape_id
from worker.ops import metrics

log = logging.getLogger(__name__)
FIELDS: Final = {"device": "device_id", "ip": "ip", "card": "card_id", "guest": "guest_id"}
BATCH_MAX: Final = 50  # events of a batch that are looked at: all of a small one, few of a large one
WINDOW: Final = 2_000  # events of a kind that are remembered
NAMED_USERS_MIN: Final = 5  # of an id that is named: it is no longer that of one person or household
WARNED_USERS_MIN: Final = 20
WARNED_SHARE_MIN: Final = 0.05  # of the users of the window


class SharedIds:
    """The ids of the latest events of a worker, each with a hash of its user."""

    def __init__(self) -> None:
        self._pairs = {kind: deque[tuple[str, int]](maxlen=WINDOW) for kind in FIELDS}
        self._warned = set[tuple[str, str]]()

    def add(self, arrivals: Sequence[Arrival], erasures: Erasures = NO_ERASURES) -> None:
        """Remember some events of a batch; those of guests and of erased users say nothing."""
        for arrival in islice(arrivals, BATCH_MAX):
            if (user := getattr(arrival.event, "user_id", "")) and not erasures.covers_event(arrival.event):
                for kind, field in FIELDS.items():
                    if ident := getattr(arrival.event, field, None):
                        self._pairs[kind].append((ident, hash(user)))

    def forget(self, users: Collection[str]) -> None:
        """Forget the events of these users, and the ids of those who are guests."""
        hashes = {hash(user) for user in users}
        for kind, pairs in self._pairs.items():
            kept = [
                (ident, user)
                for ident, user in pairs
                if user not in hashes and not (kind == "guest" and to_guest_user(ident) in users)
            ]
            if len(kept) < len(pairs):
                pairs.clear()
                pairs.extend(kept)

    def report(self) -> None:
        """Export the most shared id of each kind, and warn of it once if it is that of many users."""
        metrics.MOST_SHARED_ID_USERS.clear()
        for kind, pairs in self._pairs.items():
            users_by_id = Counter(ident for ident, _ in set(pairs))
            for ident, users in users_by_id.most_common(1):
                if users >= NAMED_USERS_MIN:
                    metrics.MOST_SHARED_ID_USERS.labels(kind, escape_id(ident)).set(users)
                self._warn(kind, ident, users, len({user for _, user in pairs}))

    def _warn(self, kind: str, ident: str, users: int, all_users: int) -> None:
        is_many = users >= WARNED_USERS_MIN and users >= WARNED_SHARE_MIN * all_users
        if is_many and (kind, ident) not in self._warned:
            self._warned.add((kind, ident))
            log.warning(
                "A %s should be that of few users. Found `%s` with %d of the last %d. If it stands for none, add it to "
                "`intake.placeholders`.",
                kind,
                escape_id(ident),
                users,
                all_users,
            )
