"""Bisection of a failing batch: an event that cannot be scored costs no other event its answer."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def bisect_failures(
    rows: list[int], answer: Callable[[list[int]], None], on_bad_row: Callable[[int, Exception, int], None]
) -> None:
    """Answer rows together; if that fails, answer halves, until the failing rows are alone.

    `on_bad_row` gets such a row with its error and the number of attempts. The first error is logged with its
    traceback.
    """
    pending, has_logged = [(rows, 1)], False
    while pending:
        chunk, attempts = pending.pop()
        if not chunk:
            continue
        try:
            answer(chunk)
        except Exception as error:
            log.warning("Scoring %d events failed, bisecting: %r", len(chunk), error, exc_info=not has_logged)
            has_logged = True
            if len(chunk) == 1:
                on_bad_row(chunk[0], error, attempts)
                continue
            half = len(chunk) // 2
            pending += [(chunk[half:], attempts + 1), (chunk[:half], attempts + 1)]
