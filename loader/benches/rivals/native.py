"""Loaders that decode in threads of compiled code."""

import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .contestant import BATCH, RATIO, SCALE, SIZE, Contestant


class Dali(Contestant):
    key = "dali"
    name = "NVIDIA DALI, CPU"
    note = "decodes only the crop (fn.decoders.image_random_crop); triangular filter with antialiasing; uint8"
    packages = ["nvidia-dali-cuda130==2.4.0", "astunparse", "gast", "libcst", "makefun", "nvtx", "optree",
                "packaging", "six"]  # fmt: skip
    torch = False
    bare = ["nvidia-dali-cuda130==2.4.0", "nvidia-nvimgcodec-cu13==0.9.*"]

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        from nvidia.dali import fn, pipeline_def, types

        @pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None, prefetch_queue_depth=2)
        def crops() -> Any:
            files = [str(path) for path in images]
            encoded, _ = fn.readers.file(files=files, random_shuffle=True, initial_fill=len(files))
            cut = fn.decoders.image_random_crop(
                encoded, device="cpu", output_type=types.RGB, random_area=list(SCALE), random_aspect_ratio=list(RATIO)
            )
            return fn.resize(cut, size=(SIZE, SIZE), interp_type=types.INTERP_LINEAR, antialias=True)

        pipeline = crops()
        pipeline.build()
        while True:
            (batch,) = pipeline.run()
            yield batch.as_tensor()


class Spdl(Contestant):
    key = "spdl"
    name = "SPDL, spdl.io"
    note = "FFmpeg's MJPEG decoder, crop on the chroma grid and swscale bilinear in threads outside the GIL; uint8"
    packages = ["spdl-io==0.8.0", "spdl-core==0.8.0"]
    torch = False

    def lacks(self) -> str | None:
        return None if shutil.which("ffmpeg") else "needs FFmpeg's libraries (Debian: apt-get install ffmpeg)"

    def crop(self) -> Any:
        import spdl.io

        def crop(path: str) -> Any:
            packets = spdl.io.demux_image(path)
            x, y, width, height = random_box(packets.width, packets.height)
            filters = f"crop={width}:{height}:{x}:{y},scale={SIZE}:{SIZE}:flags=bilinear,format=pix_fmts=rgb24"
            return spdl.io.decode_packets(packets, filter_desc=filters)

        return crop

    def collate(self) -> Any:
        import spdl.io

        return lambda frames: spdl.io.to_numpy(spdl.io.convert_frames(frames))

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        from spdl.pipeline import PipelineBuilder

        def order() -> Iterator[str]:
            while True:
                yield from (str(path) for path in random.sample(images, len(images)))

        builder = PipelineBuilder().add_source(order()).pipe(self.crop(), concurrency=workers).aggregate(BATCH)
        pipeline = builder.pipe(self.collate()).add_sink(2).build(num_threads=workers)
        with pipeline.auto_stop():
            yield from pipeline


class SpdlTorchvision(Spdl):
    key = "spdl-torchvision"
    name = "SPDL, torchvision.io in its threads"
    note = "decode_image and v2.RandomResizedCrop on uint8, in threads of one process"
    packages = ["spdl-core==0.8.0", "torchvision"]
    torch = True

    def lacks(self) -> str | None:
        return None

    def crop(self) -> Any:
        import torch

        from .pytorch import ReadFast

        torch.set_num_threads(1)  # The pipeline's threads are the parallelism.
        return ReadFast()

    def collate(self) -> Any:
        import torch

        return torch.stack


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """RandomResizedCrop's box: left, top, width, height."""
    for _ in range(10):
        area = width * height * random.uniform(*SCALE)
        ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** random.random()
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h


class Ffcv(Contestant):
    packages = ["ffcv==1.0.2", "assertpy", "fastargs", "imgcat", "numba", "opencv-python-headless<5", "pandas",
                "psutil", "tqdm"]  # fmt: skip
    bare = ["ffcv==1.0.2", "pytorch-pfn-extras"]

    def __init__(self, key: str, name: str, note: str, **field: Any) -> None:
        self.key, self.name, self.field = key, name, field
        self.note = f"{note}; libjpeg-turbo's fast inverse DCT and OpenCV's INTER_AREA; uint8"

    def lacks(self) -> str | None:
        cure = "(Debian: apt-get install g++ pkg-config libopencv-dev libturbojpeg0-dev)"
        if not shutil.which("c++") or not shutil.which("pkg-config"):
            return f"needs a C++ compiler and pkg-config {cure}"
        found = subprocess.run(["pkg-config", "--exists", "opencv4", "libturbojpeg"]).returncode == 0
        return None if found else f"needs OpenCV and libturbojpeg {cure}"

    def prepare(self, images: list[Path], data: Path) -> None:
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        class Images:
            def __len__(self) -> int:
                return len(images)

            def __getitem__(self, number: int) -> Any:
                from PIL import Image

                return Image.open(images[number]).convert("RGB"), 0

        fields = {"image": RGBImageField(**self.field), "label": IntField()}
        DatasetWriter(str(data / "images.beton"), fields, num_workers=1).from_indexed_dataset(Images())

    def batches(self, images: list[Path], data: Path, workers: int) -> Iterator[Any]:
        # Otherwise numba refuses more threads than there are cores.
        os.environ["NUMBA_NUM_THREADS"] = str(max(workers, len(os.sched_getaffinity(0))))
        import numpy
        from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import ToTensor

        decoder = RandomResizedCropRGBImageDecoder((SIZE, SIZE), scale=SCALE, ratio=RATIO)
        loader = Loader(
            str(data / "images.beton"), batch_size=BATCH, num_workers=workers, order=OrderOption.RANDOM, os_cache=True,
            indices=numpy.tile(numpy.arange(len(images)), 1 + 200_000 // len(images)),
            pipelines={"image": [decoder, ToTensor()], "label": [IntDecoder(), ToTensor()]},
        )  # fmt: skip
        return (image for image, _ in itertools.chain.from_iterable(itertools.repeat(loader)))


CONTESTANTS = [
    Spdl(), SpdlTorchvision(), Dali(),
    Ffcv("ffcv-jpeg", "FFCV, JPEG ≤ 500 px q90", "all images encoded again (write_mode jpg, max_resolution 500, jpeg_quality 90)",
         write_mode="jpg", max_resolution=500, jpeg_quality=90),
    Ffcv("ffcv-mixed", "FFCV, half JPEG half raw, ≤ 500 px",
         "its ImageNet preset (write_mode proportion, compress_probability 0.5, max_resolution 500, jpeg_quality 90)",
         write_mode="proportion", compress_probability=0.5, max_resolution=500, jpeg_quality=90),
    Ffcv("ffcv-raw", "FFCV, raw ≤ 400 px", "pixels stored, none decoded (write_mode raw, max_resolution 400)",
         write_mode="raw", max_resolution=400),
]  # fmt: skip
