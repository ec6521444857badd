"""What was found on a GPU, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def to_markdown(about: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """The page: what it ran on, what was promised and held, and what was measured beside what is aimed at."""
    remark = "; a rehearsal on the CPU at small sizes, in which nothing is a measurement" if about["rehearsal"] else ""
    facts = {**about["machine"], **about["versions"], "commit": about["commit"]}
    lines = [f"`cbam100 benchmark gpu`{remark}", "", *_table(("", ""), [[name, str(x)] for name, x in facts.items()])]
    checks = [
        [result["part"], check["check"], "yes" if check["held"] else "**no**", check["detail"]]
        for result in results
        for check in result["checks"]
    ]
    parts = [[result["part"], result["state"], f"{result['seconds']:.0f}"] for result in results]
    figures = [
        [
            result["part"],
            figure["name"],
            f"{_number(figure['median'])} {figure['unit']}",
            f"{_number(figure['lowest'])} to {_number(figure['highest'])}, {figure['values']}",
            f"{_number(figure['goal'])} ({_number(figure['least'])})" if "goal" in figure else "",
        ]
        for result in results
        for figure in result["figures"]
    ]
    lines += ["", *_table(("part", "ended", "s"), parts)]
    lines += ["", *_table(("part", "check", "held", "detail"), checks)]
    lines += ["", *_table(("part", "figure", "median", "spread, values", "goal (least)"), figures)]
    return "\n".join([*lines, ""])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
