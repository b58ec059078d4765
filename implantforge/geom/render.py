"""Pictures of surfaces by ray casting on the processor: no OpenGL, no display, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, GeometryError, Mesh

Colour = tuple[float, float, float]
Paint = Callable[[Array], Array] | Array | None
Layer = tuple[Mesh, Colour, float, Paint]

# view: (the way the eye looks, what is up in the picture), patient LPS
_VIEWS = {
    "anterior": ((0, 1, 0), (0, 0, 1)),
    "posterior": ((0, -1, 0), (0, 0, 1)),
    "left": ((-1, 0, 0), (0, 0, 1)),
    "right": ((1, 0, 0), (0, 0, 1)),
    "superior": ((0, 0, -1), (0, -1, 0)),
    "inferior": ((0, 0, 1), (0, -1, 0)),
    "iso": ((-0.55, 0.75, -0.35), (0, 0, 1)),
}
VIEWS = (*_VIEWS, "medial", "lateral")
_PEELS = 4
_RAYS_AT_ONCE = 400_000


@dataclass(frozen=True, eq=False)
class Camera:
    """A parallel eye: centre_mm is mid-picture, right/up/look are unit vectors, size is (height, width) in pixels."""

    centre_mm: Array
    right: Array
    up: Array
    look: Array
    mm_per_px: float
    size: tuple[int, int]

    def to_pixel(self, points_mm: Array) -> Array:
        """(n,3) patient mm to (n,2) picture x (from the left edge), y (from the top edge), pixels."""
        local = np.atleast_2d(points_mm) - self.centre_mm
        height, width = self.size
        return np.column_stack(
            [width / 2 + local @ self.right / self.mm_per_px, height / 2 - local @ self.up / self.mm_per_px]
        )

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """Patient directions at the left, right, top and bottom edge: 'R', 'L', 'S', 'I' in an anterior view."""
        return direction(-self.right), direction(self.right), direction(self.up), direction(-self.up)


def direction(vector: Array) -> str:
    """Letters of a patient direction, the strongest first: one of L R A P S I, or two ('LA') when it lies between."""
    unit = np.asarray(vector, float) / np.linalg.norm(vector)
    order = np.argsort(-np.abs(unit), kind="stable")
    names = ("LR", "PA", "SI")
    return "".join(names[axis][int(unit[axis] < 0)] for axis in order[:2] if abs(unit[axis]) > 0.38)


def look_up(view: str | tuple[Array, Array], side: str | None = None) -> tuple[Array, Array]:
    """Unit look and up vectors of a named view; 'medial' and 'lateral' need the side. GeometryError for other names."""
    if not isinstance(view, str):
        look, up = (np.asarray(v, float) for v in view)
    else:
        if view in ("medial", "lateral"):
            if side not in ("left", "right"):
                raise GeometryError(f"view {view}: needs the side, left or right (got {side})")
            view = side if view == "lateral" else {"left": "right", "right": "left"}[side]
        if view not in _VIEWS:
            raise GeometryError(f"no view {view!r}; there are {', '.join(VIEWS)}")
        look, up = (np.array(v, float) for v in _VIEWS[view])
    look = look / np.linalg.norm(look)
    up = up - look * (up @ look)
    return look, up / np.linalg.norm(up)


def camera(
    around: Sequence[Mesh] | Array,
    view: str | tuple[Array, Array] = "anterior",
    size: int | tuple[int, int] = 600,
    *,
    side: str | None = None,
    margin: float = 0.06,
    mm_per_px: float | None = None,
) -> Camera:
    """An eye that sees all of `around` (meshes, or points (n,3) mm). size is (height, width) or one length in pixels;
    with mm_per_px the scale is kept and only the centre is found."""
    look, up = look_up(view, side)
    right = np.cross(look, up)
    clouds = [around] if isinstance(around, np.ndarray) else [m.vertices for m in around]
    axes = np.array([right, up, look])
    along = [[cloud @ axis for cloud in clouds] for axis in axes]
    lo = np.array([min(a.min() for a in cloud) for cloud in along])
    hi = np.array([max(a.max() for a in cloud) for cloud in along])
    height, width = (size, size) if isinstance(size, int) else size
    if mm_per_px is None:
        mm_per_px = float(max((hi - lo)[0] / width, (hi - lo)[1] / height, 1e-6) * (1 + 2 * margin))
    return Camera((lo + hi) / 2 @ axes, right, up, look, mm_per_px, (height, width))


def render(
    meshes: Sequence[Layer],
    view: str | Camera = "anterior",
    size: int | tuple[int, int] = 600,
    *,
    side: str | None = None,
    samples: int = 2,
    occlusion_mm: float = 20.0,
    rays: int = 64,
    background: Colour = (1.0, 1.0, 1.0),
) -> NDArray[np.uint8]:
    """A shaded picture (H,W,3).

    Each layer is (mesh, rgb 0..1, alpha, paint): paint is None, a colour per vertex (n,3), or a function from points
    (n,3) mm to colours (n,3). Layers with alpha < 1 are seen through, denser where the surface turns away.
    samples squared rays go through each pixel; occlusion_mm is how far a surface shades its neighbours (0: not at
    all), tested in `rays` directions.
    """
    eye = view if isinstance(view, Camera) else camera([m[0] for m in meshes], view, size, side=side)
    height, width = eye.size
    layers = [(_traced(m), np.array(rgb, np.float32), alpha, paint) for m, rgb, alpha, paint in meshes if len(m.faces)]
    out = np.empty((height, width, 3), np.float32)
    rows = max(_RAYS_AT_ONCE // (width * samples * samples), 1)
    far = max((layer[0].radius_mm + np.linalg.norm(layer[0].centre - eye.centre_mm) for layer in layers), default=1.0)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        origins = _origins(eye, top, count, samples) - eye.look * far
        colours = _shade(layers, origins, eye, np.array(background, np.float32), (occlusion_mm, rays), samples)
        out[top : top + count] = colours.reshape(count, samples, width, samples, 3).mean(axis=(1, 3))
    return (np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8)


def _origins(eye: Camera, top: int, count: int, samples: int) -> Array:
    """Points in the picture plane of the rays of rows top..top+count, row by row."""
    height, width = eye.size
    # a third of a sample aside keeps rays off symmetric edges, where two faces would tie
    x = ((np.arange(width * samples) + 0.5013) / samples - width / 2) * eye.mm_per_px
    y = (height / 2 - (np.arange(top * samples, (top + count) * samples) + 0.4987) / samples) * eye.mm_per_px
    return (eye.centre_mm + y[:, None, None] * eye.up + x[None, :, None] * eye.right).reshape(-1, 3)


def _shade(
    layers: list, origins: Array, eye: Camera, background: NDArray, shadow: tuple[float, int], samples: int
) -> NDArray:
    """Colours (n,3) of parallel rays: the nearest opaque surface, then the translucent ones before it, far to near."""
    index = np.arange(len(origins))
    share = (index // (eye.size[1] * samples) % samples) * samples + index % samples
    colour = np.tile(background, (len(origins), 1))
    nearest = np.full(len(origins), np.inf, np.float32)
    solid = [layer for layer in layers if layer[2] >= 1]
    for traced, rgb, _, paint in solid:
        ray, distance, at, normal = traced.first(origins, eye.look)
        closer = distance < nearest[ray]
        ray, at, normal = ray[closer], at[closer], normal[closer]
        nearest[ray] = distance[closer]
        shade = _paint(paint, rgb, traced, at)
        light: NDArray | float = 1.0
        if shadow[0]:
            light = _occlusion([layer[0] for layer in solid], at, normal, shadow, share[ray], samples**2)
        colour[ray] = _lit(shade, normal, eye, light)
    skins = []
    for traced, rgb, alpha, paint in layers:
        if alpha < 1:
            skins += _peel(traced, rgb, alpha, paint, origins, eye, nearest)
    if not skins:
        return colour
    depth = np.stack([s[0] for s in skins])
    order = np.argsort(-depth, axis=0, kind="stable")
    columns = np.arange(len(origins))
    rgbs, alphas = np.stack([s[1] for s in skins]), np.stack([s[2] for s in skins])
    for step in order:
        a = alphas[step, columns][:, None]
        colour = colour * (1 - a) + rgbs[step, columns] * a
    return colour


def _peel(
    traced: _Traced, rgb: NDArray, alpha: float, paint: Paint, origins: Array, eye: Camera, limit: NDArray
) -> list:
    """(depth, rgb, alpha) arrays of up to _PEELS surfaces of one translucent mesh that lie before the opaque ones."""
    out = []
    start = np.zeros(len(origins))
    alive = np.arange(len(origins))
    for _ in range(_PEELS):
        ray, distance, at, normal = traced.first(origins[alive] + start[alive, None] * eye.look, eye.look)
        which = alive[ray]
        distance = distance + start[which]
        front = distance < limit[which]
        which, distance, at, normal = which[front], distance[front], at[front], normal[front]
        if not len(which):
            break
        depth = np.full(len(origins), np.inf, np.float32)
        colours = np.zeros((len(origins), 3), np.float32)
        alphas = np.zeros(len(origins), np.float32)
        turn = np.maximum(np.abs(normal @ eye.look.astype(np.float32)), 0.12)
        depth[which] = distance
        colours[which] = _lit(_paint(paint, rgb, traced, at), normal, eye, 1.0)
        alphas[which] = 1 - (1 - alpha) ** (1 / turn)
        out.append((depth, colours, alphas))
        start[which] = distance + 2e-3
        alive = which
    return out


def _paint(paint: Paint, rgb: NDArray, traced: _Traced, at: NDArray) -> NDArray:
    """Colours of the points `at`, (n,6): x y z mm of the hit, face, u, v."""
    if paint is None:
        return np.broadcast_to(rgb, (len(at), 3))
    if callable(paint):
        return np.asarray(paint(at[:, :3]), np.float32)
    return traced.interpolate(np.asarray(paint, np.float32), at)


def _lit(rgb: NDArray, normal: NDArray, eye: Camera, light: NDArray | float) -> NDArray:
    """Colour under a lamp over the viewer's left shoulder, a soft fill light, and a little gloss."""
    lamp = -0.80 * eye.look - 0.35 * eye.right + 0.49 * eye.up
    lamp = (lamp / np.linalg.norm(lamp)).astype(np.float32)
    half = lamp - eye.look.astype(np.float32)
    half /= np.linalg.norm(half)
    bright = 0.30 + 0.25 * np.clip(-normal @ eye.look.astype(np.float32), 0, 1) + 0.50 * np.clip(normal @ lamp, 0, 1)
    gloss = 0.16 * np.clip(normal @ half, 0, 1) ** 24
    shade = bright * light
    return rgb * shade[:, None] + (gloss * light)[:, None]


