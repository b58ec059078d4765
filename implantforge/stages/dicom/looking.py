"""What only the pixels show, seen slice by slice as they stream past: metal, noise, order, repeats, a bone cut off.

A `Look` holds one small picture of each slice and never the volume, so that survey() and load() see the same.
"""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from implantforge.stages.dicom.rules import FLOOR_HU, RULES, Finding, hit

BLOCK_MM = 4.0
WINDOW_HU = (-500, 1500)
# Slices looked at for what needs every pixel: noise, rows, the field's edge.
EVERY_MM = 4.0
LEAST_SLICES = 6
MUSCLE_HU = (0, 100)
BONE_HU = 300
NEAR = 8
# Where less changes from slice to slice (a phantom, air), order cannot be told and does not matter.
LEAST_CHANGE_HU = 8.0


class Look:
    """Feed every slice in order with add(); findings() says what was seen. Sizes are mm, along (columns, rows, slices).

    ordered: slices stood alone, so that their order is a question. sides: whether the ends of (rows, columns) lie at the
    sides of the body; its top and bottom always cut bone.
    """

    def __init__(self, spacing_mm: tuple[float, float, float], top_hu: float | None, ordered: bool = True,
                 sides: tuple[bool, bool] = (True, True)) -> None:  # fmt: skip
        self.spacing_mm, self.top_hu, self.ordered, self.sides = spacing_mm, top_hu, ordered, sides
        self.block = [max(1, round(BLOCK_MM / mm)) for mm in spacing_mm[:2]]
        self.stride = max(1, round(EVERY_MM / spacing_mm[2]))
        self.small: list[NDArray[np.float32]] = []
        self.sums: list[int] = []
        self.metal = self.full = self.seen = 0
        self.metal_at: list[int] = []
        self.noise: list[float] = []
        self.cut: list[float] = []
        self.astray: list[int] = []

    def add(self, plane: NDArray[np.int16]) -> None:
        """The next slice, HU [row, column]."""
        high = int(plane.max())
        if high > RULES["metal_value"].threshold:
            self.metal += int(np.count_nonzero(plane > RULES["metal_value"].threshold))
            self.metal_at.append(self.seen)
        if self.top_hu is not None and FLOOR_HU < self.top_hu <= high:
            self.full += int(np.count_nonzero(plane >= self.top_hu))
        small = _small(np.clip(plane, *WINDOW_HU), self.block)
        self.small.append(small)
        if self.ordered:
            self.sums.append(zlib.crc32(plane.tobytes()) if float(np.ptp(small)) > 100 else -1 - self.seen)
        if self.seen % self.stride == self.stride // 2:
            self._closely(plane)
        self.seen += 1

    def _closely(self, plane: NDArray[np.int16]) -> None:
        self.noise += _muscle_noise(plane, self.spacing_mm)
        self.cut.append(_bone_at_edge(plane, self.sides) * max(self.spacing_mm[:2]))
        if rows_astray(plane):
            self.astray.append(self.seen)

    def findings(self) -> list[Finding]:
        """Every rule the pixels hit."""
        out = self._tops() + self._noise() + self._edge()
        if self.astray:
            out.append(hit("scrambled_rows", f"rows of {len(self.astray)} slices do not line up with each other: rows "
                           "and columns are swapped or miscounted in the header"))  # fmt: skip
        return out + self._order() if self.ordered and self.seen >= LEAST_SLICES else out

    def _tops(self) -> list[Finding]:
        """Metal and saturation: how much lies above 3000 HU and at the top of the number range."""
        out, voxel_mm3 = [], float(np.prod(self.spacing_mm))
        metal, full = self.metal * voxel_mm3, self.full * voxel_mm3
        if metal > RULES["metal"].threshold:
            first, last = self.metal_at[0] + 1, self.metal_at[-1] + 1
            out.append(hit("metal", f"{metal:.0f} mm3 above {RULES['metal_value'].threshold:.0f} HU (slices {first} to "
                           f"{last} of {self.seen}): metal in the field, bone beside it is not to be trusted: plan "
                           "only, or scan again with metal artefact reduction"))  # fmt: skip
        if full > RULES["saturated"].threshold:
            out.append(hit("saturated", f"{full:.0f} mm3 at the top of the number range ({self.top_hu:.0f} HU): "
                           "saturated, what lies there is not measured: reconstruct on the extended scale"))  # fmt: skip
        return out

    def _noise(self) -> list[Finding]:
        if len(self.noise) < 20:
            return []
        noise, most = float(np.percentile(self.noise, 10)), RULES["noise_max"].threshold
        if noise > most:
            return [hit("noise_max", f"noise of {noise:.0f} HU in muscle, at most {most:.0f}: bone edges drown; scan "
                        "again with more dose or a smoother kernel")]  # fmt: skip
        limit = RULES["noise"].threshold
        if noise > limit:
            return [hit("noise", f"noise of {noise:.0f} HU in muscle, for fit surfaces at most {limit:.0f}: take a "
                        "smoother kernel of the same scan")]  # fmt: skip
        return []

    def _edge(self) -> list[Finding]:
        cut, limit = max(self.cut, default=0.0), RULES["field_of_view_cut"].threshold
        if cut <= limit:
            return []
        share = sum(c > limit for c in self.cut) / len(self.cut)
        return [hit("field_of_view_cut", f"{cut:.0f} mm denser than {BONE_HU} HU at the side of the picture "
                    f"({100 * share:.0f} % of the slices): bone cut off by the field of view, or a table; reconstruct "
                    "a wider one if it matters")]  # fmt: skip

    def _order(self) -> list[Finding]:
        """Slices repeated at other places, swapped with a neighbour, or strangers between theirs."""
        twice = sum(n - 1 for n in Counter(self.sums).values())
        real = len(self.noise) > 20 and float(np.median(self.noise)) > 3  # a drawn prism repeats itself, a scan never
        if twice > RULES["repeated_slices"].threshold and (real or twice < self.seen / 4):
            return [hit("repeated_slices", f"{twice} slices repeat the pixels of another at a different place: copied, "
                        "or their positions are wrong; export the series again")]  # fmt: skip
        small = np.array(self.small)
        bad = out_of_order(small.reshape(len(small), -1))
        if not bad:
            return self._jump(small)
        at, why, size = bad[0]
        return [hit("out_of_order", f"slice {at + 1} of {self.seen} {why} ({size:.2f}, limit 1; {len(bad)} such places): "
                    "swapped, displaced, damaged or of another scan; export the series again")]  # fmt: skip

    def _jump(self, small: NDArray[np.float32]) -> list[Finding]:
        """Where the picture changes far more from one slice to the next than around there."""
        if self.seen <= 2 * NEAR:
            return []
        jump, limit = jumps(small), RULES["jump"].threshold
        at = int(np.argmax(jump))
        if jump[at] <= limit:
            return []
        name = "jump" if jump[at] <= RULES["jump_max"].threshold else "jump_max"
        return [hit(name, f"from slice {at + 1} to {at + 2} of {self.seen} the picture changes {jump[at]:.1f} times as "
                    f"much as around there (limit {limit:.1f}): the patient moved, or blocks were joined")]  # fmt: skip


