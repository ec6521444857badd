"""A model from its file, for commands that are not LightningCLI's."""

from pathlib import Path

from lightning_modules import ImageClassifier
from lightning_modules.trained_model import TrainedModel, read_trained_model


def load_classifier(path: Path) -> tuple[ImageClassifier, TrainedModel]:
    """The model in evaluation mode, and what its file says.

    Raises:
        UserError: As ``read_trained_model`` and ``TrainedModel.load_into``.
    """
    trained = read_trained_model(path)
    model = ImageClassifier(**trained.model)
    trained.load_into(model)
    return model.eval(), trained
