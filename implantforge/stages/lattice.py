"""Lattices in the user's terms: a wall in mm or a porosity becomes a level, a field and a porous coat bonded to its
core."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from implantforge.core import Array, Design, Field, GeometryError, Lattice, Mesh
from implantforge.core.field import Form
from implantforge.geom import measure
from implantforge.kernels.tpms import tpms_distance, tpms_level

# Row number is the kernel's `kind`. Relative density limits: below, necks come near pinch-off (1.5 times the density
# where the solid falls apart); above, throats fall under 0.05 cell and powder stays inside.
KINDS = ("gyroid", "diamond", "primitive", "iwp", "neovius", "frd", "lidinoid", "splitp")
DENSITY = {
    ("gyroid", "network"): (0.05, 0.90),
    ("diamond", "network"): (0.12, 0.85),
    ("primitive", "network"): (0.25, 0.70),
    ("iwp", "network"): (0.15, 0.70),
    ("gyroid", "sheet"): (0.05, 0.60),
    ("diamond", "sheet"): (0.05, 0.60),
    ("primitive", "sheet"): (0.05, 0.60),
    ("iwp", "sheet"): (0.05, 0.60),
    # necks of 0 at 0.30, 0.21, 0.26 and 0.13
    ("neovius", "network"): (0.40, 0.62),
    ("frd", "network"): (0.30, 0.60),
    ("lidinoid", "network"): (0.35, 0.80),
    ("splitp", "network"): (0.20, 0.80),
    ("neovius", "sheet"): (0.05, 0.30),
    ("frd", "sheet"): (0.08, 0.50),
    ("lidinoid", "sheet"): (0.08, 0.25),
    ("splitp", "sheet"): (0.08, 0.60),
}
# By row: cells beyond the surface where distances are cut off, as farther out the walk may miss the nearest sheet; cells
# that hold half of the thickest sheet and are near enough for the walk not to stray; steps of the walk.
LIMIT = (0.08, 0.08, 0.08, 0.08, 0.02, 0.02, 0.02, 0.02)
SHEET_REACH = (0.14, 0.14, 0.14, 0.14, 0.075, 0.075, 0.075, 0.075)
STEPS = (3, 3, 3, 3, 6, 6, 6, 6)
NODES = (64, 64, 64, 64, 64, 96, 96, 96)  # the mesher reads distances off these, linearly: within 0.0003 cell
SAMPLES = 96  # porosity is read off this many samples along a cell
PROBE = 48  # spheres are looked for at this many points along a cell


@dataclass(frozen=True)
class SolvedLattice:
    """A lattice with its numbers worked out. level cuts f (network); wall_mm is the sheet thickness or the network's
    neck, the largest sphere that passes through the solid; pore_mm the largest sphere in the void, throat_mm the
    largest that passes.
    """

    kind: str
    form: str
    cell_mm: float
    level: float
    wall_mm: float
    porosity: float
    pore_mm: float
    throat_mm: float


def solve(lattice: Lattice) -> SolvedLattice:
    """Level, wall, porosity, pore and throat of a lattice given by cell and exactly one of wall_mm or porosity.

    Raises GeometryError for unknown kinds, both or neither given, and densities that fall apart or close up.
    """
    known = (lattice.kind, lattice.form) in DENSITY
    if not known:
        raise GeometryError(
            f"lattice: no {lattice.form} {lattice.kind!r}; there are {', '.join(KINDS)} as sheet or network"
        )
    if (lattice.wall_mm is None) == (lattice.porosity is None):
        raise GeometryError(f"lattice: give one of wall_mm or porosity, got {lattice.wall_mm} and {lattice.porosity}")
    if not lattice.cell_mm > 0:
        raise GeometryError(f"lattice: cell_mm must be positive, got {lattice.cell_mm}")
    low, high = DENSITY[lattice.kind, lattice.form]
    if lattice.porosity is not None:
        density = 1.0 - lattice.porosity
    else:
        density = _density_of_wall(lattice.kind, lattice.form, float(lattice.wall_mm or 0.0) / lattice.cell_mm)
    if not low <= density <= high:
        walls = [_unit(lattice.kind, lattice.form, round(d, 6))[1] * lattice.cell_mm for d in (low, high)]
        why = "falls apart or is thinner than its sampling" if density < low else "closes its pores"
        raise GeometryError(
            f"lattice: {lattice.kind} {lattice.form} of density {density:.3f} {why}; at cell {lattice.cell_mm} mm ask "
            f"for porosity {1 - high:.2f}..{1 - low:.2f} or wall {walls[0]:.2f}..{walls[1]:.2f} mm"
        )
    level, wall, pore, throat = _unit(lattice.kind, lattice.form, round(density, 6))
    if lattice.wall_mm is not None:
        wall = lattice.wall_mm / lattice.cell_mm
    if throat <= 0.02:
        raise GeometryError(
            f"lattice: {lattice.kind} {lattice.form} of density {density:.3f} has closed pores (throat 0)"
        )
    sizes = (float(x * lattice.cell_mm) for x in (wall, pore, throat))
    wall_mm, pore_mm, throat_mm = sizes
    return SolvedLattice(
        lattice.kind, lattice.form, lattice.cell_mm, level, wall_mm, 1.0 - density, pore_mm, throat_mm
    )  # fmt: skip


def _cell_points(n: int, shift: tuple[float, float, float]) -> Array:
    """Points of an n^3 grid in the unit cell."""
    return (np.indices((n, n, n)).reshape(3, -1).T + np.array(shift)) / n


@lru_cache(maxsize=16)
def _sorted(kind: str, form: str) -> Array:
    """Sorted f (network) or |distance| (sheet, cells) over one cell; shifted off the symmetry planes."""
    points = _cell_points(SAMPLES, (0.37, 0.21, 0.68))
    out = np.empty(len(points))
    row = KINDS.index(kind)
    if form == "network":
        tpms_level(row, 1.0, points, out)
        return np.sort(out)
    tpms_distance(row, 1.0, 0.0, SHEET_REACH[row], STEPS[row], points, out)
    return np.sort(np.abs(out))


def _cut(kind: str, form: str, density: float) -> float:
    """Level of f (network) or half wall in cells (sheet) that leaves this share solid."""
    values = _sorted(kind, form)
    return float(np.interp(density, (np.arange(len(values)) + 0.5) / len(values), values))


def _density_of_wall(kind: str, form: str, wall: float) -> float:
    """Relative density whose wall or neck is `wall` cells; 0 or 1 when out of reach."""
    if not wall > 0:
        raise GeometryError(f"lattice: wall_mm must be positive, got {wall} cells")
    if form == "sheet":
        values = _sorted(kind, form)
        return float(np.searchsorted(values, wall / 2) / len(values))
    low, high = DENSITY[kind, form]
    if wall < _neck(kind, low):
        return 0.0
    if wall > _neck(kind, high):
        return 1.0
    return float(brentq(lambda d: _neck(kind, d) - wall, low, high, xtol=5e-4, rtol=1e-6))


@lru_cache(maxsize=256)
def _neck(kind: str, density: float) -> float:
    """Largest sphere that passes through the network's solid, cells."""
    return _spheres(kind, _cut(kind, "network", density), -1)[1]


