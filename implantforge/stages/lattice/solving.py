"""From what is asked (a wall, a porosity or a pore) to the numbers of a lattice, or a refusal with what can be had."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from implantforge.core import GeometryError, Lattice
from implantforge.stages.lattice import struts
from implantforge.stages.lattice.families import DENSITY, FAMILIES, KINDS, forms
from implantforge.stages.lattice.rooms import depths, median_thickness, passing, thicknesses

ASKED = ("wall_mm", "porosity", "pore_mm")
WITHIN = 0.03  # a median that is farther from the one asked is refused
LEAP = 0.06  # and one that a hundredth and a half more or less of the volume would move by more
SLENDER = 0.12  # relative density up to which no joint takes over
SPREAD = 0.05  # medians that move more between 44 and 56 % of the volume are looked at on finer nodes
FEW = 20  # nodes across the sphere of a median that is not looked at again on finer ones
SHARES = (44.0, 48.5, 50.0, 51.5, 56.0)  # of the volume, at which thicknesses are read
THROAT = 0.02  # cells: a lattice whose throats are not wider counts as closed


# Medians that a finer ruler found 7, 15 and 5.5 % from the one asked, in places that the shares above do not show; octet
# pores, tetrahedra and octahedra half and half, neither rise nor fall with density.
LEAPING = (
    ("iwp", "network", "void"),
    ("fcc", "strut", "void"),
    ("octet", "strut", "void"),
    ("frd", "network", "metal"),
)


@dataclass(frozen=True)
class SolvedLattice:
    """A lattice with its numbers worked out. level cuts f (network); wall_mm is the median local thickness of the metal,
    thin_mm what it is where it is thinnest: the sheet, the strut as drawn, a network's neck (the largest sphere that passes
    through the solid); pore_mm the largest sphere in the void, throat_mm the largest that passes.
    """

    kind: str
    form: str
    cell_mm: float
    level: float
    wall_mm: float
    thin_mm: float
    porosity: float
    pore_mm: float
    throat_mm: float
    seed: int = 0


def form_of(lattice: Lattice) -> str:
    """The form meant: a kind of struts has no other, whatever the default says. GeometryError when there is none."""
    there = forms(lattice.kind)
    if not there:
        near = difflib.get_close_matches(lattice.kind, KINDS, 1, 0.5)
        hint = f", nearest is {near[0]}" if near else ""
        raise GeometryError(f"lattice: no kind {lattice.kind!r}{hint}; there are {', '.join(KINDS)}")
    if there == ("strut",) and lattice.form == "network":
        return "strut"
    if lattice.form not in there:
        raise GeometryError(f"lattice: {lattice.kind} comes as {' or '.join(there)}, not as {lattice.form!r}")
    return lattice.form


def solve(lattice: Lattice) -> SolvedLattice:
    """Level, wall, porosity, pore and throat of a lattice given by cell and exactly one of wall_mm (median local thickness
    of the metal), porosity or pore_mm (of the void).

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
    level, thin, pore, throat = _unit(lattice.kind, form, lattice.seed, round(density, 6))
    if lattice.wall_mm is None:
        wall = wall_median(lattice.kind, form, lattice.seed, round(density, 6))
    else:
        wall = lattice.wall_mm / lattice.cell_mm
        if form == "sheet" or (form == "strut" and abs(thin / wall - 1) < 1e-3):
            thin = wall  # what is drawn is what was asked, to the last digit
    if throat <= THROAT:
        raise GeometryError(f"lattice: {lattice.kind} {form} of density {density:.3f} has closed pores (throat 0)")
    wall_mm, thin_mm, pore_mm, throat_mm = (float(x * lattice.cell_mm) for x in (wall, thin, pore, throat))
    return SolvedLattice(
        lattice.kind, form, lattice.cell_mm, level, wall_mm, thin_mm, 1.0 - density, pore_mm, throat_mm, lattice.seed
    )


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


def _refusal(lattice: Lattice, form: str, density: float) -> str:
    """Why this density cannot be, and what can be had at this cell."""
    low, high = DENSITY[lattice.kind, form]
    walls = [wall_median(lattice.kind, form, lattice.seed, d) * lattice.cell_mm for d in (low, high)]
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
    """Relative density whose metal has this median local thickness in cells; 0 or 1 when out of reach."""
    if form == "network":
        return _density_of(kind, form, seed, wall, "metal")
    density = density_within(kind, form, seed, wall / 2)
    if form == "sheet" or density < SLENDER:
        return density
    high = DENSITY[kind, form][1]
    if wall >= wall_median(kind, form, seed, high):
        return high if wall < wall_median(kind, form, seed, high) * (1 + 1e-9) else 1.0
    thin = wall
    for _ in range(8):
        seen = wall_median(kind, form, seed, round(density_within(kind, form, seed, thin / 2), 6))
        if abs(seen / wall - 1) < 1e-3:
            break
        thin = min(thin * wall / seen, wall)
    return density_within(kind, form, seed, thin / 2)


def _density_of_pore(kind: str, form: str, seed: int, pore: float) -> float:
    """Relative density whose void has this median local thickness in cells; 0 or 1 when out of reach."""
    return _density_of(kind, form, seed, pore, "void")


