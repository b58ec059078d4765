"""What stands in the window: bone, implant and gap map in 3D; beside it three CT planes with exact outlines."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import Array, Mesh
from implantforge.geom.render import Camera, camera, look_up
from implantforge.geom.sections import section
from implantforge.geom.viewing import GAP_STOPS, GapMap, coarse, plane_hu
from implantforge.pipeline.runfolder import RunFolder

BONE, TITANIUM, OUTLINE, BONE_LINE = (0.93, 0.87, 0.74), (0.72, 0.75, 0.80), (1.0, 0.60, 0.10), (0.3, 0.8, 0.85)
PRESETS = ("anterior", "posterior", "medial", "lateral", "superior", "inferior", "iso")
HU_RANGE = (-600.0, 1800.0)
SLICES = {0: ("sagittal", "left"), 1: ("coronal", "anterior"), 2: ("axial", "inferior")}
PANELS: dict[str, tuple[int, int]] = {"solid": (0, 0), "coronal": (0, 1), "sagittal": (0, 2), "axial": (1, 1)}
LAYOUT: dict[str, Any] = {
    "shape": (2, 3), "groups": [(slice(None), 0), (1, [1, 2])], "row_weights": [0.6, 0.4],
    "col_weights": [0.48, 0.26, 0.26], "border": True, "border_color": "#9aa3ad",
}  # fmt: skip
_MOST_FACES = 400_000


class Scene:
    """Actors by group; 'bone', 'ct' (planes in the 3D panel) and 'heat' can be shown and hidden."""

    def __init__(self, plotter: Any, run: RunFolder, side: str) -> None:
        self.plotter, self.side = plotter, side
        self.exact = run.part if run.part is not None and len(run.part.faces) else None
        self.part = _light(self.exact) if self.exact else None
        self.bones = {name: _light(mesh) for name, mesh in run.bones.items()}
        self.ct, self.gaps = run.ct, run.gaps
        self.shown = {"bone": True, "ct": False, "heat": False}
        self.actors: dict[str, dict[str, Any]] = {"bone": {}, "ct": {}, "heat": {}, "part": {}}
        self.box = self._box()
        shape = [self.part] if self.part else list(self.bones.values())
        self.slices_at = np.median(shape[0].vertices, axis=0)
        self._solid()
        for axis in SLICES:
            self.move_slice(axis, float(self.slices_at[axis]), aim=True)

    def _box(self) -> Array:
        """(2,3) mm: what every panel keeps in sight."""
        if self.part:
            return self.part.bounds + np.array([[-24.0], [24.0]])
        meshes = self.bones.values()
        return np.array([np.min([m.bounds[0] for m in meshes], axis=0), np.max([m.bounds[1] for m in meshes], axis=0)])

    def _solid(self) -> None:
        self.plotter.subplot(*PANELS["solid"])
        for name, mesh in self.bones.items():
            self.actors["bone"][name] = _add(self.plotter, mesh, color=BONE, opacity=0.30, specular=0.1)
        if self.part:
            self.actors["part"]["part"] = _add(self.plotter, self.part, color=TITANIUM, specular=0.4, specular_power=25)
            if self.gaps:
                self.actors["heat"]["heat"] = _heat(self.plotter, self.part, self.gaps)
        self.show_group("heat", False)

    def move_slice(self, axis: int, at_mm: float, aim: bool = False) -> None:
        """Carry one CT plane (0 sagittal, 1 coronal, 2 axial) and its outlines to at_mm; aim sets its panel's eye."""
        self.slices_at[axis] = at_mm
        name, view = SLICES[axis]
        eye = self._eye(view, at_mm, axis)
        panels = [(name, True)] + ([("solid", self.shown["ct"])] if self.ct else [])
        image = _ct_image(self.ct, eye) if self.ct else None
        lines = [(f"bone {n}", m, BONE_LINE, 1.5) for n, m in self.bones.items()]
        lines += [("part", self.exact, OUTLINE, 2.5)] if self.exact else []
        pieces = [(key, section(mesh, eye.centre_mm, eye.look)[0], ink, width) for key, mesh, ink, width in lines]
        for panel, on in panels:
            self.plotter.subplot(*PANELS[panel])
            if image is not None:
                actor = self.plotter.add_mesh(
                    image, scalars="grey", rgb=True, lighting=False, name=f"ct {axis} {panel}", reset_camera=False
                )
                self._keep(actor, axis, panel, "plane", on)
            for key, ends, ink, width in pieces:
                label = f"{key} {axis} {panel}"
                self.plotter.remove_actor(label, render=False)
                if len(ends):
                    nearer = ends - eye.look * 0.3  # in front of the plane
                    actor = self.plotter.add_mesh(
                        _lines(nearer), color=ink, line_width=width, lighting=False, name=label, reset_camera=False
                    )
                    self._keep(actor, axis, panel, key, on)
        if aim:
            self._aim(name, eye)

    def _keep(self, actor: Any, axis: int, panel: str, what: str, on: bool) -> None:
        if panel == "solid":
            self.actors["ct"][f"{axis} {what}"] = actor
            actor.SetVisibility(on)

    def _eye(self, view: str, at_mm: float, axis: int) -> Camera:
        corners = np.array(np.meshgrid(*self.box.T)).reshape(3, -1).T
        rough = camera(corners, view, (100, 100), mm_per_px=1.0)
        centre = rough.centre_mm.copy()
        centre[axis] = at_mm
        spread = [np.ptp(corners @ way) for way in (rough.up, rough.right)]
        step = 0.4 if self.ct is None else float(np.clip(self.ct.grid.spacing_mm.min() / 2, 0.25, 0.6))
        size = (int(spread[0] / step) + 60, int(spread[1] / step) + 60)
        return Camera(centre, rough.right, rough.up, rough.look, step, size)

    def _aim(self, panel: str, eye: Camera) -> None:
        self.plotter.subplot(*PANELS[panel])
        height, width = (n * eye.mm_per_px for n in eye.size)
        lens = self.plotter.camera
        lens.parallel_projection = True
        lens.focal_point, lens.position, lens.up = eye.centre_mm, eye.centre_mm - eye.look * 500, eye.up
        wide, high = self.plotter.renderer.GetSize()
        lens.parallel_scale = max(height, width * high / max(wide, 1)) / 2
        lens.clipping_range = (1.0, 1000.0)
        self.plotter.renderer.SetInteractive(False)

    def show_group(self, group: str, on: bool) -> None:
        """Show or hide 'bone', 'ct' or 'heat'; the heat map takes the place of plain titanium."""
        self.shown[group] = on and bool(self.actors[group])
        for actor in self.actors[group].values():
            actor.SetVisibility(self.shown[group])
        if group == "heat":
            for actor in self.actors["part"].values():
                actor.SetVisibility(not self.shown["heat"])
            for bar in self.plotter.scalar_bars.values():
                bar.SetVisibility(self.shown["heat"])

    def look(self, preset: str) -> None:
        """Turn the 3D panel to a preset view with everything around the implant in sight."""
        way, up = look_up(preset, self.side)
        self.plotter.subplot(*PANELS["solid"])
        corners = np.array(np.meshgrid(*self.box.T)).reshape(3, -1).T
        centre = self.box.mean(axis=0)
        lens, (wide, high) = self.plotter.camera, self.plotter.renderer.GetSize()
        lens.parallel_projection = True
        lens.focal_point, lens.position, lens.up = centre, centre - way * 800, up
        up_mm, across_mm = (np.ptp(corners @ axis) for axis in (up, np.cross(way, up)))
        lens.parallel_scale = 1.12 * max(up_mm, across_mm * high / max(wide, 1)) / 2
        self.plotter.renderer.ResetCameraClippingRange()


