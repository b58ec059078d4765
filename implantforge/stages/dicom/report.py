"""What a reader says of a series, and the scan it hands on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from implantforge.core import Volume
from implantforge.stages.dicom.rules import Use, Verdict


@dataclass(frozen=True)
class SeriesReport:
    """One series: what it is, whether it may be used and why. shape and spacing are (i,j,k) toward L, P, S, as loaded.

    uid_hash is SHA-256 of the SeriesInstanceUID. reasons are the refusals and flags, worst first; notes are neither.
    proposed marks the one that load() takes when none is named: all of its slices were looked at, of the others' a few.
    use: "implant" for fit surfaces, "planning" when a flag forbids those, "none" when refused.
    """

    index: int
    uid_hash: str
    modality: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    tilt_deg: float
    thickness_mm: float | None
    transfer_syntax: str
    kernel: str
    verdict: Verdict
    reasons: tuple[str, ...]
    rules: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    images: int = 0
    proposed: bool = False
    accepted_because: str | None = None
    use: Use = "none"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, nothing that identifies a person."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume that may be used, and the report that says so."""

    volume: Volume
    report: SeriesReport
