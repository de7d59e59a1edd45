#!/usr/bin/env python3
"""Record what torchvision and Pillow make of a small image: the truth that the loader's augmentations are held to.

    make_augment_golden.py OUT

OUT becomes a directory with `cases.json` and `planes.bin`. The file of planes holds images of SIDE x SIDE pixels, each
as its red, green and blue plane, one after the other: the input first, then the output of each case in order.
`hues` has, for every colour whose channels are multiples of 5 (red slowest) and some shifts, the sum of
(i + 1) * byte i over the interleaved output bytes, modulo 2^64. `laws` has statistics of torchvision's own draws.
Recorded with torchvision 0.26 and Pillow 13; needs numpy as well.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional

SIDE = 37


def picture():
    """Smooth colours, noise, and black, white, grey and saturated patches with sharp edges."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    smooth = np.stack([127 + 120 * np.sin(0.21 * x + 0.13 * y + phase) for phase in (0.0, 1.9, 4.1)], -1)
    image = (smooth + rng.normal(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
    patches = [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    patches += [(1, 0, 0)]
    for number, colour in enumerate(patches):
        image[20:26, 1 + 4 * number : 5 + 4 * number] = colour
    image[30:36, 3:30] = rng.integers(0, 256, (6, 27, 3), dtype=np.uint8)
    return image


def planes(image):
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1).tobytes()


def cases():
    for factor in (0.0, 0.5, 0.9371, 1.31, 2.7):
        for name in ("brightness", "contrast", "saturation"):
            yield name, factor, getattr(functional, f"adjust_{name}")
    for shift in (-0.5, -0.0831, -0.001, 0.0, 0.2, 0.4999):
        yield "hue", shift, functional.adjust_hue
    yield "grey", 0.0, lambda image, _: functional.rgb_to_grayscale(image, 3)
    for radius in (0.1, 0.5, 1.2, 1.41, 1.4143, 1.7, 2.0):
        yield "blur", radius, lambda image, radius: image.filter(ImageFilter.GaussianBlur(radius))


def hues():
    """Checksums of the whole way to hue and back, over a grid of colours."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(1, -1, 3)
    image = Image.fromarray(colours)
    for shift in (0.0, 0.1, -0.37):
        out = np.asarray(functional.adjust_hue(image, shift)).reshape(-1).astype(np.uint64)
        weights = np.arange(1, out.size + 1, dtype=np.uint64)
        yield {"shift": int(np.int32(shift * 255).astype(np.uint8)), "sum": f"{int((out * weights).sum()):016x}"}


def laws(draws=200_000):
    """Means and mean squares of what torchvision draws at strength 0.5, and how often each order of changes comes."""
    torch.manual_seed(3)
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    orders, values = {}, []
    for _ in range(draws):
        order, *factors = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        key = "".join(str(int(i)) for i in order)
        orders[key] = orders.get(key, 0) + 1
        values.append([*factors[:3], int(np.int32(factors[3] * 255))])
    values = np.array(values)
    return {
        "strength": 0.5, "draws": draws, "mean": values.mean(0).tolist(), "square": (values**2).mean(0).tolist(),
        "deviation": values.std(0).tolist(), "deviation_of_square": (values**2).std(0).tolist(), "orders": orders,
    }


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture())
    data, listed = [planes(image)], []
    for name, parameter, operation in cases():
        # As the transforms have them, which draw in float32.
        parameter = float(np.float32(parameter))
        data.append(planes(operation(image, parameter)))
        listed.append({"operation": name, "parameter": parameter})
    (out / "planes.bin").write_bytes(b"".join(data))
    record = {"side": SIDE, "cases": listed, "hues": list(hues()), "laws": laws()}
    (out / "cases.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