def font() -> str | None:
    """DejaVu Sans as matplotlib carries it (Latin, Cyrillic, signs), or None."""
    spec = find_spec("matplotlib")
    file = Path(str(spec.origin)).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if spec and spec.origin else Path("-")
    return str(file) if file.is_file() else None


def _light(mesh: Mesh) -> Mesh:
    """A copy that a software renderer turns smoothly."""
    return mesh if len(mesh.faces) <= _MOST_FACES else coarse(mesh, float(np.ptp(mesh.vertices, axis=0).max()) / 600)


def _poly(mesh: Mesh) -> Any:
    """PyVista surface with our own mean normals: VTK's would split a coarse copy along its seams."""
    import pyvista

    cells = np.column_stack([np.full(len(mesh.faces), 3), mesh.faces]).ravel()
    poly = pyvista.PolyData(np.array(mesh.vertices), cells)
    cross = mesh.face_cross
    sums = [np.bincount(mesh.faces.ravel(), np.repeat(cross[:, i], 3), len(mesh.vertices)) for i in range(3)]
    normals = np.column_stack(sums)
    poly.point_data.active_normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    return poly


def _add(plotter: Any, mesh: Mesh, **look: Any) -> Any:
    actor = plotter.add_mesh(_poly(mesh), reset_camera=False, **look)
    actor.prop.interpolation = "Phong"
    return actor


