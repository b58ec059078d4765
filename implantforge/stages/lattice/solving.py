"""From what is asked (a wall, a porosity or a pore) to the numbers of a lattice, or a refusal with what can be had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from implantforge.core import GeometryError, Lattice
from implantforge.stages.lattice import spinodoid, struts
from implantforge.stages.lattice.families import DENSITY, FAMILIES, KINDS, forms
from implantforge.stages.lattice.rooms import depths, median_thickness, passing

ASKED = ("wall_mm", "porosity", "pore_mm")
PORE_WITHIN = 0.03  # a median pore that is farther from the one asked is refused
WALL_WITHIN = 0.05  # struts whose median local thickness is farther above the one asked are refused
SLENDER = 0.2  # relative density up to which no joint takes over
THROAT = 0.02  # cells: a lattice whose throats are not wider counts as closed


@dataclass(frozen=True)
class SolvedLattice:
    """A lattice with its numbers worked out. level cuts f (network); wall_mm is the sheet's thickness, the strut's
    diameter or the network's neck, the largest sphere that passes through the solid (spinodoid: the median thickness);
    pore_mm the largest sphere in the void, throat_mm the largest that passes.
    """

    kind: str
    form: str
    cell_mm: float
    level: float
    wall_mm: float
    porosity: float
    pore_mm: float
    throat_mm: float
    seed: int = 0


def form_of(lattice: Lattice) -> str:
    """The form meant: a kind of struts has no other, whatever the default says. GeometryError when there is none."""
    there = forms(lattice.kind)
    if not there:
        raise GeometryError(f"lattice: no kind {lattice.kind!r}; there are {', '.join(KINDS)}")
    if there == ("strut",) and lattice.form == "network":
        return "strut"
    if lattice.form not in there:
        raise GeometryError(f"lattice: {lattice.kind} comes as {' or '.join(there)}, not as {lattice.form!r}")
    return lattice.form


def solve(lattice: Lattice) -> SolvedLattice:
    """Level, wall, porosity, pore and throat of a lattice given by cell and exactly one of wall_mm, porosity or pore_mm
    (median local thickness of the void).

    A graded lattice is solved at the middle of its grades. Raises GeometryError for unknown kinds, none or several
    given, and densities that fall apart or close up.
    """
    if lattice.grades:
        lattice = middle_asked(lattice)
    form = form_of(lattice)
    given = {name: value for name in ASKED if (value := getattr(lattice, name)) is not None}
    if len(given) != 1:
        raise GeometryError(f"lattice: give one of {', '.join(ASKED)}, got {given or 'none'}")
    for name, value in (("cell_mm", lattice.cell_mm), *given.items()):
        if not 0 < value < np.inf:
            raise GeometryError(f"lattice: {name} must be positive, got {value}")
    if lattice.porosity is not None:
        density = 1.0 - lattice.porosity
    elif lattice.wall_mm is not None:
        density = _density_of_wall(lattice.kind, form, lattice.seed, lattice.wall_mm / lattice.cell_mm)
    else:
        density = _density_of_pore(lattice.kind, form, lattice.seed, float(lattice.pore_mm or 0) / lattice.cell_mm)
    low, high = DENSITY[lattice.kind, form]
    if not low <= density <= high:
        raise GeometryError(_refusal(lattice, form, density))
    level, wall, pore, throat = _unit(lattice.kind, form, lattice.seed, round(density, 6))
    if lattice.wall_mm is not None:
        wall = lattice.wall_mm / lattice.cell_mm
        _slender(lattice, form, round(density, 4))
    if throat <= THROAT:
        raise GeometryError(f"lattice: {lattice.kind} {form} of density {density:.3f} has closed pores (throat 0)")
    wall_mm, pore_mm, throat_mm = (float(x * lattice.cell_mm) for x in (wall, pore, throat))
    return SolvedLattice(
        lattice.kind, form, lattice.cell_mm, level, wall_mm, 1.0 - density, pore_mm, throat_mm, lattice.seed
    )  # fmt: skip


def middle_asked(asked: Lattice) -> Lattice:
    """The lattice asked at the middle of its grades, ungraded."""
    out = replace(asked, grades=(), placement="cartesian")
    for grade in asked.grades:
        low, high = min(v for _, v in grade.knots), max(v for _, v in grade.knots)
        if grade.what == "cell_mm":
            continue
        out = only(out, grade.what, 0.5 * (low + high))
    return out


def only(asked: Lattice, what: str, value: float) -> Lattice:
    """The lattice with this wall or porosity and nothing else asked."""
    wall, porosity = (value, None) if what == "wall_mm" else (None, value)
    return replace(asked, wall_mm=wall, porosity=porosity, pore_mm=None)


def _slender(lattice: Lattice, form: str, density: float) -> None:
    """GeometryError where struts of the width asked are shorter than their joints are thick, so that most of the metal is
    thicker than asked."""
    if form != "strut" or density < SLENDER:
        return
    thick = strut_median(lattice.kind, lattice.seed, density) * lattice.cell_mm
    if thick > (1 + WALL_WITHIN) * float(lattice.wall_mm or 0):
        raise GeometryError(
            f"lattice: {lattice.kind} struts of {lattice.wall_mm:g} mm melt into their joints at cell {lattice.cell_mm:g} "
            f"mm: half of the metal is thicker than {thick:.2f} mm; ask for thinner struts, larger cells, or for porosity "
            f"{1 - density:.2f}"
        )


def _refusal(lattice: Lattice, form: str, density: float) -> str:
    """Why this density cannot be, and what can be had at this cell."""
    low, high = DENSITY[lattice.kind, form]
    ends = [_unit(lattice.kind, form, lattice.seed, round(d, 6)) for d in (low, high)]
    walls = [end[1] * lattice.cell_mm for end in ends]
    why = "falls apart or is thinner than its sampling" if density < low else "closes its pores"
    span = f"porosity {1 - high:.2f}..{1 - low:.2f} or wall {walls[0]:.2f}..{walls[1]:.2f} mm"
    if lattice.pore_mm is not None:
        pores = [pore_median(lattice.kind, form, lattice.seed, d) * lattice.cell_mm for d in (high, low)]
        span += f" or pore {pores[0]:.2f}..{pores[1]:.2f} mm"
    size = f"density {density:.3f}" if 0 < density < 1 else "this size"
    return f"lattice: {lattice.kind} {form} of {size} {why}; at cell {lattice.cell_mm:g} mm ask for {span}"


def cut(kind: str, form: str, seed: int, density: float) -> float:
    """Level of f (network), or half wall or radius in cells (sheet, strut), that leaves this share solid."""
    values = FAMILIES[kind, form].maker.shares(kind, form, seed)
    return float(np.interp(density, (np.arange(len(values)) + 0.5) / len(values), values))


def density_within(kind: str, form: str, seed: int, half: float) -> float:
    """Share of the tile within half cells of the sheet or of the centre lines."""
    values = FAMILIES[kind, form].maker.shares(kind, form, seed)
    return float(np.searchsorted(values, half) / len(values))


def _density_of_wall(kind: str, form: str, seed: int, wall: float) -> float:
    """Relative density whose wall, strut or neck is `wall` cells; 0 or 1 when out of reach."""
    if form != "network":
        return density_within(kind, form, seed, wall / 2)
    low, high = DENSITY[kind, form]
    if wall < neck(kind, seed, low):
        return 0.0
    if wall > neck(kind, seed, high):
        return 1.0
    found, rough = 0.5 * (low + high), wall
    for _ in range(3):
        if (neck(kind, seed, low, False) - rough) * (neck(kind, seed, high, False) - rough) >= 0:
            found = low if neck(kind, seed, low, False) >= rough else high
        else:
            found = float(
                brentq(lambda d, goal=rough: neck(kind, seed, d, False) - goal, low, high, xtol=5e-4, rtol=1e-6)
            )
        seen = neck(kind, seed, found)
        if abs(seen / wall - 1) < 0.005:
            break
        rough *= wall / seen  # what coarser nodes read of the neck that is meant
    return found


def _density_of_pore(kind: str, form: str, seed: int, pore: float) -> float:
    """Relative density whose void has this median local thickness in cells; 0 or 1 when out of reach."""
    low, high = DENSITY[kind, form]
    if pore > pore_median(kind, form, seed, low):
        return 0.0
    if pore < pore_median(kind, form, seed, high):
        return 1.0
    found = float(brentq(lambda d: pore_median(kind, form, seed, round(d, 4)) - pore, low, high, xtol=1e-3, rtol=1e-3))
    # where half of the void lies in large pores and half in small ones, the median leaps from one to the other
    sides = [pore_median(kind, form, seed, round(found, 4), share) for share in (44.0, 50.0, 56.0)]
    if abs(sides[1] / pore - 1) > PORE_WITHIN or sides[2] > (1 + 4 * PORE_WITHIN) * sides[0]:
        raise GeometryError(
            f"lattice: {kind} {form} has pores of several sizes and no median pore of {pore:.3f} cells; ask for less than "
            f"{min(sides):.3f} or more than {max(sides):.3f} cells, or for a porosity"
        )
    return found


@lru_cache(maxsize=256)
def neck(kind: str, seed: int, density: float, fine: bool = True) -> float:
    """What wall_mm means of a network, in cells; without fine, a quicker look."""
    level = cut(kind, "network", seed, density)
    if kind == "spinodoid":
        return spinodoid.strut(seed, level)
    return float(FAMILIES[kind, "network"].maker.neck(kind, "network", seed, level, fine))


@lru_cache(maxsize=64)
def strut_median(kind: str, seed: int, density: float) -> float:
    """Median local thickness of struts and their joints, in cells."""
    away, nodes = struts.table(kind, seed)[:-1, :-1, :-1], struts.STRUTS[kind][2]
    return median_thickness(depths(away, cut(kind, "strut", seed, density)) / nodes, 1 / nodes)


@lru_cache(maxsize=64)
def _unit(kind: str, form: str, seed: int, density: float) -> tuple[float, float, float, float]:
    """level, wall, pore and throat in cells."""
    maker, level = FAMILIES[kind, form].maker, cut(kind, form, seed, density)
    if form == "network":
        void = maker.sides(kind, form, seed, level)[1]
        return level, neck(kind, seed, density), 2 * float(void.max()), 2 * passing(void)
    pore, throat = _labyrinths(kind, form, seed)
    return 0.0, 2 * level, pore - 2 * level, throat - 2 * level


@lru_cache(maxsize=16)
def _labyrinths(kind: str, form: str, seed: int) -> tuple[float, float]:
    """Largest and largest passing sphere beside a sheet, or round struts, of no thickness; a sheet's narrower side
    passes less."""
    rooms = FAMILIES[kind, form].maker.sides(kind, form, seed, 0.0)[:2]
    there = [room for room in rooms if (room > 0).any()]
    return 2 * float(max(room.max() for room in there)), 2 * min(passing(room) for room in there)


@lru_cache(maxsize=64)
def pore_median(kind: str, form: str, seed: int, density: float, share: float = 50.0) -> float:
    """Median (or another percentile of the) local thickness of the void, in cells."""
    level = cut(kind, form, seed, density)
    low, void, step = FAMILIES[kind, form].maker.sides(kind, form, seed, level if form == "network" else 0.0)
    if form == "network":
        return median_thickness(void, step, share)
    room = np.maximum(low, void) if form == "sheet" else void
    return median_thickness(room - level, step, share)
