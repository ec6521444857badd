import pytest

from datamodules.lookalike_names import as_seen, look_alike, spelled_apart

COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize(
    ("name", "other", "difference"),
    [
        (COMPOSED, DECOMPOSED, "another Unicode form, NFC or NFD"),
        ("dog", "dog ", "other blanks"),
        ("hot dog", "hot\u00a0dog", "other blanks"),
        ("cat", "\u0441\u0430t", "characters that look alike or do not show"),  # Cyrillic
        ("T-cell", "T\u2010cell", "characters that look alike or do not show"),
        ("dog", "do\u200bg", "characters that look alike or do not show"),
    ],
)
def test_what_looks_the_same_is_told_apart(name, other, difference):
    assert as_seen(name) == as_seen(other)
    assert spelled_apart({name: other}) == f"{name!a} as {other!a} ({difference})"


@pytest.mark.parametrize(("name", "other"), [("cat", "Cat"), ("m2", "m\u00b2"), ("a b", "ab"), ("o", "\u00f6")])
def test_what_shows_is_no_look_alike(name, other):
    assert as_seen(name) != as_seen(other)


def test_groups_of_look_alikes_are_escaped():
    assert look_alike([COMPOSED, "x", DECOMPOSED, "dog", "Dog"]) == [
        [r"'Caf\xe9'", r"'Cafe\u0301'"],
        ["'dog'", "'Dog'"],
    ]