def _occlusion(
    scenes: list, at: NDArray, normal: NDArray, shadow: tuple[float, int], share: NDArray, shares: int
) -> NDArray:
    """Share of the sky each point sees within the reach, cosine weighted, from directions fixed in the patient frame.

    The samples of one pixel split the directions between them: four times cheaper, and free of noise.
    """
    reach_mm, count = shadow
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, k * np.pi * (3 - np.sqrt(5))
    sky = np.column_stack([np.cos(turn) * np.sqrt(1 - z * z), np.sin(turn) * np.sqrt(1 - z * z), z]).astype(np.float32)
    seen, total = np.zeros(len(at), np.float32), np.full(len(at), 1e-6, np.float32)
    start = (at[:, :3] + normal * max(2e-3, reach_mm * 1e-3)).astype(np.float32)
    groups = [np.flatnonzero(share == s) for s in range(shares)]
    normals = [normal[g] for g in groups]
    for number, ray in enumerate(sky):
        mine = groups[number % shares]
        weight = normals[number % shares] @ ray
        up, weight = mine[weight > 0.05], weight[weight > 0.05]
        free = np.ones(len(up), bool)
        for traced in scenes:
            free &= ~traced.blocked(start[up], ray, reach_mm)
        seen[up] += weight * free
        total[up] += weight
    return 0.25 + 0.75 * seen / total


