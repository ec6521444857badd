"""Swaps labels of photos, and tells how many of them are found by models that did not train on the photo.

``python -m tests.integration.wrong_labels ROOT OUT --swapped 0.05 --seed 1 -- FIT_OPTIONS…`` writes a labels file over
ROOT/train to OUT, of whose labels a share is swapped to another class at random, runs ``ablate --folds 5`` with these
options in OUT, ranks the labels as ``report`` does and in other ways, and prints JSON: for each ranking, precision and
recall at as many photos as were swapped, with 95 % intervals (Wilson), and average precision; and the same of the set
of photos that confident learning doubts. ROOT is only read.
"""

import argparse
import contextlib
import json
import random
from pathlib import Path

import numpy as np

from callbacks.predictions.out_of_fold import OUT_OF_FOLD_TABLE, read_out_of_fold
from datamodules import ImageFolderDataModule
from datamodules.files.csv_cells import to_cell
from datamodules.files.csv_tables import write_csv
from datamodules.splits import list_split
from lightning_modules.metrics.proportions import wilson_interval
from scripts.main import main as command
from scripts.report.label_doubts import doubt_labels


def write_labels(file, train, swapped, seed):
    """Writes the labels file; swaps this share of the labels."""
    images = sorted(path.relative_to(train).as_posix() for path in train.rglob("*") if path.is_file())
    classes = sorted({image.split("/")[0] for image in images})
    rng = random.Random(seed)
    chosen = {*rng.sample(images, round(swapped * len(images)))}
    rows = []
    for image in images:
        own = image.split("/")[0]
        label = rng.choice([name for name in classes if name != own]) if image in chosen else own
        rows.append([to_cell(image), to_cell(label)])
    write_csv(file, ["file_name", "label"], rows)


def share(count, of):
    low, high = wilson_interval(count, of)
    return {"share": round(count / of, 4), "interval": [round(low, 4), round(high, 4)], "count": count, "of": of}


def average_precision(swapped):
    """Mean of the precision at each swapped photo, of booleans in the order of a ranking."""
    found = np.cumsum(swapped)
    return round(float((found / np.arange(1, len(swapped) + 1))[swapped].mean()), 4)


def measure(probability, targets, true):
    """What each ranking finds; ``targets`` are the labels with swaps, ``true`` those without."""
    images, swapped = np.arange(len(targets)), targets != true
    doubts = doubt_labels(probability, targets)
    p_label = probability[images, targets]
    margin = p_label - probability[images, doubts.suggested]
    rankings = {
        "p of the label (report)": doubts.order,
        "margin": np.argsort(margin, kind="stable"),
        "doubted first, then p of the label": np.lexsort((p_label, ~doubts.doubted)),
        "doubted first, then margin": np.lexsort((margin, ~doubts.doubted)),
    }
    count, found = int(swapped.sum()), int((swapped & doubts.doubted).sum())
    right = int((swapped & doubts.doubted & (doubts.suggested == true)).sum())
    return {
        "photos": len(targets),
        "swapped": count,
        "accuracy, true labels": share(int((probability.argmax(1) == true).sum()), len(true)),
        "precision and recall of as many as were swapped": {
            name: share(int(swapped[order[:count]].sum()), count) for name, order in rankings.items()
        },
        "average precision": {name: average_precision(swapped[order]) for name, order in rankings.items()},
        "doubted": {
            "precision": share(found, int(doubts.doubted.sum())),
            "recall": share(found, count),
            "swapped ones whose class is suggested": share(right, found),
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path, help="folder to create")
    parser.add_argument("--swapped", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folds", type=int, default=5)
    options, words = parser.parse_known_args()
    fit = [word for word in words if word != "--"]
    train, out = (options.root / "train").resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    labels = out / "labels.csv"
    write_labels(labels, train, options.swapped, options.seed)
    # Below train, there is no val that would keep its photos out of the folds.
    data = ["--data.root", str(train), "--data.labels", str(labels)]
    with contextlib.chdir(out):
        command(["ablate", "--folds", str(options.folds), "--name", "wrong_labels", *data, *fit])
    (file,) = out.glob(f"runs/wrong_labels/**/{OUT_OF_FOLD_TABLE}")
    module = ImageFolderDataModule(str(train), labels=str(labels))
    found = read_out_of_fold(file, module.classes).readable()
    files, _ = list_split(module.data_set.require("train"), module.classes)
    own = {image.name: Path(image.path).relative_to(train).parts[0] for images in files.values() for image in images}
    true = np.array([module.classes.position(own[name]) for name in found.names])
    print(json.dumps(measure(found.probability, found.label, true), indent=2))


if __name__ == "__main__":
    main()
