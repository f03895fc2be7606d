"""The share of rows whose user had a history when they were made, which a worker compares with what Redis has."""

import numpy as np

from training.data.examples import Examples, is_empty

SOURCE = "profile.user."


def measure_profile_share(examples: Examples) -> float | None:
    """The share of rows with user features that have one from the user's profile; None without such features."""
    features, block = examples.features, examples.blocks["user"]
    numbers = [index for index, f in enumerate(features.numbers("user")) if f.source.startswith(SOURCE)]
    spans = [span for span in features.spans("user") if span.feature.source.startswith(SOURCE)]
    rows = ~is_empty(block)
    if not rows.any() or not (numbers or spans):
        return None
    has_history = (np.nan_to_num(block.numbers[:, numbers]) != 0).any(1)
    for span in spans:
        has_history |= (block.ids[:, span.start : span.start + span.width] != 0).any(1)
    return float(has_history[rows].mean())
