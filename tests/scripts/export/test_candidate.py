"""What has the final names, whatever happens."""

import os
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from scripts.export.candidate import CARD, candidate_folder, put_into_place, require_free
from scripts.export.formats import files_of

GRAPH = "class_digest"  # by which a graph is known
MARK = "cbam100" + 32 * "#"  # by which its weights are
TEXT = "`cbam100 export ` wrote this"


def make(folder, weights, graph=GRAPH, stem="candidate"):
    paths = files_of(folder, "openvino", stem)
    for path, text in zip(paths, (weights + MARK, graph), strict=True):
        path.write_text(text)
    return paths


def visible():
    return {path.name: path.read_text() for path in Path().iterdir()}


def test_a_pair_replaces_an_earlier_one_through_links(run_folder):
    files = files_of(Path(), "openvino")
    with candidate_folder(Path()) as folder:
        put_into_place(make(folder, "1", f"{GRAPH} 1"), files, TEXT)
    assert visible() == {"model.bin": f"1{MARK}", "model.xml": f"{GRAPH} 1", CARD: TEXT}
    Path("away").mkdir()
    os.replace("model.xml", "away/x.xml")
    Path("model.xml").symlink_to("away/x.xml")
    require_free(files, [])
    with candidate_folder(Path()) as folder:
        put_into_place(make(folder, "2", f"{GRAPH} 2"), files, TEXT)
    assert Path("model.xml").is_symlink()
    assert [Path(name).read_text() for name in ("model.bin", "away/x.xml")] == [f"2{MARK}", f"{GRAPH} 2"]


@pytest.mark.parametrize("name", ["model.bin", "model.xml", CARD])
def test_files_of_others_stay(name, run_folder):
    Path(name).write_text("mine")
    with pytest.raises(UserError, match=rf"{name} exists and is not an earlier .* by cbam100"):
        require_free(files_of(Path(), "openvino"), [])
    assert visible() == {name: "mine"}


def test_a_graph_is_not_left_beside_other_weights(run_folder, monkeypatch):
    """If it ends after the weights' rename, there is no graph that would open them."""
    files = files_of(Path(), "openvino")
    make(Path(), "old", stem="model")
    replace = os.replace
    renamed = []

    def fail_at_the_second(source, target):
        if renamed:
            raise KeyboardInterrupt
        renamed.append(target)
        replace(source, target)

    with candidate_folder(Path()) as folder:
        monkeypatch.setattr("os.replace", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            put_into_place(make(folder, "new"), files, TEXT)
    assert visible() == {"model.bin": f"new{MARK}"}


def test_what_a_kill_has_left_is_removed(run_folder):
    folder = Path(".export-abc.part")
    folder.mkdir()
    (folder / "lock").touch()
    make(folder, "new")
    Path(".model.bin.abc.part").touch()
    require_free(files_of(Path(), "openvino"), [])
    assert visible() == {}


def test_what_is_in_use_stays(run_folder):
    with candidate_folder(Path()) as folder:
        make(folder, "new")
        require_free(files_of(Path(), "openvino"), [])
        assert len(list(folder.iterdir())) == 3
    assert visible() == {}
