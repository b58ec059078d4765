"""A window for the surgeon: bone, implant, CT and gaps of a run, turned and cut by hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from implantforge.core import ImplantForgeError, InputError
from implantforge.pipeline.runfolder import RunFolder
from implantforge.viewer import probe

__all__ = ["PRESETS", "show"]

PRESETS = ("anterior", "posterior", "medial", "lateral", "superior", "inferior", "iso")
_KEYS = (
    "1 anterior  2 posterior  3 medial  4 lateral  5 superior  6 inferior  7 iso\n"
    "B bone   C CT planes   G gap map   Q close"
)


def show(run: Path, screenshot: Path | None = None, preset: str = "anterior", *, heat: bool = False) -> None:
    """Open a window on RUN, or write what it would show to a PNG without one; heat starts with the gap map on.

    preset is one of PRESETS. InputError when the folder holds nothing to show or the preset is not known;
    ImplantForgeError naming what to install when there is no display or no OpenGL.
    """
    folder = RunFolder(Path(run))
    if preset not in PRESETS:
        raise InputError(f"view: no preset {preset!r}; there are {', '.join(PRESETS)}")
    if screenshot is not None and not Path(screenshot).absolute().parent.is_dir():
        raise InputError(f"view: no folder {Path(screenshot).absolute().parent} to write the picture in")
    probe.require(screenshot is not None)
    if not folder.bones and (folder.part is None or not len(folder.part.faces)):
        raise InputError(f"view: nothing to show in this run: {'; '.join(folder.missing.values())}")
    if screenshot is not None and sys.platform.startswith("linux"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", probe.EGL)
    plotter, scene = _open(folder, screenshot is not None)
    scene.show_group("heat", heat)
    scene.look(preset)
    if screenshot is None:
        plotter.show()
        return
    plotter.screenshot(str(screenshot))
    plotter.close()
    if not Path(screenshot).is_file():
        raise ImplantForgeError(f"view: {screenshot} could not be written")


def _open(run: RunFolder, off_screen: bool) -> tuple[Any, Any]:
    """The plotter with the scene in it, its words, keys and buttons."""
    import pyvista

    from implantforge.viewer.scene import LAYOUT, PANELS, Scene

    side = str(run.manifest.get("side") or run.fit.get("side") or "")
    plotter: Any = pyvista.Plotter(off_screen=off_screen, window_size=[1500, 940], title="ImplantForge", **LAYOUT)
    for name, place in PANELS.items():
        plotter.subplot(*place)
        plotter.set_background("#f5f7f9" if name == "solid" else "black", all_renderers=False)
    plotter.subplot(*PANELS["solid"])
    plotter.enable_anti_aliasing("ssaa" if off_screen else "msaa")
    plotter.enable_depth_peeling(8)
    scene = Scene(plotter, run, side if side in ("left", "right") else "left")
    _words(plotter, run, side)
    _letters(plotter, scene)
    plotter.subplot(*PANELS["solid"])
    _marker(plotter)
    if not off_screen:
        _controls(plotter, scene)
    return plotter, scene


def _words(plotter: Any, run: RunFolder, side: str) -> None:
    """Title with size and side, verdict, the statement, keys."""
    from implantforge.viewer.scene import PANELS, font

    size = (run.fit.get("params") or {}).get("size", (run.fit.get("metrics") or {}).get("size"))
    name = str(run.manifest.get("implant") or run.fit.get("implant") or "implant").replace("_", " ").capitalize()
    title = ", ".join(filter(None, (name, f"size {size}" if size is not None else "", side)))
    status = str(run.manifest.get("status"))
    verdict, ink = {"ok": ("all checks passed", "#1d6b3c"), "check_failed": ("CHECK FAILED", "#a3161c")}.get(
        status, ("not finished", "#8a5a00"))  # fmt: skip
    plotter.subplot(*PANELS["solid"])
    for text, y, size_pt, colour in ((title, 0.955, 15, "black"), (verdict, 0.93, 11, ink),
                                     ("design aid, not a released medical device", 0.91, 8, "#5b6673"),
                                     (_KEYS, 0.012, 8, "#5b6673")):  # fmt: skip
        plotter.add_text(
            text, position=(0.02, y), viewport=True, font_size=size_pt, color=colour, font_file=font(), name=f"word {y}"
        )


def _letters(plotter: Any, scene: Any) -> None:
    """Name, sides of the patient and colours of the lines in each CT panel."""
    import numpy as np

    from implantforge.geom.render import direction, look_up
    from implantforge.viewer.scene import PANELS, SLICES, font

    for name, view in SLICES.values():
        plotter.subplot(*PANELS[name])
        way, up = look_up(view)
        right = np.cross(way, up)
        marks = [(direction(-right), (0.015, 0.48)), (direction(right), (0.955, 0.48)), (direction(up), (0.485, 0.92)),
                 (direction(-up), (0.485, 0.015 if plotter.off_screen else 0.075))]  # fmt: skip
        for letter, place in marks:
            plotter.add_text(
                letter,
                position=place,
                viewport=True,
                font_size=12,
                color="white",
                font_file=font(),
                name=f"{name} {letter}",
            )
        note = name if scene.ct is not None else f"{name}: no ct.nrrd in this run"
        plotter.add_text(
            note,
            position=(0.02, 0.92),
            viewport=True,
            font_size=10,
            color="#f5f58c",
            font_file=font(),
            name=f"{name} note",
        )


def _marker(plotter: Any) -> None:
    """A cube with the patient's sides, lower right of the 3D panel, that turns with the scene."""
    from vtkmodules.vtkRenderingAnnotation import vtkAnnotatedCubeActor

    cube = vtkAnnotatedCubeActor()
    for axis, (plus, minus) in zip("XYZ", (("L", "R"), ("P", "A"), ("S", "I"))):
        getattr(cube, f"Set{axis}PlusFaceText")(plus)
        getattr(cube, f"Set{axis}MinusFaceText")(minus)
        for way in ("Plus", "Minus"):
            getattr(cube, f"Get{axis}{way}FaceProperty")().SetColor(0.1, 0.12, 0.16)
    cube.GetCubeProperty().SetColor(0.82, 0.85, 0.88)
    cube.GetTextEdgesProperty().SetColor(0.15, 0.18, 0.22)
    cube.SetZFaceTextRotation(90)
    plotter.add_orientation_widget(cube, interactive=False, viewport=(0.84, 0.06, 0.98, 0.18))


