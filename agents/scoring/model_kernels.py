"""Isolation Forest over complete trees, its calibration, and the louder of two votes. See model.py for the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.core.jit import kernel

LANES = 64
"""Rows that descend a tree together: their steps do not wait for each other."""
TOP = 4
"""Levels whose nodes are all tested for all rows, which a processor does with several rows an instruction."""
FEW = 20
"""From this many remaining rows on, descending together with empty lanes costs less than one by one."""
_TRIED = 2**TOP - 1
_U, _ONE = np.uint32, np.uint32(1)
"""Unsigned, so that indices are not checked for being negative."""


@kernel
def _abreast(
    columns: Any, feature: Any, threshold: Any, path: Any, depth: Any, at: Any, tried: Any, total: Any
) -> None:
    """Add to total, f64[LANES], the path lengths of LANES rows whose features are packed by column, f32."""
    lanes, last = _U(LANES), _U(feature.shape[1])
    for tree in range(feature.shape[0]):
        features, thresholds, paths = feature[tree], threshold[tree], path[tree]
        tried[:] = 0
        for node in range(_TRIED):  # bit `node`: 1 = a row would go right there
            first, limit, bit = _U(features[node]) * lanes, thresholds[node], np.int32(node)
            for lane in range(LANES):
                tried[lane] |= np.int32(columns[first + _U(lane)] > limit) << bit
        for lane in range(LANES):
            bits, place = tried[lane], np.int32(0)
            for _ in range(TOP):
                place = np.int32(2 * place + 1 + (bits >> place & 1))
            at[lane] = place
        for _ in range(depth - TOP):
            for lane in range(LANES):
                inner = _U(at[lane])
                value = columns[_U(features[inner]) * lanes + _U(lane)]
                at[lane] = np.int32(2 * at[lane] + 1 + np.int32(value > thresholds[inner]))
        for lane in range(LANES):
            total[lane] += paths[_U(at[lane]) - last]


@kernel
def _alone(row: Any, feature: Any, threshold: Any, path: Any, depth: Any) -> Any:
    """The sum of one row's path lengths: two trees at a time."""
    trees, last = feature.shape[0], _U(feature.shape[1])
    total = 0.0
    for tree in range(0, trees, 2):
        other = min(tree + 1, trees - 1)
        features, thresholds, more_features, more_thresholds = (
            feature[tree], threshold[tree], feature[other], threshold[other],
        )  # fmt: skip
        one = two = _U(0)
        for _ in range(depth):
            one = _U(one + one + _ONE + _U(row[_U(features[one])] > thresholds[one]))
            two = _U(two + two + _ONE + _U(row[_U(more_features[two])] > more_thresholds[two]))
        total += path[tree][one - last]
        if other > tree:
            total += path[other][two - last]
    return total


@kernel
def exponents(features: Any, feature: Any, threshold: Any, path: Any, depth: Any, unit: Any, out: Any) -> None:
    """Mean path lengths of n rows (f32, C order), divided by -unit, into out, f64[n]: as in model.raw_scores.

    feature u8, threshold f32 (trees, 2**depth - 1), path f32 (trees, 2**depth); depth is at least TOP.
    Sums of path lengths are exact in f64: they need 35 bits.
    """
    n, width = features.shape
    lanes = LANES if n >= FEW else 0
    columns, total = np.zeros(width * lanes, np.float32), np.empty(lanes, np.float64)
    at, tried = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    begin = 0
    while n - begin >= FEW:
        rows = min(LANES, n - begin)
        for lane in range(rows):
            for column in range(width):
                columns[column * LANES + lane] = features[begin + lane, column]
        total[:] = 0.0
        _abreast(columns, feature, threshold, path, depth, at, tried, total)
        out[begin : begin + rows] = total[:rows]
        begin += rows
    for row in range(begin, n):
        out[row] = _alone(features[row], feature, threshold, path, depth)
    for row in range(n):
        out[row] = -(out[row] / len(feature)) / unit


@kernel
def _interpolated(value: Any, knots: Any, shown: Any) -> Any:
    """Piecewise linear interpolation, constant outside the knots, like numpy.interp."""
    last = len(knots) - 1
    if value >= knots[last]:
        return shown[last]
    if value < knots[0]:
        return shown[0]
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if knots[middle] <= value:
            low = middle
        else:
            high = middle
    slope = (shown[high] - shown[low]) / (knots[high] - knots[low])
    return slope * (value - knots[low]) + shown[low]


@kernel
def votes(scores: Any, bits: Any, knots_raw: Any, knots_score: Any, bits_raw: Any, bits_score: Any, out: Any) -> None:
    """The louder of two calibrated votes, the forest's raw scores and the encoded bits (f64[n]), into out, f32[n]."""
    for row in range(len(scores)):
        forest = _interpolated(scores[row], knots_raw, knots_score)
        out[row] = max(forest, _interpolated(bits[row], bits_raw, bits_score))
