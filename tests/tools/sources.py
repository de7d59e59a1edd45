#!/usr/bin/env python3
"""Builds datasets from files that the formats' own libraries have written, and compares every image's bytes.

    sources.py FOLDER SHARDTOOL [--images DIR]

FOLDER keeps a venv with the libraries. DIR holds train/CLASS/* and val/CLASS/* of JPEG files; without it some are
drawn.
`make sources` runs this.
"""

import argparse
import csv
import gzip
import hashlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
from collections import namedtuple
from pathlib import Path
from unittest.mock import MagicMock

import private_venv

HERE = Path(__file__).resolve()
PACKAGES = ["webdataset==1.0.2", "datasets==5.2.0", "pyarrow==26.0.1", "tfrecord==1.14.6", "scipy", "pillow", "numpy"]
PACKAGES += ["zstandard", "xxhash", "zstd", "pyyaml", "catalogue", "tqdm", "brotli", "python-snappy"]
# Its dependencies are PyTorch and every cloud's library; what writes MDS files needs none of them.
ALONE = ["mosaicml-streaming==0.13.0"]

Image = namedtuple("Image", "split label name data")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shardtool", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    if not private_venv.enter(options.folder.resolve(), PACKAGES, ALONE):
        sys.exit(1)
    images = read(options.images) if options.images else draw()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        Check(Path(scratch), options.shardtool.resolve(), images).run()


def read(folder):
    """Reads the images of an ImageFolder."""
    images = []
    for path in sorted(folder.glob("*/*/*")):
        split, label, name = path.relative_to(folder).parts
        images.append(Image(split, label, name, path.read_bytes()))
    assert images, f"{folder}: no images in SPLIT/CLASS/"
    return images


def draw():
    """Draws images of three classes."""
    from PIL import Image as Pillow

    chance = random.Random(0)
    images = []
    for split, count in [("train", 90), ("val", 30)]:
        for number in range(count):
            size = chance.randrange(20, 90), chance.randrange(20, 90)
            small = Pillow.frombytes("RGB", (5, 4), chance.randbytes(60))
            data = io.BytesIO()
            small.resize(size, Pillow.Resampling.BICUBIC).save(data, "JPEG", quality=chance.randrange(60, 96))
            label = f"n{number % 3 * 37 + 10000000:08}"
            name = f"{label}_{number}.JPEG" if split == "train" else f"ILSVRC2012_val_{number + 1:08}.JPEG"
            images.append(Image(split, label, name, data.getvalue()))
    return images


