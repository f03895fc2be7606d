"""Told what was published, asked at the end whether the answers of one key came in the order of its events."""

from contract.messages import ScoredRow


class KeyOrderAudit:
    """Checks the scored rows of orders and clicks: within a source partition, one user's rows follow its offsets.

    A row that comes a second time is a duplicate, which the delivery ledger counts.
    """

    def __init__(self) -> None:
        self.inversions: list[str] = []
        self._seen: set[tuple[str, int, int]] = set()
        self._latest: dict[tuple[str, str, int], int] = {}  # by user and source partition

    def record_scored_row(self, row: ScoredRow) -> None:
        """The next row of a partition of the scored topic."""
        if row.kind not in ("order", "click") or (row.topic, row.partition, row.offset) in self._seen:
            return
        self._seen.add((row.topic, row.partition, row.offset))
        key = row.user_id, row.topic, row.partition
        latest = self._latest.get(key, -1)
        if row.offset < latest:
            self.inversions.append(f"{row.kind} {row.event_id} at {row.offset} came after {latest} of the same user")
        self._latest[key] = max(latest, row.offset)
