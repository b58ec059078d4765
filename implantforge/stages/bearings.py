"""Heads and liners as data: which head goes into which shell, the liner between them, how long heads reach."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HEADS_MM = (28.0, 32.0, 36.0, 40.0)
LENGTHS_MM = {"S": -3.5, "M": 0.0, "L": 3.5, "XL": 7.0}
"""What a head adds to the neck. Intervals are not standardised: the maker's own hold."""
CLEARANCE_MM = 0.1
"""Between liner and shell, a side."""
TARGET_MM, LEAST_MM = 5.0, 4.0
"""Cross-linked polyethylene in the load zone: 5-6 mm wanted, 4 mm at the least."""
TAPER = "12/14"
TAPER_ANGLE_DEG = 5.0 + 40.0 / 60.0
TAPER_SMALL_MM, TAPER_LENGTH_MM = 12.7, 13.0
"""12/14: 5 deg 40 min included; 12.70 mm at the end, 13.99 mm at 13 mm. No standard exists: name the head."""
HEAD_ABOVE_BASE_MM = 9.0
"""Head centre above the large end of the engaged taper, for a head of neutral length."""


class Bearing(NamedTuple):
    """A head in a liner of a shell: liner_mm is its polyethylene in the load zone; wanted says that it meets the target."""

    head_mm: float
    liner_mm: float
    liner_outer_mm: float
    wanted: bool


def options(bore_diameter_mm: float) -> tuple[Bearing, ...]:
    """Every head that leaves LEAST_MM of liner in a shell of this bore, smallest first; empty when none does."""
    outer = bore_diameter_mm - 2 * CLEARANCE_MM
    rows = (Bearing(head, (outer - head) / 2, outer, (outer - head) / 2 >= TARGET_MM) for head in HEADS_MM)
    return tuple(row for row in rows if row.liner_mm >= LEAST_MM)


def advised(bore_diameter_mm: float) -> Bearing | None:
    """The largest head whose liner meets the target, else the smallest that may be used at all, else None."""
    rows = options(bore_diameter_mm)
    return max((row for row in rows if row.wanted), default=rows[0] if rows else None)


def rows(bore_diameter_mm: float) -> list[dict[str, object]]:
    """`options` as plain JSON rows with the lengths each head comes in."""
    best = advised(bore_diameter_mm)
    return [
        {"head_mm": row.head_mm, "liner_mm": round(row.liner_mm, 3), "liner_outer_mm": round(row.liner_outer_mm, 3),
         "meets_target": row.wanted, "advised": row == best, "taper": TAPER, "head_lengths_mm": dict(LENGTHS_MM)}
        for row in options(bore_diameter_mm)
    ]  # fmt: skip


def neck(diameter_mm: float, length_mm: float) -> list[tuple[float, float]]:
    """Outline of taper and neck under a head of some length: (distance from the head centre, radius), mm, rising."""
    base, small = HEAD_ABOVE_BASE_MM + length_mm, TAPER_SMALL_MM / 2
    large = small + TAPER_LENGTH_MM * float(np.tan(np.radians(TAPER_ANGLE_DEG / 2)))
    return [(base - TAPER_LENGTH_MM, small), (base, large), (base + 1e-3, diameter_mm / 2)]
