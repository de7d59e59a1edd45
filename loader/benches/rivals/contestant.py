"""What every contestant says of itself, and the work that all of them do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH = 128
SIZE = 224
SCALE = (0.3, 1.0)
RATIO = (3 / 4, 4 / 3)


class Contestant:
    """A loader that decodes the images, cuts RandomResizedCrop(224, scale (0.3, 1.0)) and delivers batches of 128.

    `prepare` and `batches` run in processes of their own, inside the private environment; only there may a package
    be imported.
    """

    key: str  # for --only
    name: str  # in the table
    note: str  # what differs from the official transforms, and how it was set
    ours = False
    torch = True  # does it need PyTorch?
    # pip requirements; the first one names the package whose version is reported.
    packages: list[str] = []
    # Requirements that are installed without what they depend on, which would be gigabytes.
    bare: list[str] = []
    # Numbers of workers (threads or processes) to try; the best is reported.
    workers = (1, 2, 3)

    def lacks(self) -> str | None:
        """What this machine lacks for it, and the cure."""
        return None

    def prepare(self, images: list[Path], data: Path) -> None:
        """Writes its data set into `data`. Loaders that read the image files have none."""

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        """Batches without end, in a random order."""
        raise NotImplementedError
