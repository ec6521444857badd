"""Decoded images in one file that all processes map into their memory, so that each image is decoded once."""

import functools
import hashlib
import json
import math
import mmap
import os
import shutil
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
from PIL import Image

from datamodules.files.atomic_file import atomic_file, remove_leftovers, write_bytes
from datamodules.files.errors import UserError
from datamodules.files.locks import mark_as_used, remove_unless_used, require_unused
from datamodules.images import location
from datamodules.images.read import ImageReadError, open_image, read_image, size_to_load
from datamodules.workers.pool import map_in_processes

Place = Literal["ram", "disk"]
MEMORY = Path("/dev/shm")
SPARE = 256_000_000  # bytes
FORMAT = 1  # of the files; another number makes old ones unknown


class PixelCache:
    """The images of a file ``<key>.pixels``; ``<key>.json`` beside it is written last and makes the cache complete.

    Args:
        folder: Folder of both files.
        key: Name of both files; see ``cache_key``.

    Raises:
        OSError: There is no such cache.
        ValueError: The files do not belong together.
    """

    def __init__(self, folder: Path, key: str) -> None:
        index = json.loads((folder / f"{key}.json").read_text())
        self.file = folder / f"{key}.pixels"
        self._sizes: np.ndarray = np.array(index["sizes"], np.int64).reshape(-1, 2)  # width, height
        self._ends = np.cumsum(3 * self._sizes.prod(1))
        self._map(self.file)
        mark_as_used(self.descriptor)  # see remove_unused
        status = os.fstat(self.descriptor)
        if status.st_size != self.size:
            raise ValueError(f"{self.file} has another size than its index says")
        if not status.st_nlink:
            raise FileNotFoundError(f"{self.file} was removed while it was opened")

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def _map(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        mapped = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ) if self.size else bytearray()
        self._pixels = np.frombuffer(mapped, np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        opened = Path(f"/proc/{os.getpid()}/fd/{self.descriptor}")  # a loader process may come when the name is gone
        state = {name: value for name, value in self.__dict__.items() if name != "_pixels"}
        return state | {"_opened": opened if opened.exists() else self.file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        opened = state.pop("_opened")
        self.__dict__.update(state)
        self._map(opened)

    def read(self, position: int) -> Image.Image | None:
        """Returns the image at ``position``; None if its file could not be read."""
        end = int(self._ends[position])
        width, height = (int(length) for length in self._sizes[position])
        pixels = self._pixels[end - 3 * width * height : end]
        return Image.frombuffer("RGB", (width, height), pixels) if len(pixels) else None


def open_cache(
    place: Place, paths: Sequence[str], *, max_pixels: int, shorter_side: int, num_processes: int, what: str
) -> PixelCache:
    """Opens the cache of ``paths``, after making it if there is none.

    Args:
        place: ``disk`` for the user's cache folder, where the cache stays; ``ram`` for a file system in memory, from
            which it is removed when the last process that has it open ends.
        paths: Image files.
        max_pixels: As for ``read_image``.
        shorter_side: As for ``read_image``.
        num_processes: Number of processes that decode; 0 for this one.
        what: Name of the split, for the line that is printed.

    Raises:
        UserError: There is no such place, or not enough space in it.
    """
    read = functools.partial(read_image, max_pixels=max_pixels, shorter_side=shorter_side)
    folder, key = cache_folder(place), cache_key(paths, read.keywords)
    with suppress(OSError, ValueError, KeyError):
        cache = PixelCache(folder, key)
        print(f"cache: {what}, {len(paths):,} images, {cache.size / 1e6:,.0f} MB from {folder}")
        return _kept(cache, place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder} ({error.strerror}): choose another --data.cache") from error
    remove_leftovers(folder)
    if place == "ram":
        remove_unused(folder)
    _require_space(folder, paths, read, num_processes, what)
    while True:
        build_cache(folder, key, paths, read, num_processes)
        with suppress(FileNotFoundError):  # another run's remove_unused came before it was open
            return _kept(PixelCache(folder, key), place)


def _kept(cache: PixelCache, place: Place) -> PixelCache:
    if place == "ram":
        weakref.finalize(cache, _remove_if_last, cache.file, cache.descriptor, os.getpid())
    return cache


def _remove_if_last(file: Path, descriptor: int, owner: int) -> None:
    """Removes the files unless another process has them open, which will remove them when it ends."""
    if os.getpid() != owner:  # a loader process, which has a copy of the cache
        return
    with suppress(OSError):
        require_unused(descriptor)
        if os.path.samestat(os.fstat(descriptor), os.stat(file)):  # and not what another run has made since
            file.with_suffix(".json").unlink(missing_ok=True)
            file.unlink()


def cache_folder(place: Place) -> Path:
    """Returns the folder of the caches.

    Raises:
        UserError: There is no file system in memory.
    """
    if place == "disk":
        try:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cbam100"
        except RuntimeError as error:
            raise UserError("there is no home folder for --data.cache disk: set XDG_CACHE_HOME to a folder") from error
    if sys.platform != "linux" or not os.access(MEMORY, os.W_OK):
        lacking = "is missing" if sys.platform == "linux" else "only Linux has"
        raise UserError(
            f"--data.cache ram needs a file system in memory at {MEMORY.as_posix()}, which {lacking}: choose disk"
        )
    return MEMORY / f"cbam100-{os.getuid()}"


def cache_key(paths: Sequence[str], settings: dict[str, Any]) -> str:
    """Hashes what decides the pixels: where each image lies, as ``location.state`` says, settings, Pillow's version."""
    digest = hashlib.sha256(json.dumps([FORMAT, PIL.__version__, settings], sort_keys=True).encode())
    stat = location.remembering_stat()
    for path in paths:
        digest.update(location.state(path, stat))
    return digest.hexdigest()[:32]


def remove_unused(folder: Path) -> None:
    """Removes the caches that no process has open: those of runs that are over, or were killed."""
    for path in folder.glob("*.pixels"):
        remove_unless_used(path, path.with_suffix(".json"))


def _require_space(
    folder: Path, paths: Sequence[str], read: "functools.partial[Image.Image]", num_processes: int, what: str
) -> None:
    needed = sum(map_in_processes(functools.partial(_bytes_needed, **read.keywords), paths, num_processes))
    free = shutil.disk_usage(folder).free
    print(f"cache: {what}, {len(paths):,} images, about {needed / 1e6:,.0f} MB to be made in {folder}", flush=True)
    if needed * 1.1 + SPARE > free:  # loader processes hand over their batches in memory too
        raise UserError(
            f"the cache in {folder} needs {needed / 1e6:,.0f} MB and some to spare, but only {free / 1e6:,.0f} MB are "
            "free: make room or choose another --data.cache"
        )


def build_cache(
    folder: Path, key: str, paths: Sequence[str], read: "functools.partial[Image.Image]", num_processes: int = 0
) -> None:
    """Decodes and writes all images; the files get their names when they are complete."""
    sizes: list[tuple[int, int]] = []
    with atomic_file(folder / f"{key}.pixels", in_own_folder=True) as temporary, open(temporary, "wb") as file:
        for size, pixels in map_in_processes(functools.partial(_decode, read=read), paths, num_processes):
            sizes.append(size)
            file.write(pixels)
    write_bytes(folder / f"{key}.json", json.dumps({"sizes": sizes}).encode(), in_own_folder=True)


def _bytes_needed(path: str, max_pixels: int, shorter_side: int) -> int:
    with suppress(ImageReadError), open_image(path, max_pixels) as image:
        return 3 * math.prod(size_to_load(*image.size, shorter_side))
    return 0


def _decode(path: str, read: "functools.partial[Image.Image]") -> tuple[tuple[int, int], bytes]:
    """Returns size and pixels; none if the file cannot be read, which its reader will report when it is asked for."""
    try:
        image = read(path)
    except ImageReadError as error:
        if error.machine:
            raise
        return (0, 0), b""
    return image.size, image.tobytes()