class _Traced:
    """A mesh inside embree, with normals; coordinates are centred, because embree computes in single precision."""

    def __init__(self, mesh: Mesh) -> None:
        rtcore_scene, mesh_construction = _embree()
        self.centre = mesh.bounds.mean(axis=0)
        self.radius_mm = float(np.linalg.norm(mesh.bounds[1] - mesh.bounds[0])) / 2 + 1.0
        self.faces = mesh.faces
        cross = mesh.face_cross
        self.face_normals = _unit(cross).astype(np.float32)
        sums = [np.bincount(mesh.faces.ravel(), np.repeat(cross[:, i], 3), len(mesh.vertices)) for i in range(3)]
        self.vertex_normals = _unit(np.column_stack(sums)).astype(np.float32)
        self.scene = rtcore_scene.EmbreeScene()
        corners = (mesh.vertices - self.centre).astype(np.float32)[mesh.faces]
        mesh_construction.TriangleMesh(self.scene, corners)

    def first(self, origins: Array, look: Array) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Ray index, distance mm, (x, y, z, face, u, v) and the normal turned to the eye, of the rays that hit."""
        start = (origins - self.centre).astype(np.float32)
        ways = np.broadcast_to(look.astype(np.float32), start.shape).copy()
        hit = self.scene.run(start, ways, output=True)
        ray = np.flatnonzero(hit["primID"] >= 0)
        face, u, v = (hit[key][ray] for key in ("primID", "u", "v"))
        distance = hit["tfar"][ray]
        where = origins[ray] + distance[:, None] * look
        at = np.column_stack([where, face, u, v])
        flat = self.face_normals[face]
        smooth = _unit(self.interpolate(self.vertex_normals, at))
        # a crease stays a crease: 40 degrees between the face and the mean of its neighbours
        normal = np.where((np.einsum("ij,ij->i", flat, smooth) > 0.77)[:, None], smooth, flat)
        normal = np.where((normal @ look > 0)[:, None], -normal, normal)
        return ray, distance, at, normal.astype(np.float32)

    def interpolate(self, values: NDArray, at: NDArray) -> NDArray:
        """Vertex values (n,3) at hits (x, y, z, face, u, v)."""
        face, u, v = at[:, 3].astype(np.int64), at[:, 4:5], at[:, 5:6]
        a, b, c = (values[self.faces[face, i]] for i in range(3))
        return (a * (1 - u - v) + b * u + c * v).astype(np.float32)

    def blocked(self, start: NDArray, way: NDArray, reach_mm: float) -> NDArray:
        """Whether something of this mesh lies within reach_mm of each start point in one direction."""
        origins = (start - self.centre).astype(np.float32)
        ways = np.broadcast_to(way, origins.shape).copy()
        reach = np.full(len(origins), reach_mm, np.float32)
        return self.scene.run(origins, ways, reach, query="OCCLUDED") == 0


_SEEN: WeakKeyDictionary[Mesh, _Traced] = WeakKeyDictionary()


def _traced(mesh: Mesh) -> _Traced:
    """The mesh prepared for rays, kept as long as the mesh lives."""
    if mesh not in _SEEN:
        _SEEN[mesh] = _Traced(mesh)
    return _SEEN[mesh]


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)


def _embree() -> tuple[Any, Any]:
    try:
        from embreex import mesh_construction, rtcore_scene
    except ImportError as error:
        raise GeometryError(f"pictures need the embreex package (pip install embreex): {error}") from error
    return rtcore_scene, mesh_construction
