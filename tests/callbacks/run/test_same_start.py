"""That processes which begin from different files end together."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from callbacks import SameStart
from datamodules.files.errors import UserError
from tests.conftest import SMALL
from tests.integration.fork_driver import Command


def fingerprint(sha256):
    return {"train": {"images": 5, "sha256": sha256}, "val": {"images": 2, "sha256": "v"}}


def begin(rank, checkpoints, fingerprints, monkeypatch):
    """Process ``rank`` of two, after both have said what they begin from."""
    callbacks = [SameStart(checkpoint) for checkpoint in checkpoints]
    trainers = [
        SimpleNamespace(world_size=2, is_global_zero=rank == 0, local_rank=0, datamodule=SimpleNamespace(fingerprint=f))
        for rank, f in enumerate(fingerprints)
    ]
    starts = []
    monkeypatch.setattr("callbacks.run.same_start.gather", lambda trainer, value: starts.append(value) or [value])
    for callback, trainer in zip(callbacks, trainers, strict=True):
        callback.setup(trainer, None, "fit")
    monkeypatch.setattr("callbacks.run.same_start.gather", lambda trainer, value: starts)
    callbacks[rank].setup(trainers[rank], None, "fit")


def test_all_or_none_go_on_and_see_the_same_images(tmp_path, monkeypatch):
    first, copy, other = (str(tmp_path / name / "last.ckpt") for name in ("first", "copy", "other"))
    for path, content in ((first, b"1"), (copy, b"1"), (other, b"2")):
        Path(path).parent.mkdir()
        Path(path).write_bytes(content)
    same = [fingerprint("t")] * 2
    for checkpoints in ([None, None], [first, first], [first, copy]):
        begin(0, checkpoints, same, monkeypatch)
    for checkpoints in ([first, None], [None, first], [first, other]):
        with pytest.raises(UserError, match="all processes must start from one checkpoint, but the first, on"):
            begin(0, checkpoints, same, monkeypatch)
        with pytest.raises(SystemExit, match="2"):
            begin(1, checkpoints, same, monkeypatch)
    with pytest.raises(
        UserError, match=r"images of train, but the first, on .*, finds 5 and process 1, on .*, finds 5"
    ):
        begin(0, [None, None], [fingerprint("t"), fingerprint("u")], monkeypatch)


@pytest.mark.processes
def test_two_machines_of_which_one_has_nothing_to_resume(trained, data_root, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "0" / "runs" / "default" / "version_0")
    (tmp_path / "1").mkdir()
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    args = ["fit", *SMALL, f"--data.root={data_root}", "--ckpt_path=last", "--trainer.max_epochs=2",
            "--model.restart_epochs=2", "--trainer.strategy=ddp", "--trainer.num_nodes=2"]  # fmt: skip
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_RANK": "0",
              "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}  # fmt: skip
    machines = []
    for rank in ("0", "1"):
        monkeypatch.chdir(tmp_path / rank)
        machines.append(Command({"args": args, "env": {**shared, "RANK": rank, "GROUP_RANK": rank}}))
    outcomes = [machine.finish() for machine in machines]
    assert [outcome["code"] for outcome in outcomes] == [2, 2]
    lines = [line for outcome in outcomes for line in outcome["error"].splitlines()]
    (sentence,) = (line for line in lines if line.startswith("cbam100: error: "))
    assert "process 1, on" in sentence
    assert "has nothing: use a shared disk, or copy the run folder to each machine" in sentence
    assert not list((tmp_path / "1").rglob("version_*"))
