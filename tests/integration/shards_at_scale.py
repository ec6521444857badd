"""Tells what a start, an image and an epoch cost with shards, beside the same images as loose files.

``python -m tests.integration.shards_at_scale FOLDER --images 200000 --shards 16`` makes images of 64 px in 100 classes
in FOLDER once, about 7 kB each in both forms together, and prints JSON: seconds from a start to the first batch, in
fresh processes, without and with the index of an earlier start; images per second of both forms in turn, with the ratio
of medians; and the memory of all processes in two epochs. With ``--index_only 1000000`` it makes shards alone, of tiny
images, and prints seconds and memory of finding them, without and with the index. Runs on Linux; files that were read
before come from the page cache.
"""

import argparse
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from datamodules import ImageFolderDataModule
from datamodules.images.find import ImageFile
from datamodules.sources.data_set import DataSet
from scripts.demo.make_demo_data import draw_image
from scripts.pack import pack
from scripts.pack.shards import pack_shard, plan_shards

CLASSES, DRAWN, SIDE, BATCH = 100, 300, 64, 64
RECORDS = 12_000  # bytes of a shard besides its members, at most
MB = 10**6


def say(line):
    print(f"{time.strftime('%X')} {line}", file=sys.stderr, flush=True)


def drawn():
    """JPEG files of 300 images, of which image i is of class i % 100."""
    for i in range(DRAWN):
        file = io.BytesIO()
        draw_image(i % CLASSES, SIDE, np.random.default_rng(i)).save(file, "JPEG", quality=90)
        yield file.getvalue()


def made_once(folder, what, make, *options):
    """Makes a folder unless an earlier run has made the same; returns how many seconds it took."""
    receipt = folder / ".made"
    if receipt.is_file() and receipt.read_text() == what:
        return None
    if folder.exists():
        if not receipt.is_file():
            raise SystemExit(f"{folder} is not by this program: choose another FOLDER")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    receipt.touch()
    say(f"making {folder}: {what}")
    begun = time.perf_counter()
    make(folder, *options)
    seconds = time.perf_counter() - begun
    receipt.write_text(what)
    return round(seconds, 1)


def write_loose(folder, count):
    images = [*drawn()]
    for label in range(CLASSES):
        (folder / "train" / str(label)).mkdir(parents=True)
    for i in range(count):
        (folder / "train" / str(i % CLASSES) / f"{i:07}.jpg").write_bytes(images[i % DRAWN])


