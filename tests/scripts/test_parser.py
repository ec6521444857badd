from typing import Union

import pytest

from scripts.parser import Parser, prefer_whole_numbers


@pytest.mark.parametrize(("typed", "read"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)])
def test_a_number_of_batches_is_no_share_whatever_was_imported_before(typed, read):
    parser = Parser()
    parser.add_argument("--limit", type=Union[float, int, None])  # noqa: UP007, as after import rich.progress
    prefer_whole_numbers(parser)
    value = parser.parse_args([f"--limit={typed}"]).limit
    assert (value, type(value)) == (read, type(read))
