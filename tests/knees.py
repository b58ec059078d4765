"""Synthetic knees that several test files share: drawing one takes seconds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from implantforge.core import Side
from implantforge.stages import phantoms

MEDIUM = (1.4, 1.4, 1.6)
FINER = (1.0, 1.0, 1.2)


@lru_cache(maxsize=4)
def knee(seed: int, side: Side, spacing_mm: tuple[float, float, float], **kwargs: Any) -> phantoms.Phantom:
    """A knee phantom, painted once a session."""
    return phantoms.knee(seed, side=side, spacing_mm=spacing_mm, **kwargs)


def sound() -> phantoms.Phantom:
    """A left knee with a joint space."""
    return knee(5, "left", MEDIUM)


def worn() -> phantoms.Phantom:
    """A right knee with 100 mm2 of bone on bone in the lateral compartment."""
    return knee(6, "right", FINER, contact_mm2=100.0, compartment="lateral")
