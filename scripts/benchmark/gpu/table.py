"""Results of the benchmark as a page of Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def to_markdown(about: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a page with the machine, the checks that passed or failed, and the figures beside their goals."""
    remark = "; a rehearsal on the CPU at small sizes: its figures are not measurements" if about["rehearsal"] else ""
    facts = {**about["machine"], **about["versions"], "commit": about["commit"], "sources": about["sources"]}
    parts = [[result["part"], result["status"], f"{result['seconds']:.0f}"] for result in results]
    checks = [
        [result["part"], check["check"], "yes" if check["passed"] else "**no**", check["detail"]]
        for result in results
        for check in result["checks"]
    ]
    figures = [
        [
            result["part"],
            figure["name"],
            f"{_number(figure['median'])} {figure['unit']}",
            f"{_number(figure['lowest'])} to {_number(figure['highest'])} ({figure['values']})",
            f"{_number(figure['goal'])} ({_number(figure['acceptable'])})" if "goal" in figure else "",
        ]
        for result in results
        for figure in result["figures"]
    ]
    lines = [
        f"`cbam100 benchmark gpu`{remark}",
        *_table(["", ""], [[name, str(value)] for name, value in facts.items()]),
        *_table(["part", "status", "time (s)"], parts),
        *_table(["part", "check", "passed", "detail"], checks),
        *_table(["part", "figure", "median", "range (samples)", "goal (acceptable)"], figures),
        "",
    ]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return ["", *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells))]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
