"""Outlines of the classes of `data shapes --style rich`: things by their silhouette, drawn from code alone.

Each is drawn in a plane of its own, x to the right and y down, then moved into the circle of radius 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(P, 2) corners of a polygon as x, y; or the (2, 2) matrix that turns them."""
ROUND = 48
"""Corners of a full circle."""


class Silhouette(NamedTuple):
    """One class of objects."""

    name: str
    parts: tuple[Points, ...]
    """Their union is the object."""
    holes: tuple[Points, ...] = ()
    details: tuple[Points, ...] = ()
    """Drawn on top in another tone: windows, eyes, a nucleus."""


def _disc(x: float = 0, y: float = 0, rx: float = 1, ry: float | None = None) -> Points:
    angle = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + (rx if ry is None else ry) * np.sin(angle)], axis=1)


def _rect(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, np.float64)


def _regular(corners: int, inner: float = 1.0) -> Points:
    """Corners on the circle of radius 1 and, by turns, on one of radius `inner`."""
    count = corners if inner == 1.0 else 2 * corners
    radius = np.where(np.arange(count) % 2 == 0, 1.0, inner)
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _petals(count: int, depth: float, sharp: float = 1.0) -> Points:
    angle = np.linspace(0, 2 * np.pi, 3 * ROUND, endpoint=False)
    radius = 1 - depth * np.abs(np.sin(count * angle / 2)) ** sharp
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _turned(*profile: tuple[float, float]) -> Points:
    """A thing from the lathe: half widths and heights from its top down, mirrored."""
    half = np.array(profile, np.float64)
    return np.concatenate([half, (half * (-1, 1))[::-1]])


def _arc(start: float, end: float, outer: float, inner: float) -> Points:
    """Part of a ring; angles in turns, clockwise from the right."""
    angle = 2 * np.pi * np.linspace(start, end, ROUND)
    edge = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([outer * edge, inner * edge[::-1]])


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 2 * ROUND, endpoint=False)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([16 * np.sin(t) ** 3, y], axis=1)


def _drop() -> Points:
    t = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    return np.stack([np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)], axis=1)


def _lens(width: float) -> Points:
    t = np.linspace(-1, 1, ROUND)
    side = np.stack([width * (1 - t**2), t], axis=1)
    return np.concatenate([side, (side * (-1, 1))[::-1]])


def _crescent() -> Points:
    t = np.linspace(-1, 1, ROUND)
    outer = np.stack([-np.sqrt(1 - t**2), t], axis=1)
    inner = np.stack([-0.35 * np.sqrt(1 - t**2), t], axis=1)
    return np.concatenate([outer, inner[::-1]])


def _wing(side: float) -> tuple[Points, Points]:
    return _disc(side * 0.55, -0.35, 0.5, 0.5), _disc(side * 0.42, 0.42, 0.36, 0.42)


_WHEEL_GAPS = tuple(_arc(k / 5 + 0.03, k / 5 + 0.17, 0.72, 0.25) for k in range(5))

