"""Triply periodic surfaces as sums of products of waves, as geom/shapes.waves takes them."""

from __future__ import annotations

_PAIRS = ((1, 4, 4, 0), (1, 0, 4, 4), (1, 4, 0, 4))
_TURNS = ((1, 3, 2, 1), (1, 1, 3, 2), (1, 2, 1, 3))
_SINGLE = ((1, 2, 0, 0), (1, 0, 2, 0), (1, 0, 0, 2))
_DOUBLE = ((1, 4, 0, 0), (1, 0, 4, 0), (1, 0, 0, 4))


def _times(weight: float, terms: tuple[tuple[float, ...], ...]) -> list[tuple[float, ...]]:
    return [(weight * term[0], *term[1:]) for term in terms]


WAVES: dict[str, list[tuple[float, ...]]] = {
    "gyroid": [(1, 1, 2, 0), (1, 0, 1, 2), (1, 2, 0, 1)],
    "diamond": [(1, 1, 1, 1), (1, 1, 2, 2), (1, 2, 1, 2), (1, 2, 2, 1)],
    "primitive": list(_SINGLE),
    "iwp": [(2, 2, 2, 0), (2, 0, 2, 2), (2, 2, 0, 2), *_times(-1, _DOUBLE)],
    "neovius": [*_times(3, _SINGLE), (4, 2, 2, 2)],
    "frd": [(4, 2, 2, 2), *_times(-1, _PAIRS)],
    "lidinoid": [*_times(0.5, _TURNS), *_times(-0.5, _PAIRS), (0.15, 0, 0, 0)],
    "splitp": [*_times(1.1, _TURNS), *_times(-0.2, _PAIRS), *_times(-0.4, _DOUBLE)],
}
