"""Any closed shape filled with a lattice: read, judged, filled, meshed, measured, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import Design, Field, GeometryError, InputError, Lattice, Mesh, Pose
from implantforge.geom import grids, imagefile, measure, meshing, shapes, solidfile
from implantforge.geom.meshing import Surface
from implantforge.pipeline import moduli, porosity, proving
from implantforge.pipeline.cache import Stage
from implantforge.stages import beamfile, export, lattice, meshfile, porous, printability
from implantforge.stages.lattice import Coat

OnStage = Callable[[str, Stage | None], None]
UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "inch": 25.4, "um": 1e-3}
SHAPES = (".stl", ".3mf", ".ply", ".obj")
PARTS = (".stl", ".3mf", ".ply")
MOST_MM = 2000.0
SAMPLES = 40e6  # of the distance to a shape; finer than this many steps are widened
WINDOW_VOXELS = 150
STREAMED = 20e6  # triangles, from which on the part goes to its file without being held
MOST_TRIANGLES = 1e9
SURFACE_A_CELL, TRIANGLES_A_STEP = (
    6.5,
    2.4,
)  # area in a cell of edge 1 of a sheet gyroid; triangles on h x h of a surface
NOTED, LOST = 0.03, 0.10  # of the metal missing from the mesh or too much in it: said, and failed
PER_TRIANGLE = {".stl": 50, ".3mf": 20, ".ply": 26}  # bytes in a file, at least


@dataclass(frozen=True)
class Options:
    """What the verb was asked beside the lattice itself, mm."""

    depth_mm: float | None = None
    skin_mm: float = 0.0
    rim_mm: float = 0.0
    fillet_mm: float = 0.0
    border: str = "cap"
    h_mm: float = 0.1
    unit: str = "mm"
    machine: str | None = None
    material: str = "Ti-6Al-4V ELI"
    modulus_gpa: float | None = None
    stream: bool = False
    certificate: bool = False


@dataclass(frozen=True, eq=False)
class Filled:
    """The metal as a mesh (None: a surface to be streamed), how it was made, and its page of plain numbers."""

    mesh: Mesh | None
    surface: Surface
    coat: Coat
    page: dict[str, Any]


def fill(
    shape: Path,
    asked: Lattice,
    options: Options,
    *,
    region: str | None = None,
    volumes: Mapping[str, Path] | None = None,
    beams: bool = False,
    suffix: str = ".stl",
    on_stage: OnStage = lambda name, stage: None,
) -> Filled:
    """The shape of a file, filled. region is a box `x0,y0,z0,x1,y1,z1` in mm or a second closed mesh; beams says
    that struts are wanted one by one, suffix the file that the part is meant for.

    InputError for files that cannot be used, GeometryError for lattices that cannot be.
    """
    limit = printability.machine(options.machine).rules.min_wall_mm if options.machine else 0.0
    metal = printability.material(options.material)
    if beams and lattice.form_of(asked) != "strut":
        raise InputError(f"lattice: {asked.kind} {lattice.form_of(asked)} has no struts to write as beams")
    if options.modulus_gpa is not None:
        with timed("stiffness", on_stage):
            asked = moduli.of_modulus(asked, options.modulus_gpa)
    lattice.solve(asked)  # what cannot be is refused before the work
    with timed("read", on_stage):
        body = read_shape(shape, options.unit, asked.cell_mm)
        sources = {name: _volume(path) for name, path in (volumes or {}).items()}
    _not_too_many(body, asked.cell_mm, options)
    with timed("distances", on_stage):
        outer, depths = _distances(body, asked, options)
        selected = None if region is None else _selected(region, options)
    with timed("lattice", on_stage):
        coat = lattice.coat(
            asked, outer, depths=depths, selected=selected, sources=sources, min_feature_mm=limit, depth_mm=options.depth_mm,
            skin_mm=options.skin_mm, rim_mm=options.rim_mm, fillet_mm=options.fillet_mm, border=options.border,
        )  # fmt: skip
    _fine_enough(coat, options.h_mm)
    with timed("surface", on_stage):
        surface = meshing.surface(coat.metal, options.h_mm)
        mesh, trimmed = _mesh(surface, asked, options, suffix)
    with timed("measure", on_stage):
        page = _page(shape, body, asked, options, coat, (mesh, surface), trimmed)
        page["part_mass_g"] = page["part_volume_mm3"] * metal.density_g_cm3 / 1000.0
        page["material"] = metal.name
    return Filled(mesh, surface, coat, page)


def _fine_enough(coat: Coat, h_mm: float) -> None:
    """InputError where metal is thinner than the step: it would come out as dust."""
    if coat.thinnest_mm < h_mm:
        raise InputError(
            f"lattice: metal {coat.thinnest_mm:.3f} mm at its thinnest falls apart between samples {h_mm:g} mm apart; give "
            f"--h-mm {np.floor(500 * coat.thinnest_mm) / 1000:g}, or a thicker wall or larger cell"
        )


def _not_too_many(body: Mesh, cell_mm: float, options: Options) -> None:
    """InputError where more triangles would come than any file of a part can hold, before the work."""
    filled = body.volume_mm3 if options.depth_mm is None else min(body.volume_mm3, body.area_mm2 * options.depth_mm)
    count = TRIANGLES_A_STEP * SURFACE_A_CELL / cell_mm * filled / options.h_mm**2
    if count > MOST_TRIANGLES:
        raise InputError(
            f"lattice: {filled / 1000:.3g} cm3 in cells of {cell_mm:g} mm at --h-mm {options.h_mm:g} make about {count:.1g} "
            f"triangles ({50e-9 * count:.1g} GB of STL); raise --h-mm or --cell-mm, or fill less (--depth-mm)"
        )


def _mesh(surface: Surface, asked: Lattice, options: Options, suffix: str) -> tuple[Mesh | None, dict[str, float]]:
    """The surface as a trimmed mesh; None when it is to be streamed."""
    if options.stream or surface.face_count > STREAMED:
        if suffix == ".ply":
            raise InputError(
                f"lattice: a PLY of {surface.face_count} triangles cannot be streamed; write .stl or .3mf, or raise h"
            )
        return None, {}
    n = len(surface.bits)
    whole = Mesh(surface.vertices(0, n), surface.faces(0, n))  # type: ignore[arg-type]
    surface.values = None
    return lattice.trim(whole, largest_void_mm3=asked.cell_mm**3, least_piece=0.02)


@contextmanager
def timed(name: str, on_stage: OnStage) -> Iterator[None]:
    """Tells of a stage that begins and ends."""
    on_stage(name, None)
    began = time.perf_counter()
    yield
    on_stage(name, Stage(name, time.perf_counter() - began, False))


def read_shape(path: Path, unit: str = "mm", cell_mm: float = 0.0) -> Mesh:
    """A closed surface in mm from STL, 3MF (its own unit), PLY or OBJ, faces outward. InputError when it is none: open,
    crossing itself, inside out in part, not in mm, or too small for a cell."""
    if path.suffix.lower() not in SHAPES:
        raise InputError(f"lattice: {path.name} is not {', '.join(SHAPES)}")
    if not path.is_file():
        raise InputError(f"lattice: {path} does not exist")
    vertices, faces, stated = solidfile.triangles(path, "lattice")
    unit = stated or unit
    if unit not in UNITS:
        raise InputError(f"lattice: {path.name} is in {unit}; units are {', '.join(UNITS)}")
    mesh = Mesh(vertices * UNITS[unit], faces)
    _measures(path.name, mesh, cell_mm)
    return solidfile.closed(path.name, mesh, "lattice")


def _measures(name: str, mesh: Mesh, cell_mm: float) -> None:
    size = np.ptp(mesh.bounds, axis=0)
    text = " x ".join(f"{x:.4g}" for x in size)
    if size.max() > MOST_MM:
        raise InputError(
            f"lattice: {name} measures {text} mm; coordinates must be mm (say --unit um or so if they are not)"
        )
    if size.min() < cell_mm:
        hint = "; coordinates must be mm (--unit m, cm or inch if they are not)" if size.max() < 20 else ""
        raise InputError(f"lattice: {name} measures {text} mm and holds no whole cell of {cell_mm:g} mm{hint}")


def _volume(path: Path) -> Field:
    """A sampled volume (HU, stress) as a field."""
    if not path.is_file():
        raise InputError(f"lattice: {path} does not exist")
    image = imagefile.read(path)
    found = "it does not say where it lies" if image.affine is None else grids.from_affine(image.affine)
    if image.affine is None or isinstance(found, str):
        raise InputError(f"lattice: {path.name} cannot be used: {found}")
    grid = grids.canonical(found[0], found[1], image.affine[:3, 3], image.shape)
    values = np.empty(grid.shape, np.float32)
    grids.raw_view(values, found[0])[...] = imagefile.voxels(image, path.name)
    return shapes.from_samples(grid, values)


def _distances(body: Mesh, asked: Lattice, options: Options) -> tuple[Field, Field]:
    """The shape as a field true near its surface, and one read from samples farther apart that is true as deep as
    anything asks for: the deep band costs the cube of its samples."""
    deep = [at for grade in asked.grades if grade.by == "depth" for at, _ in grade.knots]
    if asked.placement == "conformal":
        deep.append(float(np.ptp(body.bounds, axis=0).min()) / 2 if options.depth_mm is None else options.depth_mm)
    near = _sampled(body, options.h_mm, max(options.skin_mm, 0.5))
    wanted = max(options.depth_mm or 0.0, *deep, 0.0)
    return near, _sampled(body, max(options.h_mm, wanted / 10), wanted) if wanted > 0 else near


def _sampled(body: Mesh, step: float, band_mm: float) -> Field:
    size = np.ptp(body.bounds, axis=0) + 2 * band_mm
    step = max(step, float(np.cbrt(size.prod() / SAMPLES)))
    return shapes.from_mesh(body, step, band_mm + 4 * step)


def _selected(region: str, options: Options) -> Field:
    """The region chosen: a box or the inside of a mesh."""
    words = region.split(",")
    if len(words) == 6:
        try:
            corners = np.array([float(word) for word in words]).reshape(2, 3)
        except ValueError as error:
            raise InputError(f"lattice: region {region!r} is not six numbers x0,y0,z0,x1,y1,z1 in mm") from error
        if not (corners[1] > corners[0]).all():
            raise InputError(f"lattice: region {region}: the second corner must lie beyond the first on every axis")
        return shapes.box(corners.mean(axis=0), corners[1] - corners[0])
    path = Path(region)
    if not path.suffix:
        raise InputError(f"lattice: region {region!r} is neither six numbers x0,y0,z0,x1,y1,z1 nor a mesh file")
    body = read_shape(path, options.unit)
    return _sampled(body, options.h_mm, options.rim_mm + 0.5)


def _page(
    shape: Path,
    body: Mesh,
    asked: Lattice,
    options: Options,
    coat: Coat,
    made_of: tuple[Mesh | None, Surface],
    trimmed: Mapping[str, float],
) -> dict[str, Any]:
    """What was asked and what came out."""
    mesh, surface = made_of
    region_mm3, core_mm3, planned_mm3 = _volumes(body, coat)
    metal_mm3 = planned_mm3 if mesh is None else mesh.volume_mm3
    got = _measured(coat, asked)
    got["porosity_region_pct"] = 100.0 * (1.0 - (metal_mm3 - core_mm3) / region_mm3)
    if got.get("porosity_pct") is None:
        got["porosity_pct"] = got["porosity_region_pct"]
    names = ("wall_mm", "porosity", "pore_mm")
    wanted = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    if options.modulus_gpa is not None:
        wanted = {"modulus_gpa": options.modulus_gpa}
    made = coat.solved
    page: dict[str, Any] = {
        "shape": shape.name,
        "lattice": {"kind": made.kind, "form": made.form, "cell_mm": made.cell_mm, "placement": asked.placement,
                    "seed": asked.seed, "grades": [asdict(grade) for grade in asked.grades]},
        "asked": wanted,
        "designed": {"wall_mm": made.wall_mm, "wall_least_mm": coat.wall_span_mm[0], "wall_most_mm": coat.wall_span_mm[1],
                     "thinnest_mm": coat.thinnest_mm, "porosity_pct": 100 * made.porosity,
                     "pore_largest_mm": made.pore_mm, "throat_mm": made.throat_mm},
        "got": got,
        "part_volume_mm3": metal_mm3,
        "shape_volume_mm3": body.volume_mm3,
        "porous_volume_mm3": region_mm3,
        "streamed": mesh is None,
        "triangles": surface.face_count if mesh is None else len(mesh.faces),
        "h_mm": options.h_mm,
    }  # fmt: skip
    if options.modulus_gpa is not None:
        page["designed"]["modulus_mean_gpa"] = moduli.modulus_gpa(asked)
    if mesh is not None:
        volumes = measure.components(mesh)[1]
        page |= {"components": int((volumes > 0).sum()), "closed_voids": int((volumes <= 0).sum()),
                 "open_edges": measure.bad_edges(mesh)}  # fmt: skip
        page |= {f"trimmed_{key}": value for key, value in trimmed.items() if key != "kept_volume_mm3"}
    if coat.net is not None:
        page["struts"] = len(coat.net.struts)
    if coat.loose_ends is not None:
        page["dangling_strut_ends"] = coat.loose_ends
    if options.certificate:
        core = coat.core or shapes.sphere(coat.region.bounds[1] + 100.0, 1e-3)
        design = Design(core, coat.region, coat.region, asked)
        page["certificate"] = porosity.certified(design, coat.metal, made)
    page["designed"]["metal_mm3"] = planned_mm3
    page["failed"] = _failed(page, len(measure.components(body)[1]))
    page["status"] = "check_failed" if page["failed"] else "ok"
    page["remarks"] = _remarks(page, options)
    return page


def _failed(page: Mapping[str, Any], bodies: int) -> list[str]:
    """What is wrong with the part as it was made, in words; empty when nothing is."""
    rows, made, planned = [], page["part_volume_mm3"], page["designed"]["metal_mm3"]
    if abs(made - planned) > LOST * planned:
        rows.append(f"the mesh holds {made:.1f} mm3 of {planned:.1f} mm3 designed; lower --h-mm ({page['h_mm']:g})")
    if page.get("components", 1) > bodies:
        rows.append(
            f"in {page['components']} pieces, the shape is in {bodies}; larger cells, thicker walls or lower --h-mm"
        )
    return rows


def _remarks(page: Mapping[str, Any], options: Options) -> list[str]:
    """What a person should know before printing."""
    rows = []
    if page["streamed"]:
        rows.append("written without being held: loose pieces at the border were not looked for")
    made, planned = page["part_volume_mm3"], page["designed"]["metal_mm3"]
    if NOTED * planned < abs(made - planned) <= LOST * planned:
        rows.append(f"the mesh holds {100 * (made / planned - 1):+.0f} % of metal, sampled {page['h_mm']:g} mm apart")
    least = min(rule.min_wall_mm for rule in printability.RULES.values())
    thinnest, wall = page["designed"]["thinnest_mm"], page["designed"]["wall_least_mm"]
    if thinnest < least:
        rows.append(f"{thinnest:.3f} mm at its thinnest is less than {least:g} mm, what LPBF rules ask")
    if page["lattice"]["form"] == "strut" and thinnest < 0.995 * wall:
        rows.append(
            f"struts are drawn {thinnest:.3f} mm thick, so that with their joints half of the metal is {wall:.3f} mm or less"
        )
    if page.get("dangling_strut_ends"):
        rows.append(f"{page['dangling_strut_ends']} ends stand open at the surface")
    if options.skin_mm > 0 or page.get("closed_voids"):
        rows.append("closed off: powder cannot leave; open the skin or drill")
    elif page["designed"]["throat_mm"] < printability.RULES["LPBF"].lattice_throat_mm:
        rows.append(f"throats of {page['designed']['throat_mm']:.2f} mm hold powder back")
    return rows


def _volumes(body: Mesh, coat: Coat) -> tuple[float, float, float]:
    """mm3 to be filled, mm3 that stay solid, and mm3 of metal, the last by points."""
    step = max(float(np.cbrt(np.ptp(coat.metal.bounds, axis=0).prod() / 2e6)), 1e-3)
    solid = inside = metal = 0
    low, high = coat.metal.bounds
    axes = [np.arange(a + part * step, b, step) for a, b, part in zip(low, high, (0.37, 0.61, 0.83))]
    for x in axes[0]:
        p = np.stack(np.meshgrid([x], axes[1], axes[2], indexing="ij"), axis=-1).reshape(-1, 3)
        core = coat.core(p) < 0 if coat.core is not None else np.zeros(len(p), bool)
        solid += int(core.sum())
        inside += int(((coat.region(p) < 0) & ~core).sum())
        metal += int((coat.metal(p) < 0).sum())
    total = max(solid + inside, 1)
    if not inside:
        raise GeometryError("lattice: nothing is left to be filled: the solid parts take the whole region")
    return tuple(body.volume_mm3 * part / total for part in (inside, solid, metal))  # type: ignore[return-value]


def _measured(coat: Coat, asked: Lattice) -> dict[str, Any]:
    """Porosity, walls and pores of the metal as it is, in the densest window of the region: local thickness from distances
    finer than the samples; necks and throats on the samples themselves."""
    wall, cell = min(coat.wall_span_mm[0], 2 * coat.thinnest_mm), asked.cell_mm
    window = min(3.0 * cell, 60.0)
    step = max(wall / 7.0, window / WINDOW_VOXELS)
    low, side = porosity._window(coat.region, window)
    p, shape = porosity._points(low, side, step)
    metal = coat.metal(p).astype(np.float32).reshape(shape)
    try:
        seen = porous.certificate(metal, step, region=coat.region(p).astype(np.float32).reshape(shape)).values
    except GeometryError as error:
        return {"refused": str(error), "step_mm": step}
    rough = measure.certificate(coat.porous, coat.region, step, window_mm=window)
    sizes = {"wall_median_mm": "wall_median_um", "wall_p01_mm": "wall_p01_um", "pore_median_mm": "pore_median_um",
             "pore_largest_mm": "pore_largest_um"}  # fmt: skip
    made = {name: seen[key] / 1000 for name, key in sizes.items()}
    if coat.solved.form == "network" and coat.solved.kind not in lattice.STOCHASTIC:
        # a neck shows in whole cells alone: it is measured on the endless lattice
        made["neck_mm"] = proving.neck_mm(coat.solved, 96)
    return {
        "wall_mm": made["wall_median_mm"],
        **made,
        "porosity_pct": _inner(coat, cell),
        "throat_mm": rough["throat_um"] / 1000,
        "open_void_pct": seen["open_void_pct"],
        "step_mm": step,
    }


def _inner(coat: Coat, cell: float) -> float | None:
    """Porosity of a block half a cell and more under every border, where the lattice is whole; None when there is none."""
    low, high = coat.region.bounds
    middle, half = 0.5 * (low + high), np.minimum(0.5 * (high - low), 2.0 * cell)
    p = np.random.default_rng(3).uniform(middle - half, middle + half, (300_000, 3))
    p = p[coat.region(p) < -0.5 * cell]
    return 100.0 * float(np.mean(coat.porous(p) > 0)) if len(p) > 150_000 else None


def write(part: Path, made: Filled, beams: Path | None = None, progress: export.Progress | None = None) -> None:
    """STL, 3MF or PLY by suffix, and the struts as a 3MF beam lattice: all of it or nothing. InputError when the disk does
    not take it, GeometryError for beams of lattices without struts."""
    fresh = {path: path.with_name(f".part-{os.getpid()}-{path.name}") for path in (part, beams) if path is not None}
    need = made.page["triangles"] * PER_TRIANGLE[part.suffix.lower()]
    free = shutil.disk_usage(part.parent).free
    if free < need:
        raise InputError(
            f"lattice: {part} needs {need / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free; raise h or choose another "
            "folder"
        )
    at = part
    try:
        _write_part(fresh[part], part, made, progress)
        if beams is not None:
            at = beams
            _write_beams(fresh[beams], made)
        for path, whole in fresh.items():
            at = path
            os.replace(whole, path)
    except OSError as error:
        raise InputError(f"lattice: {at} could not be written ({error.strerror or error}); nothing is left") from error
    finally:
        for path in fresh.values():
            path.unlink(missing_ok=True)


def _write_part(fresh: Path, path: Path, made: Filled, progress: export.Progress | None) -> None:
    notes = {"Title": path.stem}
    suffix, mesh, material = path.suffix.lower(), made.mesh, made.page["material"]
    if mesh is None and suffix == ".stl":
        export.stream_stl(fresh, made.surface, progress)
    elif mesh is None:
        export.stream_3mf(fresh, made.surface, Pose(), notes, material=material, progress=progress)
    elif suffix == ".stl":
        export.write_stl(fresh, mesh)
    elif suffix == ".3mf":
        try:
            export.write_3mf(fresh, mesh, Pose(), notes, material=material)
        except GeometryError:
            raise
        except Exception as error:  # lib3mf has an exception of its own for a disk that is full
            raise OSError(None, f"3MF: {type(error).__name__}") from error
    else:
        meshfile.write_mesh(fresh, mesh)


def _write_beams(fresh: Path, made: Filled) -> None:
    if made.coat.net is None:
        raise GeometryError(f"lattice: {made.coat.solved.kind} {made.coat.solved.form} has no struts to write as beams")
    net = made.coat.net
    beamfile.write_beams(fresh, net.joints, net.struts, net.radius_mm)


def check_targets(*paths: Path | None) -> None:
    """InputError for what could not be written in the end."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir() or path.suffix.lower() not in PARTS:
            raise InputError(f"lattice: {path}: give a file name ending in {', '.join(PARTS)}")
        if not path.parent.is_dir():
            raise InputError(f"lattice: the folder {path.parent} does not exist; make it first")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"lattice: the folder {path.parent} cannot be written")