def _density_of(kind: str, form: str, seed: int, goal: float, what: str) -> float:
    """Relative density at which the median local thickness of the metal or the void is `goal` cells; 0 or 1 when out of
    reach. GeometryError where the median leaps over it: half of the volume lies in large spheres and half in small."""

    def read(density: float, share: float = 50.0, fine: bool = False) -> float:
        return median(kind, form, seed, round(density, 4), what, share, fine)

    if (kind, form, what) in LEAPING:
        name, noun = ("wall", "metal of several widths") if what == "metal" else ("pore", "pores of several sizes")
        raise GeometryError(
            f"lattice: {kind} {form} has {noun}: no median {name} can be held within 5 %; ask for a porosity"
        )
    low, high = DENSITY[kind, form]
    rising = 1.0 if what == "metal" else -1.0
    if rising * (goal - read(low)) < 0:
        return 0.0 if what == "metal" else _beyond(goal, read(low), low)
    if rising * (goal - read(high)) > 0:
        return 1.0
    found = float(brentq(lambda d: read(d) - goal, low, high, xtol=1e-3, rtol=1e-3))
    fine = _needs_fine(kind, form, seed, round(found, 4), what)
    if fine:
        found = _refined(lambda d: rising * (read(d, fine=True) / goal - 1), found, low, high)
    near = [read(found, share, fine) for share in (48.5, 50.0, 51.5)]
    if abs(near[1] / goal - 1) > WITHIN or max(abs(seen / goal - 1) for seen in near) > LEAP:
        sizes = [read(found, share, fine) for share in (44.0, 56.0)]
        name, noun = ("wall", "metal of several widths") if what == "metal" else ("pore", "pores of several sizes")
        raise GeometryError(
            f"lattice: {kind} {form} has {noun} and no median {name} of {goal:.3f} cells; ask for less than "
            f"{min(sizes):.3f} or more than {max(sizes):.3f} cells, or for a porosity"
        )
    return found


def _beyond(goal: float, most: float, low: float) -> float:
    """The least density where the pore asked is the largest there is, else 0."""
    return low if goal < most * (1 + 1e-9) else 0.0


def _refined(wrong: Callable[[float], float], start: float, low: float, high: float) -> float:
    """Where a slow, rising `wrong` is 0 to 1 %, from a start that is near it; the best of five looks."""
    seen = [(start, wrong(start))]
    step = 0.04 * (high - low)
    for _ in range(4):
        at, value = seen[-1]
        if abs(value) < 0.012:
            break
        under, over = [row for row in seen if row[1] < 0], [row for row in seen if row[1] >= 0]
        if under and over:
            (a, b), (c, d) = max(under), min(over)
            new = a - b * (c - a) / (d - b)
            new = min(max(new, a + 0.15 * (c - a)), c - 0.15 * (c - a)) if c > a else 0.5 * (a + c)
        else:
            new, step = at - np.sign(value) * step, 2 * step
        new = float(min(max(new, low), high))
        if new in [row[0] for row in seen]:
            break
        seen.append((new, wrong(new)))
    return min(seen, key=lambda row: abs(row[1]))[0]


@lru_cache(maxsize=256)
def neck(kind: str, seed: int, density: float) -> float:
    """Largest sphere that passes through the solid of a network, in cells."""
    level = cut(kind, "network", seed, density)
    return float(FAMILIES[kind, "network"].maker.neck(kind, "network", seed, level))


@lru_cache(maxsize=64)
def strut_median(kind: str, seed: int, density: float) -> float:
    """Median local thickness of struts and their joints, in cells."""
    away, nodes = struts.table(kind, seed)[:-1, :-1, :-1], struts.STRUTS[kind][2]
    return median_thickness(depths(away, cut(kind, "strut", seed, density)) / nodes, 1 / nodes)


def wall_median(kind: str, form: str, seed: int, density: float) -> float:
    """What wall_mm means, in cells: the sheet; the strut as drawn, or the median of struts and joints where that is
    thicker; the median of a network."""
    if form == "network":
        return median(kind, form, seed, round(density, 4), "metal")
    drawn = 2 * cut(kind, form, seed, density)
    if form == "sheet" or density < SLENDER:
        return drawn
    return max(drawn, strut_median(kind, seed, round(density, 4)))


def median(
    kind: str, form: str, seed: int, density: float, what: str = "void", share: float = 50.0, fine: bool = False
) -> float:
    """Median (or another of SHARES) of the local thickness of the void or of a network's metal, in cells."""
    return _thicknesses(kind, form, seed, density, what, fine)[SHARES.index(share)]


@lru_cache(maxsize=256)
def _thicknesses(kind: str, form: str, seed: int, density: float, what: str, fine: bool) -> tuple[float, ...]:
    level = cut(kind, form, seed, density)
    low, void, step = FAMILIES[kind, form].maker.sides(kind, form, seed, level if form == "network" else 0.0, fine)
    if form == "network":
        return thicknesses(low if what == "metal" else void, step, SHARES)
    room = np.maximum(low, void) if form == "sheet" else void
    return thicknesses(room - level, step, SHARES)


def pore_median(kind: str, form: str, seed: int, density: float) -> float:
    """Median local thickness of the void, in cells, on finer nodes where it needs them."""
    return median(kind, form, seed, density, "void", 50.0, _needs_fine(kind, form, seed, density, "void"))


def _needs_fine(kind: str, form: str, seed: int, density: float, what: str) -> bool:
    """Whether spheres are of several sizes, or small for the usual nodes."""
    level = cut(kind, form, seed, density) if form == "network" else 0.0
    step = FAMILIES[kind, form].maker.sides(kind, form, seed, level)[2]
    some, most = (median(kind, form, seed, density, what, share) for share in (44.0, 56.0))
    return bool(some < FEW * step or most > (1 + SPREAD) * some)


@lru_cache(maxsize=64)
def _unit(kind: str, form: str, seed: int, density: float) -> tuple[float, float, float, float]:
    """level, the thinnest place, pore and throat in cells."""
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