@lru_cache(maxsize=64)
def _unit(kind: str, form: str, density: float) -> tuple[float, float, float, float]:
    """level, wall, pore and throat in cells."""
    cut = _cut(kind, form, density)
    if form == "network":
        pore, throat = _spheres(kind, cut, 1)
        return cut, _neck(kind, density), pore, throat
    pore, throat = _labyrinths(kind)
    return 0.0, 2 * cut, pore - 2 * cut, throat - 2 * cut


@lru_cache(maxsize=8)
def _labyrinths(kind: str) -> tuple[float, float]:
    """Largest and largest passing sphere beside a sheet of no thickness; the wider throat is taken of the two sides."""
    sides = [_spheres(kind, 0.0, sign) for sign in (-1, 1)]
    return max(s[0] for s in sides), min(s[1] for s in sides)


@lru_cache(maxsize=8)
def _probe(kind: str) -> tuple[Array, Array]:
    """f at the probe points of a cell and those points."""
    points = _cell_points(PROBE, (0.0, 0.0, 0.0))
    out = np.empty(len(points))
    tpms_level(KINDS.index(kind), 1.0, points, out)
    return points, out


def _spheres(kind: str, level: float, sign: int) -> tuple[float, float]:
    """Diameters, in cells, of the largest sphere in {sign (f - level) > 0} and of the largest that passes through
    it."""
    points, f = _probe(kind)
    inside = sign * (f - level) > 0
    if not inside.any():
        return 0.0, 0.0
    tree = cKDTree(_surface_points(kind, level))
    depth = np.zeros(len(points))
    depth[inside] = tree.query(points[inside], workers=1)[0]
    grid = depth.reshape((PROBE,) * 3)
    return 2 * float(grid.max()), 2 * _passing(grid)


