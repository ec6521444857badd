from types import SimpleNamespace

import pytest
from pytorch_lightning import Callback

from datamodules.bad_image_hook import hand_over
from datamodules.images.read import ImageReadError

ERRORS = [ImageReadError("a.jpg", "cut"), ImageReadError("b.jpg", "cut")]


class Handler(Callback):
    def __init__(self, handles):
        self.handles = handles
        self.met = []

    def on_unreadable_images(self, trainer, errors):
        self.met += errors
        return self.handles


@pytest.mark.parametrize("answers", [(True, False), (False, True)])
def test_every_callback_with_the_hook_is_asked_and_one_is_enough(answers):
    handlers = [Handler(answer) for answer in answers]
    hand_over(ERRORS, SimpleNamespace(callbacks=[Callback(), *handlers]))
    assert [handler.met for handler in handlers] == [ERRORS, ERRORS]


@pytest.mark.parametrize("trainer", [None, SimpleNamespace(callbacks=[Callback(), Handler(False)])])
def test_the_first_is_raised_if_nobody_handles_them(trainer):
    with pytest.raises(ImageReadError, match=r"cannot read a\.jpg \(cut\): replace or remove the file"):
        hand_over(ERRORS, trainer)


def test_what_the_machine_is_to_blame_for_is_nobodys_to_skip():
    handler = Handler(True)
    with pytest.raises(ImageReadError, match=r"out of memory or file handles while reading c\.jpg"):
        hand_over([*ERRORS, ImageReadError("c.jpg", "full", True)], SimpleNamespace(callbacks=[handler]))
    assert handler.met == []
