"""What every form of a split answers."""

from collections.abc import Sequence
from typing import Protocol

from datamodules.images.find import ImageFiles


class Source(Protocol):
    """The images of one split, in one of the forms in which people have them.

    An image is named ``<class>/<name>`` whatever the form. Order, held-out part, fingerprint and what a resume compares
    follow from these names, so that the same images in another form are the same data set.

    Attributes:
        where: What messages call it, such as a folder's path.
    """

    where: str

    def class_names(self) -> list[str]:
        """Returns the classes, in natural order, as the form alone tells them.

        Raises:
            UserError: There are no classes, or they cannot be read.
        """
        ...

    def by_class(self, names: Sequence[str]) -> tuple[dict[str, ImageFiles], ImageFiles]:
        """Lists the images of each class in ``names``, each named by its place in the class.

        Returns:
            What each class has, and what was passed over, or is shared with other splits, as part of no class.

        Raises:
            UserError: Images belong to no class, or cannot be listed.
        """
        ...

    def images(self) -> ImageFiles:
        """Lists all images, whatever their class, each named by its place in the split.

        Raises:
            UserError: They cannot be listed.
        """
        ...
