"""Writes the record of a run: `python -m rivals.record FILE.json` makes FILE.md and FILE.png beside it."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def median(result: dict[str, Any], cores: str) -> float:
    rates = result["cores"].get(cores, {}).get("images_per_second")
    return statistics.median(rates) if rates else 0.0


def rate(result: dict[str, Any], cores: str) -> str:
    """Median and spread of the rounds."""
    if not median(result, cores):
        return "–"
    rates = result["cores"][cores]["images_per_second"]
    return f"{median(result, cores):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"


def table(record: dict[str, Any]) -> str:
    lines = ["| loader | version | images/s, 1 core | images/s, 2 cores | ratio 2/1 | bytes/image | workers | what differs |",
             "|---|---|---:|---:|---:|---:|---:|---|"]  # fmt: skip
    for result in sorted(record["results"], key=lambda result: median(result, "1")):
        one, two = median(result, "1"), median(result, "2")
        if not one and not two:
            continue
        name = f"**{result['name']}**" if result["ours"] else result["name"]
        ratio = f"{two / one:.2f}" if one and two else "–"
        workers = " / ".join("default" if result["ours"] else str(each["workers"]) for each in result["cores"].values())
        lines.append(f"| {name} | {result['version']} | {rate(result, '1')} | {rate(result, '2')} | {ratio} "
                     f"| {result['bytes_per_image']:,.0f} | {workers} | {result['note']} |")  # fmt: skip
    return "\n".join(lines)


def markdown(record: dict[str, Any], chart: str) -> str:
    machine, images = record["machine"], record["images"]
    missing = [f"- {result['name']}: {result['reason']}" for result in record["results"] if result["reason"]]
    return f"""# Loaders side by side, {record["date"]}

Machine: {machine["cpu"]}, {machine["cpus"]} CPUs ({machine["features"]}), {machine["memory_gib"]} GiB,
Linux {machine["kernel"]}, Python {machine["python"]}.
Images: {images["count"]} JPEG files of `{images["folder"]}`, {images["bytes_per_image"]:,.0f} bytes each on average.
Revision: {record["revision"]}. Command: `{record["command"]}`

Work: decode, RandomResizedCrop(224, scale (0.3, 1.0)) with a filter that antialiases, no flip, batches of 128, in a
random order, from a warm page cache. Every measurement is a fresh process, pinned with all its threads and workers to
one core or two, and takes at least {record["seconds"]:g} s. All the loaders are measured in turn, {record["rounds"]} times; each figure is
the median, with the lowest and the highest in brackets. Workers: the best settings in a round before, for 1 core / 2.

{table(record)}

![images per second]({chart})

## Left out

{chr(10).join(missing) or "Nothing."}
"""


def draw(record: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    results = sorted((each for each in record["results"] if median(each, "1")), key=lambda each: median(each, "1"))
    colours = {False: ("#b8c0cc", "#7d8899"), True: ("#f4b183", "#d9631e")}
    figure, axes = pyplot.subplots(figsize=(10, 1.4 + 0.55 * len(results)), layout="constrained")
    for place, result in enumerate(results):
        for offset, cores, colour in zip((0.2, -0.2), ("2", "1"), reversed(colours[result["ours"]])):
            value = median(result, cores)
            if value:
                axes.barh(place + offset, value, 0.38, color=colour)
                at = {"textcoords": "offset points", "va": "center", "fontsize": 8}
                axes.annotate(f"{value:,.0f}", (value, place + offset), (3, 0), **at)
    names = [f"{result['name']}\n{result['bytes_per_image'] / 1000:,.0f} kB an image" for result in results]
    axes.set_yticks(range(len(results)), names, fontsize=9)
    for label, result in zip(axes.get_yticklabels(), results):
        label.set_fontweight("bold" if result["ours"] else "normal")
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    axes.set_xlabel("images/s: decode, RandomResizedCrop 224, batches of 128 (median; longer is better)")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    who = {True: "this loader", False: "others"}
    handles = [Patch(color=colours[ours][two], label=f"{who[ours]}, {two + 1} core{'s' * two}")
               for ours in (True, False) for two in (1, 0)]  # fmt: skip
    axes.legend(handles=handles, loc="lower right")
    axes.set_title(f"{record['machine']['cpu']}, {record['images']['count']} images, {record['date']}", fontsize=10)
    figure.savefig(path, dpi=130)


def main() -> None:
    source = Path(sys.argv[1])
    record = json.loads(source.read_text())
    chart = source.with_suffix(".png")
    source.with_suffix(".md").write_text(markdown(record, chart.name))
    draw(record, chart)


if __name__ == "__main__":
    main()
