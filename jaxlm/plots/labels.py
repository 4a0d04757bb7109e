"""Placement of labels beside points without overlap: arrays in, arrays out."""

import numpy as np

LABEL_GAP = 2.0
"""Pixels between a point and its label's box."""


def labels_apart(point_N2: np.ndarray, size_N2: np.ndarray, frame_4: np.ndarray) -> np.ndarray:
    """Place boxes of the given sizes so that none covers a point, another box or the frame's edge.

    Each box in turn takes the first free position around its point, near ones first. All is in pixels; the frame is
    left, bottom, right, top. Returns the lower left corners, corner_N2, with nan where there is no room.
    """
    angle_A = np.arange(16) * np.pi / 8  # counter-clockwise from the right
    way_A2 = np.stack([np.cos(angle_A), np.sin(angle_A)], axis=1)
    corner_N2 = np.full(point_N2.shape, np.nan)
    for n, (point_2, size_2) in enumerate(zip(point_N2, size_N2, strict=True)):
        reach_A2 = way_A2 / np.abs(way_A2).max(axis=1, keepdims=True) * size_2 / 2  # to the edge of the box
        for gap in LABEL_GAP * np.array([1, 6, 12, 20]):
            low_A2 = point_2 + way_A2 * gap + reach_A2 - size_2 / 2
            high_A2 = low_A2 + size_2
            free_A = (low_A2 >= frame_4[:2]).all(1) & (high_A2 <= frame_4[2:]).all(1)
            on_point_AN = (low_A2[:, None] - 1 < point_N2) & (point_N2 < high_A2[:, None] + 1)
            on_box_AN = (low_A2[:, None] < corner_N2 + size_N2) & (corner_N2 < high_A2[:, None])  # never for nan
            free_A &= ~(on_point_AN.all(2) | on_box_AN.all(2)).any(1)
            if free_A.any():
                corner_N2[n] = low_A2[free_A.argmax()]
                break
    return corner_N2
