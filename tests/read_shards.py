#!/usr/bin/env python3
"""Reads a dataset as shardtool/FORMAT.md describes it, samples as loader/PIXELS.md: proof that the pages are enough.

usage: read_shards.py DATASET [SIDE]

Prints one JSON list a line for each sample: split, number, path, class, source size, stored size, codec, orientation,
labels, "ok" or "damaged", the payload's xxh3-64 and SHA-256 as found. For an undamaged `dct` sample the xxh3-64 of its
coefficients, of its samples and of a square that a part of it is resized to, mirrored for odd numbers, follow. Samples
are as fine as stored and the square has 5 pixels a side, or both are as `fast` has them for a square of SIDE pixels.
Every violation is a line on stderr.
Exit codes: 0 fine, 1 violations, 2 could not run.
"""

import hashlib
import json
import os
import re
import struct
import sys

try:
    import xxhash
    import zstandard
except ImportError as missing:
    print(f"read_shards.py: the Python package {missing.name} is missing; `make python` installs it", file=sys.stderr)
    sys.exit(2)

import read_dct
import read_pixels
from read_dct import Violation, must

MAGIC = bytes.fromhex("89494A5348415244")
HEADER = struct.Struct("<8s4I6Q16sQ")
UNLABELLED = 2**32 - 1
LABEL_TYPES = {1: "int64", 2: "float64", 3: "utf8"}
CODECS = {1: "jpeg", 2: "raw", 3: "dct"}
# What the manifest has to hold. A list stands for any number of its only element.
SHARD = {"file": str, "samples": int, "bytes": int, "checksum": str}
MANIFEST = {
    "format": str, "version": int, "source": {"name": str, "files": int, "bytes": int, "listing": str},
    "codec": {"name": str, "level": int, "shard_size": int}, "classes": [str], "labels": [{"name": str, "type": str}],
    "splits": [{"name": str, "samples": int, "shards": [SHARD]}],
}
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def checksum(data):
    return xxhash.xxh3_64_intdigest(data)


def text(data, what):
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Violation(f"{what} is not UTF-8: {error}") from None


def pairs(items):
    """A JSON object whose keys are distinct."""
    must(len(dict(items)) == len(items), f"a key occurs twice among {[key for key, _ in items]}")
    return dict(items)


def conform(value, schema, where):
    """Checks presence and types; keys beyond the schema are ignored."""
    if isinstance(schema, dict):
        must(isinstance(value, dict), f"{where} is not an object")
        for key, inner in schema.items():
            must(key in value, f"{where} has no key {key!r}")
            conform(value[key], inner, f"{where}.{key}")
    elif isinstance(schema, list):
        must(isinstance(value, list), f"{where} is not a list")
        for i, item in enumerate(value):
            conform(item, schema[0], f"{where}[{i}]")
    else:
        # To Python, true and false are integers as well.
        fits = isinstance(value, schema) and not isinstance(value, bool)
        must(fits and not (schema is int and value < 0), f"{where} is {value!r}")


def one_frame(data, size, what):
    """The content of exactly one zstd frame that records its content size."""
    data = bytes(data)
    must(data[:4] == b"\x28\xb5\x2f\xfd", f"{what} does not begin with a zstd frame")
    try:
        parameters = zstandard.get_frame_parameters(data)
        must(parameters.dict_id == 0, f"{what} needs a dictionary")
        must(parameters.content_size == size, f"{what} records {parameters.content_size} bytes of content, not {size}")
        # At once rather than as a stream: streams refuse frames with windows beyond 128 MiB.
        content = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Violation(f"{what} is no single zstd frame: {error}") from None
    must(len(content) == size, f"{what} holds {len(content)} bytes, not {size}")
    return content