def _lines(pieces: Array) -> Any:
    import pyvista

    count = len(pieces)
    cells = np.column_stack([np.full(count, 2), np.arange(2 * count).reshape(-1, 2)]).ravel()
    return pyvista.PolyData(pieces.reshape(-1, 3), lines=cells)


def _ct_image(ct: Any, eye: Camera) -> Any:
    """The CT in the plane of the eye as a grey surface; black outside the scan."""
    import pyvista

    hu = plane_hu(ct, eye.centre_mm, eye.right, eye.up, eye.mm_per_px, eye.size)
    share = np.clip((np.nan_to_num(hu, nan=-1000.0) - HU_RANGE[0]) / (HU_RANGE[1] - HU_RANGE[0]), 0, 1)
    height, width = eye.size
    x = (np.arange(width) - (width - 1) / 2) * eye.mm_per_px
    y = ((height - 1) / 2 - np.arange(height)) * eye.mm_per_px
    points = eye.centre_mm + y[:, None, None] * eye.up + x[None, :, None] * eye.right
    sheet = pyvista.StructuredGrid()
    sheet.points = points.reshape(-1, 3)
    sheet.dimensions = (width, height, 1)
    sheet.point_data["grey"] = np.repeat((share.ravel()[:, None] * 255).astype(np.uint8), 3, axis=1)
    return sheet


def _heat(plotter: Any, part: Mesh, gaps: GapMap) -> Any:
    from matplotlib.colors import LinearSegmentedColormap
    from trimesh.remesh import subdivide_to_size

    lo, hi = GAP_STOPS[0][0], GAP_STOPS[-1][0]
    colours = LinearSegmentedColormap.from_list("gap", [((mm - lo) / (hi - lo), c) for mm, c in GAP_STOPS])
    fine = Mesh(*subdivide_to_size(part.vertices, part.faces, max_edge=2.0))  # long faces would smear the colours
    poly = _poly(fine)
    poly["gap"] = gaps(fine.vertices)
    bar = {
        "title": "gap to cortex, mm\n(below 0: overlap)\n",
        "vertical": True,
        "position_x": 0.80,
        "position_y": 0.30,
        "height": 0.45,
        "width": 0.12,
        "n_labels": 7,
        "fmt": "%.1f",
        "color": "black",
        "title_font_size": 15,
        "label_font_size": 14,
        "unconstrained_font_size": True,
    }
    actor = plotter.add_mesh(
        poly,
        scalars="gap",
        cmap=colours,
        clim=(lo, hi),
        nan_color=(0.72, 0.73, 0.75),
        ambient=0.35,
        reset_camera=False,
        scalar_bar_args=bar,
    )
    actor.prop.interpolation = "Phong"
    return actor
