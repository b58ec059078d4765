"""Everything measured on a porous structure in one frozen answer, each number with its error, beside the window in which
bone grows in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Check, Field, GeometryError, check
from implantforge.stages.porous import passages, walls
from implantforge.stages.porous.permeability import Permeability, darcy
from implantforge.stages.porous.stiffness import POISSON, SOLID_GPA, Stiffness, effective, shares, sphere

Samples = NDArray[np.float32]
SPHERES_UM = (0, 100, 200, 300, 400, 500, 600, 700, 800, 1000)
BINS = 40
# steps: what spheres, slabs and cylinders of known size miss by, from distances and from voxels
MISSED, MISSED_VOXELS = 0.25, 0.8
WIDEST_CURVE = 256  # samples along an axis of the interconnectivity curve; finer grids are thinned


@dataclass(frozen=True, eq=False)
class Certificate:
    """values by name (unit last in the name), errors of the same names in the same units, curves of plain lists
    (wall_um and pore_um: edges and shares in %; open: sphere_um and share_pct; modulus: direction (n,3) and GPa), and
    tensor_gpa (6,6), Voigt order xx yy zz yz xz xy, empty without a unit cell."""

    values: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    tensor_gpa: list[list[float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"values": self.values, "errors": self.errors, "curves": self.curves, "tensor_gpa": self.tensor_gpa,
                "notes": list(self.notes)}  # fmt: skip


@dataclass(frozen=True, eq=False)
class UnitCell:
    """Solid share (n,n,n) and signed distance (steps, negative in the solid) of a repeating cube of side_mm."""

    share: Samples
    distance: Samples
    side_mm: float


def unit_cell(solid: Field, low_mm: Array, side_mm: float, n: int = 64) -> UnitCell:
    """A cube of a field with corner low_mm that repeats after side_mm, in n samples along a side (even)."""
    step = side_mm / n
    axis = (np.arange(n) + 0.5) * step
    out = np.empty((n, n, n), np.float32)
    for i in range(n):
        x, y, z = np.meshgrid(axis[i], axis, axis, indexing="ij")
        points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1) + np.asarray(low_mm, float)
        out[i] = (solid(points) / step).reshape(n, n)
    return UnitCell(shares(solid, low_mm, side_mm, n), out, side_mm)


def cell_numbers(
    cell: UnitCell, solid_gpa: float = SOLID_GPA, poisson: float = POISSON
) -> tuple[dict[str, float], dict[str, float], Stiffness, Permeability]:
    """values and errors of the unit cell: moduli, anisotropy, permeability; and the two answers they come from."""
    stiff, flow = effective(cell.share, poisson=poisson), darcy(cell.distance, cell.side_mm)
    found = stiff.constants()
    values = {f"modulus_{n}_gpa": solid_gpa * found[f"E_{n}"] for n in "xyz"}
    values |= {f"shear_modulus_{n}_gpa": solid_gpa * found[f"G_{n}"] for n in ("yz", "xz", "xy")}
    values |= {f"modulus_{n}_gpa": solid_gpa * found[f"E_{n}"] for n in ("min", "max")}
    values |= {"bulk_modulus_gpa": solid_gpa * found["K"], "zener_ratio": found["zener"]}
    values |= {"anisotropy_ratio": found["E_max"] / found["E_min"], "universal_anisotropy": found["universal"]}
    errors = {name: stiff.error * value for name, value in values.items() if name.endswith("gpa")}
    values |= {"permeability_1e9_m2": 1e9 * flow.mean_m2, "cell_density": stiff.density}
    errors["permeability_1e9_m2"] = flow.error * values["permeability_1e9_m2"]
    values |= {f"within_{name}": float(kept) for name, kept in stiff.within_bounds().items()}
    return values, errors, stiff, flow


def certificate(
    solid: NDArray,
    step_mm: float,
    *,
    region: Samples | None = None,
    cell: UnitCell | None = None,
    solid_gpa: float = SOLID_GPA,
    poisson: float = POISSON,
) -> Certificate:
    """Measures a stack (i,j,k): signed distances in mm (float, negative in the metal), or a mask of the metal as sliced.

    region (mm, negative inside) is where the porous structure is asked for; the void outside it is open air. Without it
    the whole array is porous and its faces are open. Lengths near the faces are not read. cell adds stiffness and
    permeability. GeometryError when region or stack hold no metal or no void.
    """
    voxels = solid.dtype == np.bool_
    level = walls.levels(solid) if voxels else np.ascontiguousarray(solid, np.float32)
    metal = level < 0
    inside = np.ones(metal.shape, np.bool_) if region is None else region < 0
    if not (metal & inside).any() or not (~metal & inside).any():
        raise GeometryError(f"certificate: the porous region holds no metal or no void at a step of {step_mm:g} mm")
    away = walls.distance(level, 0.0 if voxels else step_mm)
    um = 1e3 * step_mm
    missed = um * (MISSED_VOXELS if voxels else MISSED)
    values, errors = _porosity(solid, level, inside, step_mm, voxels)
    curves: dict[str, Any] = {}
    for name, side in (("wall", 1), ("pore", -1)):
        found, curve = _sizes(away, inside, region, side, step_mm)
        values |= {f"{name}_{key}_um": size for key, size in found.items()}
        errors |= {f"{name}_{key}_um": missed for key in found}
        curves[f"{name}_um"] = curve
    if region is None:
        values["throat_um"] = um * float(passages.throats(away, -1).min())
        errors["throat_um"] = max(0.9 * um, missed)
    open_values, curves["open"] = _open(away, inside, None if region is None else region > 0, step_mm)
    values |= open_values
    values |= _pieces(metal, inside, None if region is None else region > -step_mm)
    notes = () if region is None else ("walls and pores are read inside the porous region",)
    tensor: list[list[float]] = []
    if cell is not None:
        more, wrong, stiff, _ = cell_numbers(cell, solid_gpa, poisson)
        values, errors = values | more, errors | wrong
        tensor = (solid_gpa * stiff.tensor).tolist()
        ways = sphere(600)
        curves["modulus"] = {"direction": ways.round(4).tolist(), "gpa": (solid_gpa * stiff.along(ways)).tolist()}
    return Certificate(values, errors, curves, tensor, notes)


def _porosity(
    solid: NDArray, level: Samples, inside: NDArray[np.bool_], step_mm: float, voxels: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Porosity and specific surface of the region, with errors from every second sample."""
    share = solid.astype(np.float32) if voxels else np.clip(0.5 - level / np.float32(step_mm), 0, 1)
    half = (slice(None, None, 2),) * 3
    full, thin = (1 - float(s[m].mean(dtype=np.float64)) for s, m in ((share, inside), (share[half], inside[half])))
    seen = np.where(inside, level, np.float32(np.nan))
    area = passages.area(seen) / max(float(inside.sum()), 1) / step_mm
    rough = passages.area(seen[half]) / max(float(inside[half].sum()), 1) / (2 * step_mm)
    values = {"porosity_pct": 100 * full, "specific_surface_per_mm": area}
    return values, {"porosity_pct": 100 * abs(full - thin), "specific_surface_per_mm": abs(area - rough) / 3}