def write_shards(folder, loose, count):
    blocks = sum(512 + -(-path.stat().st_size // 512) * 512 for path in loose.rglob("*.jpg"))
    pack(loose, folder, shard_mb=(blocks / count + RECORDS) / MB, say=say)


def write_tiny_shards(folder, count, shards):
    """Shards of one image of a few hundred bytes under many names."""
    image = folder / ".tiny.png"
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(image)
    names = (f"{label}/{i:07}.png" for label in range(CLASSES) for i in range(count // CLASSES))
    files = (ImageFile(name, str(image)) for name in names)
    limit = count // shards * (512 + -(-image.stat().st_size // 512) * 512) + RECORDS
    for shard in plan_shards("train", files, limit):
        pack_shard(shard, folder / shard.name, lambda size: None)


def fresh(function, *arguments):
    """Calls a function of this file in a process that has done nothing but import what it needs."""
    call = "import json, sys; from tests.integration import shards_at_scale as file; "
    call += "print(json.dumps(getattr(file, sys.argv[1])(*json.loads(sys.argv[2]))))"
    words = [sys.executable, "-c", call, function.__name__, json.dumps(arguments, default=str)]
    *_, line = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.splitlines()
    return json.loads(line)


def data_module(root, workers):
    data = ImageFolderDataModule(str(root), image_size=SIDE, batch_size=BATCH, num_workers=workers)
    data.setup("fit")
    return data


def seconds_to_first_batch(root, workers):
    begun = time.perf_counter()
    data = data_module(root, workers)
    listed = time.perf_counter()
    batches = iter(data.train_dataloader())
    next(batches)
    return {"listed": listed - begun, "first batch": time.perf_counter() - begun}


def images_per_second(data, count):
    batches = iter(data.train_dataloader())
    next(batches)
    begun = time.perf_counter()
    done = sum(len(batch.targets) for batch in itertools.islice(batches, max(1, count // BATCH)))
    return done / (time.perf_counter() - begun)


def rates(roots, workers, rounds, count):
    """Images per second of each form, one after the other, with whichever was last going first in the next round."""
    data = {form: data_module(root, workers) for form, root in roots.items()}
    found = {form: [] for form in data}
    for turn in range(rounds):
        for form in [*data][:: -1 if turn % 2 else 1]:
            found[form].append(images_per_second(data[form], count))
    median = {form: statistics.median(values) for form, values in found.items()}
    rounded = {form: [round(value) for value in values] for form, values in found.items()}
    return {**rounded, "shards / loose files": round(median["shards"] / median["loose files"], 3)}


def memory(root, workers, epochs):
    """MB of main process and workers in each epoch, with what they share counted once."""

    def pss():
        main = psutil.Process()
        return round(sum(p.memory_full_info().pss for p in (main, *main.children(recursive=True))) / MB, 1)

    found, loader = [], data_module(root, workers).train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        looked_at = {0: "start", len(loader) // 2: "middle", len(loader) - 1: "end"}
        found.append({looked_at[i]: pss() for i, _ in enumerate(loader) if i in looked_at})
    return found


def cost_of_listing(root):
    """Seconds and MB beyond those of a process that has imported the libraries: at most, and what stays."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = psutil.Process().memory_info().rss
    begun = time.perf_counter()
    source = DataSet(Path(root), unfinished=True).require("train")
    listed, _ = source.by_class(source.class_names())
    seconds = time.perf_counter() - begun
    count = sum(len(found.images) for found in listed.values())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, after = int(status["VmHWM"].split()[0]) * 1024, psutil.Process().memory_info().rss
    mb = {"at most": round((peak - before) / MB, 1), "at the end": round((after - before) / MB, 1)}
    return {"images": count, "seconds": round(seconds, 2), "MB": mb}


def without_and_with_index(cache, function, *arguments):
    shutil.rmtree(cache, ignore_errors=True)
    return {"without index": fresh(function, *arguments), "with index": fresh(function, *arguments)}


def starts(folder, roots, rounds, workers):
    """Medians in seconds of a few starts."""
    found = {"loose files": [], "without index": [], "with index": []}
    for _ in range(rounds):
        found["loose files"].append(fresh(seconds_to_first_batch, roots["loose files"], workers))
        for state, seconds in without_and_with_index(
            folder / "cache", seconds_to_first_batch, roots["shards"], workers
        ).items():
            found[state].append(seconds)
    return {
        state: {point: round(statistics.median(one[point] for one in each), 2) for point in each[0]}
        for state, each in found.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measured", type=int, default=20_000, help="images of each round of speed")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--index_only", type=int, help="number of images; nothing else is measured")
    options = parser.parse_args()
    folder = options.folder.absolute()
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # where an index is kept
    if options.index_only:
        shards = folder / "tiny_shards"
        what = f"{options.index_only} images in {options.shards} shards"
        made_once(shards, what, write_tiny_shards, options.index_only, options.shards)
        print(json.dumps({what: without_and_with_index(folder / "cache", cost_of_listing, shards)}, indent=2))
        return
    roots = {"loose files": folder / "loose", "shards": folder / "shards"}
    what = f"{options.images} images"
    made_once(roots["loose files"], what, write_loose, options.images)
    what += f" in {options.shards} shards"
    seconds = made_once(roots["shards"], what, write_shards, roots["loose files"], options.shards)
    found = {
        "images": options.images,
        "shards": len([*roots["shards"].glob("*.tar")]),
        "seconds of cbam100 pack": seconds,
    }
    workers = max(options.workers)
    say("starts")
    found["seconds from a start"] = starts(folder, roots, options.rounds, workers)
    for number in options.workers:
        say(f"images per second with {number} workers")
        found[f"images/s with {number} workers"] = fresh(
            rates, {form: str(root) for form, root in roots.items()}, number, options.rounds, options.measured
        )
    for form, root in roots.items():
        say(f"memory of {form}")
        found[f"MB of {form} with {workers} workers, by epoch"] = fresh(memory, root, workers, 2)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
