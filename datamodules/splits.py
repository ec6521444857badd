"""Which image files make up a split, class by class."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.errors import UserError, listed
from datamodules.images.find import SUFFIXES, ImageFiles, find_images
from datamodules.split_names import SPLITS, lookalikes, no_split, place_below

Files = dict[str, list[str]]  # paths by class


def list_splits(
    root: Path, stage: str, classes: ClassIndex, *, val_fraction: float, seed: int, say: Callable[[str], None]
) -> tuple[dict[str, Files], str]:
    """Lists the splits that a stage needs, and checks that no image to measure has trained or chosen the weights.

    Args:
        root: Folder of the splits.
        stage: ``fit``, ``validate`` or ``test``.
        classes: The classes of each split.
        val_fraction: As for ``hold_out``, if there is no ``val/``.
        seed: As for ``hold_out``.
        say: Called with a line on what was passed over or held out, if anything was.

    Returns:
        Files by split, and a sentence on what is held out, empty if there is a ``val/``.

    Raises:
        UserError: A folder or a class's images are missing, or a file is in two splits or classes.
    """

    def list_one(split: str) -> tuple[Files, ImageFiles]:
        files, found = list_split(root / split, classes)
        if remarks := found.passed_over():
            say(f"{root / split}: passed over {remarks}")
        return files, found

    measured = "test" if stage == "test" else "val"
    if measured == "val" and not split_exists(root / "val"):
        train, val = hold_out(list_one("train")[0], val_fraction, seed, root)
        remark = _held_out_remark(root, val, val_fraction)
        say(remark)
        return {"train": train, "val": val} if stage == "fit" else {"val": val}, remark
    if measured == "test":
        classes.require_same(ClassIndex.from_folder(root / "test"), "the checkpoint", str(root / "test"))
    files, found = list_one(measured)
    if stage == "fit":
        train, train_found = list_one("train")
        require_apart(train_found, found, "train", "val")
        return {"train": train, "val": files}, ""
    for earlier in SPLITS[: SPLITS.index(measured)]:
        if (root / earlier).is_dir():
            require_apart(find_images(root / earlier), found, earlier, measured)
    return {measured: files}, ""


def list_split(folder: Path, classes: ClassIndex) -> tuple[Files, ImageFiles]:
    """Lists paths by class, and the sum of what was found and passed over.

    Raises:
        UserError: There is no such folder, a class without an image, an image outside the class folders, or links that
            put a file into two classes.
    """
    if not split_exists(folder):
        raise no_split(folder)
    with os.scandir(folder) as entries:
        stray = [e.name for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file() and e.name[0] != "."]
    if stray:
        raise UserError(
            f"{folder} holds images beside its class folders, {listed(sorted(stray, key=natural_key))}: move them into "
            "their class"
        )
    by_class = {name: find_images(folder / name) for name in classes.names}
    total = ImageFiles()
    if empty := [name for name, found in by_class.items() if not found.paths]:
        for name in empty:
            total.add(by_class[name])
        other = total.passed_over()
        raise UserError(
            f"every class folder of {folder} must hold an image, but there is none in {listed(empty)}"
            f"{f', only {other}: convert files to JPEG or PNG' if other else ': add images'}, or remove the class from "
            "every split"
        )
    for name, found in by_class.items():
        require_apart(total, found, f"the other classes of {folder}", f"class {name}")
        total.add(found)
    return {name: found.paths for name, found in by_class.items()}, total


def split_exists(folder: Path) -> bool:
    """Tells whether the data set has this split.

    Raises:
        UserError: The folder is a dangling link, which must not pass for a split that is left out.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder} is a dangling link: repair or remove it")
    return folder.is_dir()


def require_apart(one: ImageFiles, other: ImageFiles, name_of_one: str, name_of_other: str) -> None:
    """Checks that no link, symbolic or hard, puts a file into both of two scans.

    Raises:
        UserError: A file is in both.
    """
    if shared := other.shared_with(one):
        raise UserError(
            f"links make {name_of_other} share {len(shared)} of its files with {name_of_one} ({listed(shared)}): "
            "remove the links"
        )


def hold_out(files: Files, fraction: float, seed: int, root: Path) -> tuple[Files, Files]:
    """Splits files in two, class by class: what stays, and ``fraction`` of each class, at least one image.

    The choice follows a hash of the seed and the file's place below ``root``, which no library's random stream or file
    system's order can change.

    Raises:
        UserError: Nothing would stay of a class.
    """

    def key(path: str) -> bytes:
        place = Path(path).relative_to(root).as_posix()
        return hashlib.sha256(f"{seed}/{place}".encode("utf-8", "surrogateescape")).digest()

    stay, held_out = {}, {}
    for name, paths in files.items():
        count = max(1, round(len(paths) * fraction))
        if count >= len(paths):
            raise UserError(
                f"class {name} has too few images ({len(paths)}) to hold out {count} for validation: add images or a "
                "val folder, or lower --data.val_fraction"
            )
        chosen = _with_twins(set(sorted(paths, key=key)[:count]), paths)
        if len(chosen) == len(paths):
            raise UserError(
                f"class {name} has too few different images to hold out {count} for validation, as its other names are "
                "hard links to those: add images or a val folder"
            )
        held_out[name] = [path for path in paths if path in chosen]
        stay[name] = [path for path in paths if path not in chosen]
    return stay, held_out


def _with_twins(chosen: set[str], paths: Sequence[str]) -> set[str]:
    """Adds the other hard links to the chosen files: an image that is measured must not be trained with."""
    several: dict[str, tuple[int, int]] = {}
    for path in paths:
        with suppress(OSError):  # gone since the scan
            if (status := os.stat(path)).st_nlink > 1:
                several[path] = status.st_dev, status.st_ino
    files = {several[path] for path in chosen if path in several}
    return chosen | {path for path, file in several.items() if file in files}


def _held_out_remark(root: Path, held_out: Files, fraction: float) -> str:
    """Says how many images ``hold_out`` took for lack of ``val/``, and which folders may be meant by it."""
    count = sum(map(len, held_out.values()))
    names = lookalikes(root / "val")
    unread = f"; if {' or '.join(names)} is meant, rename it to {root / 'val'}" if names else ""
    return (
        f"no {root / 'val'}: {100 * fraction:g}% of each class, {count:,} images, are held out of {root / 'train'} for "
        f"validation{unread}"
    )


def fingerprint(paths: Sequence[str], root: Path) -> dict[str, int | str]:
    """Returns the number of files and a SHA-256 of their places below ``root`` and sizes in bytes (-1 if gone)."""
    digest = hashlib.sha256()
    for path in paths:
        size = os.path.getsize(path) if os.path.exists(path) else -1
        line = f"{place_below(path, root)}\t{size}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return {"images": len(paths), "sha256": digest.hexdigest()}
