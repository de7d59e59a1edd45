"""One step with one contestant, in a process of its own; prints one JSON line.

    python -m rivals.child prepare KEY IMAGES DATA
    python -m rivals.child measure KEY IMAGES DATA WORKERS SECONDS
"""

import importlib.metadata
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from . import native, pytorch
from .contestant import BATCH, SIZE, Contestant

RIVALS = {rival.key: rival for rival in pytorch.CONTESTANTS + native.CONTESTANTS}


def check(batch: Any) -> None:
    """A batch is what was asked for: 128 different crops of three channels."""
    import numpy

    array = numpy.asarray(batch)
    if sorted(array.shape) != sorted((BATCH, 3, SIZE, SIZE)):
        raise SystemExit(f"delivers batches of shape {array.shape}")
    if len({image.tobytes() for image in array}) < BATCH - 8:
        raise SystemExit("delivers the same image over and over")


def measure(rival: Contestant, images: list[Path], data: Path, workers: int, seconds: float) -> dict[str, Any]:
    batches = rival.batches(images, data, workers)
    # Some loaders deliver a list with one tensor.
    tensor = lambda batch: batch[0] if isinstance(batch, (list, tuple)) else batch  # noqa: E731
    check(tensor(next(batches)))
    # Worker processes deliver in bursts of one batch each: a measurement begins and ends at the same place of a burst.
    # First it uses up what was made ahead during the check above.
    burst = max(workers, 1)
    for _ in range(max(2 * burst, 4)):
        next(batches)
    start, count, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds or count % burst:
        next(batches)
        count += 1
        elapsed = time.perf_counter() - start
    return {"images_per_second": count * BATCH / elapsed, "images": count * BATCH, "seconds": elapsed}


def main() -> None:
    step, key, folder, data, *rest = sys.argv[1:]
    rival, data = RIVALS[key], Path(data)
    images = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    out = os.dup(1)
    os.dup2(2, 1)  # What packages print is no result.
    if step == "prepare":
        rival.prepare(images, data)
        result = {"version": importlib.metadata.version(re.split("[<=>]", rival.packages[0])[0])}
    else:
        result = measure(rival, images, data, int(rest[0]), float(rest[1]))
    os.write(out, (json.dumps(result) + "\n").encode())
    # Not every package ends its threads; whoever started this process ends what is left of its group.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
