"""What a porous structure is, measured on it: stiffness, permeability, walls, pores, throats, openness.

`certificate` gathers all of it; `stiffness`, `permeability`, `walls` and `passages` measure one thing each.
"""

from implantforge.stages.porous.certificate import (
    Certificate,
    UnitCell,
    cell_numbers,
    certificate,
    checks,
    coating_definition,
    unit_cell,
)
from implantforge.stages.porous.permeability import Permeability, darcy
from implantforge.stages.porous.stiffness import Stiffness, effective

__all__ = [
    "Certificate", "Permeability", "Stiffness", "UnitCell", "cell_numbers", "certificate", "checks",
    "coating_definition", "darcy", "effective", "unit_cell",
]  # fmt: skip
