"""A maker's folder: our own implants written as meshes in axes of their own, with the page that says what they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import Field, Mesh, Pose
from implantforge.geom import meshing
from implantforge.stages.export import write_stl

TURN = Pose(np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), np.array([100.0, -40.0, 7.0]))
SECOND = {"stem": ("medial", 0), "cup": ("front", 0), "tray": ("posterior", 1)}
COAT = {"stem": "[coat]\nfrom_mm = -45.0\nto_mm = -2.0\n", "cup": "[coat]\nfrom_mm = -40.0\nto_mm = -3.0\n", "tray": ""}


def folder(at: Path, kind: str, rows: Iterable[tuple[int, Field, dict[str, Any]]], h_mm: float = 0.7) -> Path:
    """Sizes (number, field in the implant's axes, more keys of its row) as STL and template.toml. `head` is given in the
    implant's axes."""
    name, column = SECOND[kind]
    page = (
        f'name = "Ours as meshes"\nkind = "{kind}"\n[frame]\norigin = {TURN.origin_mm.tolist()}\n'
        f"up = {TURN.rotation[:, 2].tolist()}\n{name} = {TURN.rotation[:, column].tolist()}\n{COAT[kind]}"
    )
    made: dict[int, Mesh] = {}
    for number, field, more in rows:
        file = f"s{number}_{more.get('side', 'both')}.stl"
        made[number] = meshing.polygonise(field, h_mm).moved(TURN)
        write_stl(at / file, made[number])
        if "head" in more:
            more = {**more, "head": TURN.apply(np.array(more["head"])).round(6).tolist()}
        keys = "".join(f"{key} = {value!r}\n" for key, value in more.items())
        page += f'[[sizes]]\nsize = {number}\nfile = "{file}"\n{keys}'
    (at / "template.toml").write_text(page.replace("'", '"'))
    return at
