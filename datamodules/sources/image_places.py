"""Which image of a folder a cell of a labels file means."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from datamodules.images.find import ImageFile
from datamodules.lookalike_names import composed
from datamodules.name_spellings import Spellings, spellings_of


class ImagePlaces:
    """Finds images by what a labels file calls them.

    That is, with or without its suffix, an image's place below the file's own folder, or else below ``root``, or else
    any of ``Spellings`` that only one image has, such as its name without folders. Absolute paths may lead into
    ``root``, and separators may be those of Windows.

    Args:
        images: The images below ``root``.
        root: The folder of images.
        folder: The folder that the labels file lies in.
    """

    def __init__(self, images: Iterable[ImageFile], root: Path, folder: Path) -> None:
        self._images = {image.name: image for image in images}
        self._roots = _absolute(root)
        self._folders = [*dict.fromkeys((*_absolute(folder), *self._roots))]
        self._prefixes = [*dict.fromkeys(self._below(os.path.join(folder, "")) for folder in self._folders)]

    def find(self, cells: Sequence[str]) -> tuple[list[ImageFile | None], dict[str, list[str]]]:
        """Returns the image that each cell means, if it is clear, and for unclear ones all that may be meant."""
        found = [self._images.get(self._exact(cell, self._images)) for cell in cells]
        missing = [cell for cell, image in zip(cells, found, strict=True) if not image]
        if not missing:
            return found, {}
        unsuffixed: dict[str, str] = {}
        bare: dict[str, str] = {}  # without folders
        for place in self._images:
            stem, without_suffix, name, _ = spellings_of(place)
            for spelling, places in ((without_suffix, unsuffixed), (name, bare), (stem, bare)):
                places[spelling] = "" if spelling in places else place
        meant = {cell: unsuffixed.get(self._exact(cell, unsuffixed)) or bare.get(cell, "") for cell in missing}
        unclear: dict[str, list[str]] = {}
        if rest := [cell for cell, place in meant.items() if not place]:
            spellings = self._spellings(rest)
            meant |= {cell: spellings.path(cell) for cell in rest}
            unclear = {cell: spellings.paths[cell] for cell in rest if not meant[cell] and cell in spellings.paths}
        found = [image or self._images.get(meant[cell]) for cell, image in zip(cells, found, strict=True)]
        return found, unclear

    def leads_outside(self, cell: str) -> bool:
        """Tells whether a cell names a place that is not below the root, wherever it is relative to."""
        return not self._places(cell)

    def _exact(self, cell: str, places: dict[str, ImageFile] | dict[str, str]) -> str:
        if _is_plain(cell):
            return next(
                (place for prefix in self._prefixes if prefix is not None and (place := prefix + cell) in places), ""
            )
        return next((place for place in self._places(cell) if place in places), "")

    def _places(self, cell: str) -> list[str]:
        """Returns the places below the root that a cell may name, in the order in which they are looked up."""
        spellings = dict.fromkeys((cell, cell.replace("\\", "/")))
        full = [os.path.normpath(os.path.join(folder, text)) for text in spellings for folder in self._folders]
        return [place for path in full if (place := self._below(path))]

    def _below(self, path: str) -> str | None:
        for root in self._roots:
            if path.startswith(beginning := os.path.join(root, "")):
                return path[len(beginning) :].replace(os.sep, "/")
        return None

    def _spellings(self, cells: Iterable[str]) -> Spellings:
        """Makes ``Spellings`` of the images that may be meant only: those of a million take minutes and gigabytes."""
        names = {composed(os.path.basename(cell)) for cell in cells}
        return Spellings(
            {
                place: place
                for place in self._images
                if not names.isdisjoint((composed((spelled := spellings_of(place))[0]), composed(spelled[2])))
            }
        )


def _absolute(folder: Path) -> list[str]:
    """Returns the folder's path as it is typed and without links."""
    return [*dict.fromkeys((os.path.abspath(folder), os.path.realpath(folder)))]


def _is_plain(cell: str) -> bool:
    """Tells whether a cell is a place as it is, as most are; the others have to be normalised, which takes longer."""
    return not (cell.startswith(("/", ".")) or "/." in cell or "//" in cell or "\\" in cell or ":" in cell)
