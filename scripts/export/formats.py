"""The names of an export's files, and which formats and precisions would fit a limit."""

import math
from pathlib import Path

from datamodules.files.errors import UserError
from lightning_modules.exports.header import PRECISIONS, SUFFIXES, Format, Precision
from lightning_modules.network.model_size import BYTES_PER_MB, format_size
from scripts.console import counted

STEM = "model"
BYTES_PER_WEIGHT: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def files_of(folder: Path, format: Format, stem: str = STEM) -> list[Path]:
    """Returns the files of a format in the order in which they are put into place; the one that is opened comes last.

    >>> [path.name for path in files_of(Path("out"), "openvino")]
    ['model.bin', 'model.xml']
    """
    opened = folder / f"{stem}{SUFFIXES[format]}"
    return [opened.with_suffix(".bin"), opened] if format == "openvino" else [opened]


def limit_in_bytes(limit_mb: float) -> int:
    """Returns a limit in bytes; raises ``UserError`` if it is not above 0."""
    if not (limit_mb > 0 and math.isfinite(limit_mb * BYTES_PER_MB)):
        raise UserError(f"--limit_mb must be finite and above 0, got {limit_mb}: 100 is the default")
    return round(limit_mb * BYTES_PER_MB)


def require_within(limit: int, size: int, weights: int, *, format: Format, precision: Precision) -> None:
    """Checks a file, or what is known of it before it is made, against the limit.

    Args:
        limit: Largest allowed size in bytes.
        size: Bytes of all files that are needed to run the model.
        weights: Number of the network's parameters and buffers.
        format: Format of the file.
        precision: Precision of the file.

    Raises:
        UserError: It is larger; the sentence names the combinations that would fit.
    """
    if size <= limit:
        return
    header = max(0, size - weights * BYTES_PER_WEIGHT[precision])
    choices = []
    for smaller, width in BYTES_PER_WEIGHT.items():
        formats = [name for name, precisions in PRECISIONS.items() if smaller in precisions]
        estimate = weights * width + header
        if width < BYTES_PER_WEIGHT[precision] and estimate <= limit:
            about = f"{estimate / BYTES_PER_MB:{'.2g' if estimate < 99 * BYTES_PER_MB else ',.0f'}} MB"
            choices.append(f"--precision {smaller} (about {about}; {', '.join(formats)})")
    advice = f"choose {' or '.join(choices)}, or raise --limit_mb" if choices else "no format fits, so raise --limit_mb"
    raise UserError(
        f"{format} in {precision} takes {format_size(size)}, more than the limit of {limit / BYTES_PER_MB:.10g} MB by "
        f"{counted(size - limit, 'byte')}: {advice}"
    )
