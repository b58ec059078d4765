"""What was measured on a bone, how sure, and by which method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from implantforge.core.errors import AnatomyError
from implantforge.core.image import Side
from implantforge.core.space import Array, Pose, frozen


@dataclass(frozen=True, eq=False)
class Landmark:
    """A named point: at_mm LPS, one-sigma uncertainty, and the method's citation key."""

    name: str
    at_mm: Array
    sigma_mm: float
    method: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "at_mm", frozen(self.at_mm, (3,)))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One bone: landmarks, frames, measures with units in their names, curves sampled along the bone.

    A landmark that the bone does not show is absent and stands in `refused` with the reason.
    """

    bone: str
    side: Side
    landmarks: Mapping[str, Landmark]
    frames: Mapping[str, Pose] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Array] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def at(self, name: str) -> Array:
        """Where a landmark lies, LPS mm; AnatomyError gives the reason when it was refused."""
        if name in self.landmarks:
            return self.landmarks[name].at_mm
        raise AnatomyError(f"{self.bone}: no {name}: {self.refused.get(name, 'not measured on this bone')}")
