"""Watches the file of list rules: what it says from a change on, and the former rules while it cannot be used."""

import logging
import os
from pathlib import Path
from typing import TypeAlias

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.settings.list_rules import ListRule, digest_content, digest_file, parse_list_rules, read_list_rules
from worker.ops import metrics

log = logging.getLogger(__name__)
Signature: TypeAlias = tuple[int, int, int, int] | None  # of a file's state; None: there is none


class RuleFile:
    """The rules of a file; an error leaves the present ones as they are and is told once for each state of the file.

    A changed file is read once it is the same in two polls, so that one that is being written is not half read. Its
    path is resolved at each poll: a link to it, or to its folder, may be moved to another file.
    """

    def __init__(self, path: Path, features: FeatureSet) -> None:
        """Raises `BadConfig` with every error of the file."""
        self._path, self._features = path, features
        self._adopted = self._latest = self._sign()
        self.rules: tuple[ListRule, ...] = read_list_rules(path, features)
        self.refused = ""  # why the present file is not used
        self.digest = digest_file(path)
        metrics.LIST_RULES.set(len(self.rules))
        metrics.LIST_RULES_REFUSED.set(0)

    def poll(self) -> bool:
        """Whether there are new rules."""
        signature = self._sign()
        if signature != self._latest:
            self._latest = signature
            return False
        if signature == self._adopted:
            return False
        try:
            content = self._path.read_bytes()
            if self._sign() != signature:
                return False
            rules = parse_list_rules(content, self._path, self._features)
        except (BadConfig, OSError) as error:
            self._adopted = signature
            reasons = error.errors if isinstance(error, BadConfig) else [f"`lists.rules` should be a file: {error}"]
            self._refuse(" ".join(reasons))
            return False
        self._adopted = signature
        return self._adopt(rules, digest_content(content))

    def _adopt(self, rules: tuple[ListRule, ...], digest: str) -> bool:
        is_new = rules != self.rules
        if is_new or self.refused:
            log.info("List rules of %s: %d rules from now on.", self._path, len(rules))
        self.rules, self.digest, self.refused = rules, digest, ""
        metrics.LIST_RULES.set(len(rules))
        metrics.LIST_RULES_REFUSED.set(0)
        return is_new

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        metrics.LIST_RULES_REFUSED.set(1)
        log.error("The %d former list rules stay in force. %s", len(self.rules), reason)

    def _sign(self) -> Signature:
        try:
            state = os.stat(self._path)
        except OSError:
            return None
        return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
