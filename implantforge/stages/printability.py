"""Can it be printed: machines and materials as data, questions put to the part, and where the metal goes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from implantforge.core import Array, Check, InputError, Mesh, check

_Row = TypeVar("_Row")
_NOMINAL = "machine data sheet class number, nominal"
_RULES = "powder-bed design rules for titanium"


@dataclass(frozen=True)
class Machine:
    """A printer. plate_mm is (x, y), or (diameter,) of a round plate; margin_mm is kept free along its edge."""

    name: str
    process: Literal["LPBF", "EB-PBF"]
    plate_mm: tuple[float, ...]
    height_mm: float
    layer_um: float
    rate_cm3_h: float
    margin_mm: float = 4.0
    source: str = _NOMINAL

    @property
    def rules(self) -> Rules:
        """What its process can build."""
        return RULES[self.process]


@dataclass(frozen=True)
class Material:
    """A metal powder and what a printed part of it weighs."""

    name: str
    density_g_cm3: float
    powder_loss: float
    source: str


@dataclass(frozen=True)
class Rules:
    """Limits of one process; mm and degrees."""

    self_supporting_deg: float
    min_wall_mm: float
    lattice_throat_mm: float
    recoat_s: float
    source: str


RULES = {
    "LPBF": Rules(45.0, 0.30, 0.25, 10.0, f"LPBF {_RULES}: strut or lattice wall >= 0.3 mm, 45 deg safe"),
    "EB-PBF": Rules(45.0, 0.60, 0.50, 30.0, f"EB-PBF {_RULES}: strut or lattice wall >= 0.6 mm, 45 deg safe"),
}

_MACHINES = (
    Machine("EOS M 100", "LPBF", (100.0,), 95.0, 30.0, 4.5),
    Machine("EOS M 290", "LPBF", (250.0, 250.0), 325.0, 30.0, 18.0, source="EOS Ti64 process data: 5 mm3/s at 30 um"),
    Machine("SLM 125 HL", "LPBF", (125.0, 125.0), 125.0, 30.0, 15.0),
    Machine("SLM 280", "LPBF", (280.0, 280.0), 365.0, 30.0, 30.0),
    Machine("Renishaw AM250", "LPBF", (250.0, 250.0), 300.0, 30.0, 8.0),
    Machine("Renishaw AM400", "LPBF", (250.0, 250.0), 300.0, 30.0, 12.0),
    Machine("RenAM 500S", "LPBF", (250.0, 250.0), 350.0, 30.0, 22.0),
    Machine("Concept Laser M2", "LPBF", (250.0, 250.0), 280.0, 30.0, 25.0),
    Machine("TruPrint 1000", "LPBF", (100.0,), 100.0, 30.0, 10.0),
    Machine("TruPrint 2000", "LPBF", (200.0,), 200.0, 30.0, 25.0),
    Machine("Farsoon FS121M", "LPBF", (120.0, 120.0), 100.0, 30.0, 10.0),
    Machine("Farsoon FS271M", "LPBF", (275.0, 275.0), 320.0, 30.0, 25.0),
    Machine("EP-M150", "LPBF", (153.0,), 240.0, 30.0, 12.0),
    Machine("EP-M250", "LPBF", (262.0, 262.0), 350.0, 30.0, 25.0),
    Machine("Arcam Q10plus", "EB-PBF", (200.0, 200.0), 180.0, 50.0, 60.0),
    Machine("Arcam Spectra L", "EB-PBF", (350.0,), 430.0, 50.0, 90.0),
)
_TITANIUM = "additive.tools Ti-6Al-4V ELI data, 4.43 g/cm3"
_MATERIALS = (
    Material("Ti-6Al-4V ELI", 4.43, 0.03, _TITANIUM),
    Material("Ti-6Al-4V", 4.43, 0.03, f"{_TITANIUM}; ASTM F2924 grade 5"),
)
MACHINES: Mapping[str, Machine] = {row.name: row for row in _MACHINES}
MATERIALS: Mapping[str, Material] = {row.name: row for row in _MATERIALS}

STAND_OFF_MM = 5.0
CUT_MM = 1.0


class Measured(NamedTuple):
    """What other stages found out about the part and this one only judges; None where nobody measured."""

    min_wall_mm: float | None = None
    trapped_powder_mm3: float | None = None
    support_on_porous_mm2: float | None = None
    overhang_area_mm2: float | None = None
    throat_um: float | None = None
    samples_per_wall: float | None = None
    porous_mm3: float | None = None


def machine(name: str) -> Machine:
    """The machine of that name; InputError names the nearest one."""
    return _named(name, MACHINES, "machine")


def material(name: str) -> Material:
    """The material of that name; InputError names the nearest one."""
    return _named(name, MATERIALS, "material")


def checks(mesh: Mesh, standing: Mesh, on: Machine, found: Measured | None = None) -> tuple[Check, ...]:
    """Every question about printing. mesh is the part; `standing` the same part, or its outer envelope, turned into the
    build frame (z up); `found` carries what was measured elsewhere."""
    from implantforge.geom import measure

    found = found or Measured()
    rules = on.rules
    size = np.ptp(standing.vertices, axis=0)
    plate = "round" if len(on.plate_mm) == 1 else "rectangular"
    budget = on.height_mm - STAND_OFF_MM - CUT_MM
    islands, bodies = _islands(standing), len(measure.components(mesh)[1])
    out = [
        check("plate_clearance_mm", plate_clearance_mm(standing, on), "mm", ">=", 0.0,
              f"{on.name}: {plate} plate less {on.margin_mm:g} mm edge, convex hull of the part; {on.source}"),
        check("build_height_mm", float(size[2]), "mm", "<=", budget,
              f"{on.name}: {on.height_mm:g} mm less {STAND_OFF_MM:g} mm support and {CUT_MM:g} mm cut; {on.source}"),
        check("open_or_doubled_edges", float(measure.bad_edges(mesh)), "edges", "<=", 0.0,
              "3MF core 1.4.0: every edge is shared by exactly two triangles"),
        check("bodies", float(bodies), "bodies", "<=", 1.0, "one part, nothing loose on the plate"),
        check("islands", float(islands), "islands", "<=", 1.0,
              "starts in mid-air need support; counted on the outer shape", severity="flag"),
    ]  # fmt: skip
    if found.min_wall_mm is not None:
        source = f"{rules.source}; median sheet or narrowest network neck, less 2 % measuring error"
        out.append(check("lattice_wall_mm", found.min_wall_mm, "mm", ">=", 0.98 * rules.min_wall_mm, source))
    if found.samples_per_wall is not None:
        source = "sampling step <= wall / 2.5, or struts are lost (project default; wall / 4 advised)"
        out.append(check("lattice_samples_per_wall", found.samples_per_wall, "samples", ">=", 2.5, source))
    if found.throat_um is not None:
        source = f"{on.process}: powder leaves through a throat of this width"
        out.append(check("lattice_throat_um", found.throat_um, "um", ">=", rules.lattice_throat_mm * 1000, source))
    if found.trapped_powder_mm3 is not None:
        limit = max(0.1, 0.001 * (found.porous_mm3 or 0.0))
        source = "closed cavities keep their powder: at most 0.1 % of the porous volume (L-3)"
        out.append(check("trapped_powder_mm3", found.trapped_powder_mm3, "mm3", "<=", limit, source))
    if found.support_on_porous_mm2 is not None:
        source = "project default: at most 5 mm2 of support on an ingrowth face"
        out.append(
            check("support_on_porous_mm2", found.support_on_porous_mm2, "mm2", "<=", 5.0, source, severity="flag")
        )
    if found.overhang_area_mm2 is not None:
        share = 100.0 * found.overhang_area_mm2 / max(standing.area_mm2, 1e-9)
        source = f"project default; faces below {rules.self_supporting_deg:g} deg need support"
        out.append(check("overhang_share_pct", share, "%", "<=", 10.0, source, severity="flag"))
    return tuple(out)


def plate_clearance_mm(standing: Mesh, on: Machine) -> float:
    """How far the part stays inside the usable plate, turned about z to its best angle; negative: how far it is out."""
    from scipy.spatial import ConvexHull

    flat = standing.vertices[:, :2]
    hull = flat[ConvexHull(flat).vertices]
    if len(on.plate_mm) == 1:
        return on.plate_mm[0] / 2.0 - on.margin_mm - enclosing_radius_mm(hull)
    edges = np.roll(hull, -1, axis=0) - hull
    turns = np.concatenate([np.arctan2(edges[:, 1], edges[:, 0]), np.radians(np.arange(0, 180, 1.0))])
    width = np.ptp(hull @ np.array([np.cos(turns), np.sin(turns)]), axis=0)
    depth = np.ptp(hull @ np.array([-np.sin(turns), np.cos(turns)]), axis=0)
    x, y = (side - 2.0 * on.margin_mm for side in on.plate_mm)
    room = np.maximum(np.minimum(x - width, y - depth), np.minimum(y - width, x - depth))
    return float(room.max()) / 2.0


def enclosing_radius_mm(points: Array) -> float:
    """Radius of the smallest circle around points (n,2): of a few, grown by the farthest left outside."""
    points = np.unique(np.asarray(points, float), axis=0)
    few = points[[0, int(np.linalg.norm(points - points[0], axis=1).argmax())]]
    while True:
        pairs = ((few[i], few[j]) for i in range(len(few)) for j in range(i + 1, len(few)))
        centre, radius = min((_circle_through(few, a, b) for a, b in pairs), key=lambda circle: circle[1])
        reach = np.linalg.norm(points - centre, axis=1)
        farthest = points[int(reach.argmax())]
        if reach.max() <= radius + 1e-9 or (few == farthest).all(axis=1).any():
            return radius
        few = np.vstack([few, farthest])


def _circle_through(points: Array, a: Array, b: Array) -> tuple[Array, float]:
    """Centre and radius of the smallest circle through a and b that holds all points (n,2); inf when none does."""
    middle, half = (a + b) / 2, (b - a) / 2
    length = float(np.hypot(*half))
    normal = np.array([-half[1], half[0]]) / length
    local = points - middle
    # the centre middle + t normal holds a point when squared <= 2 t along
    along, squared = local @ normal, (local**2).sum(axis=1) - length**2
    tiny = 1e-9 * max(1.0, length)
    up, down, level = along > tiny, along < -tiny, np.abs(along) <= tiny
    low = float((squared[up] / (2 * along[up])).max(initial=-math.inf))
    high = float((squared[down] / (2 * along[down])).min(initial=math.inf))
    if low > high + 1e-9 or (squared[level] > 1e-6).any():
        return middle, math.inf
    t = min(max(0.0, low), max(high, low))
    return middle + t * normal, math.hypot(length, t)


def _islands(standing: Mesh) -> int:
    """Places lower than everything around them; heights within 0.1 mm count as one plateau."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    height = np.round(standing.vertices[:, 2], 1)
    faces = standing.faces
    a, b = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    level = height[a] == height[b]
    shape = (len(height),) * 2
    count, plateau = connected_components(coo_matrix((level[level], (a[level], b[level])), shape=shape), directed=False)
    lowest = np.ones(count, bool)
    lowest[plateau[a[height[a] > height[b]]]] = False
    lowest[plateau[b[height[b] > height[a]]]] = False
    used = np.zeros(count, bool)
    used[plateau[faces.ravel()]] = True
    return int((lowest & used).sum())


