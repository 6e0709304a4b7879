"""How answers to requests with tools are compared: words with words, calls with calls."""

from __future__ import annotations

from collections.abc import Sequence

from distill.evaluate.scorers.json_fields import Leaves, leaves_of, same_leaf
from store.chat.tools import ToolCall


def calls_score(expected: Sequence[ToolCall], given: Sequence[ToolCall]) -> float:
    """Matching leaves over all leaves, with each call beside the one that it matches best.

    A call has a leaf for its function and those of its arguments.
    """
    left, right = [[_call_leaves(call) for call in calls] for calls in (expected, given)]
    pairs = [[_matching(one, other) for other in right] for one in left]
    if len(left) == len(right) == 1:
        chosen = [pairs[0][0]]
    else:
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - slow to import

        # of pairings with equal matches, the one with more paths in common
        weights = [[same + shared * 1e-6 for same, shared in row] for row in pairs]
        pairing = zip(*linear_sum_assignment(weights, maximize=True), strict=True)
        chosen = [pairs[row][column] for row, column in pairing]
    leaves = sum(map(len, left)) + sum(map(len, right))
    return sum(same for same, _ in chosen) / (leaves - sum(shared for _, shared in chosen))


def _call_leaves(call: ToolCall) -> Leaves:
    return leaves_of({"name": call.name, "arguments": call.arguments})


def _matching(one: Leaves, other: Leaves) -> tuple[int, int]:
    """How many leaves of two calls match, and how many paths both have."""
    if one["name",] != other["name",]:
        return 0, 0
    shared = one.keys() & other.keys()
    return sum(same_leaf(one[path], other[path]) for path in shared), len(shared)
