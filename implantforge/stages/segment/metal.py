"""Metal in a scan, and how far it spoils the picture of each bone."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from implantforge.core import Labels, Volume
from implantforge.stages.segment.names import METAL

METAL_HU = 2800
LEAST_MM3 = 50.0
"""Below this it is enamel, dense cortex or a calcification."""
NEAR_MM = 20.0
"""Metal changed the bone of all 8 re-scanned acetabula (3D Print Med 2020, doi 10.1186/s41205-020-00074-5)."""
SHELL_MM = (3.0, 12.0)


@dataclass(frozen=True)
class Artefact:
    """What metal does to one bone: volume of all metal, nearest way to it, share of the bone within 20 mm of it, and the
    artefact index in HU: sqrt(SD^2 - SD_clean^2) of the flesh around the bone, beside metal against away from it.
    """

    metal_mm3: float
    nearest_mm: float
    near_pct: float
    index_hu: float


def metal_mask(volume: Volume) -> NDArray[np.bool_]:
    """Voxels above METAL_HU in pieces of at least LEAST_MM3."""
    mask = volume.hu >= METAL_HU
    if not mask.any():
        return mask
    least = max(2, int(LEAST_MM3 / float(np.prod(volume.grid.spacing_mm))))
    return np.asarray(cc3d.dust(mask, threshold=least, connectivity=26), dtype=bool)


def artefacts(volume: Volume, labels: Labels) -> dict[str, Artefact]:
    """One Artefact a bone, empty where the scan shows no metal. The index is measured on flesh 3-12 mm
    outside the bone, and 0 where fewer than 100 such voxels lie within 20 mm of metal."""
    if METAL not in labels.names:
        return {}
    spacing = tuple(float(s) for s in volume.grid.spacing_mm)
    metal = labels.mask(METAL)
    away = edt.edt(~metal, anisotropy=spacing, parallel=2)
    out: dict[str, Artefact] = {}
    for name, value in sorted(labels.names.items()):
        if name == METAL:
            continue
        mask = labels.values == value
        box = _box(mask, spacing, SHELL_MM[1] + 2.0)
        mask, far, hu = mask[box], away[box], volume.hu[box]
        around = edt.edt(~mask, anisotropy=spacing, parallel=2)
        flesh = (around > SHELL_MM[0]) & (around < SHELL_MM[1]) & (labels.values[box] == 0) & (np.abs(hu) < 1000)
        beside, clean = hu[flesh & (far < NEAR_MM)], hu[flesh & (far > 2.0 * NEAR_MM)]
        index = 0.0
        if len(beside) > 100:
            base = _spread(clean) if len(clean) > 100 else 0.0
            index = float(np.sqrt(max(_spread(beside) ** 2 - base**2, 0.0)))
        out[name] = Artefact(
            float(metal.sum() * np.prod(spacing)),
            float(far[mask].min()),
            float(100.0 * (far[mask] < NEAR_MM).mean()),
            index,
        )
    return out


def _spread(hu: NDArray) -> float:
    return float(np.std(hu.astype(np.float64)))


def _box(mask: NDArray[np.bool_], spacing: tuple[float, ...], margin_mm: float) -> tuple[slice, ...]:
    """Index box of the mask, wider by margin_mm, within the image."""
    out = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        wide = int(np.ceil(margin_mm / spacing[axis]))
        out.append(slice(max(0, int(hits[0]) - wide), min(mask.shape[axis], int(hits[-1]) + wide + 1)))
    return tuple(out)
