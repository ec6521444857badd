"""Images that must not be divided, as they show one object or are one file."""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import suppress

from datamodules.files.errors import UserError, listed
from datamodules.images import location
from datamodules.images.find import ImageFile


def stay_together(images: Sequence[ImageFile], groups: Sequence[str] | None = None) -> list[list[ImageFile]]:
    """Joins images of one group, and hard links of one file: what is measured must not be trained with.

    Args:
        images: The images.
        groups: The group of each image; one without a group is alone.

    Returns:
        The images, those that stay together in one list, in the order of their first ones.
    """
    root: dict[Hashable, Hashable] = {}  # of a tree for each list: its images, groups and files

    def find(node: Hashable) -> Hashable:
        while (parent := root.setdefault(node, node)) != node:
            root[node] = root[parent]
            node = parent
        return node

    files = _several_links(images)
    named = zip(images, groups or [""] * len(images), strict=True)
    nodes = [("group", group) if group else ("image", image.name) for image, group in named]
    for image, node in zip(images, nodes, strict=True):
        if image.name in files:
            root[find(files[image.name])] = find(node)
    together: dict[Hashable, list[ImageFile]] = {}
    for image, node in zip(images, nodes, strict=True):
        together.setdefault(find(node), []).append(image)
    return list(together.values())


def groups_of(images: Sequence[ImageFile], pattern: str | None) -> list[str]:
    """Returns the group of each image, empty if it has none.

    Args:
        images: The images.
        pattern: Regular expression that finds an image's group in its name, as its first capture group or, without
            one, as all that it matches; by default ``ImageFile.group``.

    Raises:
        UserError: The pattern finds nothing in some names.
    """
    if pattern is None:
        return [image.group for image in images]
    matches = [re.search(pattern, image.name) for image in images]
    groups = [(match[match.re.groups > 0] or "") if match else "" for match in matches]
    if without := [image.name for image, group in zip(images, groups, strict=True) if not group]:
        raise UserError(
            f"--data.group_pattern {pattern} finds no group in {len(without):,} of {len(images):,} names "
            f"({listed(without)}): write it so that it matches each CLASS/NAME"
        )
    return groups


def _several_links(images: Sequence[ImageFile]) -> dict[str, tuple[int, ...]]:
    """Returns the identity of the images' files, by the images' names, where several images have one file."""
    identities, stat = {}, location.remembering_stat()
    for image in images:
        with suppress(OSError):  # gone since the scan
            if identity := location.identity(image.path, stat):
                identities[image.name] = identity
    counts = Counter(identities.values())
    return {name: identity for name, identity in identities.items() if counts[identity] > 1}
