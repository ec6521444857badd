from types import SimpleNamespace

from callbacks import BestWeights, EpochLog


def test_the_best_accuracy_is_the_one_that_best_weights_saves():
    log, saver, logged = EpochLog(), BestWeights(), []
    saver.best = {"epoch": 0, "val/accuracy": 0.5}
    trainer = SimpleNamespace(
        callbacks=[log, saver],
        loggers=[SimpleNamespace(log_metrics=lambda numbers, step: logged.append(numbers["best/val/accuracy"]))],
        current_epoch=1,
        is_global_zero=False,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=True))),
    )
    for numbers in ({"val/accuracy": 0.25}, {"val/accuracy": 0.75}, {"train/accuracy": 1.0}):
        log._write(trainer, numbers)
    assert logged == [0.5, 0.75, 0.5]


def test_takes_the_state_of_earlier_versions_which_kept_the_best_accuracy_too():
    log = EpochLog()
    log.load_state_dict({"best": 0.5, "learning_rate": 0.001, "seconds": 1.0, "images": 16, "waited": 0.5})
    assert {**log.state_dict(), "seconds": None} == {
        "learning_rate": 0.001, "seconds": None, "images": 16, "waited": 0.5,
    }  # fmt: skip
