from types import SimpleNamespace

import torch

from callbacks import BestWeights
from lightning_modules import ImageClassifier


def test_last_is_written_in_epochs_that_are_not_the_best():
    saved, callback = [], BestWeights()
    model = ImageClassifier(["a", "b"], backbone="resnet18")
    trainer = SimpleNamespace(fast_dev_run=False, log_dir="run", is_global_zero=False, global_step=1)
    trainer.state, trainer.sanity_checking = SimpleNamespace(fn="fit"), False
    epochs, batches = SimpleNamespace(), SimpleNamespace(is_last_batch=True)
    trainer.fit_loop = SimpleNamespace(
        epoch_loop=SimpleNamespace(batch_progress=batches), epoch_progress=SimpleNamespace(current=epochs, total=epochs)
    )
    trainer.save_checkpoint = lambda path: saved.append((trainer.current_epoch, path.name))
    for trainer.current_epoch, accuracy in enumerate([0.2, 0.5, 0.5, 0.4]):
        epochs.started = trainer.current_epoch + 1
        callback.on_validation_epoch_start(trainer, model)
        trainer.callback_metrics = {"val/accuracy": torch.tensor(accuracy)}
        callback.on_train_epoch_end(trainer, model)
    both, last = ["best.ckpt", "last.ckpt"], ["last.ckpt"]
    assert saved == [(epoch, name) for epoch, names in enumerate([both, both, last, last]) for name in names]
    assert callback.best["epoch"] == 1  # of two equal epochs the first