_DRAWN: tuple[Silhouette, ...] = (
    Silhouette("disc", (_disc(),)),
    Silhouette("square", (_rect(-1, -1, 1, 1),)),
    Silhouette("slab", (_rect(-1, -0.4, 1, 0.4),)),
    Silhouette("triangle", (_regular(3),)),
    Silhouette("hexagon", (_regular(6),)),
    Silhouette("star", (_regular(5, 0.42),)),
    Silhouette("burst", (_regular(12, 0.72),)),
    Silhouette("ring", (_disc(),), (_disc(rx=0.55),)),
    Silhouette("frame", (_rect(-1, -0.8, 1, 0.8),), (_rect(-0.65, -0.5, 0.65, 0.5),)),
    Silhouette("cross", (_rect(-0.3, -1, 0.3, 1), _rect(-1, -0.3, 1, 0.3))),
    Silhouette("heart", (_heart(),)),
    Silhouette("crescent", (_crescent(),)),
    Silhouette("drop", (_drop(),)),
    Silhouette("leaf", (_lens(0.42),), details=(_rect(-0.03, -0.8, 0.03, 0.95),)),
    Silhouette("half disc", (_arc(0, 0.5, 1, 0),)),
    Silhouette("arrow", (_rect(-1, -0.18, 0.3, 0.18), _polygon((0.2, -0.6), (1, 0), (0.2, 0.6)))),
    Silhouette(
        "bolt", (_polygon((0.1, -1), (-0.5, 0.15), (-0.05, 0.15), (-0.2, 1), (0.5, -0.25), (0.05, -0.25)),)
    ),
    Silhouette("bracket", (_rect(-0.7, -1, -0.25, 1), _rect(-0.7, 0.55, 0.7, 1))),
    Silhouette("tee", (_rect(-0.8, -1, 0.8, -0.55), _rect(-0.22, -0.8, 0.22, 1))),
    Silhouette("horseshoe", (_arc(0.42, 1.08, 1, 0.58),)),
    Silhouette("gear", (_petals(10, 0.22, 0.3),), (_disc(rx=0.28),)),
    Silhouette("flower", (_petals(5, 0.5),), details=(_disc(rx=0.25),)),
    Silhouette(
        "cloud",
        (_disc(-0.5, 0.15, 0.45), _disc(0, -0.15, 0.55), _disc(0.5, 0.15, 0.42), _rect(-0.5, 0.1, 0.5, 0.58)),
    ),
    Silhouette("cell", (_petals(3, 0.12),), details=(_disc(0.1, 0.05, 0.42, 0.36),)),
    Silhouette(
        "bottle",
        (_turned((0.13, -1), (0.13, -0.45), (0.2, -0.35), (0.34, -0.2), (0.34, 1)),),
        details=(_rect(-0.34, 0.1, 0.34, 0.6),),
    ),
    Silhouette("vase", (_turned((0.4, -1), (0.2, -0.7), (0.3, -0.4), (0.6, 0.2), (0.5, 0.7), (0.3, 1)),)),
    Silhouette(
        "goblet",
        (_turned((0.55, -1), (0.5, -0.4), (0.3, -0.05), (0.08, 0.05), (0.08, 0.75), (0.45, 0.9), (0.45, 1)),),
    ),
    Silhouette(
        "pawn",
        (
            _disc(0, -0.62, 0.36),
            _turned((0.2, -0.4), (0.42, -0.25), (0.2, -0.15), (0.3, 0.5), (0.6, 0.7), (0.65, 1)),
        ),
    ),
    Silhouette(
        "bell",
        (_turned((0.1, -1), (0.3, -0.9), (0.5, -0.4), (0.55, 0.3), (0.85, 0.65)), _disc(0, 0.72, 0.22)),
    ),
    Silhouette("pear", (_disc(0, 0.4, 0.62, 0.6), _disc(0, -0.3, 0.36, 0.5), _rect(-0.05, -1, 0.05, -0.7))),
    Silhouette("mug", (_rect(-0.8, -0.8, 0.4, 0.8), _disc(0.45, 0, 0.5, 0.55)), (_disc(0.58, 0, 0.22, 0.3),)),
    Silhouette(
        "house",
        (_polygon((-1, -0.1), (0, -1), (1, -0.1)), _rect(-0.75, -0.2, 0.75, 0.9)),
        details=(_rect(-0.15, 0.3, 0.2, 0.9), _rect(0.35, 0, 0.6, 0.3), _rect(-0.6, 0, -0.35, 0.3)),
    ),
    Silhouette(
        "car",
        (
            *(_rect(-1, -0.1, 1, 0.3), _polygon((-0.65, -0.1), (-0.4, -0.5), (0.3, -0.5), (0.6, -0.1))),
            *(_disc(-0.55, 0.3, 0.22), _disc(0.55, 0.3, 0.22)),
        ),
        details=(
            *(
                _polygon((-0.5, -0.12), (-0.33, -0.42), (-0.05, -0.42), (-0.05, -0.12)),
                _disc(-0.55, 0.3, 0.12),
            ),
            *(_polygon((0.03, -0.12), (0.03, -0.42), (0.25, -0.42), (0.45, -0.12)), _disc(0.55, 0.3, 0.12)),
        ),
    ),
    Silhouette(
        "fish",
        (_lens(0.42)[:, ::-1] * (0.75, 1), _polygon((0.55, 0), (1, -0.4), (0.9, 0), (1, 0.4))),
        details=(_disc(-0.5, -0.06, 0.07),),
    ),
    Silhouette("butterfly", (*_wing(-1), *_wing(1), _disc(0, 0, 0.1, 0.75))),
    Silhouette(
        "fir",
        (
            *(
                _polygon((0, -1), (0.45, -0.35), (-0.45, -0.35)),
                _polygon((0, -0.7), (0.6, 0.15), (-0.6, 0.15)),
            ),
            *(_polygon((0, -0.2), (0.75, 0.7), (-0.75, 0.7)), _rect(-0.12, 0.6, 0.12, 1)),
        ),
    ),
    Silhouette(
        "mushroom",
        (_arc(0.5, 1, 1, 0) * (1, 0.8), _turned((0.25, -0.1), (0.2, 0.4), (0.32, 0.9))),
        details=(_disc(-0.4, -0.3, 0.13), _disc(0.1, -0.5, 0.13), _disc(0.5, -0.22, 0.11)),
    ),
    Silhouette(
        "key",
        (
            _disc(-0.65, 0, 0.35),
            _rect(-0.4, -0.09, 1, 0.09),
            _rect(0.55, 0, 0.67, 0.32),
            _rect(0.82, 0, 0.95, 0.32),
        ),
        (_disc(-0.7, 0, 0.16),),
    ),
    Silhouette(
        "hammer",
        (
            _rect(-0.1, -0.6, 0.1, 1),
            _rect(-0.5, -0.95, 0.3, -0.55),
            _polygon((0.3, -0.95), (0.7, -0.6), (0.3, -0.6)),
        ),
    ),
    Silhouette(
        "figure",
        (
            *(_disc(0, -0.8, 0.2), _polygon((-0.3, -0.58), (0.3, -0.58), (0.2, 0.2), (-0.2, 0.2))),
            *(_polygon((-0.3, -0.58), (-0.2, -0.5), (-0.42, 0.1), (-0.52, 0.05)), _rect(-0.2, 0.1, -0.03, 1)),
            *(_polygon((0.3, -0.58), (0.2, -0.5), (0.42, 0.1), (0.52, 0.05)), _rect(0.03, 0.1, 0.2, 1)),
        ),
        details=(_rect(-0.22, 0.12, 0.22, 0.5),),
    ),
    Silhouette(
        "cat",
        (
            *(_disc(0, 0.1, 0.8, 0.7), _polygon((-0.75, -0.95), (-0.7, 0), (-0.15, -0.5))),
            _polygon((0.75, -0.95), (0.7, 0), (0.15, -0.5)),
        ),
        details=(
            _disc(-0.3, -0.02, 0.12),
            _disc(0.3, -0.02, 0.12),
            _polygon((-0.1, 0.28), (0.1, 0.28), (0, 0.4)),
        ),
    ),
    Silhouette(
        "horse",
        (
            *(_disc(0, 0, 0.62, 0.3), _polygon((0.4, 0.1), (0.3, -0.2), (0.65, -0.85), (0.85, -0.6))),
            *(_polygon((0.6, -0.8), (0.72, -0.88), (1.08, -0.5), (0.95, -0.4)), _rect(-0.55, 0, -0.4, 0.9)),
            *(_rect(-0.3, 0.1, -0.18, 0.9), _rect(0.2, 0.1, 0.32, 0.9), _rect(0.4, 0, 0.54, 0.9)),
            _polygon((-0.55, -0.15), (-0.95, 0.4), (-0.85, 0.45), (-0.5, 0.05)),
        ),
    ),
    Silhouette(
        "bone",
        (
            *(_rect(-0.7, -0.14, 0.7, 0.14), _disc(-0.75, -0.18, 0.24), _disc(-0.75, 0.18, 0.24)),
            *(_disc(0.75, -0.18, 0.24), _disc(0.75, 0.18, 0.24)),
        ),
    ),
    Silhouette(
        "plane",
        (
            *(_disc(0, 0, 0.13, 1), _polygon((0, -0.25), (1, 0.3), (1, 0.45), (-1, 0.45), (-1, 0.3))),
            _polygon((0, 0.6), (0.4, 0.9), (-0.4, 0.9)),
        ),
    ),
    Silhouette(
        "boat",
        (
            *(_polygon((-1, 0.35), (1, 0.35), (0.65, 0.85), (-0.7, 0.85)), _rect(-0.04, -1, 0.04, 0.4)),
            *(
                _polygon((0.08, -0.95), (0.08, 0.25), (0.8, 0.25)),
                _polygon((-0.1, -0.7), (-0.1, 0.25), (-0.6, 0.25)),
            ),
        ),
    ),
    Silhouette(
        "die",
        (_rect(-0.85, -0.85, 0.85, 0.85),),
        details=tuple(
            _disc(x, y, 0.17) for x, y in ((-0.45, -0.45), (0.45, -0.45), (0, 0), (-0.45, 0.45), (0.45, 0.45))
        ),
    ),
    Silhouette(
        "umbrella",
        (_arc(0.5, 1, 1, 0), _rect(-0.05, -0.1, 0.05, 0.9), _rect(-0.05, 0.8, 0.25, 0.9)),
        details=(_lens(0.3) * (1, 0.5) + (0, -0.45),),
    ),
    Silhouette("snowman", (_disc(0, 0.5, 0.5), _disc(0, -0.15, 0.36), _disc(0, -0.68, 0.26))),
    Silhouette("wheel", (_disc(),), _WHEEL_GAPS),
)


def _into_circle(drawn: Silhouette) -> Silhouette:
    """Centred on its box, the farthest corner at radius 1."""
    corners = np.concatenate(drawn.parts)
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    radius = np.linalg.norm(corners - centre, axis=1).max()
    moved = [tuple((points - centre) / radius for points in group) for group in drawn[1:]]
    return Silhouette(drawn.name, *moved)


SILHOUETTES: Sequence[Silhouette] = tuple(map(_into_circle, _DRAWN))
"""Every class; category id i is the i-th, counted from 1."""
