import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from datamodules.files.errors import UserError
from scripts import explain as package
from scripts.main import main


def explain(trained, *words):
    main(["explain", "--ckpt_path", str(trained / "model.safetensors"), *map(str, words)])


def test_a_picture_for_each_image(trained, data_root, run_folder, capsys):
    first, second = sorted((data_root / "test").glob("*.jpg"))[:2]
    odd = run_folder / "a$\\frac$.jpg"
    odd.write_bytes(first.read_bytes())
    images = [odd, second]
    explain(trained, *images, "--output", "maps/new")
    for path in images:
        with Image.open(run_folder / "maps" / "new" / f"{path.name}.png") as picture:
            pixels = np.array(picture.convert("RGB"))
        # the image, four gates and Grad-CAM beside each other: six columns of pictures between white
        columns = (pixels[pixels.shape[0] // 2] < 250).any(1).astype(int)
        assert (np.diff(columns) == 1).sum() >= 6
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"{images[1].name}.png")


def test_the_function_returns_the_pictures(trained, data_root, run_folder, capsys):
    image = next((data_root / "test").glob("*.jpg"))
    (picture,) = package.explain(str(trained / "model.safetensors"), [str(image)], output="maps")
    assert picture.name == f"{image.name}.png"
    assert picture.exists()
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"cannot read gone\.jpg \("):
        package.explain(trained / "model.safetensors", ["gone.jpg"], output="maps")


def test_a_file_without_one_of_its_tensors(trained, data_root, run_folder, refusal):
    with safe_open(trained / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "fc.bias"}  # noqa: SIM118
        save_file(tensors, "altered.safetensors", file.metadata())
    image = next((data_root / "test").glob("*.jpg"))
    error = refusal("explain", "--ckpt_path=altered.safetensors", image, "--output=maps")
    assert "its tensors do not match its options" in error
    assert "fc.bias" in error


def test_mistakes(trained, data_root, run_folder, refusal):
    (run_folder / "text.jpg").write_text("no image")
    (run_folder / "a").mkdir()
    image = next((data_root / "test").glob("*.jpg"))
    (run_folder / "a" / image.name).write_bytes(image.read_bytes())
    (run_folder / "file").touch()
    for words, sentence in (
        (["text.jpg", "--output", "maps"], "cannot read text.jpg ("),
        (["gone.jpg", "--output", "maps"], "cannot read gone.jpg ("),
        ([image, f"a/{image.name}", "--output", "maps"], f"several images would be drawn to {image.name}.png"),
        ([image, "--output", "file"], "cannot create the folder file"),
        ([image], "--output"),
    ):
        assert sentence in refusal("explain", "--ckpt_path", trained / "model.safetensors", *words)
