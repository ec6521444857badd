"""The images that the rows of a labels file name."""

import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path

from datamodules.archives.series import archives_of
from datamodules.class_index import natural_key
from datamodules.files.csv_cells import from_cells
from datamodules.files.errors import UserError, listed
from datamodules.images.find import SUFFIXES, ImageFile, ImageFiles, find_images
from datamodules.images.real_files import RealFiles, folder_links
from datamodules.sources.image_places import ImagePlaces
from datamodules.sources.label_records import DELIMITERS
from datamodules.sources.label_table import BY_CONVENTION, Columns, LabelRow, read_label_table
from datamodules.split_names import SPLITS

Rows = list[tuple[LabelRow, ImageFile]]


class LabelsFile:
    """The images of a labels file, read and looked up once for all splits, when they are asked for.

    Every attribute raises ``UserError`` as ``read_label_table`` tells.

    Args:
        file: The file.
        root: The folder that the images lie in.
        columns: The columns that are named.
        split: The split of all rows, if ``root`` is its folder; by default that of their column, or ``train``.
    """

    def __init__(self, file: Path, root: Path, columns: Columns = BY_CONVENTION, split: str | None = None) -> None:
        self.file = file
        self.root = root
        self.split = split
        self._columns = columns
        self._places_without: dict[tuple[str, ...], ImagePlaces] = {}

    @cached_property
    def _rows(self) -> list[LabelRow]:
        return read_label_table(self.file, self._columns, self.split or "train")

    @property
    def has_splits(self) -> bool:
        """Whether the file has a column of splits."""
        return bool(self._rows[0].split)

    @cached_property
    def splits(self) -> list[str]:
        """The splits that have rows."""
        present = {self._split_of(row) for row in self._rows}
        return [name for name in SPLITS if name in present]

    def labels(self, split: str) -> set[str]:
        """Returns the labels of a split's rows."""
        return {row.label for row in self._rows if self._split_of(row) == split}

    def _split_of(self, row: LabelRow) -> str:
        return row.split or self.split or "train"

    @cached_property
    def found(self) -> ImageFiles:
        """Everything below the root."""
        return find_images(self.root)

    @cached_property
    def by_split(self) -> dict[str, dict[str, list[ImageFile]]]:
        """The images by split and label, each named by its place in the split.

        Raises:
            UserError: An image is not there, is not clear, lies outside the root, has several rows, or would have the
                name of another image of its class.
        """
        by_split: dict[str, dict[str, list[ImageFile]]] = {split: defaultdict(list) for split in self.splits}
        first: dict[str, LabelRow] = {}  # by place
        path_of: dict[tuple[str, str, str], str] = {}  # by split, label and name
        for row, image in self._matched:
            if (before := first.setdefault(self._listed_as(image), row)) is not row:
                raise UserError(f"{self.file} {_twice(image.path, before, row)}")
            split = self._split_of(row)
            place = image.name if self.split else image.name.removeprefix(f"{split}/")
            name = place.removeprefix(f"{row.label}/")
            if (other := path_of.setdefault((split, row.label, name), image.path)) != image.path:
                raise UserError(
                    f"{self.file} labels both {other} and {image.path} {row.label}, and without the folders of split "
                    f"and class both are called {name}: rename one"
                )
            by_split[split][row.label].append(ImageFile(place, image.path, row.group))
        return by_split

    @cached_property
    def passed_over(self) -> ImageFiles:
        """What lies below the root and has no row, but for the folders of splits that have no rows at all."""
        named = {self._listed_as(image) for _, image in self._matched}
        others = () if self.split else tuple(f"{split}/" for split in SPLITS if split not in self.splits)
        unlabelled = [i.path for i in self.found.images if i.name not in named and not i.name.startswith(others)]
        return ImageFiles(unlabelled=unlabelled, loops=self.found.loops, dangling=self.found.dangling)

    def files(self, images: list[ImageFile]) -> ImageFiles:
        """Tells the real files of some of the images apart, as a scan does; a link to one of them is listed as such."""
        files = ImageFiles()
        images = sorted(images, key=lambda image: natural_key(image.name))
        if self._links:
            images.sort(key=lambda image: image.path in self._links)  # last
        for image in images:
            real = self._real_files.of(image.path)
            again = image.path in self._links and not real.keys().isdisjoint(files.real)
            (files.again if again else files.images).append(image)
            files.real |= real
        if self._links:
            files.images.sort(key=lambda image: natural_key(image.name))
        return files

    @cached_property
    def _real_files(self) -> RealFiles:
        return RealFiles(self.found)

    @cached_property
    def _links(self) -> set[str]:
        return {image.path for image in self.found.again}

    @cached_property
    def _folder_links(self) -> dict[str, str]:
        return folder_links(self.found, self.root)

    def _listed_as(self, image: ImageFile) -> str:
        """Returns the place under which an image was found, which a row may call by a link to its folder."""
        folder, _, name = image.name.rpartition("/")
        return f"{self._folder_links[folder]}/{name}".lstrip("/") if folder in self._folder_links else image.name

    @cached_property
    def _matched(self) -> Rows:
        cells = [row.image for row in self._rows]
        as_names = from_cells(cells) if self.file.suffix.lower() in DELIMITERS else cells
        images, unclear = self._find(as_names)
        if as_names != cells and not all(images):  # one way for the whole column
            images, unclear = self._find(cells)
        if not all(images):
            faulty = [row for row, image in zip(self._rows, images, strict=True) if not image]
            self._require_own_split(faulty)
            raise UserError(self._not_found(faulty, unclear))
        return [(row, image) for row, image in zip(self._rows, images, strict=True) if image]

    def _find(self, cells: list[str]) -> tuple[list[ImageFile | None], dict[str, list[str]]]:
        """Looks the cells of all rows up, each among the images that may be of the row's split."""
        found: list[ImageFile | None] = [None] * len(cells)
        unclear: dict[str, list[str]] = {}
        for split in self.splits:
            numbers = [number for number, row in enumerate(self._rows) if self._split_of(row) == split]
            images, several = self._places(self._other_folders[split]).find([cells[number] for number in numbers])
            unclear |= several
            for number, image in zip(numbers, images, strict=True):
                found[number] = image or self._named_in_train(cells[number])
        return found, unclear

    @cached_property
    def _other_folders(self) -> dict[str, tuple[str, ...]]:
        """The folders of other splits, by split, in which no image is looked for by a part of its place.

        The folder ``train`` is one only for splits that have their own folder too: a part of it may be another split.
        """
        folders = set() if self.split else {image.name.partition("/")[0] for image in self.found.images}
        return {
            split: tuple(
                f"{other}/"
                for other in SPLITS
                if other in folders and other != split and (other != "train" or split in folders)
            )
            for split in self.splits
        }

    def _named_in_train(self, cell: str) -> ImageFile | None:
        """Returns the image that a row of any split may have, as it names its whole place."""
        image = self._all_places.find_exactly(cell)
        return image if image and not self.split and image.name.startswith("train/") else None

    @property
    def _all_places(self) -> ImagePlaces:
        return self._places(())

    def _places(self, without: tuple[str, ...]) -> ImagePlaces:
        """Returns the images that are not in these folders, which splits without folders of their own share."""
        if without not in self._places_without:
            self._places_without[without] = self._make_places(without)
        return self._places_without[without]

    def _make_places(self, without: tuple[str, ...]) -> ImagePlaces:
        images = (image for image in (*self.found.images, *self.found.again) if not image.name.startswith(without))
        links = {link: place for link, place in self._folder_links.items() if not f"{link}/".startswith(without)}
        return ImagePlaces(images, self.root, self.file.parent, links)

    def _require_own_split(self, rows: list[LabelRow]) -> None:
        """Checks that none of the rows whose image was not found names one in the folder of another split."""
        others = [
            row
            for row in rows
            if (image := self._all_places.find_exactly(row.image))
            and image.name.startswith(self._other_folders[self._split_of(row)])
        ]
        if others and not self.has_splits:
            raise UserError(
                f"{self.file} has no column of splits, so that all its images would train, but it names images of "
                f"val or test, {listed([*map(_in_line, others)])}: add a column split, or remove these rows"
            )
        if others:
            named = listed([f"{_in_line(row)} for {self._split_of(row)}" for row in others])
            raise UserError(
                f"{self.file} names images in the folder of another split, {named}: correct the split in these rows, "
                "or move the images"
            )

    def _not_found(self, rows: list[LabelRow], unclear: dict[str, list[str]]) -> str:
        places = self._all_places
        outside = [row for row in rows if places.leads_outside(row.image)]
        several = [f"{_in_line(row)}: {listed(unclear[row.image], 3)}" for row in rows if row.image in unclear]
        absent = [row for row in rows if row.image not in unclear and not places.leads_outside(row.image)]
        faults = [f"{listed([*map(_in_line, outside)])}, outside of that folder"] if outside else []
        faults += [f"names for which there are several images ({listed(several)})"] if several else []
        faults += [f"{listed([*map(_in_line, absent)])}, for which there is no image"] if absent else []
        files = [os.path.join(self.root, row.image) for row in absent[:100]]
        other = any(os.path.isfile(file) and not file.lower().endswith(SUFFIXES) for file in files)
        way_out = f"convert files of other types than {', '.join(SUFFIXES)}, " if other else ""
        if any(archives_of(self.root, split) for split in SPLITS):
            way_out += "unpack archives, as rows cannot name what is in them, "
        return (
            f"each row of {self.file} must name an image below {self.root}, but {len(rows)} of {len(self._rows)} name "
            f"{' and '.join(faults)}: {way_out}correct or remove the rows, or pass another --data.root"
        )


def _in_line(row: LabelRow) -> str:
    return f"{row.image!r} (line {row.line})"


def _twice(path: str, one: LabelRow, two: LabelRow) -> str:
    lines = f"in lines {one.line} and {two.line}"
    if one.label != two.label:
        return (
            f"gives {path} several labels, {one.label} and {two.label} {lines}, but this project is single-label: "
            "leave one row for each image"
        )
    if one.split != two.split:
        return f"puts {path} into {one.split} and {two.split} {lines}: leave one row for each image"
    return f"names {path} twice, {lines}: leave one row for each image"