class Check:
    def __init__(self, root, shardtool, images):
        self.root, self.shardtool, self.images = root, shardtool, images
        self.classes = sorted({image.label for image in images})
        self.splits = sorted({image.split for image in images})

    def run(self):
        folder = self.root / "photos"
        for image in self.images:
            path = folder / image.split / image.label / image.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.data)
        reference = self.check("folder", [folder])
        self.archives(folder, reference)
        self.imagenet()
        self.lists(folder)
        self.webdataset()
        self.parquet(folder, reference)
        self.tfrecord()
        self.mds()

    # --- what is built, and compared ---

    def build(self, out, sources, *options, stdin=os.devnull):
        command = [self.shardtool, "build", *sources, "--out", out, *options]
        with open(stdin, "rb") as bytes_in:
            pipe = subprocess.Popen(["cat"], stdin=bytes_in, stdout=subprocess.PIPE)
            words = [str(word) for word in command]
            done = subprocess.run(words, stdin=pipe.stdout, capture_output=True, text=True)
            pipe.stdout.close()
            pipe.wait()
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def check(self, name, sources, *options, stdin=os.devnull):
        """Builds from sources, compares split, class and bytes of all images, and returns the shards' bytes."""
        out = self.root / "out"
        self.build(out, sources, "--codec", "jpeg", *options, stdin=stdin)
        listed = subprocess.run(
            [sys.executable, HERE.parents[1] / "read_shards.py", out], capture_output=True, text=True, check=True
        )
        got = []
        for line in listed.stdout.splitlines():
            split, _, _, label, *_, state, _, sha256 = json.loads(line)[:12]
            assert state == "ok", line
            got.append((split, label, sha256))
        expected = [
            (image.split, image.label, hashlib.sha256(image.data).hexdigest())
            for image in self.images
        ]
        assert sorted(got, key=str) == sorted(expected, key=str), f"{name}: other images"
        shards = {path.name: path.read_bytes() for path in sorted(out.glob("*.shard"))}
        shutil.rmtree(out)
        print(f"{name}: {len(got)} images, each with its bytes, split and class")
        return shards

    def same(self, name, shards, reference):
        assert shards == reference, f"{name}: other shards than from the folder"
        print(f"{name}: the same shards as from the folder")

    # --- the sources ---

    def archives(self, folder, reference):
        plain, packed = self.root / "photos.tar", self.root / "photos.tar.gz"
        with tarfile.open(plain, "w") as archive:
            archive.add(folder, "photos")
        with gzip.open(packed, "wb", 1) as out:
            out.write(plain.read_bytes())
        # One archive was packed with its folder, whose name is part of its paths.
        inner = self.root / "inner.tar"
        with tarfile.open(inner, "w") as archive:
            for split in self.splits:
                archive.add(folder / split, split)
        self.check("tar", [plain])
        self.check("tar.gz", [packed])
        self.check("tar on standard input", ["-"], stdin=plain)
        self.check("tar.gz on standard input", ["-"], stdin=packed)
        self.same("tar", self.check("tar of the splits", [inner]), reference)
        for method in [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]:
            path = self.root / f"photos{method}.zip"
            with zipfile.ZipFile(path, "w", method, strict_timestamps=False) as archive:
                for file in sorted(folder.rglob("*.*")):
                    archive.write(file, file.relative_to(folder))
            self.same(f"zip, method {method}", self.check(f"zip, method {method}", [path]), reference)

    def imagenet(self):
        """The archives as ImageNet hands them out, and every way in which labels of the second are told."""
        from scipy.io import savemat

        train, val = self.root / "ILSVRC2012_img_train.tar", self.root / "ILSVRC2012_img_val.tar"
        with tarfile.open(train, "w") as archive:
            for label in sorted({image.label for image in self.images if image.split == "train"}):
                inner = io.BytesIO()
                with tarfile.open(fileobj=inner, mode="w") as class_archive:
                    for image in self.images:
                        if (image.split, image.label) == ("train", label):
                            add(class_archive, f"{label}_{image.name}", image.data)
                add(archive, f"{label}.tar", inner.getvalue())
        labels = {}
        with tarfile.open(val, "w") as archive:
            for number, image in enumerate((image for image in self.images if image.split == "val"), 1):
                stem = f"ILSVRC2012_val_{number:08}"
                add(archive, f"{stem}.JPEG", image.data)
                labels[stem] = image.label
        sources = [train, val]
        synsets = self.root / "imagenet_2012_validation_synset_labels.txt"
        synsets.write_text("".join(f"{label}\n" for label in labels.values()))
        script = self.root / "prepare.sh"
        lines = [f"mkdir -p {label}\n" for label in self.classes]
        lines += [f"mv {stem}.JPEG {label}/\n" for stem, label in labels.items()]
        script.write_text("#!/bin/bash\n" + "".join(lines))
        solution = self.root / "solution.csv"
        boxes = [f"{stem},{label} 1 2 3 4 {label} 5 6 7 8\n" for stem, label in labels.items()]
        solution.write_text("ImageId,PredictionString\n" + "".join(reversed(boxes)))
        # Numbers of the development kit are not those of the sorted names.
        numbers = list(range(1, len(self.classes) + 1))
        random.Random(1).shuffle(numbers)
        number_of = dict(zip(self.classes, numbers))
        rows = [(number, label, 0) for label, number in number_of.items()]
        rows += [(len(self.classes) + 1, "n99999999", len(self.classes))]
        mat, kit = io.BytesIO(), self.root / "devkit.tar.gz"
        import numpy

        kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
        table = numpy.array([[(row[0], row[1], "what it is", row[2])] for row in rows], dtype=kinds)
        savemat(mat, {"synsets": table}, do_compression=True)
        truth = "".join(f"{number_of[label]}\n" for label in labels.values())
        with tarfile.open(kit, "w:gz") as archive:
            add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", mat.getvalue())
            name = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
            add(archive, name, truth.encode())
        self.check("ImageNet's archives, labels found beside them", sources)
        synsets.rename(self.root / "labels.txt")
        for path in [self.root / "labels.txt", script, solution, kit]:
            self.check(f"ImageNet's archives, labels of {path.name}", sources, "--val-labels", path)

    def lists(self, folder):
        rows = [(f"{image.split}/{image.label}/{image.name}", image.label, image.split) for image in self.images]
        with open(folder / "list.csv", "w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split"), *rows])
        with open(folder / "list.jsonl", "w") as file:
            file.writelines(json.dumps(dict(zip(("path", "label", "split"), row))) + "\n" for row in rows)
        for name in ["list.csv", "list.jsonl"]:
            self.check(name, ["--list", folder / name])
            (folder / name).unlink()

    def webdataset(self):
        import webdataset

        for ending in ["tar", "tar.gz"]:
            for split in self.splits:
                pattern = str(self.root / f"wds-{split}-%06d.{ending}")
                with webdataset.ShardWriter(pattern, maxcount=40, verbose=0) as shards:
                    for number, image in enumerate(self.images):
                        if image.split == split:
                            label = self.classes.index(image.label)
                            about = {"n": number, "note": image.name}
                            shards.write({"__key__": f"{number:06}", "jpg": image.data, "cls": label, "json": about})
            names = self.root / "classes.txt"
            names.write_text("".join(f"{label}\n" for label in self.classes))
            patterns = []
            for split in self.splits:
                count = len(list(self.root.glob(f"wds-{split}-*.{ending}")))
                patterns.append(f"{split}={self.root}/wds-{split}-{{000000..{count - 1:06}}}.{ending}")
            self.check(f"WebDataset .{ending}", patterns, "--classes", names)

    def parquet(self, folder, reference):
        from datasets import ClassLabel, Dataset, Features, Image as ImageFeature, disable_progress_bars

        disable_progress_bars()
        features = Features({"image": ImageFeature(), "label": ClassLabel(names=self.classes)})
        paths = []
        for split in self.splits:
            of_split = [image for image in self.images if image.split == split]
            path = lambda image: f"{image.split}/{image.label}/{image.name}"  # noqa: E731
            rows = {
                "image": [{"bytes": image.data, "path": path(image)} for image in of_split],
                "label": [self.classes.index(image.label) for image in of_split],
            }
            name = {"val": "validation"}.get(split, split)
            paths.append(self.root / f"{name}-00000-of-00001.parquet")
            Dataset.from_dict(rows, features=features).to_parquet(paths[-1], batch_size=25)
        self.check("parquet", paths)
        self.same("parquet", self.check("parquet, sorted", paths, "--order", "sorted"), reference)

    def tfrecord(self):
        from tfrecord.writer import TFRecordWriter

        keys = {
            "TFDS": lambda image, label: {
                "image": (image.data, "byte"),
                "label": (label, "int"),
                "file_name": (image.name.encode(), "byte"),
            },
            "TF-slim": lambda image, label: {
                "image/encoded": (image.data, "byte"),
                "image/class/label": (label + 1, "int"),
                "image/class/synset": (image.label.encode(), "byte"),
                "image/filename": (image.name.encode(), "byte"),
            },
        }
        names = self.root / "classes.txt"
        for kind, example in keys.items():
            paths = []
            for split in self.splits:
                name = {"val": "validation"}.get(split, split)
                paths.append(self.root / f"{kind}-{name}.tfrecord-00000-of-00001")
                writer = TFRecordWriter(str(paths[-1]))
                for image in self.images:
                    if image.split == split:
                        writer.write(example(image, self.classes.index(image.label)))
                writer.close()
            self.check(f"TFRecord, keys of {kind}", paths, "--classes", names)

    def mds(self):
        sys.meta_path.append(Pretend())
        from streaming import MDSWriter

        columns = {"image": "jpeg", "label": "int", "path": "str"}
        for compression in [None, "zstd:3"]:
            root = self.root / f"mds-{compression}"
            for split in self.splits:
                out = str(root / split)
                with MDSWriter(out=out, columns={**columns, "image": "bytes"}, compression=compression) as writer:
                    for image in self.images:
                        if image.split == split:
                            label = self.classes.index(image.label)
                            writer.write({"image": image.data, "label": label, "path": image.name})
            self.check(f"MDS, compression {compression}", [root], "--classes", self.root / "classes.txt")


def add(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


class Pretend(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for libraries that `streaming` imports and nothing here calls."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: type(name, (), {}) if name[:1].isupper() else MagicMock(name=name)
        return module

    def exec_module(self, module):
        pass


main()
