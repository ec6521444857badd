"""``cbam100 pack``: writes a data set of any form as tar shards, and checks what it wrote."""

import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from datamodules.archives.pack_sums import SUMS
from datamodules.archives.series import archives_of
from datamodules.files.atomic_file import remove_leftovers, require_writable, write_bytes
from datamodules.files.errors import UserError, listed
from datamodules.files.locks import LOCK, locked
from datamodules.files.own_files import SHARD, kind_of
from datamodules.sources.data_set import LABEL_OPTIONS, DataSet
from datamodules.split_names import SPLITS, require_outside_splits, require_root
from lightning_modules.network.model_size import BYTES_PER_MB
from scripts.arguments import Arguments
from scripts.console import counted, printable
from scripts.pack.listing import list_to_pack, require_found, require_not_read, say_what_is_lost
from scripts.pack.shards import PlannedShard, pack_shard, plan_shards


def pack(
    root: str | Path,
    output: Path | str,  # the last is the command line's, where "" must not become the folder "."
    *,
    shard_mb: float = 512,
    labels: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_list: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Writes a data set of any form as tar files that are read without unpacking, with their SHA-256 sums.

    Shards follow from the images' names and bytes and ``shard_mb`` alone, to the bit. Each is read back and compared
    with the images before it gets its name, and ``SHA256SUMS``, which is written last, makes the pack complete.

    Example:
        >>> pack("photos", "shards")  # doctest: +SKIP
        PosixPath('shards')

    Args:
        root: Folder of the data.
        output: New or empty folder for the shards, or that of an earlier pack, which is completed or replaced.
        shard_mb: Largest size of a shard in MB of 10^6 bytes; an image larger than that gets its own.
        labels: File that names images, their classes and perhaps their splits, as for fit.
        image_column: Column of the labels file with the images, as for fit.
        label_column: Column of the labels file with the classes, as for fit.
        split_column: Column of the labels file with the splits, as for fit.
        class_list: File with the names of classes for archives that number them, as for fit.
        say: Called with each line on what was passed over and what was written.

    Returns:
        The folder of the shards.

    Raises:
        UserError: An argument is wrong, images cannot be read or written, or the shards do not hold what they should.
    """
    if not 0 < shard_mb < float("inf"):
        raise UserError(f"--shard_mb must be finite and above 0, got {shard_mb}: 512 is the default")
    if output == "":
        raise UserError("--output is empty: name a folder, such as shards")
    root, output = Path(root), Path(output)
    require_root(root)
    require_outside_splits(output, "--output", root)
    require_outside_splits(output, "--output")
    earlier = _earlier_shards(output)
    options = {"labels": labels, "image_column": image_column, "label_column": label_column}
    data = DataSet(root, options | {"split_column": split_column, "class_list": class_list})
    images = list_to_pack(data, say)
    require_not_read(earlier, images)
    plan = {split: plan_shards(split, files, round(shard_mb * BYTES_PER_MB)) for split, files in images.items()}
    shards = [shard for of_split in plan.values() for shard in of_split]
    _require_space(output, shards)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {output} ({error.strerror}): choose another --output") from error
    require_writable(output, "--output")
    with locked(output):
        remove_leftovers(output)
        (output / SUMS).unlink(missing_ok=True)  # what it says is not true until the end
        for path in earlier:
            if path.name not in {shard.name for shard in shards}:
                path.unlink(missing_ok=True)
        sums = _pack_all(shards, output)
        require_found(images, output)
        write_bytes(output / SUMS, "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()).encode())
        with suppress(OSError):  # Windows keeps open files
            (output / LOCK).unlink()
    say_what_is_lost(root, images, say)
    _summarise(plan, output, say)
    return output


def main(words: list[str]) -> None:
    """Runs ``cbam100 pack`` and prints what was written."""
    parser = Arguments(prog="cbam100 pack")
    spelled = {name: f"--data.{name}" for name in ("root", *LABEL_OPTIONS)}
    metavars = {"root": "DIR", "output": "DIR", "labels": "FILE", "class_list": "FILE"}
    parser.add_parameters(pack, spelled=spelled, metavars=metavars, without=["say"])
    pack(**vars(parser.parse_args(words)))


def _earlier_shards(output: Path) -> list[Path]:
    """Lists the shards of an earlier pack.

    Raises:
        UserError: ``output`` is not a folder, or holds anything else than a pack.
    """
    if not output.exists():
        return []
    if not output.is_dir():
        raise UserError(f"{output} is a file: choose another --output")
    visible = sorted(path for path in output.iterdir() if not path.name.startswith("."))
    of_splits = (path for split in SPLITS for form in archives_of(output, split) for path in form)
    shards = [path for path in of_splits if kind_of(path) == SHARD]
    others = [path.name for path in visible if path not in shards and not (shards and path.name == SUMS)]
    if others:
        raise UserError(
            f"{output} holds files that are not shards by an earlier pack, {listed(others)}: choose a new or empty "
            "folder as --output"
        )
    return shards


def _require_space(output: Path, shards: list[PlannedShard]) -> None:
    there = {path.name: path.stat().st_size for path in output.glob("*.tar")} if output.is_dir() else {}
    needed = sum(shard.size for shard in shards if there.get(shard.name) != shard.size)
    folder = next(up for up in (output.absolute(), *output.absolute().parents) if up.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the shards need {needed / BYTES_PER_MB:,.0f} MB, but only {free / BYTES_PER_MB:,.0f} MB are free at "
            f"{folder}: make room, or choose another --output"
        )


def _pack_all(shards: list[PlannedShard], output: Path) -> dict[str, str]:
    """Writes the shards and returns their SHA-256 by name."""
    console = Console(stderr=True)
    total = 2 * sum(member.size for shard in shards for member in shard.members)  # read, and read back
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("packing", total=total)
        return {
            shard.name: pack_shard(shard, output / shard.name, lambda size: progress.advance(task, size))
            for shard in shards
        }


def _summarise(plan: dict[str, list[PlannedShard]], output: Path, say: Callable[[str], None]) -> None:
    for split, shards in plan.items():
        images, size = sum(len(shard.members) for shard in shards), sum(shard.size for shard in shards)
        say(f"{split}: {counted(images, 'image')} in {counted(len(shards), 'shard')}, {size / BYTES_PER_MB:,.1f} MB")
    say(f"all were read back and compared with their images; sha256sum -c {SUMS} compares them again")
    where = f"--data.root {printable(shlex.quote(os.fspath(output)))}"
    if "train" in plan:
        say(f"to train from them: cbam100 fit {where}")
    else:
        say(f"to use them: cbam100 predict --ckpt_path FILE {where}")
