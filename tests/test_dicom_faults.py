"""Hundreds of series harmed on purpose: each is loaded right or refused for the right reason, none is silently wrong."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fault_contents import contents
from fault_places import places
from faults import CENTRE_MM, MARKER_HU, MARKERS, SOFT_HU, Fault

from implantforge.core import InputError, Volume
from implantforge.stages import dicom

ALL = [*places(), *contents()]
SAMPLE = ALL[::18]


def test_there_are_enough_faults() -> None:
    assert len(ALL) >= 500 and len({f.name for f in ALL}) == len(ALL)


@pytest.mark.parametrize("it", SAMPLE, ids=lambda f: f.name)
def test_fault(tmp_path: Path, it: Fault) -> None:
    assert outcome(it, tmp_path) == it.outcome


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_fault(tmp_path: Path) -> None:
    wrong, counts = [], Counter[tuple[str, str]]()
    for it in ALL:
        try:
            got = outcome(it, tmp_path)
        except Exception as error:
            got = f"escaped: {type(error).__name__}: {error}"
        counts[it.outcome, got if got == it.outcome else "else"] += 1
        if got != it.outcome:
            wrong.append(f"{it.name}: {got}, must be {it.outcome} by {' or '.join(it.rules) or 'nothing'}")
    print(f"\n{len(ALL)} mutated series")
    for (must, got), number in sorted(counts.items()):
        print(f"  must be {must:10s} was {got:10s} {number:4d}")
    print("\n".join(wrong))
    assert not wrong


def outcome(it: Fault, folder: Path) -> str:
    """What became of a fault: its own outcome when as declared, else in words what went wrong."""
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for n, data in enumerate(it.make()):
            archive.writestr(f"a/{(n * 7 + 3) % 101:03d}_{n}", data)
    try:
        scan = dicom.load(path)
    except InputError as error:
        return refused(path, it, str(error))
    off = misplaced(scan.volume)
    hit = not it.rules or bool(set(it.rules) & set(scan.report.rules))
    if it.outcome == "told" and hit:
        return "told"
    if off:
        return f"loaded WRONG ({off}) with {scan.report.rules}"
    return "corrected" if hit and it.outcome == "corrected" else f"loaded right with {scan.report.rules}"


def refused(path: Path, it: Fault, text: str) -> str:
    """'refused' when load and survey agree and name a declared rule."""
    try:
        reports = dicom.survey(path)
    except InputError:
        return "refused"  # nothing readable at all: the message says so
    best = next(r for r in reports if r.proposed)
    if best.verdict != "refused":
        return f"load refuses, survey says {best.verdict}: {text}"
    return "refused" if set(it.rules) & set(best.rules) else f"refused by {best.rules}"


def misplaced(volume: Volume) -> str:
    """'' when every marker inside the volume lies within half a voxel of its place, at its size and HU; else how far."""
    grid = volume.grid
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    seen = 0
    for *at, radius in MARKERS:
        centre = CENTRE_MM + at
        lo, hi = (np.rint(grid.to_index(centre) + s * (radius + 1.5) / grid.spacing_mm).astype(int) for s in (-1, 1))
        if (lo < 0).any() or (hi >= grid.shape).any():
            continue
        seen += 1
        box = tuple(slice(a, b + 1) for a, b in zip(lo, hi))
        hu, points = volume.hu[box].astype(float), index[box].reshape(-1, 3)
        weight = np.clip(hu.ravel() - 1300, 0, None)
        if not weight.any():
            return f"no marker at {centre}"
        off = np.abs(weight @ points / weight.sum() - grid.to_index(centre)).max()
        if off > 0.5:
            return f"marker {off:.2f} voxels off"
        inner = np.linalg.norm(grid.to_patient(points) - centre, axis=1) < radius - 1.6
        if abs(hu.ravel()[inner].mean() - MARKER_HU) > 40:
            return f"marker has {hu.ravel()[inner].mean():.0f} HU"
        size = (hu > 1500).sum() * float(np.prod(grid.spacing_mm))
        if abs(size / (4.19 * (radius - 0.35) ** 3) - 1) > 0.35:
            return f"marker has {size:.0f} mm3"
    soft = np.rint(grid.to_index(CENTRE_MM + [16.0, -12.0, 0.0])).astype(int)
    if seen and (soft >= 3).all() and (soft < np.array(grid.shape) - 3).all():
        hu = volume.hu[tuple(slice(n - 2, n + 3) for n in soft)].mean()
        if abs(hu - SOFT_HU) > 25:
            return f"soft tissue has {hu:.0f} HU"
    return ""
