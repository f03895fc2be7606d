"""The rules of all kinds of lists, in step with the file of rules, with the catalogue and with the clock."""

import logging
import math
from typing import Final

import numpy as np

from contract.features.declaration import FeatureSet
from contract.settings.list_rules import ListKind, ListRule
from worker.catalogue.catalogue import Catalogue
from worker.doctor.rule_reports import RuleReport
from worker.ops import metrics
from worker.rules.item_selection import ItemSelector
from worker.rules.kind_rules import KindRules
from worker.rules.rule_file import RuleFile

log = logging.getLogger(__name__)
REVIEW_MS: Final = 60_000  # between two looks at ages, and at names that the catalogue may have by now
LOGGED_MAX: Final = 20  # unknown names that are logged one by one


class ListRules:
    """`of` gives the rules of a kind of list. `refresh` costs nothing while nothing has changed.

    Without a file there are no rules.
    """

    def __init__(self, catalogue: Catalogue, features: FeatureSet, file: RuleFile | None = None) -> None:
        self._catalogue, self._features, self.file = catalogue, features, file
        self._in_force: tuple[ListRule, ...] | None = None
        self._by_kind = dict[str, KindRules]()
        self._review_due_ms = self._stream_ms = 0
        self._clock_due_ms = 0.0  # when a rule starts or ends
        self.unknown: tuple[str, ...] = ()
        self._build(())

    def of(self, kind: ListKind) -> KindRules:
        """The rules of a kind of list; to be asked for again after each `refresh`."""
        return self._by_kind[kind]

    def poll(self) -> None:
        """Look for new rules in the file."""
        if self.file and self.file.poll():
            self._clock_due_ms = 0.0

    def refresh(self, now_ms: int, stream_ms: int = 0) -> None:
        """Follow the clock and the catalogue. `stream_ms`: event time, from which ages are counted; 0: not known."""
        if not self.file:
            return
        self._stream_ms = max(self._stream_ms, stream_ms)
        if now_ms >= self._clock_due_ms:
            spans = [(rule, *rule.span_ms) for rule in self.file.rules]
            self._clock_due_ms = min([end for span in spans for end in span[1:] if end > now_ms], default=math.inf)
            in_force = tuple(rule for rule, starts_ms, ends_ms in spans if starts_ms <= now_ms < ends_ms)
            if in_force != self._in_force:
                self._build(in_force)
        changed = self._catalogue.take_changed()
        is_due = now_ms >= self._review_due_ms
        if is_due:
            self._review_due_ms = now_ms + REVIEW_MS
            if any(rules.has_age for rules in self._by_kind.values()):
                changed = np.arange(len(self._catalogue))
        if len(changed):
            for kind in reversed(self._by_kind):  # those of popular lists first, which others may refer to
                self._by_kind[kind].refresh(changed, self._stream_ms or now_ms)
        if is_due:
            self._tell_unknown()

    @property
    def report(self) -> RuleReport | None:
        """What is to be told of the rules; None without a file."""
        if not self.file:
            return None
        suspended = dict.fromkeys(rules.suspended for rules in self._by_kind.values() if rules.suspended)
        return RuleReport(
            rules=len(self.file.rules),
            digest=self.file.digest,
            refused=self.file.refused,
            unknown=self.unknown,
            suspended=tuple(suspended),
        )

    def _build(self, in_force: tuple[ListRule, ...]) -> None:
        """Compile the rules for every item of the catalogue, at the next `refresh`."""
        catalogue, features = self._catalogue, self._features
        popular = KindRules([rule for rule in in_force if rule.concerns("popular")], catalogue, features)
        personal = KindRules([rule for rule in in_force if rule.concerns("personal")], catalogue, features, popular)
        self._by_kind = {"personal": personal, "popular": popular}
        self._in_force = in_force
        catalogue.mark_changed()
        self._review_due_ms = 0

    def _tell_unknown(self) -> None:
        rules = self.file.rules if self.file else ()
        unknown = tuple(
            sentence
            for rule in rules
            for sentence in ItemSelector(rule, self._catalogue, self._features).find_unknown()
        )
        metrics.LIST_RULES_UNKNOWN.set(len(unknown))
        for sentence in [sentence for sentence in unknown if sentence not in self.unknown][:LOGGED_MAX]:
            log.warning("List rules: %s", sentence)
        self.unknown = unknown
        for kind, kind_rules in self._by_kind.items():
            if kind_rules.suspended:
                log.error(
                    "Rules should leave items for %s lists. Found none that `%s` leaves: they are suspended, and lists "
                    "have popular items.",
                    kind,
                    kind_rules.suspended,
                )
