"""Solids of implants as STEP, made from the form of the same field that the mesh is made of.

Needs the optional extra `cad` (build123d); everything else of the package works without it.
"""

from __future__ import annotations

from implantforge.stages.cad.stepfile import NoFace, Spine, library, placed, solid, write

__all__ = ["NoFace", "Spine", "library", "placed", "solid", "write"]
