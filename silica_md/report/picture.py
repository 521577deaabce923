"""A picture of a structure: balls, bonds and cell edges drawn into a depth buffer with numpy.

Every sphere and cylinder is painted pixel by pixel with its own depth, so whatever is nearer hides what
is behind it. Shading then works on the finished image: light from the upper left, dark seams where
something stands in front of something farther away, and haze. The haze is transparency, so the picture
fades into a light page and a dark one alike.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.ndimage import gaussian_filter, minimum_filter

__all__ = ["ATOM_STYLES", "BOND_LENGTHS", "LARGEST_REGION", "draw_structure"]

# element: (colour, radius in Å); blue, vermilion and yellow stay apart for colour-blind readers too
ATOM_STYLES = {"Si": ("#3a7bc8", 0.52), "O": ("#ea6a45", 0.42), "Na": ("#f4c534", 0.70)}
BOND_LENGTHS = {("Si", "O"): 2.2}  # Å; longer pairs are not joined

_OTHER = ("#8a94a3", 0.5)
_BOND_RADIUS, _EDGE_RADIUS = 0.17, 0.05  # Å
_EDGE_COLOUR = "#7c8796"
_HAZE = 4.0  # optical depth of the haze over the whole region
_SUPERSAMPLING = 2
LARGEST_REGION = 36.0  # Å; of a larger cell a cube of this size is cut out of the middle


def draw_structure(atoms: Atoms, width: int = 1100, height: int = 960) -> np.ndarray:
    """Draw a structure in perspective on a transparent ground.

    Parameters
    ----------
    atoms : ase.Atoms
        Any cell; of cells larger than 36 Å a cut-out is shown.
    width, height : int
        Size in pixels.

    Returns
    -------
    (height, width, 4) array of uint8
        Red, green, blue, alpha.

    Notes
    -----
    Cost: about 1 s for 1,500 atoms; the cut-out bounds it for large systems.
    """
    scene = _Scene.of(atoms)
    camera = _Camera.framing(scene.corners, width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    canvas = _Canvas(width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    for start, end, start_colour, end_colour, radius in scene.sticks:
        canvas.stick(camera, start, end, start_colour, end_colour, radius)
    for centre, colour, radius in scene.balls:
        canvas.ball(camera, centre, colour, radius)
    return canvas.shaded(camera)


@dataclass
class _Scene:
    """What there is to draw, in Å about the middle of the region shown."""

    balls: list
    sticks: list
    corners: np.ndarray

    @classmethod
    def of(cls, atoms):
        """Balls with their bonds, bonds through a face continued to the image of the atom outside, and
        the edges."""
        atoms = atoms.copy()
        atoms.wrap()
        cell = np.array(atoms.cell)
        periodic = atoms.cell.rank == 3
        if not periodic:
            low, high = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
            cell, origin = np.diag(np.maximum(high - low, 1.0)), low
        else:
            origin = np.zeros(3)
        middle = origin + cell.sum(axis=0) / 2
        unit_cube = np.array(list(itertools.product((0, 1), repeat=3)))
        corners = origin + unit_cube @ cell - middle
        half = np.minimum(np.abs(corners).max(axis=0), LARGEST_REGION / 2)
        whole = np.all(half == np.abs(corners).max(axis=0))
        if not whole:
            corners = (2 * unit_cube - 1) * half
        positions = atoms.positions - middle
        shown = np.all(np.abs(positions) <= half, axis=1)
        symbols = np.array(atoms.get_chemical_symbols())

        styles = {symbol: ATOM_STYLES.get(symbol, _OTHER) for symbol in set(symbols)}
        styles = {symbol: (_rgb(colour), radius) for symbol, (colour, radius) in styles.items()}
        balls, sticks, bonded = {}, [], set()
        region = np.flatnonzero(np.all(np.abs(positions) <= half + 3.0, axis=1))
        for i, j, vector, shift in zip(*neighbor_list("ijDS", atoms[region], BOND_LENGTHS), strict=True):
            i, j = region[i], region[j]
            bonded.update((i, j))
            if (symbols[i], symbols[j]) in BOND_LENGTHS and shown[i]:
                end = positions[i] + vector
                balls[i, (0, 0, 0)] = (positions[i], *styles[symbols[i]])
                balls[j, tuple(shift)] = (end, *styles[symbols[j]])
                sticks.append((positions[i], end, styles[symbols[i]][0], styles[symbols[j]][0], _BOND_RADIUS))
        for i in set(np.flatnonzero(shown)) - bonded:  # sodium; oxygens come with their silicon
            balls[i, (0, 0, 0)] = (positions[i], *styles[symbols[i]])
        edge, steps = _rgb(_EDGE_COLOUR), np.linspace(0, 1, 25)[:, None]  # short pieces are painted faster
        for a in range(8):
            for b in range(a + 1, 8):
                if bin(a ^ b).count("1") == 1:  # corners that differ in one bit share an edge
                    points = corners[a] + steps * (corners[b] - corners[a])
                    sticks += [(p, q, edge, edge, _EDGE_RADIUS) for p, q in itertools.pairwise(points)]
        return cls(list(balls.values()), sticks, corners)


@dataclass
class _Camera:
    """Perspective: where a point falls on the image, how large 1 Å is there, and how far away it is."""

    rotation: np.ndarray
    distance: float
    scale: float
    centre: np.ndarray
    near: float
    far: float

    @classmethod
    def framing(cls, corners, width, height, yaw=-24.0, pitch=14.0, margin=0.035):
        """Look at the corners from a little to the right and above, and fill the image with them."""
        y, p = np.radians([yaw, pitch])
        about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
        rotation = about_x @ about_y
        distance = 4.2 * np.linalg.norm(corners, axis=1).max()
        turned = corners @ rotation.T
        flat = turned[:, :2] / (distance - turned[:, 2:])
        low, high = flat.min(axis=0), flat.max(axis=0)
        scale = (1 - 2 * margin) * np.min(np.array([width, height]) / (high - low))
        centre = np.array([width, height]) / 2 - scale * (low + high) / 2
        away = distance - turned[:, 2]
        return cls(rotation, distance, scale, centre, away.min(), away.max())

    def project(self, point):
        """Column and row counted upwards (pixels), distance (Å), pixels per Å there."""
        turned = self.rotation @ point
        away = self.distance - turned[2]
        column, row = self.scale * turned[:2] / away + self.centre
        return column, row, away, self.scale / away


class _Canvas:
    """Depth, surface normal and colour of the nearest thing at each pixel."""

    def __init__(self, width, height):
        self.depth = np.full((height, width), np.inf, np.float32)
        self.normal = np.zeros((height, width, 3), np.float32)
        self.colour = np.zeros((height, width, 3), np.float32)

    def ball(self, camera, centre, colour, radius):
        """Paint a sphere of `radius` Å."""
        x, y, away, size = camera.project(centre)
        pixels = radius * size
        window = self._window(x - pixels, x + pixels, y - pixels, y + pixels)
        if window is None:
            return
        columns, rows = self._grid(window)
        u, v = (columns - x) / pixels, (rows - y) / pixels
        inside = 1 - u * u - v * v
        w = np.sqrt(np.maximum(inside, 0))
        self._paint(window, inside > 0, away - radius * w, (u, v, w), colour)

    def stick(self, camera, start, end, start_colour, end_colour, radius):
        """Paint a cylinder whose two halves have their own colours."""
        x0, y0, away0, size0 = camera.project(start)
        x1, y1, away1, size1 = camera.project(end)
        pixels = radius * max(size0, size1)
        (left, right), (bottom, top) = sorted((x0, x1)), sorted((y0, y1))
        window = self._window(left - pixels, right + pixels, bottom - pixels, top + pixels)
        if window is None:
            return
        columns, rows = self._grid(window)
        along = np.array([x1 - x0, y1 - y0])
        length = max(np.hypot(*along), 1e-6)
        ex, ey = along / length
        t = ((columns - x0) * ex + (rows - y0) * ey) / length
        u = ((rows - y0) * ex - (columns - x0) * ey) / (radius * (size0 + np.clip(t, 0, 1) * (size1 - size0)))
        w = np.sqrt(np.maximum(1 - u * u, 0))
        colour = np.where((t < 0.5)[..., None], start_colour, end_colour)
        inside = (np.abs(u) < 1) & (t >= 0) & (t <= 1)
        self._paint(window, inside, away0 + t * (away1 - away0) - radius * w, (-ey * u, ex * u, w), colour)

    def shaded(self, camera):
        """Light, seams and haze, averaged down to the final size."""
        hit = np.isfinite(self.depth)
        depth = np.where(hit, self.depth, camera.far)
        light = np.array([-0.45, 0.55, 0.70])
        light /= np.linalg.norm(light)
        half_way = light + np.array([0, 0, 1.0])
        half_way /= np.linalg.norm(half_way)
        diffuse = np.clip(self.normal @ light, -1, 1)
        gloss = np.clip(self.normal @ half_way, 0, 1) ** 60
        brightness = (0.60 + 0.52 * np.maximum(diffuse, -0.4)) * self._openness(depth, hit, camera)
        colour = self.colour * brightness[..., None] + 0.30 * gloss[..., None]
        away = np.clip((depth - camera.near) / (camera.far - camera.near), 0, 1)
        alpha = np.where(hit, np.exp(-_HAZE * away * away), 0)
        rgba = np.concatenate([np.clip(colour, 0, 1) * alpha[..., None], alpha[..., None]], axis=2)
        n = _SUPERSAMPLING
        rgba = rgba.reshape(rgba.shape[0] // n, n, rgba.shape[1] // n, n, 4).mean(axis=(1, 3))
        rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-6)
        return (255 * np.clip(rgba, 0, 1)[::-1] + 0.5).astype(np.uint8)

    def _openness(self, depth, hit, camera):
        """1 in the open, less where nearer things crowd around a pixel or an outline runs."""
        n = 2 * _SUPERSAMPLING  # crowding is smooth: a coarse image does
        coarse, weight = depth[n // 2 :: n, n // 2 :: n], hit[n // 2 :: n, n // 2 :: n].astype(np.float32)
        openness = np.ones_like(depth)
        for reach, strength in ((0.5, 0.28), (1.6, 0.18)):  # Å
            sigma = reach * camera.scale / camera.distance / n
            filled = np.maximum(gaussian_filter(weight, sigma), 1e-3)
            around = gaussian_filter(coarse * weight, sigma) / filled
            around = np.repeat(np.repeat(around, n, axis=0), n, axis=1)[: depth.shape[0], : depth.shape[1]]
            openness -= strength * np.clip((depth - around) / (2.5 * reach), 0, 1)
        nearest = minimum_filter(depth, size=2 * _SUPERSAMPLING - 1)
        outline = np.clip((depth - nearest - 0.35) / 0.5, 0, 1)
        return np.clip(openness, 0.25, 1) * (1 - 0.55 * outline)

    def _window(self, left, right, bottom, top):
        height, width = self.depth.shape
        c0, c1 = max(int(left), 0), min(int(right) + 2, width)
        r0, r1 = max(int(bottom), 0), min(int(top) + 2, height)
        return (r0, r1, c0, c1) if r0 < r1 and c0 < c1 else None

    @staticmethod
    def _grid(window):
        r0, r1, c0, c1 = window
        return np.arange(c0, c1)[None, :] + 0.5, np.arange(r0, r1)[:, None] + 0.5

    def _paint(self, window, inside, depth, normal, colour):
        r0, r1, c0, c1 = window
        region = slice(r0, r1), slice(c0, c1)
        front = inside & (depth < self.depth[region])
        self.depth[region][front] = depth[front]
        for k in range(3):
            self.normal[region][front, k] = np.broadcast_to(normal[k], front.shape)[front]
        self.colour[region][front] = colour[front] if np.ndim(colour) == 3 else colour


def _rgb(code):
    return np.array([int(code[k : k + 2], 16) for k in (1, 3, 5)]) / 255
