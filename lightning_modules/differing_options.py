"""Which options differ between a file and a command, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datamodules.files.errors import listed
from datamodules.lookalike_names import as_seen


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Lists the options whose saved value differs; one that ``saved`` lacks came with a later version.

    >>> differences({"seed": 42, "dropout": 0.3}, {"seed": 7, "dropout": 0.3})
    'seed 7 instead of 42'
    >>> differences({"class_names": ["ant", "cat"]}, {"class_names": ["ant", "dog"]})
    'class_names dog instead of cat'
    """
    differing = []
    for name, new in given.items():
        if (old := saved.get(name, new)) != new:
            old, new = _only_in_one(old, new) if name == "class_names" else (old, new)
            differing.append(f"{name} {new} instead of {old}")
    return listed(differing)


def _only_in_one(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Lists for each of two sequences of names those that the other lacks, or all if only the order differs."""
    apart = [[name for name in one if name not in other] or list(one) for one, other in ((old, new), (new, old))]
    alike = set.intersection(*({as_seen(name) for name in names} for names in apart))
    return (listed([ascii(name) if as_seen(name) in alike else name for name in names]) for names in apart)