def _sizes(
    away: Samples, inside: NDArray[np.bool_], region: Samples | None, side: int, step_mm: float
) -> tuple[dict[str, float], dict[str, Any]]:
    """Percentiles (um) of the local thickness of one side inside the region, and its histogram in % of the volume."""
    if side < 0 and region is not None:
        # beyond the region pores end, or the open air would be the largest
        away = walls.distance(np.maximum(away, region / np.float32(step_mm)).astype(np.float32), 1.0, side=1)
        side = 1
    size = walls.thickness(away, side)
    counted = inside & (size > 0)
    if region is not None and side > 0:
        deep = min(0.5 * float(np.median(size[counted])), -0.5 * float(region.min()) / step_mm)
        counted &= region < -deep * step_mm
    edge = int(min(np.ceil(0.5 * np.median(size[counted])), min(size.shape) // 4)) if counted.any() else 0
    core = (slice(edge, -edge or None),) * 3
    read = 1e3 * step_mm * size[core][counted[core]]
    if not len(read):
        raise GeometryError(f"certificate: walls or pores are not seen away from the faces at a step of {step_mm:g} mm")
    points = np.percentile(read, (1, 5, 50, 95, 99))
    found = dict(zip(("p01", "p05", "median", "p95", "p99"), map(float, points)))
    found |= {"mean": float(read.mean(dtype=np.float64)), "largest": float(read.max())}
    edges = np.linspace(0, 1.05 * read.max(), BINS + 1)
    share = 100 * np.histogram(read, edges)[0] / len(read)
    return found, {"edges": edges.round(2).tolist(), "share_pct": share.round(4).tolist()}


def _open(
    away: Samples, inside: NDArray[np.bool_], outside: NDArray[np.bool_] | None, step_mm: float
) -> tuple[dict[str, float], dict[str, Any]]:
    """Shares of the region's void that spheres from outside sweep, by diameter."""
    thin = max(1, -(-max(away.shape) // WIDEST_CURVE))
    some = (slice(None, None, thin),) * 3
    less = np.ascontiguousarray(away[some]) / np.float32(thin)
    start = passages.faces(less.shape) if outside is None else outside[some] | passages.faces(less.shape)
    diameters = np.array([um for um in SPHERES_UM if um == 0 or um / 1e3 <= -2.2 * float(away.min()) * step_mm])
    shares_pct = 100 * passages.openness(less, -1, start, diameters / 1e3 / step_mm / thin, inside[some])
    told = dict(zip(diameters.tolist(), shares_pct.tolist()))
    values = {"open_void_pct": told[0], "open_to_300_um_pct": told.get(300, 0.0)}
    return values, {"sphere_um": diameters.tolist(), "share_pct": [round(s, 3) for s in told.values()]}


def _pieces(metal: NDArray[np.bool_], inside: NDArray[np.bool_], edge: NDArray[np.bool_] | None) -> dict[str, float]:
    """Pieces of metal and of the region's void, and the share of the largest; crumbs cut off at faces or edge are none."""
    solids, largest = passages.pieces(metal)
    border = None if edge is None else edge | passages.faces(metal.shape)
    voids, _ = passages.pieces(~metal & inside, border)
    return {"solid_pieces": float(solids), "largest_solid_piece_pct": 100 * largest, "void_pieces": float(voids)}


_WINDOW = "bone ingrowth: doi 10.1016/j.biomaterials.2005.02.002, project window"


def checks(values: Mapping[str, float]) -> tuple[Check, ...]:
    """The osteointegration window put to the values of a certificate; flags, as the optimum is disputed."""
    rows = (
        ("pore_median_um", "um", 300.0, 800.0, f"{_WINDOW} 300-800 um"),
        ("porosity_pct", "%", 60.0, 80.0, "printed porous hips in use have 63-77 %; project window 60-80 %"),
        ("modulus_max_gpa", "GPa", 0.5, 20.0, "bone: cancellous 0.05-3 GPa, cortical 15-20 GPa along the shaft"),
        ("permeability_1e9_m2", "1e-9 m2", 0.5, 50.0, "trabecular bone 1e-10 to 1e-8 m2; project window 5e-10 to 5e-8"),
    )
    out = []
    for name, unit, low, high, source in rows:
        if name in values:
            value = values[name]
            out.append(check(f"porous_{name}_least", value, unit, ">=", low, source, severity="flag"))
            out.append(check(f"porous_{name}_most", value, unit, "<=", high, source, severity="flag"))
    if "open_void_pct" not in values:
        return tuple(out)
    source = "all void is reached from outside, or powder stays and bone stops (L-3)"
    out.append(check("porous_open_void_pct", values["open_void_pct"], "%", ">=", 99.0, source, severity="flag"))
    return tuple(out)


def coating_definition(values: Mapping[str, float], thickness_mm: float | None = None) -> dict[str, str]:
    """How the structure compares with the porous coating of 21 CFR 888.3358 (volume porosity 30-70 %, average pore
    100-1000 um, thickness 500-1500 um): information, as printed cups in use exceed its porosity (63-77 %)."""
    rows = [("porosity_pct", values["porosity_pct"], 30.0, 70.0),
            ("pore_mean_um", values["pore_mean_um"], 100.0, 1000.0)]  # fmt: skip
    if thickness_mm is not None:
        rows.append(("thickness_um", 1e3 * thickness_mm, 500.0, 1500.0))
    told = {}
    for name, value, low, high in rows:
        lies = "within" if low <= value <= high else "above" if value > high else "below"
        beyond = (
            ", as printed hips in use are, 63-77: no fault" if name == "porosity_pct" and high < value <= 77.0 else ""
        )
        told[name] = f"{value:.{1 if value < 200 else 0}f} ({lies} its {low:g}-{high:g}{beyond})"
    return told
