from types import SimpleNamespace

import numpy as np
import torch
from torchmetrics.classification import MulticlassAccuracy

from callbacks.predictions.answers import AnswerCollector, most_confused
from datamodules.image_dataset import Batch
from datamodules.sampler import BLANK

ALONE = SimpleNamespace(world_size=1)


def test_rows_come_in_the_order_of_the_data_without_blanks():
    collector = AnswerCollector(4)  # of which one is unreadable
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    batch = Batch(torch.empty(4), torch.tensor([0, 1, 1, -1]), torch.tensor([2, 0, 1, BLANK]))
    collector.add(batch, probabilities.log())
    answers = collector.finish(ALONE)
    np.testing.assert_array_equal(answers.samples, [0, 1, 2])
    np.testing.assert_array_equal(answers.targets, [1, 1, 0])
    np.testing.assert_array_equal(answers.predicted, [2, 1, 0])
    np.testing.assert_allclose(answers.confidence, [0.6, 0.5, 0.7], rtol=1e-6)
    np.testing.assert_allclose(answers.probability, [0.3, 0.5, 0.7], rtol=1e-6)
    np.testing.assert_array_equal(answers.worst(2), [0, 1])
    np.testing.assert_array_equal(answers.confusion(3), [[1, 0, 0], [0, 1, 1], [0, 0, 0]])


def test_of_equal_probabilities_the_answer_is_what_the_accuracy_counts():
    logits = torch.tensor([[0.0, 1e-9], [1e-9, 0.0], [0.0, 0.0]])  # the softmax of each is one half twice
    targets = torch.tensor([1, 0, 0])
    collector = AnswerCollector(3)
    collector.add(Batch(torch.empty(3), targets, torch.arange(3)), logits)
    answers = collector.finish(ALONE)
    accuracy = MulticlassAccuracy(2, average="micro")(logits, targets)
    assert np.trace(answers.confusion(2)) / 3 == accuracy == 1


def test_an_image_that_several_processes_saw_is_one_row():
    collector = AnswerCollector(2)
    for _ in range(3):
        collector.add(
            Batch(torch.empty(1), torch.tensor([2]), torch.tensor([1])), torch.tensor([[0.3, 0.1, 0.6]]).log()
        )
    answers = collector.finish(ALONE)
    np.testing.assert_array_equal(answers.samples, [1])
    np.testing.assert_allclose(answers.probability, [0.6], rtol=1e-6)
    np.testing.assert_array_equal(answers.confusion(3), [[0, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_logits_are_kept_on_request_and_divided_by_the_temperature():
    logits = torch.tensor([[2.0, 0.0], [0.0, 6.0]])
    for times in (1, 2):  # as several processes may see an image
        collector = AnswerCollector(3, temperature=2.0, keep_logits=True)
        for _ in range(times):
            collector.add(Batch(torch.empty(2), torch.tensor([0, 0]), torch.tensor([2, 0])), logits)
        answers = collector.finish(ALONE)
        np.testing.assert_array_equal(answers.logits, [[0, 6], [2, 0]])
        assert answers.logits.dtype == np.float32
        sigmoid = 1 / (1 + np.exp(-np.array([3, 1])))
        np.testing.assert_allclose(answers.confidence, sigmoid, rtol=1e-6)
        np.testing.assert_allclose(answers.probability, [1 - sigmoid[0], sigmoid[1]], rtol=1e-6)


def test_pairs_are_mistakes_only_most_first():
    confusion = np.array([[9, 2, 0], [5, 1, 0], [0, 2, 7]])
    assert most_confused(confusion, 2) == [(1, 0, 5), (0, 1, 2)]
    assert most_confused(confusion, 9) == [(1, 0, 5), (0, 1, 2), (2, 1, 2)]
    assert most_confused(np.diag([3, 3]), 9) == []
