"""All errors that shopstream raises on purpose, sorted by what the caller does next.

    ShopstreamError
    ├── BadEvent        the record itself is invalid           -> dead letter, the offset moves on
    ├── Unavailable     Kafka or Redis does not answer         -> retry with backoff, drop nothing
    ├── StaleState      Redis is not what was last written     -> reload the state of Redis (recovery)
    ├── LostLog         retention removed records still needed -> stop, or accept the loss by configuration
    ├── BadProfile      state that neither Redis nor the log has -> exit with the command that repairs it
    ├── BadBundle       a model cannot be trusted              -> keep the current one, count and log the reason
    ├── BadData         training data breaks a promise         -> exit with what was found
    └── BadConfig       settings are invalid                   -> exit 2 with every error listed

Anything else is a defect and ends the process with a traceback. A message says what should hold, then what was found.
"""


class ShopstreamError(Exception):
    """The root of all errors that shopstream raises on purpose."""


class BadEvent(ShopstreamError):
    """A record that can never be answered: `reason` is one of `contract.events.model.REASONS`, the message a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Unavailable(ShopstreamError):
    """A server that does not answer now and may answer later; the message names it and the attempted operation."""


class StaleState(ShopstreamError):
    """Redis does not hold what this worker last wrote: lost writes, another owner, or a late write of a fenced one."""


class LostLog(ShopstreamError):
    """Records that recovery needs have already been removed from the log by retention."""


class BadProfile(ShopstreamError):
    """State in Redis that this version cannot read, and that the log cannot restore by itself."""


class BadBundle(ShopstreamError):
    """A bundle that must not serve: broken, of other origin, or in need of features that this worker lacks."""


class BadData(ShopstreamError):
    """Training data, features or labels that break a stated promise."""


class BadConfig(ShopstreamError):
    """Invalid settings; `errors` lists all of them, one sentence each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors
