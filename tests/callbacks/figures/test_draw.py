import numpy as np

from callbacks.figures.draw import class_accuracy_figure


def test_the_mean_is_of_classes_that_have_images():
    figure = class_accuracy_figure(np.array([[3, 1, 0], [0, 2, 2], [0, 0, 0]]), ["a", "b", "none"])
    (text,) = figure.axes[0].get_legend().get_texts()
    assert text.get_text() == "mean 0.625"  # of 3/4 and 2/4
