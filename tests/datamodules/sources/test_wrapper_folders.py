import pytest

from datamodules.sources.wrapper_folders import above_all, above_classes, above_split


@pytest.mark.parametrize(
    ("with_images", "others", "expected"),
    [
        ({"cat", "dog"}, [], ""),
        ({"a/b/cat", "a/b/dog"}, ["a"], "a/b"),
        ({"cat"}, [], ""),  # the only class
        ({"data/cat"}, [], "data"),
        ({"data", "data/cat"}, [], "data"),  # images beside it
        ({"cat/in", "cat/out"}, ["dog"], ""),
        ({"cat/in", "cat/out"}, [""], "cat"),  # a file on top
        ({"train/cat", "train/dog"}, ["docs"], ""),
        ({""}, ["cat"], ""),
        (set(), ["a/b/c"], "a/b"),
        (set(), [], ""),
    ],
)
def test_the_folder_of_class_folders_is_the_first_with_more_than_a_folder(with_images, others, expected):
    assert above_classes(with_images, others) == expected


@pytest.mark.parametrize(
    ("places", "all_", "split"),
    [
        (["1.jpg", "a/2.jpg"], "", ""),
        (["test/1.jpg", "test2/2.jpg"], "", ""),
        (["a/test/b/1.jpg", "a/test/b/c/2.jpg", "a/test/b/1/3.jpg"], "a/test/b", "a/test"),
        (["a/b/1.jpg"], "a/b", ""),
        ([], "", ""),
    ],
)
def test_the_folder_of_a_split_is_the_last_that_is_called_like_one(places, all_, split):
    assert (above_all(iter(places)), above_split(places)) == (all_, split)