def jumps(small: NDArray[np.float32]) -> NDArray:
    """Change from each slice to the next over the usual change around there."""
    one = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2))
    return one / np.maximum(_nearby(one), LEAST_CHANGE_HU)


def out_of_order(small: NDArray[np.float32]) -> list[tuple[int, str, float]]:
    """(index, what is wrong, size in units of its limit) of slices that do not lie between their neighbours.

    small holds one row of block means (HU) per slice. A slice is a stranger when going through it is a detour, against
    the usual change; two are swapped when the other order would join up better. Real scans of 0.8 to 5 mm slices stay
    below half of either limit; swapped neighbours in them reach 1.1 times theirs and more.
    """
    step, leap = np.diff(small, axis=0), small[2:] - small[:-2]
    one, two = np.abs(step).mean(axis=1), np.abs(leap).mean(axis=1)
    detour = (one[:-1] + one[1:] - two) / 2
    usual, habit = np.maximum(_nearby(np.minimum(one[:-1], one[1:])), LEAST_CHANGE_HU), _nearby(detour)
    far = np.minimum(detour / (RULES["out_of_order"].threshold * usual), detour / (4 * np.maximum(habit, 0.25)))
    out = [(int(k) + 1, "does not fit between its neighbours", float(far[k])) for k in np.flatnonzero(far > 1)]
    square, wide = (step**2).mean(axis=1), (leap**2).mean(axis=1)
    now, other = square[:-2] + square[2:], wide[:-1] + wide[1:]
    swap = (now - other) / (now + other + 2 * LEAST_CHANGE_HU**2) / RULES["swapped_slices"].threshold
    out += [
        (int(k) + 1, "would join up better in its neighbour's place", float(swap[k])) for k in np.flatnonzero(swap > 1)
    ]
    return sorted(out)


