"""The folders of a data set: their names, what others call them, and that no output goes into them."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from datamodules.archives.series import is_archive
from datamodules.files.errors import UserError
from datamodules.images.find import SUFFIXES

SPLITS = ("train", "val", "test")

# What others call them, with perhaps a year or a word behind it: Train, valid, val2017, test_images.
_ALIKE = {
    "train": r"train(ing)?",
    "val": r"val(id(ation)?)?|dev(el(opment)?)?|eval(uation)?",
    "test": r"test(ing|s)?",
}


def lookalikes(folder: Path) -> list[str]:
    """Lists folders and archives that may be meant by a split's ``folder``, which is not there; of shards, the first.

    They may lie beside it, as ``Val`` or ``valid.tar``, or in the folders beside it, as ``images/val``.
    """
    if folder.name not in SPLITS:
        return []
    pattern = re.compile(rf"({_ALIKE[folder.name]})([\W\d_].*)?", re.IGNORECASE)
    others = [path for path in map(Path, visible_folders(folder.parent)) if path.name not in SPLITS]
    entries = itertools.chain.from_iterable(map(_folders_and_archives, (folder.parent, *others)))
    alike = sorted(entry for entry in entries if pattern.fullmatch(Path(entry).name))
    return [*{re.sub(r"\d+", "0", entry): entry for entry in reversed(alike)}.values()][::-1]


def how_to_rename(split: str, names: Iterable[str]) -> str:
    """Says what archives among ``lookalikes`` must be called; empty if there are none."""
    return f" ({split}.tar, or {split}-000000.tar and so on)" if any(is_archive(Path(name)) for name in names) else ""


def _folders_and_archives(parent: Path) -> Iterator[str]:
    yield from visible_folders(parent)
    with suppress(OSError), os.scandir(parent) as entries:
        yield from (e.path for e in entries if is_archive(Path(e.name)) and e.name[0] != "." and e.is_file())


def split_of(word: str) -> str | None:
    """Returns the split that a word means, in any letter case, or None.

    >>> split_of("Validation"), split_of("extra")
    ('val', None)
    """
    word = word.strip()
    return next((name for name, words in _ALIKE.items() if re.fullmatch(words, word, re.IGNORECASE)), None)


def advice(folder: Path) -> str:
    """Says what to do about a split's ``folder`` that is not there."""
    root = Path(os.path.abspath(folder.parent))
    if root.name in SPLITS and not any((root / split).is_dir() for split in SPLITS):
        return f"{root} looks like the split itself, so pass --data.root {root.parent}"
    if names := lookalikes(folder):
        how = how_to_rename(folder.name, names)
        return f"rename {' or '.join(names)} if it is meant{how}, or pass another --data.root"
    return "create it"


def require_root(root: str | Path) -> None:
    """Raises ``UserError`` if there is no folder at ``--data.root``."""
    if not os.path.isdir(root):
        raise UserError(f"there is no folder at {root} (--data.root): check the path")


def is_one_folder(root: Path) -> bool:
    """Tells whether ``root`` has no splits and is a folder of class folders itself.

    At least two of its folders must hold images directly: a wrong root, such as the parent of several data sets, must
    not pass for one.
    """
    place = Path(os.path.abspath(root))
    if place.name in SPLITS and (place.name != "train" or any((place.parent / name).is_dir() for name in SPLITS[1:])):
        return False
    meant = [folder for split in SPLITS for folder in lookalikes(root / split)]
    if any(next(visible_folders(Path(folder)), None) for folder in meant):
        return False
    with_images = (folder for folder in visible_folders(root) if _holds_image(folder))
    return len(list(itertools.islice(with_images, 2))) == 2


def _holds_image(folder: str) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "." for entry in entries)
    return False


def split_exists(folder: Path) -> bool:
    """Tells whether there is a folder of this split.

    Raises:
        UserError: The folder is a dangling link, which must not pass for a split that is left out.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder} is a dangling link: repair or remove it")
    return folder.is_dir()


def no_split(folder: Path) -> UserError:
    """The error to raise if a split's ``folder`` is not there."""
    return UserError(f"there is no folder {folder} with one subfolder for each class: {advice(folder)}")


def visible_folders(parent: Path) -> Iterator[str]:
    """Yields the paths of direct subfolders, except hidden ones; none if ``parent`` cannot be listed."""
    with suppress(OSError), os.scandir(parent) as entries:
        yield from (entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def place_below(path: str | Path, root: Path) -> str:
    """Returns the path relative to ``root``, spelled alike on every system.

    >>> place_below("photos/train/cat/1.jpg", Path("photos"))
    'train/cat/1.jpg'
    """
    with suppress(ValueError):  # on another drive of Windows
        path = os.path.relpath(path, root)
    return Path(path).as_posix()


def require_outside_splits(folder: Path, option: str, root: Path | None = None) -> None:
    """Checks that outputs stay out of a data set, where a picture would pass for an image and a folder for a class.

    Args:
        folder: Folder that files will be written to.
        option: Command-line option that chooses it.
        root: Folder of the splits; by default every parent folder with ``train`` and one of ``val`` and ``test``.

    Raises:
        UserError: ``folder`` lies in a split.
    """
    place = Path(os.path.realpath(folder))
    with_data = [root] if root else [up for up in place.parents if _has_splits(up)]
    splits = [up / name for up in with_data for name in SPLITS] + ([root] if root and is_one_folder(root) else [])
    for split in splits:
        if place.is_relative_to(os.path.realpath(split)):
            raise UserError(f"{folder} lies in {split}, whose files are data: choose another {option}")


def _has_splits(folder: Path) -> bool:
    return (folder / "train").is_dir() and ((folder / "val").is_dir() or (folder / "test").is_dir())
