"""Decoded pictures made upright RGB arrays."""

import struct

import av
import numpy as np

from vlmquant.models.spec import ByteArray

Matrix = tuple[int, int, int, int]


def display_matrix(picture: av.VideoFrame) -> Matrix | None:
    """Return (a, b, c, d): the pixel (x, y) is to be shown at (a x + c y, b x + d y), y pointing down.

    Asked of the first frame only: in PyAV a frame whose side data was looked at is part of a reference cycle, and
    hundreds of them pile up until the garbage collector comes by.
    """
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    return a, b, c, d


def swaps_axes(matrix: Matrix) -> bool:
    """Whether width and height change places."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def is_right_angle(matrix: Matrix) -> bool:
    """Whether the matrix is a quarter turn or a mirroring."""
    a, b, c, d = matrix
    return (a == d == 0) if swaps_axes(matrix) else (b == c == 0)


def clockwise_degrees(matrix: Matrix) -> int:
    """Return the turn in degrees, to the nearest quarter."""
    a, b, _, _ = matrix
    if swaps_axes(matrix):
        return 90 if b > 0 else 270
    return 0 if a > 0 else 180


def upright_rgb(picture: av.VideoFrame, matrix: Matrix | None) -> ByteArray:
    """Convert to RGB and apply the display matrix: any of the eight quarter turns and mirrorings."""
    pixels = picture.to_ndarray(format="rgb24")
    if matrix is not None:
        a, b, c, d = matrix
        x_scale, y_scale = a, d
        if swaps_axes(matrix):
            pixels = pixels.transpose(1, 0, 2)
            x_scale, y_scale = c, b
        pixels = pixels[:: -1 if y_scale < 0 else 1, :: -1 if x_scale < 0 else 1]
    return np.ascontiguousarray(pixels)
