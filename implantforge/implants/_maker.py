"""What implants from a maker's own meshes have in common: template and digest, the mesh as a field, checks."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np

from implantforge.core import Array, Check, Design, Field, Fit, InputError, Mesh, check
from implantforge.geom import shapes
from implantforge.implants import Params, count, mm, text
from implantforge.stages import templates

FIELD_MM, BAND_MM = 0.25, 2.5
"""The meshes as fields: distances sampled this far apart, exact this near the surface."""


P = TypeVar("P", bound="MakerParams")


class MakerParams(Params):
    """What is asked of any maker's template."""

    template: str = text("", "folder with the maker's template.toml and meshes", tag="M", source="the maker")
    template_sha256: str = text("", "of the template's files; filled in, and refused when they have changed since", tag="M",
                                source="the maker's files")  # fmt: skip
    size: int | None = count(None, 1, 99, "size of the template; found by fit when absent")
    coat_depth_mm: float = mm(1.5, 0.8, 3.0, "porous coat put into the maker's surface", tag="M",
                              source="0.8-2.0 mm", of="design")  # fmt: skip


def read(params: P, kind: str) -> P:
    """The parameters with the digest of the template's files, all of which are read here, before a CT is; InputError when a
    file is not as it should be, or the digest is another than the one given."""
    if not params.template:
        raise InputError(
            f"own_{kind}: params.template is missing: say --set params.template=FOLDER, the one with template.toml "
            "(docs/own_templates.md)"
        )
    found = templates.read(Path(params.template), kind).sha256
    if params.template_sha256 not in ("", found):
        raise InputError(f"own_{kind}: the template's files have changed since this recipe was written; clear "
                         "params.template_sha256 to take them as they are now")  # fmt: skip
    return params.model_copy(update={"template_sha256": found})


def template(params: MakerParams, kind: str) -> templates.Template:
    """The maker's template."""
    return templates.read(Path(params.template), kind)


def chosen(fit: Fit, params: MakerParams, kind: str) -> templates.Size:
    """The size that was planned."""
    return template(params, kind).for_side(fit.params["side"], int(fit.params["size"]))[0]


def named(found: templates.Template, params: MakerParams) -> dict[str, str]:
    """Name and digest, as a fit keeps them."""
    return {"template": found.name, "template_sha256": params.template_sha256}


def body(mesh: Mesh, params: MakerParams) -> Field:
    """The maker's shape as a field, exact as deep as it is coated."""
    return shapes.shared(shapes.from_mesh(mesh, FIELD_MM, max(BAND_MM, params.coat_depth_mm + 1)))


def slab(low_mm: float, high_mm: float) -> Field:
    """Between two heights along `up`."""
    up, low, high = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, low_mm]), np.array([0.0, 0.0, high_mm])
    return shapes.half_space(high, up) & shapes.half_space(low, -up)


def points(mesh: Mesh, spacing_mm: float) -> Array:
    """Points (n,3) of a surface, at most one in a cube of spacing_mm."""
    corners = mesh.vertices[mesh.faces]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    pieces = [mesh.vertices]
    for parts in (2 ** np.arange(1, 7)).tolist():
        some = corners[sides > spacing_mm * parts / 2.0]
        steps = (np.indices((parts + 1, parts + 1)).reshape(2, -1).T) / parts
        steps = steps[steps.sum(axis=1) <= 1.0]
        for u, v in steps if len(some) else ():
            pieces.append(some[:, 0] + u * (some[:, 1] - some[:, 0]) + v * (some[:, 2] - some[:, 0]))
    found = np.concatenate(pieces)
    _, first = np.unique(np.floor(found / spacing_mm).astype(np.int64), axis=0, return_index=True)
    return found[np.sort(first)]


def checks(made: Design, local: Array) -> list[Check]:
    """Whether the printed mesh (vertices in the implant's axes) is the maker's shape, and that its stock is the maker's."""
    return [
        check("beyond_template_mm", float(made.envelope(local).max()), "mm", "<=", 0.1,
              "the printed mesh stays within 0.1 mm of the maker's surface"),
        check("machining_stock_mm", 0.0, "mm", ">=", 0.3, "machined faces carry >= 0.3 mm stock: this template is taken as "
              "drawn, so the maker's mesh must hold the stock itself", severity="flag"),
    ]  # fmt: skip
