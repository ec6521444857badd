"""Which labels cannot be names of classes."""

from collections.abc import Callable, Collection

from datamodules.class_index import could_be_folder
from datamodules.files.errors import UserError, listed


def require_usable_labels(labels: Collection[str], where: str, spelled: Callable[[str], str] = repr) -> None:
    """Checks labels, none of which is empty.

    Args:
        labels: All labels that there are.
        where: What messages call the place that they stand in.
        spelled: Spells one for a message.

    Raises:
        UserError: One could not be a folder's name, or looks like several.
    """
    if unusable := [label for label in labels if not could_be_folder(label)]:
        raise UserError(
            f"a label must be a name that a class's folder could have, but {where} has "
            f"{listed([*map(spelled, unusable)])}: write it without a slash, and without a dot in front"
        )
    if several := several_in_one(labels):
        raise UserError(
            f"{where} has several labels in one, {listed([*map(spelled, several)])}, but this project is single-label: "
            "give each image one, or spell a class whose own name this is another way"
        )


def several_in_one(labels: Collection[str]) -> list[str]:
    """Returns labels that look like lists, or that separators divide into other labels.

    Blanks are none, as names of classes have them: "sea lion" may stand beside "sea" and "lion".

    >>> several_in_one(["cat", "dog", "cat|dog"]), several_in_one(["sea", "lion", "sea lion"])
    (['cat|dog'], [])
    """
    known = set(labels)
    several = [label for label in labels if label[0] == "[" and label[-1] == "]"]
    for separator in "|;,":
        parts = {label: [part.strip() for part in label.split(separator) if part.strip()] for label in labels}
        several += [label for label, found in parts.items() if len(found) > 1 and known.issuperset(found)]
    return several
