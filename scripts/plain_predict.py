"""The baseline of ``cbam100 benchmark predict``: what one writes without this project.

A data set of Pillow and torchvision, a loader with two workers, the network in float32, a CSV file.
"""

import argparse
import csv
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from datamodules.images.transforms import MEAN, STD
from lightning_modules import ResNetCBAM
from lightning_modules.trained_model import read_trained_model


class Folder(Dataset[Tensor]):
    """The files of a folder."""

    def __init__(self, folder: Path, image_size: int) -> None:
        self.paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.transform = v2.Compose(
            [
                v2.Resize(int(image_size * 1.14)),
                v2.CenterCrop(image_size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Tensor:
        return self.transform(Image.open(self.paths[position]).convert("RGB"))


def main() -> None:
    """Runs ``python -m scripts.plain_predict WEIGHTS FOLDER OUTPUT``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="model.safetensors of this project")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--batch_size", type=int, default=16)
    options = parser.parse_args()
    trained = read_trained_model(options.weights)
    names = trained.model["class_names"]
    network = ResNetCBAM(len(names), attention_placement=trained.model["attention_placement"])
    network.load_state_dict(trained.network)
    network.eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    data = Folder(options.folder, trained.data["image_size"])
    labels: list[int] = []
    with torch.no_grad():
        for images in DataLoader(data, options.batch_size, num_workers=2):
            labels += network(images.to(device)).argmax(1).tolist()
    with open(options.output, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_name", "pred_label"])
        writer.writerows([path.stem, names[label]] for path, label in zip(data.paths, labels, strict=True))


if __name__ == "__main__":
    main()
