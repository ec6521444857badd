"""Names that look alike and differ: in Unicode's form, in blanks, in letters of other alphabets."""

import unicodedata
from collections.abc import Iterable

from datamodules.files.errors import listed

# Cyrillic and Greek letters, hyphens and apostrophes that most fonts draw as the ASCII ones below them.
_DRAWN_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405"
    "\u03bf\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
    "\u2010\u2011\u2012\u2013\u2212\u2018\u2019\u02bc",
    "aeopcyxijsdABEKMHOPCTXIJSoABEZHIKMNOPTYX-----'''",
)


def composed(name: str) -> str:
    r"""Returns the name in Unicode's form NFC, in which an accent and its letter are one character where they can be.

    >>> ascii(composed("Cafe\u0301"))
    "'Caf\\xe9'"
    """
    return unicodedata.normalize("NFC", name)


def as_seen(name: str) -> str:
    """Returns the name without what does not show: Unicode's form, blanks, invisible characters, other alphabets."""
    return _without_blanks("".join(c for c in name if unicodedata.category(c) != "Cf")).translate(_DRAWN_ALIKE)


def _without_blanks(name: str) -> str:
    return " ".join(composed(name).split())


def spelled_apart(respelled: dict[str, str]) -> str:
    r"""Lists pairs of names that ``as_seen`` are the same, escaped, with what differs.

    >>> spelled_apart({"dog": "dog ", "cat": "\u0441at"})
    "'dog' as 'dog ' (other blanks), 'cat' as '\\u0441at' (characters that look alike or do not show)"
    """
    return listed([f"{name!a} as {other!a} ({_difference(name, other)})" for name, other in respelled.items()])


def _difference(name: str, other: str) -> str:
    if composed(name) == composed(other):
        return "another Unicode form, NFC or NFD"
    if _without_blanks(name) == _without_blanks(other):
        return "other blanks"
    return "characters that look alike or do not show"


def look_alike(names: Iterable[str]) -> list[list[str]]:
    """Groups names, escaped, that differ only by what does not show or by upper and lower case."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(as_seen(name).casefold(), []).append(ascii(name))
    return [group for group in groups.values() if len(group) > 1]
