#!/usr/bin/env python3
"""Record what Pillow makes of images by Resize and CenterCrop: the truth that the loader's evaluation is held to.

    make_centre_golden.py OUT

OUT becomes a directory with `cases.json` and `pixels.bin`. For each case the file of pixels holds the interleaved
source, then the outcome as red, green and blue plane. Both operations are as torchvision has them for PIL images:
the shorter side becomes `resize`, the longer one's fraction is cut off; the crop begins at Python's round.
Recorded with Pillow 13; needs numpy as well.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Width and height of the source, shorter side, side of the crop: smaller, larger, equal, long, without a border.
CASES = [(125, 94, 64, 56), (61, 90, 64, 56), (64, 64, 64, 57), (20, 31, 45, 32), (150, 21, 24, 24), (97, 70, 40, 39)]


def picture(width, height, seed):
    """Smooth colours with noise and sharp edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([127 + 110 * np.sin(0.17 * x + 0.11 * y + phase) for phase in (0.0, 1.9, 4.1)], -1)
    image = (smooth + rng.normal(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 10, 90)
    return image


def centre(image, resize, crop):
    width, height = image.size
    short = min(width, height)
    size = (int(resize * width / short), int(resize * height / short))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (int(round((length - crop) / 2.0)) for length in size)
    return image.crop((left, top, left + crop, top + crop))


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    data, listed = [], []
    for seed, (width, height, resize, crop) in enumerate(CASES):
        source = picture(width, height, seed)
        outcome = np.asarray(centre(Image.fromarray(source), resize, crop))
        data += [source.tobytes(), outcome.transpose(2, 0, 1).tobytes()]
        listed.append({"width": width, "height": height, "resize": resize, "crop": crop})
    (out / "pixels.bin").write_bytes(b"".join(data))
    (out / "cases.json").write_text(json.dumps({"cases": listed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
