"""McNemar's exact test: whether two classifiers that answered the same images differ by more than chance."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test.

    Images that both get right, or both wrong, say nothing about a difference. If the classifiers were equally good, the
    others would be split between them like tosses of a coin: p = min(1, 2 · P(X ≤ min(only_a, only_b))) with X ~
    Binomial(only_a + only_b, 1/2).

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 1947.

    Args:
        only_a: Number of images that only the first classifies correctly.
        only_b: Number of images that only the second classifies correctly.

    Example:
        >>> mcnemar(1, 5)
        0.21875
    """
    from scipy.special import bdtr  # slow to import

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