def _surface_points(kind: str, level: float) -> Array:
    """Points on f = level over a cell and half a cell around it, about 1/40 cell apart."""
    n = 40
    points = _cell_points(n, (0.31, 0.17, 0.73))
    d = np.empty(len(points))
    row = KINDS.index(kind)
    tpms_distance(row, 1.0, level, 0.05, STEPS[row], points, d)
    near = np.abs(d) < 0.7 / n
    base = points[near]
    foot = base.copy()
    eps = 1e-5
    value, ahead = np.empty(len(base)), np.empty(len(base))
    for _ in range(4):
        tpms_level(KINDS.index(kind), 1.0, foot, value)
        slope = np.empty_like(foot)
        for a in range(3):
            shifted = foot.copy()
            shifted[:, a] += eps
            tpms_level(KINDS.index(kind), 1.0, shifted, ahead)
            slope[:, a] = (ahead - value) / eps
        foot = foot - ((value - level) / (slope**2).sum(axis=1))[:, None] * slope
    shifts = np.indices((3, 3, 3)).reshape(3, -1).T - 1.0
    tiled = (foot[:, None] + shifts).reshape(-1, 3)
    return tiled[((tiled > -0.5) & (tiled < 1.5)).all(axis=1)]


def _passing(depth: NDArray) -> float:
    """Largest depth whose region runs through two cells from face to face."""
    tiled = np.tile(depth, (2, 2, 2))
    levels = np.unique(depth[depth > 0].round(4))
    low, high = -1, len(levels) - 1
    while low < high:
        middle = (low + high + 1) // 2
        labels = ndimage.label(tiled >= levels[middle], np.ones((3, 3, 3)))[0]
        if len(np.intersect1d(labels[0][labels[0] > 0], labels[-1])):
            low = middle
        else:
            high = middle - 1
    return float(levels[low]) if low >= 0 else 0.0


def field(solved: SolvedLattice, bounds: Array) -> Field:
    """The infinite lattice as a distance field, cut off LIMIT off its surface, inside bounds (2,3) mm."""
    row, cell, sheet = KINDS.index(solved.kind), float(solved.cell_mm), solved.form == "sheet"
    half, level = solved.wall_mm / 2, float(solved.level)
    limit = LIMIT[row] * cell + (half if sheet else 0.0)

    def evaluate(p: Array) -> Array:
        out = np.empty(len(p))
        tpms_distance(row, cell, level, limit, STEPS[row], np.ascontiguousarray(p, np.float64), out)
        return np.abs(out) - half if sheet else out

    form = Form(
        "periodic", (cell, float(NODES[row])), samples=_cell_table(row, cell, level, limit), slope=LATTICE_LIPSCHITZ
    )
    if sheet:
        form = Form("add", (-half,), (Form("absolute", (), (form,)),))
    return Field(evaluate, bounds, LATTICE_LIPSCHITZ, form=form)


