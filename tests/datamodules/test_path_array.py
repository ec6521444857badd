import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.path_array import PathArray

TEXT = st.text(st.characters(codec=None, categories=None))  # halves of pairs of surrogates too


@given(st.lists(st.binary().map(os.fsdecode) | TEXT))
def test_equals_the_list_it_was_made_of(paths):
    array = PathArray(paths)
    assert len(array) == len(paths)
    assert list(array) == paths
    assert array[1:] == paths[1:]
    assert array[::-1] == paths[::-1]
    assert [array[i - len(paths)] for i in range(len(paths))] == paths
    assert list(pickle.loads(pickle.dumps(array))) == paths
    with pytest.raises(IndexError):
        array[len(paths)]
