"""How much of one small picture is another one that was moved, stretched and recoloured.

The second picture is moved until it fits best (Lucas and Kanade, "An Iterative Image Registration Technique", 1981, as
Baker and Matthews, "Lucas-Kanade 20 Years On", 2004, have it): by a shift and a stretch in each direction, as a crop of
any shape needs. At each step its colours are made those of the first by the best linear function, which changes of
brightness, contrast, saturation and hue nearly are. Then the two are compared block by block as SSIM compares structure
(Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004): a thing that one of
them has alone makes its blocks differ. Slopes of brightness are taken from both first.

The linear function must be one that a change of colours can be. Brightness, saturation and hue multiply, and contrast
keeps the mean: what is left of the mean colour when the function is applied tells that two pictures are different.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from strata.images import THUMBNAIL

# see docs/benchmarks.md for what they rest on
LEAST_LIKENESS = 0.8
LEFT_COLOUR = 0.004  # by which each level of the mean Cb and Cr that the change of colours leaves makes two less alike
MOST_STRETCHED = 3.5  # times that a change of colours strengthens or weakens any: all three by a third less are 3.3
MOST_TURNED = 35  # degrees by which it turns them
MOST_CONTRAST = 2.0  # times that contrast rises, or falls
EDGE = 2  # pixels at each side of the first picture that the second one may lack
INNER = THUMBNAIL - 2 * EDGE
CELL = 4  # pixels; a block has 2 × 2 cells, and blocks overlap by half
NOISE = 3.0  # levels of 256 that compression and resizing change in a pixel of a thumbnail
LEAST_CONTRAST = 4.0  # levels, without what is a slope: skies and walls with less may be any other ones
STILL = 2.0  # levels that blocks of a copy may differ by
ROUNDS = (3, 3)  # on blurred pictures, and on the pictures
MOVED, STRETCHED = 2.4, 1.2  # most pixels that the middle, and the edge against it, are moved: 7 % of the sides
KEPT_COLOURS = 0.05  # how much colours are held to be those that they are, as a share of the pictures' variance
DAMPING = 0.01  # of a step, as a share of the mean curvature
PROMISING = 0.3  # explained share of the variance of blurred pictures below which a pair is no copy
Floats = np.typing.NDArray[Any]


def likeness(ones: Floats, others: Floats) -> Floats:
    """How alike pairs of pictures are: 0 or less for different ones, 1 for equal ones; 0 for one without contrast.

    Each is laid over the other, and the less counts, so that their order does not matter. ones, others: (pairs, 3,
    THUMBNAIL, THUMBNAIL) of Y, Cb and Cr, 0 to 255.
    """
    found = _laid_over(ones, others)
    likely = np.flatnonzero(found >= LEAST_LIKENESS / 2)
    found[likely] = np.minimum(found[likely], _laid_over(others[likely], ones[likely]))
    return found


def _laid_over(ones: Floats, others: Floats) -> Floats:
    """How alike pairs of pictures are if the second is laid over the first."""
    found = np.zeros(len(ones), np.float32)
    if not len(ones):
        return found
    moves = np.zeros((len(ones), 4), np.float32)
    target, moved, moves, _ = _fitted(_BLUR @ ones @ _BLUR.T, _BLUR @ others @ _BLUR.T, moves, ROUNDS[0])
    explained = 1 - ((target - moved) ** 2).sum((1, 2)) / ((target**2).sum((1, 2)) + NOISE**2 * INNER**2)
    contrast = np.minimum(*((_level(_inner(one)) ** 2).sum((1, 2)) / INNER**2 for one in (ones, others)))
    there = np.flatnonzero((explained >= PROMISING) & (contrast >= LEAST_CONTRAST**2))
    ones, others = ones[there], others[there]
    target, moved, _, colours = _fitted(_SOFT @ ones @ _SOFT.T, _SOFT @ others @ _SOFT.T, moves[there], ROUNDS[1])
    means = [one.mean((2, 3)) - _GREY for one in (ones, others)]
    found[there] = np.where(
        _possible(colours, *means), _structure(target, moved) - LEFT_COLOUR * _left(colours, *means), 0
    )
    return found


def _left(colours: Floats, ones: Floats, others: Floats) -> Floats:
    """What a change of colours leaves of the mean Cb and Cr. ones, others: mean colours, (pairs, 3)."""
    change = colours[:, 1:, 1:]
    left = np.linalg.norm(ones[:, 1:] - (change @ others[:, 1:, None])[..., 0], axis=1)
    # the same from either side
    return np.asarray(left / np.abs(np.linalg.det(change)) ** 0.25)


def _possible(colours: Floats, ones: Floats, others: Floats) -> Floats:
    """Whether a change of colours is one that people make of a picture."""
    left, stretches, right = np.linalg.svd(colours)
    turned = np.trace(left @ right, axis1=1, axis2=2)  # 1 + 2 cos(angle)
    contrast = colours[:, 0, 0] * (others[:, 0] + 1) / (ones[:, 0] + 1)
    found = (stretches.max(axis=1) <= MOST_STRETCHED) & (stretches.min(axis=1) >= 1 / MOST_STRETCHED)
    found &= turned >= 1 + 2 * np.cos(np.radians(MOST_TURNED))
    return np.asarray(found & (contrast <= MOST_CONTRAST) & (contrast >= 1 / MOST_CONTRAST))


def _fitted(ones: Floats, others: Floats, moves: Floats, rounds: int) -> tuple[Floats, Floats, Floats, Floats]:
    """The inner part of the first pictures, the second ones fitted to it, both (pairs, 3, INNER**2), moves and colours.

    moves: of each pair the shift across, its growth from the middle to the edge, and both down; in pixels. colours: the
    change of Y, Cb and Cr, (pairs, 3, 3).
    """
    target = _level(_inner(ones))
    for step in range(rounds + 1):
        moved = _level(_moved(others, moves))
        colours = _colours(target, moved)
        moved = colours @ moved
        if step < rounds:
            moves = np.clip(moves + _step(target, moved), -_MOST, _MOST)
    return target, moved, moves, colours


def _inner(pictures: Floats) -> Floats:
    inner = slice(EDGE, THUMBNAIL - EDGE)
    return pictures[:, :, inner, inner].reshape(len(pictures), 3, INNER**2)


def _moved(pictures: Floats, moves: Floats) -> Floats:
    """The inner part of pictures that are moved: (pairs, 3, INNER**2)."""
    across, down = (
        np.maximum(0, 1 - np.abs(np.clip(_PLACES + shift + growth * _STEPS, 0, THUMBNAIL - 1)[..., None] - _ALL))
        for shift, growth in ((moves[:, 0:1], moves[:, 1:2]), (moves[:, 2:3], moves[:, 3:4]))
    )
    return np.asarray((down[:, None] @ pictures @ across[:, None].swapaxes(-1, -2)).reshape(len(pictures), 3, INNER**2))


def _level(pictures: Floats) -> Floats:
    """Pictures without their mean and their slope."""
    return np.asarray(pictures - (pictures @ _PLANE.T) @ _PLANE)


def _colours(target: Floats, pictures: Floats) -> Floats:
    """The linear functions of Y, Cb and Cr near the identity (ridge) by which pictures fit best: (pairs, 3, 3)."""
    turned = pictures.swapaxes(1, 2)
    own, cross = pictures @ turned, target @ turned
    weight = KEPT_COLOURS / 3 * np.trace(own, axis1=1, axis2=2) + NOISE**2
    held = weight[:, None, None] * np.eye(3, dtype=np.float32)
    return np.linalg.solve(own + held, (cross + held).swapaxes(1, 2)).swapaxes(1, 2)


def _step(target: Floats, moved: Floats) -> Floats:
    """How the moves change: one step of Gauss and Newton."""
    pictures = moved.reshape(-1, 3, INNER, INNER)
    across, down = np.gradient(pictures, axis=3), np.gradient(pictures, axis=2)
    size = 3 * INNER**2
    slopes = np.stack([across, across * _STEPS, down, down * _STEPS[:, None]], axis=1).reshape(len(moved), 4, size)
    squares = slopes @ slopes.swapaxes(1, 2)
    # where a picture has no edges, it is not moved
    weight = DAMPING / 4 * np.trace(squares, axis1=1, axis2=2) + NOISE**2
    squares += weight[:, None, None] * np.eye(4, dtype=np.float32)
    return np.linalg.solve(squares, slopes @ (target - moved).reshape(len(moved), size, 1))[..., 0]


def _structure(target: Floats, moved: Floats) -> Floats:
    """The mean of what the blocks of two pictures share, of 1, among the blocks in which there is something."""
    ones, others = (_sums(one) for one in (target, moved))
    size = 4 * CELL**2
    shared = _sums(target * moved).sum(1) - (ones * others).sum(1) / size
    own = [_sums(one**2).sum(1) - (sums**2).sum(1) / size for one, sums in ((target, ones), (moved, others))]
    floor = size * STILL**2
    energy = own[0] + own[1]
    like = (2 * shared + floor) / (energy + floor)
    # a block counts as far as one of the pictures has something there
    weight = energy / (energy + 2 * floor) + 1e-6
    return np.asarray((like * weight).sum((1, 2)) / weight.sum((1, 2)))


def _sums(pictures: Floats) -> Floats:
    """The sums of each block: (pairs, 3, blocks, blocks)."""
    count = INNER // CELL
    cells = pictures.reshape(-1, 3, count, CELL, count, CELL).sum((3, 5))
    return np.asarray(cells[..., 1:, 1:] + cells[..., :-1, 1:] + cells[..., 1:, :-1] + cells[..., :-1, :-1])


def _blur(weights: tuple[int, ...]) -> Floats:
    """A matrix that blurs along one side; beyond the edges are the pixels there."""
    reach = len(weights) // 2
    blur = np.zeros((THUMBNAIL, THUMBNAIL), np.float32)
    for row in range(THUMBNAIL):
        for offset, weight in enumerate(weights, -reach):
            blur[row, min(max(row + offset, 0), THUMBNAIL - 1)] += weight / sum(weights)
    return blur


_BLUR, _SOFT = _blur((1, 4, 6, 4, 1)), _blur((1, 4, 1))
_GREY = np.array([0, 128, 128], np.float32)
_ALL = np.arange(THUMBNAIL, dtype=np.float32)
_PLACES = _ALL[EDGE : THUMBNAIL - EDGE]
_STEPS = ((_PLACES - _PLACES.mean()) / np.ptp(_PLACES) * 2).astype(np.float32)  # from -1 at one edge to 1 at the other
_PLANE = np.stack([np.ones((INNER, INNER)), np.tile(_STEPS, (INNER, 1)), np.tile(_STEPS, (INNER, 1)).T])
_PLANE = (_PLANE.reshape(3, -1) / np.linalg.norm(_PLANE.reshape(3, -1), axis=1, keepdims=True)).astype(np.float32)
_MOST = np.array([MOVED, STRETCHED, MOVED, STRETCHED], np.float32)
