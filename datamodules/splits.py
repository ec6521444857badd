"""Which image files make up a split, class by class."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.errors import UserError, listed
from datamodules.images.find import SUFFIXES, ImageFiles, find_images
from datamodules.split_names import advice, lookalikes

Files = dict[str, list[str]]  # paths by class


def list_split(folder: Path, classes: ClassIndex) -> tuple[Files, ImageFiles]:
    """Paths by class, and the sum of what was found and passed over.

    Raises:
        UserError: There is no such folder, a class without an image, an image outside the class folders, or links that
            put a file into two classes.
    """
    if not split_exists(folder):
        raise UserError(
            f"expected a folder {folder} with one subfolder for each class, there is none: {advice(folder)}"
        )
    with os.scandir(folder) as entries:
        stray = [e.name for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file() and e.name[0] != "."]
    if stray:
        raise UserError(
            f"expected images inside the class folders of {folder} only, found {listed(sorted(stray, key=natural_key))}"
            " beside them: move them into their class"
        )
    by_class = {name: find_images(folder / name) for name in classes.names}
    empty = [name for name, found in by_class.items() if not found.paths]
    total = ImageFiles()
    if empty:
        for name in empty:
            total.add(by_class[name])
        remark = f" (passed over {total.passed_over()})" if total.passed_over() else ""
        raise UserError(
            f"expected an image in each class folder of {folder}, there is none in {listed(empty)}{remark}: add images "
            "or remove the class from every split"
        )
    for name, found in by_class.items():
        require_apart(total, found, f"the other classes of {folder}", name)
        total.add(found)
    return {name: found.paths for name, found in by_class.items()}, total


def split_exists(folder: Path) -> bool:
    """Whether there is such a folder.

    Raises:
        UserError: It is a link to nothing, which must not pass for a split that is left out.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"expected a folder {folder}, it is a link to nothing: mend or remove it")
    return folder.is_dir()


def require_apart(one: ImageFiles, other: ImageFiles, name_of_one: str, name_of_other: str) -> None:
    """Checks that no link, symbolic or hard, puts a file into both.

    Raises:
        UserError: A file is in both.
    """
    if shared := other.shared_with(one):
        raise UserError(
            f"expected each file in one place, links put {len(shared)} of {name_of_other} into {name_of_one} too "
            f"({listed(shared)}): remove the links"
        )


def hold_out(files: Files, fraction: float, seed: int, root: Path) -> tuple[Files, Files]:
    """Splits files in two, class by class: what stays, and ``fraction`` of each class, at least one image.

    By a hash of seed and place below ``root``, which no library's random stream or file system's order can change.

    Raises:
        UserError: Of a class nothing would stay.
    """

    def key(path: str) -> bytes:
        place = Path(path).relative_to(root).as_posix()
        return hashlib.sha256(f"{seed}/{place}".encode("utf-8", "surrogateescape")).digest()

    stay, held_out = {}, {}
    for name, paths in files.items():
        count = max(1, round(len(paths) * fraction))
        if count >= len(paths):
            raise UserError(
                f"expected more than {count} images in class {name}, to hold out {count} for validation, found "
                f"{len(paths)}: add images, a val folder, or lower --data.val_fraction"
            )
        chosen = _with_twins(set(sorted(paths, key=key)[:count]), paths)
        if len(chosen) == len(paths):
            raise UserError(
                f"expected different images in class {name}, to hold out {count} for validation, all names there are "
                "hard links to those: add images, or a val folder"
            )
        held_out[name] = [path for path in paths if path in chosen]
        stay[name] = [path for path in paths if path not in chosen]
    return stay, held_out


def _with_twins(chosen: set[str], paths: Sequence[str]) -> set[str]:
    """Adds what other hard links name the same files: an image that is measured must not be trained with."""
    several: dict[str, tuple[int, int]] = {}
    for path in paths:
        with suppress(OSError):  # gone since the scan
            if (status := os.stat(path)).st_nlink > 1:
                several[path] = status.st_dev, status.st_ino
    files = {several[path] for path in chosen if path in several}
    return chosen | {path for path, file in several.items() if file in files}


def held_out_remark(root: Path, held_out: Files, fraction: float) -> str:
    """How many images ``hold_out`` took for lack of ``val/``, and which folders may be meant by it."""
    count = sum(map(len, held_out.values()))
    names = lookalikes(root / "val")
    unread = f"; if {' or '.join(names)} is meant, rename it to {root / 'val'}" if names else ""
    return (
        f"no {root / 'val'}: {100 * fraction:g}% of each class, {count:,} images, are held out of {root / 'train'} for "
        f"validation{unread}"
    )


def fingerprint(paths: Sequence[str], root: Path) -> dict[str, int | str]:
    """The number of files and a SHA-256 of their places below ``root`` and sizes in bytes, -1 where one is gone."""
    digest = hashlib.sha256()
    for path in paths:
        size = os.path.getsize(path) if os.path.exists(path) else -1
        line = f"{os.path.relpath(path, root)}\t{size}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return {"images": len(paths), "sha256": digest.hexdigest()}
