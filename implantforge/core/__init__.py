"""Nouns: frozen data that stages pass to each other. numpy only."""

from implantforge.core.anatomy import Anatomy, Landmark
from implantforge.core.errors import AnatomyError, FitError, GeometryError, ImplantForgeError, InputError
from implantforge.core.field import Field
from implantforge.core.image import Labels, Patient, Side, Volume
from implantforge.core.mesh import Mesh
from implantforge.core.part import Check, Design, Fit, Grade, Lattice, Part, check
from implantforge.core.space import Array, Grid, Pose

__all__ = [
    "Anatomy", "AnatomyError", "Array", "Check", "Design", "Field", "Fit", "FitError", "GeometryError", "Grade", "Grid",
    "ImplantForgeError", "InputError", "Labels", "Landmark", "Lattice", "Mesh", "Part", "Patient", "Pose", "Side",
    "Volume", "check",
]  # fmt: skip
