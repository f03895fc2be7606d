"""The order of one list in numba: the best items within caps, varied where a rule says so, around those that are set.

Caps are strict (a list becomes shorter rather than break one) or soft (items beyond it come last). Variety is maximal
marginal relevance (Carbonell and Goldstein 1998): an item's place among the candidates against its likeness to the
items that are chosen already.
"""

import numpy as np

from contract.compilation import jit

NO_EFFECT, VARIED, BEYOND_CAP = range(3)  # the last one plus the number of the soft cap


@jit
def find_full_cap(item, caps, chosen, count, reserved, pinned, only_strict):  # type: ignore[no-untyped-def]
    """The first cap that the item would break, -1 for none. Group 0 is in no cap.

    The first `pinned` of the `reserved` items count for every cap, the others for strict ones.
    """
    groups, group_max, is_strict = caps
    for c in range(len(group_max)):
        group = groups[c, item]
        if group == 0 or (only_strict and not is_strict[c]):
            continue
        total = 0
        for n in range(count):
            total += groups[c, chosen[n]] == group
        for n in range(len(reserved) if is_strict[c] else pinned):
            total += groups[c, reserved[n]] == group
        if total >= group_max[c]:
            return c
    return -1


@jit
def measure_likeness(item, attributes, chosen, count, reserved):  # type: ignore[no-untyped-def]
    """The greatest share of attributes (A, P) that the item has in common with a chosen or reserved one; 0 is none."""
    greatest = 0
    for n in range(count + len(reserved)):
        other = chosen[n] if n < count else reserved[n - count]
        same = 0
        for a in range(len(attributes)):
            same += attributes[a, item] != 0 and attributes[a, item] == attributes[a, other]
        greatest = max(greatest, same)
    return greatest / len(attributes)


@jit
def find_best(order, span, is_taken, caps, state, only_strict, attributes, strength):  # type: ignore[no-untyped-def]
    """The place in `order` of the best item of a span that breaks no cap, -1 for none, and whether it is varied.

    state: chosen, count, reserved and pinned, as in `find_full_cap`.
    """
    chosen, count, reserved, pinned = state
    first = best = -1
    best_value = -np.inf
    for place in range(span[0], span[1]):
        item = order[place]
        if is_taken[place] or find_full_cap(item, caps, chosen, count, reserved, pinned, only_strict) >= 0:
            continue
        if strength == 0:
            return place, False
        first = place if first < 0 else first
        likeness = measure_likeness(item, attributes, chosen, count, reserved)
        value = (1 - strength) * (1 - place / len(order)) - strength * likeness
        if value > best_value:
            best, best_value = place, value
    return best, best != first


@jit
def choose_items(order, first_buried, room, caps, reserved, pinned, attributes, strength):  # type: ignore[no-untyped-def]
    """The indexes of at most `room` items of `order` (P,), best first, and what put each there.

    From `first_buried` on items come only after all before them. caps: groups (C, P), group_max (C,), is_strict (C,).
    """
    chosen = np.zeros(max(room, 0), np.int64)
    effects = np.zeros(max(room, 0), np.int64)
    is_taken = np.zeros(len(order), np.bool_)
    count = 0
    for span in ((0, first_buried), (first_buried, len(order))):
        for only_strict in (False, True):
            while count < room:
                state = (chosen, count, reserved, pinned)
                best, is_varied = find_best(order, span, is_taken, caps, state, only_strict, attributes, strength)
                if best < 0:
                    break
                item = order[best]
                if only_strict:
                    cap = find_full_cap(item, caps, chosen, count, reserved, pinned, False)
                    effects[count] = BEYOND_CAP + max(cap, 0)
                elif is_varied:
                    effects[count] = VARIED
                chosen[count] = item
                is_taken[best] = True
                count += 1
    return chosen[:count], effects[:count]


def place_pins(rest: list[int], pins: list[tuple[int, int]], length: int) -> list[int]:
    """The items of `rest` in their order with each pin (position from 1, index) at its position.

    Where an earlier pin has the position, a pin is at the next free one, or at the last free one of the list. Where
    `rest` is too short for a position the pin comes last.
    """
    by_position = dict[int, int]()
    for position, index in pins:
        places = (*range(position, length + 1), *range(min(position, length + 1) - 1, 0, -1))
        if (place := next((place for place in places if place not in by_position), None)) is not None:
            by_position[place] = index
    placed = list(rest)
    for place, index in sorted(by_position.items()):
        placed.insert(place - 1, index)  # at the end, where the list is shorter
    return placed[:length]