class Shard:
    """One shard file, checked whole except for its payloads."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        must(len(data) >= HEADER.size, "shorter than a header")
        (magic, version, flags, count, label_columns, codec_data, index_offset, index_length, index_raw_length,
         index_checksum, codec_data_checksum, reserved, self.checksum) = HEADER.unpack_from(data)
        must(magic == MAGIC, "no magic number")
        must(version == 1, f"version {version}, not 1")
        must(self.checksum == checksum(data[:88]), "header checksum differs")
        must(flags & 0xFFFF == 0, f"reserved flags are set: {flags:#x}")
        must(reserved == bytes(16), "reserved bytes of the header are set")
        must(1 <= count <= 1_048_576, f"{count} samples")
        must(label_columns <= 256, f"{label_columns} label columns")
        must(codec_data <= 2**20, f"codec data of {codec_data} bytes")
        must(index_offset >= HEADER.size + codec_data, f"index at {index_offset}")
        must(index_offset + index_length == len(data), f"file of {len(data)} bytes, not {index_offset + index_length}")
        must(44 * count <= index_raw_length <= 2**28, f"index of {index_raw_length} bytes")
        packed = data[index_offset:]
        must(checksum(packed) == index_checksum, "index checksum differs")
        self.data, self.count = data, count
        self.tables = self._tables(data[HEADER.size:HEADER.size + codec_data], codec_data_checksum)
        self._read_index(one_frame(packed, index_raw_length, "the index"), HEADER.size + codec_data, index_offset)
        self._read_labels(label_columns)

    def _tables(self, codec_data, expected):
        """The rANS tables, if there are any."""
        must(expected == (checksum(codec_data) if codec_data else 0), "codec data checksum differs")
        if not codec_data:
            return None
        size = zstandard.frame_content_size(codec_data)
        must(0 <= size <= 256 * 512, f"codec data of {size} bytes")
        return read_dct.read_tables(one_frame(codec_data, size, "the codec data"))

    def _read_index(self, index, begin, end):
        n, at = self.count, 0
        for name, code in [("offset", "Q"), ("checksums", "Q"), ("length", "I"), ("stored_width", "I"),
                           ("stored_height", "I"), ("source_width", "I"), ("source_height", "I"), ("classes", "I"),
                           ("flags", "H"), ("codec", "B"), ("orientation", "B")]:
            column = struct.Struct(f"<{n}{code}")
            setattr(self, name, column.unpack_from(index, at))
            at += column.size
        self.index, self.labels_at = index, at
        for i in range(n):
            must(self.length[i] != 0, f"sample {i}: empty payload")
            must(self.offset[i] == begin, f"sample {i}: offset {self.offset[i]}, not {begin}")
            begin += self.length[i]
            for width, height in [(self.stored_width[i], self.stored_height[i]),
                                  (self.source_width[i], self.source_height[i])]:
                must(1 <= width <= 65535 and 1 <= height <= 65535, f"sample {i}: {width} x {height} pixels")
                must(width * height <= 178_956_970, f"sample {i}: {width} x {height} pixels")
            must(self.flags[i] & 0xFF == 0, f"sample {i}: reserved flags are set: {self.flags[i]:#x}")
            must(self.codec[i] in CODECS, f"sample {i}: unknown codec {self.codec[i]}")
            must(1 <= self.orientation[i] <= 8, f"sample {i}: orientation {self.orientation[i]}")
        must(begin == end, f"the payloads end at {begin}, not {end}")

    def _read_labels(self, columns):
        n, index, at = self.count, self.index, self.labels_at
        self.labels = {}
        for column in range(columns):
            what = f"label column {column}"
            must(at + 8 <= len(index), f"{what} is cut short")
            kind, name_length, reserved, data_length = struct.unpack_from("<BBHI", index, at)
            at += 8
            must(at + name_length + data_length <= len(index), f"{what} is cut short")
            must(kind in LABEL_TYPES, f"{what}: unknown type {kind}")
            must(reserved == 0, f"{what}: reserved bytes are set")
            name = text(index[at:at + name_length], f"the name of {what}")
            must(name, f"{what} has no name")
            must(name not in self.labels, f"two label columns are called {name!r}")
            data = index[at + name_length:at + name_length + data_length]
            at += name_length + data_length
            if LABEL_TYPES[kind] == "utf8":
                values = self._texts(data, what)
            else:
                must(data_length == 8 * n, f"{what}: {data_length} bytes, not {8 * n}")
                values = struct.unpack(f"<{n}{'q' if kind == 1 else 'd'}", data)
            # None stands for a missing value; a NaN is the one number that differs from itself.
            missing = {"int64": lambda v: v == -2**63, "float64": lambda v: v != v, "utf8": lambda v: v == ""}
            self.labels[name] = [None if missing[LABEL_TYPES[kind]](value) else value for value in values]
        must(at == len(index), f"{len(index) - at} bytes follow the last label column")

    def _texts(self, data, what):
        n = self.count
        must(len(data) >= 4 * n, f"{what}: {len(data)} bytes cannot hold {n} ends")
        ends, texts = struct.unpack_from(f"<{n}I", data), data[4 * n:]
        values, begin = [], 0
        for i, end in enumerate(ends):
            must(begin <= end <= len(texts), f"{what}, sample {i}: the text ends at {end}")
            # A text cut inside a character is not UTF-8, so this also checks the boundaries.
            values.append(text(texts[begin:end], f"{what}, sample {i}"))
            begin = end
        must(begin == len(texts), f"{what}: the last text ends at {begin}, not {len(texts)}")
        return values

    def payload(self, i):
        return self.data[self.offset[i]:self.offset[i] + self.length[i]]

    def check_payload(self, i):
        """What can be said of a payload without decoding a JPEG; of `dct`, the whole image."""
        payload = self.payload(i)
        must(checksum(payload) == self.checksums[i], "checksum differs")
        if CODECS[self.codec[i]] == "raw":
            one_frame(payload, 3 * self.stored_width[i] * self.stored_height[i], "the payload")
        elif CODECS[self.codec[i]] == "dct":
            return read_dct.Image(payload, self.stored_width[i], self.stored_height[i], self.tables, one_frame)
        else:
            must(payload[:2] == b"\xff\xd8", "does not begin as a JPEG")
            must(b"\xff\xd9" in payload, "has no end-of-image marker")
        return None


class Reader:
    """Walks a dataset, collecting violations instead of stopping at the first."""

    def __init__(self, directory, side):
        self.directory, self.side, self.violations = directory, side, 0

    def report(self, where, problem):
        self.violations += 1
        print(f"{where}: {problem}", file=sys.stderr)

    def run(self):
        path = os.path.join(self.directory, "dataset.json")
        with open(path, "rb") as file:
            data = file.read()
        try:
            manifest = self.manifest(data)
        except Violation as violation:
            return self.report(path, violation)
        for split in manifest["splits"]:
            number = 0
            for listed in split["shards"]:
                shard_path = os.path.join(self.directory, listed["file"])
                try:
                    shard = Shard(shard_path)
                    self.compare(shard, listed, manifest)
                except (Violation, OSError) as problem:
                    self.report(shard_path, problem)
                    number += listed["samples"]
                    continue
                for i in range(shard.count):
                    self.sample(shard_path, shard, i, split["name"], number)
                    number += 1

    def manifest(self, data):
        try:
            manifest = json.loads(text(data, "the manifest"), object_pairs_hook=pairs)
        except (ValueError, RecursionError) as error:
            raise Violation(f"not JSON: {error}") from None
        conform(manifest, MANIFEST, "manifest")
        must(manifest["format"] == "ijepa-shards", f"format {manifest['format']!r}")
        must(manifest["version"] == 1, f"version {manifest['version']}, not 1")
        must(len(set(manifest["classes"])) == len(manifest["classes"]), "class names are not distinct")
        codec = manifest["codec"]
        must(codec["name"] in CODECS.values(), f"codec {codec['name']!r}")
        must(codec.get("entropy") in (["rans", "zstd"] if codec["name"] == "dct" else [None]), "codec.entropy")
        if "bound" in codec:
            conform(codec["bound"], {"short_side": int, "quality": int, "chroma": int}, "manifest.codec.bound")
        for column in manifest["labels"]:
            must(column["type"] in LABEL_TYPES.values(), f"label {column['name']!r} of type {column['type']!r}")
        shards = [shard for split in manifest["splits"] for shard in split["shards"]]
        for shard_sum in [manifest["source"]["listing"], *(shard["checksum"] for shard in shards)]:
            must(re.fullmatch("[0-9a-f]{16}", shard_sum), f"checksum {shard_sum!r}")
        for split in manifest["splits"]:
            total = sum(shard["samples"] for shard in split["shards"])
            must(split["samples"] == total, f"split {split['name']}: {split['samples']} samples, shards hold {total}")
        for kind, names in [("split", [split["name"] for split in manifest["splits"]]),
                            ("file", [shard["file"] for shard in shards])]:
            must(len(set(names)) == len(names), f"{kind} names are not distinct")
            for name in names:
                must(NAME.fullmatch(name), f"{kind} name {name!r}")
        return manifest

    def compare(self, shard, listed, manifest):
        must(len(shard.data) == listed["bytes"], f"{len(shard.data)} bytes, the manifest says {listed['bytes']}")
        must(shard.count == listed["samples"], f"{shard.count} samples, the manifest says {listed['samples']}")
        must(shard.checksum == int(listed["checksum"], 16), "not the shard that the manifest lists: another checksum")
        for i, number in enumerate(shard.classes):
            known = number == UNLABELLED or number < len(manifest["classes"])
            must(known, f"sample {i}: class {number} of {len(manifest['classes'])}")
        self.classes = manifest["classes"]

    def sample(self, where, shard, i, split, number):
        paths = shard.labels.get("path")
        path = paths[i] if paths is not None else None
        state, image = "ok", None
        try:
            image = shard.check_payload(i)
        except Violation as violation:
            state = "damaged"
            self.report(where, f"sample {i} ({path}) at offset {shard.offset[i]}: {violation}")
        label = shard.classes[i]
        print(json.dumps([
            split, number, path, None if label == UNLABELLED else self.classes[label],
            [shard.source_width[i], shard.source_height[i]], [shard.stored_width[i], shard.stored_height[i]],
            CODECS[shard.codec[i]], shard.orientation[i],
            {name: values[i] for name, values in shard.labels.items()},
            state, f"{checksum(shard.payload(i)):016x}", hashlib.sha256(shard.payload(i)).hexdigest(),
            *(f"{checksum(data):016x}" for data in (
                (image.coefficients(), image.samples(self.side), self.square(image, shard, i, number))
                if image else ())),
        ]))

    def square(self, image, shard, i, number):
        width, height = shard.source_width[i], shard.source_height[i]
        crop = width // 5, height // 7, max(1, width * 3 // 5), max(1, height * 2 // 3)
        return read_pixels.square(image, (width, height), crop, self.side or 5, self.side is not None, number % 2 == 1)


def main():
    try:
        directory, side = (sys.argv[1:] + [None])[:2] if 2 <= len(sys.argv) <= 3 else (None, None)
        reader = Reader(os.fspath(directory), None if side is None else int(side))
    except (TypeError, ValueError):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        reader.run()
    except OSError as error:
        print(f"read_shards.py: {error}", file=sys.stderr)
        return 2
    return 1 if reader.violations else 0


if __name__ == "__main__":
    sys.exit(main())
