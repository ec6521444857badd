"""Classes of the images of archives in the form of WebDataset, from the members beside them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from datamodules.archives.index import Index
from datamodules.class_index import could_be_folder, natural_key
from datamodules.files.errors import UserError, listed, listed_reasons
from datamodules.name_spellings import grouped
from datamodules.sources.label_names import require_usable_labels


def key_of(place: str) -> str:
    """Returns what an image and its label have in common: the place up to the first dot of the base name.

    Example:
        >>> key_of("a.b/000001.seg.jpg")
        'a.b/000001'
    """
    return place[: place.index(".", place.rfind("/") + 1)]


def label_suffix(indexes: Sequence[Index], label_column: str | None, on_top: bool) -> str | None:
    """Tells which members are the labels, ``.cls`` or ``.json``; None if the images have none beside them.

    Args:
        indexes: All archives of the split.
        label_column: The option, which asks for ``.json`` where there are both.
        on_top: Whether there are images outside of folders, so that folders cannot be the classes. Others may have
            ``.json`` files beside them that say other things.
    """
    suffixes = {place[-4:].lower() for index in indexes for place in index.label_members()}
    if ".cls" in suffixes and not (label_column and "json" in suffixes):
        return ".cls"
    if "json" not in suffixes or not (label_column or on_top):
        return None
    described = {key_of(place) for place in _label_members(indexes, ".json")}
    return ".json" if any(key_of(place) in described for index in indexes for place in index.names) else None


def labelled_classes(indexes: Sequence[Index], suffix: str, class_list: Path | None, where: str) -> dict[str, str]:
    """Returns the class of each image by its place.

    Args:
        indexes: All archives of the split.
        suffix: See ``label_suffix``.
        class_list: A file with the name of a class in each line, in the order of the numbers in ``.cls``.
        where: What messages call the split.

    Raises:
        UserError: An image has no label or two, a label several images, a ``.cls`` none, or a label cannot be
            understood.
    """
    said: dict[str, str] = {}  # the member that holds the label, by key
    for place in _label_members(indexes, suffix):
        if (other := said.setdefault(key_of(place), place)) != place:
            raise UserError(f"{where} has two labels for {key_of(place)}, {other} and {place}")
    images = {place: key_of(place) for index in indexes for place in index.names}
    if len(set(images.values())) < len(images):
        of_key = grouped((key, place) for place, key in images.items())
        several = [" and ".join(places) for places in of_key.values() if len(places) > 1]
        raise UserError(
            f"{where} has several images with one label, {listed(sorted(several, key=natural_key))}: leave one image "
            "for each key, and remove the others, such as masks"
        )
    if bare := [place for place, key in images.items() if key not in said]:
        raise UserError(
            f"{where} has no {suffix} for {len(bare):,} of its {len(images):,} images, "
            f"{listed(sorted(bare, key=natural_key))}: give each image its label"
        )
    keys = set(images.values())
    if suffix == ".cls" and (unused := [place for key, place in said.items() if key not in keys]):
        raise UserError(
            f"{where} has labels without an image, {listed(sorted(unused, key=natural_key))}: add the images as JPEG "
            "or PNG, or remove the labels"
        )
    faults = {place: reason for index in indexes for place, reason in index.faults.items()}
    if of_images := {said[key]: faults[said[key]] for key in keys if said[key] in faults}:
        raise UserError(f"labels in {where} cannot be understood: {listed_reasons(of_images)}")
    label_in = {place: label for index in indexes for place, label in index.labels.items()}
    labels = {key: label_in[said[key]] for key in keys}
    if suffix == ".cls":
        named = {said[key]: label for key, label in labels.items() if not re.fullmatch("[0-9]+", label)}
        if named and class_list is None:
            raise UserError(
                f"labels in {where} hold no number, as WebDataset's .cls do: {listed_reasons(named)}; put names into "
                ".json, or the images into class folders"
            )
        names = _names(class_list, where)
        if wrong := {said[key]: label for key, label in labels.items() if not _is_index(label, len(names))}:
            raise UserError(
                f"labels in {where} are no class indices from 0 to {len(names) - 1}, the lines of {class_list}: "
                f"{listed_reasons(wrong)}"
            )
        labels = {key: names[int(label)] for key, label in labels.items()}
    else:
        require_usable_labels({*labels.values()}, where)
    return {place: labels[key] for place, key in images.items()}


def _label_members(indexes: Sequence[Index], suffix: str) -> Iterator[str]:
    return (place for index in indexes for place in index.label_members() if place.lower().endswith(suffix))


def _is_index(label: str, count: int) -> bool:
    return bool(re.fullmatch("[0-9]{1,9}", label)) and int(label) < count


def _names(class_list: Path | None, where: str) -> list[str]:
    if class_list is None:
        raise UserError(
            f"the labels in {where} are class indices: pass --data.class_list FILE with a class name in each line"
        )
    try:
        names = Path(class_list).read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read --data.class_list {class_list} ({error}): name a text file in UTF-8") from error
    names = [name.strip() for name in names]
    if wrong := [repr(name) for name in dict.fromkeys(names) if not name or names.count(name) > 1]:
        raise UserError(
            f"{class_list} must name a different class in each line, but {listed(wrong)} "
            f"{'is' if len(wrong) == 1 else 'are'} empty or repeated: correct it"
        )
    if wrong := [repr(name) for name in names if not could_be_folder(name)]:
        raise UserError(f"{class_list} must have names that a class's folder could have, got {listed(wrong)}")
    return names
