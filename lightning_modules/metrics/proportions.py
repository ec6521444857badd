"""What a number of right answers says: an interval for an accuracy, and a test of the difference of two."""

import math

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson_interval(right: int, images: int) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy by Wilson's score method, which holds for few images and near 0 and 1.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927, equation (5).

    >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
    [0.4902, 0.9433]
    >>> wilson_interval(0, 0)
    (0.0, 1.0)
    """
    if not images:
        return 0.0, 1.0
    share, weight = right / images, Z * Z / images
    middle = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / images + weight / (4 * images))
    # At the ends the formula is exact, and rounding is not.
    return 0.0 if right == 0 else middle - half, 1.0 if right == images else middle + half


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Returns the p-value of McNemar's exact test that two classifiers are right equally often on the same images.

    Of the images on which only one is right, each is as likely to be the first's as the second's: a binomial test.

    >>> mcnemar_p_value(0, 5)  # 2 · (1/2)⁵
    0.0625

    Args:
        only_first: Number of images on which only the first classifier is right.
        only_second: Number of images on which only the second is.
    """
    from scipy.stats import binomtest  # slow to import

    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
