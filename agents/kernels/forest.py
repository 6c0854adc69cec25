"""Isolation Forest over complete trees, its calibration, and the louder of two votes. See model.py for the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.kernels import kernel

LANES = 16
"""Rows that walk a tree abreast: their steps do not wait for each other."""
_U, _ONE = np.uint32, np.uint32(1)
"""Unsigned, so that no index is tested for being negative."""


@kernel
def _abreast(columns: Any, feature: Any, threshold: Any, path: Any, depth: Any, at: Any, total: Any) -> None:
    """Add to total, f64[LANES], the path lengths of LANES rows whose features are packed by column, f32."""
    lanes = _U(LANES)
    last = _U(feature.shape[1])
    for tree in range(feature.shape[0]):
        features, thresholds, paths = feature[tree], threshold[tree], path[tree]
        at[:] = 0
        for _ in range(depth):
            for lane in range(LANES):
                node = _U(at[lane])
                value = columns[_U(features[node]) * lanes + _U(lane)]
                at[lane] = np.int32(2 * at[lane] + 1 + np.int32(value > thresholds[node]))
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
def depths(features: Any, feature: Any, threshold: Any, path: Any, depth: Any, out: Any) -> None:
    """Mean path lengths of n rows (f32, C order) into out, f64[n]: as in model.raw_scores.

    feature u8, threshold f32 (trees, 2**depth - 1), path f32 (trees, 2**depth).
    Sums of path lengths are exact in f64: they need 35 bits.
    """
    n, width = features.shape
    columns, at, total = np.empty(width * LANES, np.float32), np.empty(LANES, np.int32), np.empty(LANES, np.float64)
    whole = n - n % LANES
    for begin in range(0, whole, LANES):
        for lane in range(LANES):
            for column in range(width):
                columns[column * LANES + lane] = features[begin + lane, column]
        total[:] = 0.0
        _abreast(columns, feature, threshold, path, depth, at, total)
        out[begin : begin + LANES] = total
    for row in range(whole, n):
        out[row] = _alone(features[row], feature, threshold, path, depth)
    for row in range(n):
        out[row] /= len(feature)


@kernel
def _interpolated(value: Any, knots: Any, shown: Any) -> Any:
    """Piecewise linear interpolation, flat outside the knots, as numpy.interp."""
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
