"""The error type for users' mistakes, in the lowest package so that every other can raise it."""


class UserError(ValueError):
    """A mistake in a command, a file or a folder, in one sentence: what is wrong, the value that came, what to do.

    The command line prints it as ``cbam100: error: …`` and exits with 2, without a traceback.
    """


def listed_reasons(reasons: dict[str, str]) -> str:
    """Joins the first 20 paths, each with its reason in parentheses, and says how many more there are."""
    return listed([f"{path} ({reason})" for path, reason in sorted(reasons.items())], limit=20)


def listed(items: list[str], limit: int = 5) -> str:
    """Joins the first ``limit`` items by commas and says how many more there are.

    Example:
        >>> listed(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
