"""Many paths in one block of memory."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

ENCODING = ("utf-8", "surrogatepass")  # of any str, such as names of archives, which need not be those of files here


class PathArray(Sequence[str]):
    """An immutable sequence of paths that costs a loader worker nothing.

    A list of strings would be copied into every worker little by little: looking at a string writes its reference
    count, and with that the memory page that worker and main process share (pytorch issue 13246). A numpy array of
    bytes would pad every path to the longest.

    Args:
        paths: Paths in order; whatever the system's encoding, they come back as they were.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [path.encode(*ENCODING) for path in paths]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        position = range(len(self))[position]  # negative ones, and IndexError
        start = self._ends[position - 1] if position else 0
        return self._text[start : self._ends[position]].decode(*ENCODING)
