"""Every error that a part of shopstream raises on purpose, sorted by what the caller does next.

    ShopstreamError
    ├── BadEvent        the record itself is wrong       -> dead letter, the position moves on
    ├── Unavailable     Kafka or Redis does not answer   -> pause, try again with backoff, drop nothing
    ├── StaleState      Redis is not what we last wrote  -> go back to what Redis has (recovery)
    ├── LostLog         retention removed what is needed -> stop, or accept the loss by configuration
    ├── BadProfile      a slice is cut or of another layout -> end, say what to run
    ├── BadBundle       a model cannot be trusted        -> keep the present one, count it, say why
    ├── BadData         training data breaks a promise   -> end, say what was found
    └── BadConfig       settings are wrong               -> exit 2 with every error listed

Anything else is a defect and ends the process loudly. A message says what should hold, then what was found.
"""


class ShopstreamError(Exception):
    """The root: whatever shopstream raises on purpose."""


class BadEvent(ShopstreamError):
    """A record that can never be answered; `reason` is one of `contract.events.REASONS`, the message the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Unavailable(ShopstreamError):
    """A server that does not answer now and may answer later; the message says which and what was being done."""


class StaleState(ShopstreamError):
    """Redis does not hold what this worker last wrote: lost writes, another owner, or a zombie's late write."""


class LostLog(ShopstreamError):
    """Records that recovery needs have already been removed from the log by retention."""


class BadProfile(ShopstreamError):
    """A slice in Redis that this version cannot read: another layout, or cut short."""


class BadBundle(ShopstreamError):
    """A bundle that must not serve: broken, of foreign origin, or in need of what this worker lacks."""


class BadData(ShopstreamError):
    """Training data, features or labels that break a stated promise."""


class BadConfig(ShopstreamError):
    """Settings that cannot be run with; `errors` lists all of them, one sentence each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors
