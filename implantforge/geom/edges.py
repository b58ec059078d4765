"""Where the edge of a bone lies in a scan: layers fitted to the voxels around each vertex (kernels/profile.py)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from implantforge.core import Array
from implantforge.kernels import profile

EDGE, LOG_THICK, MARROW, CORTEX, FLESH, FAR, NEXT, BEYOND, LOG_BLUR = range(9)
_TABLE = ndtr(np.arange(-320, 321) / 64.0)


class Scan(NamedTuple):
    """What a fit reads: HU and labels [i,j,k] of one box, the bone's own value, spacing (3,) mm, blur (3,) mm (standard
    deviation along the axes) and noise of a voxel in HU."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    own: int
    spacing_mm: Array
    blur_mm: Array
    noise_hu: float


class Fitted(NamedTuple):
    """Layers at n points: parameters (n,9) in the order of EDGE..LOG_BLUR; variance of the edge (n,); levels (n,2) of
    cortex and flesh and their variances (n,2) by the scan alone, whatever was expected; residual over noise (n,); voxels
    read (n,); way to the next bone's label and to the far side's (n,) mm, 1e9 where there is none; variance of
    ln blur (n,) where it was free."""

    parameters: Array
    variance: Array
    level: Array
    level_variance: Array
    residual: Array
    voxels: Array
    gap_mm: Array
    far_mm: Array
    blur_variance: Array


class Prior(NamedTuple):
    """Means and standard deviations (n,9) of the parameters; nan for a blur that is held."""

    mean: Array
    sigma: Array


def prior(count: int, *, cortex: tuple[float, float], flesh: tuple[float, float]) -> Prior:
    """What is expected before a look: cortex of some 2 mm, marrow anywhere between fat and dense cancellous bone."""
    mean, sigma = np.zeros((count, 9)), np.ones((count, 9))
    mean[:, EDGE], sigma[:, EDGE] = 0.0, 1.5
    mean[:, LOG_THICK], sigma[:, LOG_THICK] = np.log(1.5), 1.2
    mean[:, MARROW], sigma[:, MARROW] = 150.0, 150.0
    mean[:, CORTEX], sigma[:, CORTEX] = cortex
    mean[:, FLESH], sigma[:, FLESH] = flesh
    sigma[:, LOG_BLUR] = np.nan
    return Prior(mean, sigma)


def fit(
    scan: Scan,
    points_mm: Array,
    normals: Array,
    bend: Array,
    given: Prior,
    *,
    reach_mm: tuple[float, float],
    begin: Array | None = None,
    search: bool = False,
    rounds: int = 10,
    threads: int = 1,
) -> Fitted:
    """The layer behind each point (n,3) mm of the box's own frame (index times spacing) along its outward normal.

    begin (n,9) is where to start from (the prior when None); search looks for the edge first. Points are independent of
    each other: threads do not change a bit of the result.
    """
    out = np.empty((len(points_mm), 19))
    with np.errstate(invalid="ignore"):
        tight = np.where(np.isnan(given.sigma), -1.0, 1.0 / given.sigma**2)
    noise = np.array([max(scan.noise_hu, 4.0), 60.0, 40.0])
    rows = (points_mm, normals, bend, given.mean, tight, given.mean if begin is None else begin)
    points, normals, bend, mean, tight, begin = (np.ascontiguousarray(a, np.float64) for a in rows)

    def work(part: slice) -> None:
        profile.fit_edges(
            scan.hu, scan.labels, scan.own, scan.spacing_mm, points[part], normals[part], bend[part], scan.blur_mm,
            np.array(reach_mm), noise, mean[part], tight[part], begin[part], rounds, search, _TABLE, out[part],
        )  # fmt: skip

    cuts = np.linspace(0, len(out), max(1, threads) + 1).astype(int)
    parts = [slice(int(a), int(b)) for a, b in pairwise(cuts)]
    if len(parts) == 1:
        work(parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(work, parts))
    return Fitted(out[:, :9], out[:, 9], out[:, 10:13:2], out[:, 11:14:2], *out[:, 14:].T)