def _turn(plotter: Any, scene: Any, name: str) -> None:
    scene.look(name)
    plotter.render()


def _toggle(plotter: Any, scene: Any, group: str) -> None:
    scene.show_group(group, not scene.shown[group])
    plotter.render()


def _controls(plotter: Any, scene: Any) -> None:
    """Keys, small buttons down the left side (views, then what is shown), one slider per CT plane."""
    from implantforge.viewer.scene import PANELS, SLICES, font

    plotter.subplot(*PANELS["solid"])
    high = plotter.window_size[1]
    rows = [(f"view {n}", n, None) for n in PRESETS] + [
        (g, w, g) for g, w in (("bone", "bone"), ("ct", "CT planes"), ("heat", "gap map"))
    ]
    for row, (key, word, group) in enumerate(rows):
        y = high - 150 - 28 * row - (16 if group else 0)
        there = group is None or bool(scene.actors[group])

        def press(on: bool, word: str = word, group: str | None = group) -> None:
            scene.show_group(group, on) if group else scene.look(word)
            plotter.render()

        if there:
            plotter.add_checkbox_button_widget(
                press,
                value=bool(group and scene.shown[group]),
                position=(16, y),
                size=18,
                border_size=2,
                color_on="seagreen" if group else "steelblue",
                color_off="lightgray" if group else "steelblue",
            )
        plotter.add_text(word if there else f"no {word} in this run", position=(42, y - 2), font_size=9, color="black",
                         font_file=font(), name=f"button {key}")  # fmt: skip
    for number, name in enumerate(PRESETS, 1):
        plotter.add_key_event(str(number), lambda name=name: _turn(plotter, scene, name))
    for key, group in (("b", "bone"), ("c", "ct"), ("g", "heat")):
        plotter.add_key_event(key, lambda group=group: _toggle(plotter, scene, group))
    for axis, (name, _) in SLICES.items():
        plotter.subplot(*PANELS[name])
        plotter.add_slider_widget(
            lambda mm, axis=axis: scene.move_slice(axis, mm),
            tuple(scene.box[:, axis]),
            value=float(scene.slices_at[axis]),
            pointa=(0.12, 0.035),
            pointb=(0.88, 0.035),
            slider_width=0.03,
            tube_width=0.008,
            style="modern",
            fmt="%.0f mm",
            title_height=0.02,
            color="white",
            title_color="white",
        )
    plotter.subplot(*PANELS["solid"])