def waste(
    part_mm3: float,
    solid_mm3: float,
    metal: Material,
    *,
    stock_mm3: float = 0.0,
    support_mm3: float = 0.0,
    box_mm: tuple[float, float, float] | None = None,
) -> dict[str, float]:
    """Where the metal goes. part_mm3 is the part as printed, stock included; solid_mm3 the same outer shape without
    pores; box_mm the size of the box around the solid part, in the implant's own axes.

    process_powder_loss_pct (spatter, condensate, sieving) is the only figure that may be called printing waste; it is
    always given beside am_waste_total_pct, which counts supports and stock too. milled_* is the solid part from bar.
    """
    grams = metal.density_g_cm3 / 1000.0
    net = (part_mm3 - stock_mm3) * grams
    melted = (part_mm3 + support_mm3) * grams
    lost = metal.powder_loss * melted
    out = {
        "part_volume_mm3": part_mm3,
        "part_mass_g": part_mm3 * grams,
        "net_mass_g": net,
        "solid_equivalent_mass_g": solid_mm3 * grams,
        "mass_saving_pct": 100.0 * (1.0 - part_mm3 / solid_mm3),
        "support_mass_g": support_mm3 * grams,
        "process_powder_loss_pct": 100.0 * lost / (melted + lost),
        "am_waste_total_pct": 100.0 * (1.0 - net / (melted + lost)),
        "am_buy_to_fly": (melted + lost) / net,
    }
    if box_mm is not None:
        a, b, c = sorted(box_mm)
        billet = (a + 5.0) * (b + 5.0) * (c + 5.0 + 10.0) * grams
        milled = (solid_mm3 - stock_mm3) * grams
        out |= {
            "milled_billet_mass_g": billet,
            "milled_waste_pct": 100.0 * (1.0 - milled / billet),
            "milled_buy_to_fly": billet / milled,
        }
    return out


def build_hours(height_mm: float, volume_mm3: float, on: Machine) -> float:
    """Recoating plus melting time of one part alone on the plate, without set-up and cooling."""
    layers = math.ceil(height_mm / (on.layer_um / 1000.0) - 1e-9)
    return layers * on.rules.recoat_s / 3600.0 + volume_mm3 / 1000.0 / on.rate_cm3_h


def _named(name: str, rows: Mapping[str, _Row], kind: str) -> _Row:
    if name in rows:
        return rows[name]
    near = difflib.get_close_matches(name, rows, 1, 0.0)
    raise InputError(f"recipe: no {kind} is called {name}, nearest is {near[0]} (implantforge list {kind}s)")


def example_checks() -> tuple[Check, ...]:
    """Every check of this module, put to a 10 mm tetrahedron: what `implantforge list checks` prints."""
    corners = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])
    body = Mesh(corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    return checks(body, body, machine("EOS M 290"), Measured(1.0, 0.0, 0.0, 0.0, 500.0))
