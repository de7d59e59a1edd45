"""The loader's pixels as loader/PIXELS.md describes them: from a decoded `dct` image and a crop to a square of RGB."""

import math

from read_dct import render, scale


def m(a, b):
    return (a * b + 2**14) >> 15


def clamp(x, least, most):
    return min(max(x, least), most)


def on_grid(first, count, source, stored):
    """A stretch of source pixels on the stored grid: start and length."""
    start = first * stored / source
    return start, min((first + count) * stored / source - start, stored - start)


class Axis:
    """A component's part of the crop along one axis: which blocks are decoded, and what of their samples is resized."""

    def __init__(self, start, length, share, blocks, side, detail):
        start, length = start * share, length * share
        self.first = min(math.floor(start / 8), blocks - 1)
        self.end = clamp(math.ceil((start + length) / 8), self.first + 1, blocks)
        self.n = scale(length, side, detail)
        self.samples = self.n * (self.end - self.first)
        self.start = (start - 8 * self.first) * (self.n / 8)
        self.length = min(length * (self.n / 8), self.samples - self.start)


def plane(component, across, down):
    """Rows of a component's samples."""
    rows = []
    for row in range(down.first, down.end):
        blocks = component.blocks[row * component.wide:][across.first:across.end]
        rendered = [render(block, component.steps, across.n, down.n) for block in blocks]
        rows += [[sample for block in rendered for sample in block[y]] for y in range(down.n)]
    return rows


def taps(axis, side, short_unit):
    """For each output its first sample and the weights from there on; and whether the lists are short."""
    scale = axis.length / side
    reach = max(scale, 1)
    low = min(math.floor(axis.start), axis.samples - 1)
    high = clamp(math.ceil(axis.start + axis.length), low + 1, axis.samples)
    n = min(math.ceil(2 * reach), high - low)
    short = n <= 8
    unit = short_unit if short else 2**14
    outputs = []
    for output in range(side):
        centre = axis.start + (output + 0.5) * scale
        first = clamp(math.floor((centre - reach) + 0.5), low, high - n)
        sums = [0.0]
        for k in range(n):
            sums.append(sums[-1] + max(0, 1 - abs(((first + 0.5) - centre) + k) * (1 / reach)))
        upto = [round(partial * (unit / sums[-1])) for partial in sums]
        outputs.append((first, [(upto[k + 1] - upto[k]) * (2**14 // unit) for k in range(n)]))
    return outputs, short


def resize(rows, across, down, side):
    """A plane's values v, row by row."""
    columns, _ = taps(across, side, 2**8)
    lines, short = taps(down, side, 2**14)
    between = [[(sum(w * (row[first + k] - 128) for k, w in enumerate(weights)) + 2**5) >> 6
                for first, weights in columns] for row in rows]
    if short:
        return [[sum(m(between[first + k][x], w) for k, w in enumerate(weights)) for x in range(side)]
                for first, weights in lines]
    return [[(sum(between[first + k][x] * w for k, w in enumerate(weights)) + 2**14) >> 15 for x in range(side)]
            for first, weights in lines]


def colour(kind, values):
    """Red, green and blue of one pixel, from the planes' values."""
    if kind == 0:
        return values * 3
    if kind == 2:
        return values
    y, cb, cr = values
    return y + cr + m(cr, 13173), y - m(cb, 11277) - m(cr, 23401), y + cb + m(cb, 25297)


def square(image, source, crop, side, fast, mirror):
    """The square's planes of red, green and blue, of a crop (left, top, width, height) in pixels of the source."""
    left, width = on_grid(crop[0], crop[2], source[0], image.width)
    top, height = on_grid(crop[1], crop[3], source[1], image.height)
    planes, fit = [], side if fast else None
    for component in image.components:
        across = Axis(left, width, component.h / image.h, component.wide, fit, component.detail[0])
        down = Axis(top, height, component.v / image.v, component.high, fit, component.detail[1])
        planes.append(resize(plane(component, across, down), across, down, side))
    out = [bytearray(), bytearray(), bytearray()]
    for y in range(side):
        for x in reversed(range(side)) if mirror else range(side):
            pixel = colour(image.colour, tuple(values[y][x] for values in planes))
            for channel, value in zip(out, pixel):
                channel.append(clamp(((value + 2**6) >> 7) + 128, 0, 255))
    return bytes(out[0] + out[1] + out[2])
