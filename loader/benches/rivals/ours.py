"""This loader beside its rivals: one row for each way of building the shards."""

import json
from pathlib import Path

from .contestant import Contestant
from .environment import Environment


class Ours(Contestant):
    ours = True
    packages = []
    workers = (0,)  # The default: a thread for each core.

    def __init__(self, key: str, name: str, note: str, *options: str) -> None:
        self.key, self.name, self.options = key, name, options
        self.note = f"{note}; draws I-JEPA's masks as well and hands over in shared memory"

    def build(self, environment: Environment, shardtool: Path, images: Path, data: Path) -> None:
        environment.run([shardtool, "build", images, "--out", data, "--force", *self.options], 3600)

    def measure(self, environment: Environment, loader: Path, data: Path, seconds: float, cores: list[int]) -> float:
        config = environment.repository / "configs" / "in1k_vith14_ep300.yaml"
        command = [loader, "bench", "--config", config, "--shards", data, "--seconds", str(seconds), "--json"]
        return json.loads(environment.run(command, seconds + 600, cores))["images_per_second"]


CONTESTANTS = [
    Ours("ours-jpeg", "ours, jpeg", "the files as they are", "--codec", "jpeg"),
    Ours("ours-raw", "ours, raw", "pixels of full size under zstd", "--codec", "raw"),
    Ours("ours-dct", "ours, dct lossless", "every coefficient of the files", "--codec", "dct"),
    Ours("ours-dct320", "ours, dct ≤ 320 px q92 4:2:0", "shorter side bounded",
         "--codec", "dct", "--short-side", "320", "--quality", "92", "--chroma", "420"),
]  # fmt: skip