def rows_astray(plane: NDArray[np.int16]) -> bool:
    """Whether rows join up as when their length is wrong: each better with the next after a shift along it, better with
    the one after than with the next, or a row with its own other half. Pictures under 8 samples wide cannot tell."""
    if min(plane.shape) < 8:
        return False
    edges = np.clip(np.diff(np.clip(plane, *WINDOW_HU).astype(np.float32), axis=1), -300, 300)
    turned = np.fft.rfft(edges, axis=1)
    joint = np.fft.irfft((turned[:-1].conj() * turned[1:]).sum(axis=0), n=edges.shape[1])
    size, limit = edges.shape[1], RULES["scrambled_rows"].threshold
    here = max(float(joint[[0, 1, -1]].max()), 1.0)
    best = int(np.argmax(joint))
    if min(best, size - best) > 2 and float(joint[best]) > limit * here:
        return True
    after = float(np.einsum("ij,ij->", edges[:-2], edges[2:]))
    if after > limit * here:
        return True
    own = np.fft.irfft((turned.conj() * turned).sum(axis=0), n=size)[size // 5 : size - size // 5]
    return bool(len(own)) and float(own.max()) > 0.8 * here


def _small(plane: NDArray[np.int16], block: list[int]) -> NDArray[np.float32]:
    """Means of blocks of (columns, rows) samples; what is left over at the end is dropped."""
    across, down = block
    rows, columns = max(plane.shape[0] // down, 1), max(plane.shape[1] // across, 1)
    down, across = min(down, plane.shape[0]), min(across, plane.shape[1])
    tall = plane[: rows * down].reshape(rows, down, -1).sum(axis=1, dtype=np.int32)
    return tall[:, : columns * across].reshape(rows, columns, across).sum(axis=2) / np.float32(down * across)


def _nearby(values: NDArray) -> NDArray:
    """Running median over NEAR values on each side."""
    wide = np.pad(values, NEAR, mode="reflect") if len(values) > NEAR else np.pad(values, NEAR, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(wide, 2 * NEAR + 1), axis=1)


def _muscle_noise(plane: NDArray[np.int16], spacing_mm: tuple[float, ...]) -> list[float]:
    """Standard deviation of each block of about 5 mm that may be muscle: its mean lies in MUSCLE_HU."""
    down, across = (max(4, round(5.0 / spacing_mm[a])) for a in (1, 0))
    rows, columns = plane.shape[0] // down, plane.shape[1] // across
    if not rows or not columns:
        return []
    blocks = plane[: rows * down, : columns * across].reshape(rows, down, columns, across).astype(np.float32)
    mean = blocks.mean(axis=(1, 3))
    soft = (mean >= MUSCLE_HU[0]) & (mean <= MUSCLE_HU[1])
    blocks = blocks.transpose(0, 2, 1, 3)[soft].reshape(-1, down * across)
    middle = np.median(blocks, axis=1)
    even = (middle >= MUSCLE_HU[0]) & (middle <= MUSCLE_HU[1])  # half bone, half fat has a mean like muscle
    return [float(s) for s in blocks[even].std(axis=1)]


def _bone_at_edge(plane: NDArray[np.int16], sides: tuple[bool, bool]) -> int:
    """Samples of bone on the outermost line of what was measured: the frame, or where padding begins."""
    rows, columns = (np.flatnonzero((plane > FLOOR_HU).any(axis=a)) for a in (1, 0))
    if not len(rows):
        return 0
    part = plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    lines = [part[:, 0], part[:, -1]] * int(sides[0]) + [part[0], part[-1]] * int(sides[1])
    return max((int(np.count_nonzero((line > BONE_HU) & (line <= 3000))) for line in lines), default=0)