@lru_cache(maxsize=4)
def _cell_table(row: int, cell: float, level: float, limit: float) -> NDArray[np.float32]:
    """Signed mm to the surface f = level at the nodes of one cell, both ends included: what the mesher reads instead of
    walking."""
    nodes = NODES[row]
    out = np.empty(nodes**3)
    tpms_distance(row, 1.0, level, limit / cell, STEPS[row], _cell_points(nodes, (0.0, 0.0, 0.0)), out)
    table = np.pad((out * cell).reshape((nodes,) * 3), ((0, 1),) * 3, mode="wrap").astype(np.float32)
    table.setflags(write=False)
    return table


EDGE_MM = 0.1
"""Where the envelope cuts a strut its edge is blunted over this width: no feather edge that a melt pool could not make."""
LATTICE_LIPSCHITZ = 1.3  # foot points of the Newton walk jump between sheets


def fill(design: Design, solved: SolvedLattice, *, min_feature_mm: float = 0.0, overlap_mm: float = 0.1) -> Field:
    """Metal of a design: solid | (porous & lattice), inside the envelope.

    The lattice reaches overlap_mm into and along the core, so that struts root in metal; they end at the nominal
    envelope. Raises GeometryError when the lattice is thinner than min_feature_mm.
    """
    if solved.wall_mm < min_feature_mm:
        raise GeometryError(
            f"lattice: {solved.kind} {solved.form} wall {solved.wall_mm:.3f} mm < printable {min_feature_mm:.3f} mm; "
            "raise wall_mm or cell_mm, or lower the porosity"
        )
    solid, porous, envelope = design.solid, design.porous, design.envelope
    lattice = field(solved, porous.bounds)

    def evaluate(p: Array) -> NDArray:
        core, region = solid.evaluate(p), porous.evaluate(p)
        reach = np.minimum(region, core - overlap_mm)
        edge = reach < region
        if edge.any():
            reach[edge] = np.maximum(reach[edge], np.minimum(region[edge], envelope.evaluate(p[edge])))
        metal = np.array(core, np.float64)
        open_ = reach < metal
        if open_.any():
            strut, limit = lattice.evaluate(p[open_]), reach[open_]
            blunt = np.maximum(EDGE_MM - np.abs(strut - limit), 0)
            metal[open_] = np.minimum(metal[open_], np.maximum(strut, limit) + blunt * blunt / (4 * EDGE_MM))
        return metal

    steepest = max(solid.lipschitz, porous.lipschitz, envelope.lipschitz, lattice.lipschitz)
    return Field(evaluate, (solid | porous).bounds, steepest, form=_filled(design, lattice, overlap_mm))


def _filled(design: Design, lattice: Field, overlap_mm: float) -> Form | None:
    """The form of fill: the struts' reach written out is min(region, max(core - overlap, envelope))."""
    core, region, envelope, struts = (f.form for f in (design.solid, design.porous, design.envelope, lattice))
    if core is None or region is None or envelope is None or struts is None:
        return None
    rooted = Form("max", (), (Form("add", (-overlap_mm,), (core,)), envelope))
    reach = Form("min", (), (region, rooted))
    return Form("min", (), (core, Form("smooth_max", (EDGE_MM,), (struts, reach))))


def trim(mesh: Mesh) -> tuple[Mesh, dict[str, float]]:
    """The largest body alone: loose pieces (clipped struts) and closed inner voids are dropped.

    The report counts them with their volumes: crumbs, crumb_volume_mm3, voids, void_volume_mm3, kept_volume_mm3.
    """
    labels, volumes = measure.components(mesh)
    main = int(np.argmax(volumes))
    if volumes[main] <= 0:
        raise GeometryError("trim: the mesh encloses no volume; its faces may look inward")
    crumbs, voids = volumes > 0, volumes <= 0
    crumbs[main] = False
    report = {
        "crumbs": float(crumbs.sum()),
        "crumb_volume_mm3": float(volumes[crumbs].sum()),
        "voids": float(voids.sum()),
        "void_volume_mm3": float(-volumes[voids].sum()),
        "kept_volume_mm3": float(volumes[main]),
    }
    if len(volumes) == 1:
        return mesh, report
    used = labels == main
    rows = np.cumsum(used, dtype=np.int64) - 1
    faces = mesh.faces[used[mesh.faces[:, 0]]]
    return Mesh(mesh.vertices[used], rows[faces]), report
