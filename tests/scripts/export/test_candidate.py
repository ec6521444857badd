"""What has the final names, whatever happens."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from datamodules.files.errors import UserError
from scripts.export.candidate import CARD, candidate_folder, put_into_place, require_free
from scripts.export.card_edits import sealed
from scripts.export.formats import files_of

GRAPH = "class_digest"  # by which a graph is known
MARK = "cbam100" + 32 * "#"  # by which its weights are
TEXT = sealed("`cbam100 export ` wrote this")


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
    folder = Path(".export-abcd_123.part")
    folder.mkdir()
    (folder / "lock").touch()
    make(folder, "new")
    for name in "model.bin", CARD:
        Path(f".{name}.abcd_123.part").touch()
    with candidate_folder(Path()) as folder:
        assert {path.name for path in Path().iterdir()} == {folder.name, ".lock"}
    assert visible() == {}


def test_files_of_a_user_with_such_names_stay(run_folder):
    mine = [
        Path(".export-abc.part"),
        Path(".export-abcd_123.part/notes"),
        Path(".model.part"),
        Path(".a.abcd_123.part"),
    ]
    mine[1].parent.mkdir()
    for path in mine:
        path.write_text("mine")
    with candidate_folder(Path()):
        pass
    assert [path.read_text() for path in mine] == len(mine) * ["mine"]


def test_a_second_export_into_the_same_folder_is_refused(run_folder):
    with candidate_folder(Path()) as folder:
        make(folder, "new")
        with (
            pytest.raises(UserError, match=r"another process is using .*: wait until it ends"),
            candidate_folder(Path()),
        ):
            pass
        assert len(list(folder.iterdir())) == 3
    assert visible() == {}


def test_files_of_exports_at_the_same_time_are_not_mixed(run_folder):
    files = files_of(Path(), "openvino")

    def export(tag):
        with suppress(UserError), candidate_folder(Path()) as folder:  # refused if the other takes long
            card = sealed(f"`cbam100 export ` {tag}")
            put_into_place(make(folder, tag, f"{GRAPH} {tag}"), files, card)
            return tag

    def kept():
        return files[1].read_text()[-1], files[0].read_text()[0], Path(CARD).read_text().split()[3]

    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            exports = [threads.submit(export, tag) for tag in "AB"]
            assert {one.result() for one in exports} & set("AB")
            assert len(set(kept())) == 1
    assert len(visible()) == 3


def test_the_weights_that_a_fit_wrote_stay(run_folder):
    files = files_of(Path(), "safetensors")
    about = {"class_digest": "0"}
    save_file({"x": torch.zeros(1)}, files[0], about | {"export": "{}"})
    require_free(files, [])
    save_file({"x": torch.zeros(1)}, files[0], about)
    with pytest.raises(UserError, match=r"model\.safetensors exists and is not an earlier exported model by cbam100"):
        require_free(files, [])


@pytest.mark.parametrize("name", ["model.safetensors", CARD])
def test_a_link_is_written_through_unless_its_folder_is_missing(name, run_folder):
    files = files_of(Path(), "safetensors")
    Path(name).symlink_to("gone/file")
    with pytest.raises(UserError, match=rf"{name} is a dangling link to .*gone/file, in a folder that is missing"):
        require_free(files, [])
    Path("gone").mkdir()
    require_free(files, [])


def test_a_card_that_was_edited_meanwhile_stays(run_folder):
    with candidate_folder(Path()) as folder:
        candidates = make(folder, "new")
        Path(CARD).write_text(TEXT.replace("wrote", "has written"))
        with pytest.raises(UserError, match=r"MODEL_CARD\.md was edited, so it is not overwritten"):
            put_into_place(candidates, files_of(Path(), "openvino"), TEXT)
    assert visible() == {CARD: TEXT.replace("wrote", "has written")}
