"""Loaders that run Python in worker processes of PyTorch's DataLoader."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .contestant import BATCH, RATIO, SCALE, SIZE, Contestant

FAST = "torchvision.io decode_image and v2.RandomResizedCrop on uint8"


def pillow_transform() -> Any:
    """The chain of the official src/transforms.py as the published configurations switch it on."""
    from torchvision import transforms

    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return transforms.Compose([transforms.RandomResizedCrop(SIZE, scale=SCALE), transforms.ToTensor(), normalize])


class FastTransform:
    """From a JPEG's bytes to a uint8 crop by torchvision's fastest way."""

    def __init__(self) -> None:
        from torchvision.transforms import v2

        self.crop = v2.RandomResizedCrop(SIZE, scale=SCALE, ratio=RATIO, antialias=True)

    def __call__(self, encoded: Any) -> Any:
        import torch
        from torchvision.io import ImageReadMode, decode_image

        if not isinstance(encoded, torch.Tensor):
            encoded = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        return self.crop(decode_image(encoded, mode=ImageReadMode.RGB))


class Files:
    """A map-style data set over image files."""

    def __init__(self, images: list[Path], read: Any) -> None:
        self.images, self.read = [str(path) for path in images], read

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        return self.read(self.images[number])


class ReadPillow:
    def __init__(self) -> None:
        self.transform = pillow_transform()

    def __call__(self, path: str) -> Any:
        from PIL import Image

        with open(path, "rb") as file:
            return self.transform(Image.open(file).convert("RGB"))


class ReadFast:
    def __init__(self) -> None:
        self.transform = FastTransform()

    def __call__(self, path: str) -> Any:
        from torchvision.io import read_file

        return self.transform(read_file(path))


class Endless:
    """Permutations of the images one after another, so that no epoch's end interrupts the measurement."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        import torch

        while True:
            yield from torch.randperm(self.count).tolist()


def data_loader(dataset: Any, workers: int, **options: Any) -> Iterator[Any]:
    from torch.utils.data import DataLoader

    return iter(DataLoader(dataset, num_workers=workers, **options))


class TorchvisionPillow(Contestant):
    key = "torchvision-pillow"
    name = "torchvision, official I-JEPA transforms"
    note = "the reference: Pillow, float32 tensors, normalised; DataLoader without the mask collator"
    packages = ["torchvision", "pillow"]
    workers = (0, 1, 2, 3)
    reader = ReadPillow

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        dataset = Files(images, self.reader())
        return data_loader(dataset, workers, batch_size=BATCH, sampler=Endless(len(dataset)))


class TorchvisionFast(TorchvisionPillow):
    key = "torchvision-io"
    name = "torchvision, decode_image + v2 uint8"
    note = "uint8, not normalised"
    packages = ["torchvision"]
    reader = ReadFast


class WebDataset(Contestant):
    key = "webdataset"
    name = "WebDataset"
    note = f"tar shards of the original files; {FAST}"
    packages = ["webdataset==1.0.2"]
    workers = (0, 1, 2, 3)

    def prepare(self, images: list[Path], data: Path) -> None:
        import webdataset

        with webdataset.ShardWriter(str(data / "%04d.tar"), maxcount=100, verbose=0) as writer:
            for number, path in enumerate(images):
                writer.write({"__key__": f"{number:08}", "jpg": path.read_bytes(), "cls": 0})

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        import webdataset

        shards = sorted(str(path) for path in data.glob("*.tar"))
        dataset = webdataset.WebDataset(shards, resampled=True, shardshuffle=False).shuffle(256)
        dataset = dataset.to_tuple("jpg").map_tuple(FastTransform())
        return data_loader(dataset, workers, batch_size=BATCH)


class LitData(Contestant):
    key = "litdata"
    name = "LitData"
    note = f"chunks of the original files; {FAST}"
    packages = ["litdata==0.2.76", "lightning-utilities", "boto3", "requests", "tifffile", "obstore", "filelock"]
    bare = ["litdata==0.2.76"]
    workers = (0, 1, 2, 3)

    def prepare(self, images: list[Path], data: Path) -> None:
        import litdata

        litdata.optimize(Path.read_bytes, images, str(data), chunk_bytes="16MB", num_workers=1)

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        import litdata

        dataset = litdata.StreamingDataset(str(data), shuffle=True, transform=FastTransform())
        endless = litdata.ParallelStreamingDataset([dataset], length=float("inf"))
        return iter(litdata.StreamingDataLoader(endless, batch_size=BATCH, num_workers=workers))


class MosaicStreaming(Contestant):
    key = "mosaic"
    name = "MosaicML Streaming"
    note = f"shards of the original files; {FAST}"
    packages = ["mosaicml-streaming==0.13.0", "boto3", "Brotli", "catalogue", "python-snappy", "tqdm", "transformers<5",
                "xxhash", "zstd"]  # fmt: skip
    bare = ["mosaicml-streaming==0.13.0"]
    workers = (0, 1, 2, 3)

    def prepare(self, images: list[Path], data: Path) -> None:
        import streaming

        with streaming.MDSWriter(out=str(data), columns={"image": "bytes"}, exist_ok=True) as writer:
            for path in images:
                writer.write({"image": path.read_bytes()})

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        import streaming

        class Crops(streaming.StreamingDataset):
            transform = FastTransform()

            def __getitem__(self, number: int) -> Any:
                return self.transform(super().__getitem__(number)["image"])

        streaming.base.util.clean_stale_shared_memory()
        dataset = Crops(local=str(data), batch_size=BATCH, shuffle=True, epoch_size=200_000)
        return itertools.chain.from_iterable(data_loader(dataset, workers, batch_size=BATCH) for _ in itertools.count())


CONTESTANTS = [TorchvisionPillow(), TorchvisionFast(), WebDataset(), LitData(), MosaicStreaming()]
