from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from scripts.export.card_edits import TO_FILL, licence_of, require_unedited, sealed

CARD = f"---\nlicense: {TO_FILL}\npipeline_tag: image-classification\n---\n\n# A card\n\nlicense: as above\n"


@pytest.fixture
def card(run_folder):
    path = Path("MODEL_CARD.md")
    path.write_text(sealed(CARD))
    return path


@pytest.mark.parametrize(
    ("line", "licence"),
    [
        (f"license: {TO_FILL}", TO_FILL),
        ("license:", TO_FILL),
        (f"license: mit {TO_FILL}", "mit"),
        ("license: other # see LICENSE", "other # see LICENSE"),
    ],
)
def test_the_licence_may_be_filled_in(line, licence, card):
    card.write_text(card.read_text().replace(f"license: {TO_FILL}", line))
    require_unedited(card)
    assert licence_of(card) == licence


def test_without_a_card(run_folder):
    require_unedited(Path("MODEL_CARD.md"))
    assert licence_of(Path("MODEL_CARD.md")) == TO_FILL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# A card", "# My card"),
        ("as above", "mit"),
        ("---\n\n#", "---\nMine\n#"),
        ("<!--", "Mine <!--"),
        ("-->", "--> x"),
    ],
)
def test_any_other_change_counts(old, new, card):
    card.write_text(card.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=r"MODEL_CARD\.md was edited, so it is not overwritten: move it away"):
        require_unedited(card)


def test_line_ends_do_not_count(card):
    card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    require_unedited(card)
