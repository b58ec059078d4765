"""Are the numbers Hounsfield units? Judged on a few slices, before and without any segmentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from implantforge.stages.dicom.rules import RULES, Finding, hit

AIR_WINDOW_HU = (-1300, -700)
AIR_SHARE = 0.005
DEEP_HU = -1300
TISSUE_SHARE = 0.05


def judge(hu: NDArray, padded: NDArray) -> list[Finding]:
    """Findings for sample HU (any shape, before the clamp at -1024); padded marks values that are no measurement."""
    values = np.asarray(hu, dtype=np.float32)
    deep = _deep(values[~padded.astype(bool) | (values < DEEP_HU)])
    values = values[~padded]
    values = values[np.isfinite(values)]
    if values.size < 100:
        return [hit("hu_range", f"{values.size} measured voxels in the sample: nothing to judge")]
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    if high - low < RULES["hu_range"].threshold:
        return [hit("hu_range", f"numbers span {high - low:.0f} HU ({low:.0f} to {high:.0f}), a CT of bone spans over "
                    f"{RULES['hu_range'].threshold:.0f}: not Hounsfield units")]  # fmt: skip
    if deep > RULES["hu_deep"].threshold:
        return [hit("hu_deep", f"{100 * deep:.0f} % of the numbers lie below {DEEP_HU} HU and vary: not padding, rescale "
                    "is wrong")]  # fmt: skip
    air = _mode(values, *AIR_WINDOW_HU, AIR_SHARE)
    tissue = float(np.mean((values >= -200) & (values <= 200)))
    if air is None:
        return _no_air(values, tissue)
    if abs(air + 1000) > RULES["hu_air"].threshold and not _lung_like(values, air):
        return [hit("hu_air", f"air lies at {air:.0f} HU, must be -1000 +-{RULES['hu_air'].threshold:.0f}: "
                    "rescale is wrong")]  # fmt: skip
    low_share, soft = (float(np.mean((values >= a) & (values <= b))) for a, b in ((-900, -250), (-200, 200)))
    if low_share > TISSUE_SHARE and low_share > 5 * soft:
        return [hit("hu_tissue", f"{100 * low_share:.0f} % of the numbers lie between air and fat, {100 * soft:.1f} % "
                    "within +-200 HU: rescale is wrong")]  # fmt: skip
    return _tissue(values[values > -300], TISSUE_SHARE * values.size)


def _deep(values: NDArray) -> float:
    """Share of numbers far below air, without the commonest of them: padding is one number, a wrong scale is many."""
    low = values[values < DEEP_HU]
    if not low.size:
        return 0.0
    return float(low.size - np.unique(low, return_counts=True)[1].max()) / values.size


def _tissue(rest: NDArray, least: float) -> list[Finding]:
    """Where the commonest number above -300 HU lies; too few voxels (`least`) say nothing."""
    peak = _mode(rest, -300, 4000, 0.0) if rest.size >= max(least, 100) else None
    if peak is None or abs(peak) <= RULES["hu_tissue_peak"].threshold:
        return []
    share = float(np.mean(np.abs(rest) <= 200))
    if share < RULES["hu_tissue"].threshold:
        return [hit("hu_tissue", f"commonest tissue value is {peak:.0f} HU and {100 * share:.1f} % lies within +-200 "
                    "HU: rescale is wrong")]  # fmt: skip
    return [hit("hu_tissue_peak", f"commonest tissue value is {peak:.0f} HU, soft tissue lies within "
                f"+-{RULES['hu_tissue_peak'].threshold:.0f}: dry bone or a wrong scale")]  # fmt: skip


def _no_air(values: NDArray, tissue: float) -> list[Finding]:
    lowest = float(values.min())
    clipped = float(np.mean(values == lowest))
    if clipped > RULES["hu_window"].threshold:
        return [hit("hu_window", f"{100 * clipped:.0f} % of voxels hold the lowest value {lowest:.0f}, none is "
                    "near -1000 as air is: not Hounsfield units, or clipped to a display window")]  # fmt: skip
    peak = _mode(values, float(lowest), float(values.max()), 0.0)
    above = _second(values, peak) if peak is not None else None
    if above is not None:
        return [hit("hu_air", f"numbers gather at {peak:.0f} and {above:.0f}, as air and soft tissue would without the "
                    "rescale: rescale was not applied")]  # fmt: skip
    if tissue < 0.3 or peak is None or abs(peak) > RULES["hu_tissue_peak"].threshold:
        return [hit("hu_air", f"no air near -1000 HU, commonest value {peak or lowest:.0f}: rescale was not applied")]
    return []


def _second(values: NDArray, peak: float) -> float | None:
    """A second gathering about 1000 above the commonest number or below it, with little between: air and soft tissue."""
    for low, high in ((peak + 850, peak + 1250), (peak - 1250, peak - 850)):
        other = _mode(values, low, high, 0.05)
        if other is None:
            continue
        bottom, top = sorted((peak, other))
        near = float(np.mean(np.abs(values - other) <= 75))
        between = float(np.mean((values > bottom + 200) & (values < top - 200)))
        # Fat and partial volume lie between; cancellous bone would fill the gap.
        if near > 0.05 and between < 0.75 * near:
            return other
    return None


def _lung_like(values: NDArray, air: float) -> bool:
    """Air displaced upward by lung or partial volume, while true air has its own peak at its own place."""
    true = _mode(values, -1060, -955, AIR_SHARE)
    return air > -1000 and true is not None and true <= -970


def _mode(values: NDArray, low: float, high: float, share: float) -> float | None:
    """Commonest value within limits, smoothed over 20 HU; None when less than `share` of the values lies within."""
    inside = values[(values >= low) & (values <= high)]
    if inside.size == 0 or inside.size < share * values.size:
        return None
    counts, edges = np.histogram(inside, bins=max(int((high - low) / 5), 1), range=(low, high + 1e-3))
    smooth = np.convolve(counts, np.ones(5), mode="same")
    return float(edges[int(np.argmax(smooth))] + 2.5)
