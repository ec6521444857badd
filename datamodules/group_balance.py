"""How groups of images are spread over parts so that each part has its share of each class."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from datamodules.files.errors import UserError, listed


def spread(groups: Sequence[Counter[str]], inverse_shares: Sequence[int]) -> list[int]:
    """Gives each group to the part that keeps the classes closest to the parts' shares, one group after another.

    With n images of a class in a part, the part's share s and N images of the class in all, that is the part where
    Σ n² / (s N) over parts and classes, Pearson's chi-square up to a constant, grows least; of equal ones, the part
    with the fewest images for its share. A class that is then missing from a part gets the group there whose move costs
    least and takes no class from another part. All in whole numbers, so that every machine agrees.

    Example:
        >>> spread([Counter(cat=2), Counter(cat=1), Counter(cat=1), Counter(cat=1)], inverse_shares=[1, 1])
        [0, 1, 1, 0]

    Args:
        groups: Number of images of each class in each group, the largest first.
        inverse_shares: 1 / s of each part, up to a common factor.

    Returns:
        The part of each group.

    Raises:
        UserError: A class is missing from a part, and there is no such move.
    """
    balance = _Balance(groups, inverse_shares)
    chosen = [balance.add(group) for group in groups]
    numbers = range(len(inverse_shares))
    for name, part in ((name, part) for name in sorted(balance.totals) for part in numbers):
        if not balance.held[part][name]:
            movable = [i for i, group in enumerate(groups) if name in group and balance.can_spare(group, chosen[i])]
            if not movable:
                raise UserError(
                    f"no division was found that leaves images of class {name} in each part, as its groups hold other "
                    f"classes too (those with {listed(sorted(_beside(name, groups)))}): use finer groups or fewer folds"
                )
            best = min(movable, key=lambda i: (balance.cost_of_move(groups[i], chosen[i], part), i))
            balance.move(groups[best], chosen[best], part)
            chosen[best] = part
    return chosen


def _beside(name: str, groups: Sequence[Counter[str]]) -> set[str]:
    return {other for group in groups if name in group for other in group if other != name}


class _Balance:
    """What each part holds so far."""

    def __init__(self, groups: Sequence[Counter[str]], inverse_shares: Sequence[int]) -> None:
        self.totals: Counter[str] = Counter()
        for group in groups:
            self.totals.update(group)
        self.held: list[Counter[str]] = [Counter() for _ in inverse_shares]
        self._sizes = [0] * len(inverse_shares)
        self._inverse_shares = inverse_shares

    def add(self, group: Counter[str]) -> int:
        """Gives a group to the best part, and returns it."""
        # Fractions would be slow for a million groups, and only parts are compared here: one denominator for all.
        denominator = math.lcm(*(self.totals[name] for name in group))
        weights = [(name, count, denominator // self.totals[name]) for name, count in group.items()]

        def cost(part: int) -> tuple[int, int, int]:
            held, inverse = self.held[part], self._inverse_shares[part]
            # (n + count)² - n², as count · (2n + count)
            growth = sum(weight * count * (2 * held[name] + count) for name, count, weight in weights)
            return inverse * growth, inverse * self._sizes[part], part

        part = min(range(len(self.held)), key=cost)
        self.held[part].update(group)
        self._sizes[part] += group.total()
        return part

    def can_spare(self, group: Counter[str], part: int) -> bool:
        """Tells whether the part that holds a group has more of each of its classes."""
        return all(self.held[part][name] > count for name, count in group.items())

    def cost_of_move(self, group: Counter[str], source: int, target: int) -> Fraction:
        """Returns by how much chi-square grows if a group changes its part."""
        here, there = self.held[source], self.held[target]
        out, into = self._inverse_shares[source], self._inverse_shares[target]
        return sum(
            (
                Fraction(
                    into * count * (2 * there[name] + count) - out * count * (2 * here[name] - count), self.totals[name]
                )
                for name, count in group.items()
            ),
            Fraction(),
        )

    def move(self, group: Counter[str], source: int, target: int) -> None:
        """Changes the part of a group."""
        self.held[source].subtract(group)
        self.held[target].update(group)
