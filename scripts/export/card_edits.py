"""What a user may change in a model card: the licence is kept, and a card with any other change is never replaced."""

import hashlib
import re
from pathlib import Path

from datamodules.files.errors import UserError

LICENCE = re.compile(r"^license:(.*)\n", re.MULTILINE)
MARK = "# to be filled in"
TO_FILL = f"{MARK}, such as apache-2.0; the licence of the pretrained weights and of the images may bind you"
SEAL = re.compile(r"\n<!-- SHA-256 of the text above, without its license: ([0-9a-f]{64}) -->\s*\Z")


def sealed(text: str) -> str:
    """Adds a comment to a card's text by which ``require_unedited`` knows it."""
    return f"{text.rstrip()}\n\n<!-- SHA-256 of the text above, without its license: {_digest(text)} -->\n"


def require_unedited(card: Path) -> None:
    """Raises ``UserError`` if a card exists and more than its licence was changed since it was written."""
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8", errors="replace")
    seal = SEAL.search(text)
    if text and not (seal and seal[1] == _digest(text[: seal.start()])):
        raise UserError(f"{card} was edited, so it is not overwritten: move it away, or choose another --output")


def licence_of(card: Path) -> str:
    """Returns the licence that somebody has filled into an earlier card, or what stands there to be filled in."""
    found = LICENCE.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return (found and found[1].split(MARK)[0].strip()) or TO_FILL


def _digest(text: str) -> str:
    return hashlib.sha256(LICENCE.sub("", text.rstrip(), count=1).encode()).hexdigest()
