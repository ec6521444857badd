"""One, two and three processes, and two machines, give the same numbers and the same bytes."""

import contextlib
import json
import shutil
import socket
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.integration.fork_driver import REPOSITORY, Command
from tests.integration.processes_driver import run

pytestmark = pytest.mark.processes
DRIVER = "tests.integration.processes_driver"
CPU_DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
SIZES = (0, 1, 2, 5, 17)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_machines(folder):
    """Starts two agents of torchrun on the loopback interface with a process each, and waits for them."""
    agent = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    with contextlib.chdir(folder):
        run_all(
            {
                "module": "torch.distributed.run",
                "args": [*agent, f"--node-rank={node}", "-m", DRIVER, folder / "plan.json"],
            }
            for node in range(2)
        )


def three_processes(folder):
    """Starts them as torchrun would, but in forks."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "3",
        "TORCHELASTIC_RUN_ID": "x",
    }
    run_all(
        {
            "module": DRIVER,
            "args": [folder / "plan.json"],
            "env": {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        }
        for rank in range(3)
    )


def run_all(plans):
    """Follows plans at the same time, as their processes wait for each other."""
    outcomes = [
        command.finish() for command in [Command({**plan, "args": [*map(str, plan["args"])]}) for plan in plans]
    ]
    assert all(outcome["code"] == 0 for outcome in outcomes), outcomes


@pytest.fixture(scope="module")
def results(trained, data_root, new_folder):
    """By number of processes, the folder with the CSVs and the metrics of a validation of 17 images."""
    root = Path(shutil.copytree(data_root, new_folder("odd") / "root"))
    for label in range(7):
        next((root / "val" / str(label)).iterdir()).unlink()
    for size in SIZES:
        (root / f"few{size}").mkdir()
        for image in sorted((root / "test").iterdir())[:size]:
            shutil.copy(image, root / f"few{size}")
    # 17 validation images on two processes are 9 and 8: in batches of 8 the second one ends on a batch of blanks.
    data = ["--data.root", str(root), "--data.num_workers=0", "--data.batch_size=8"]
    small = [option for option in SMALL if "trainer" not in option]
    plan = {
        "model": str(trained / "model.safetensors"),
        "data": data,
        "predict": {f"few{size}": ["--data.predict_dir", str(root / f"few{size}")] for size in SIZES}
        | {"everything": ["--model.tta=hflip", "--prediction.top_k=3", "--prediction.probabilities=true"]},
    }
    ddp_config = ["--config", str(REPOSITORY / "configs" / "trainer" / "ddp.yaml")]
    fit = [*ddp_config, *small, *data, "--trainer.max_epochs=2", "--model.restart_epochs=2"]
    folders = {}
    for processes, nodes in ((1, 1), (2, 2), (3, 1)):
        folder = folders[processes] = new_folder(f"processes{processes}")
        plan["output"] = str(folder)
        plan["fit"] = fit if nodes > 1 else []
        plan["distributed"] = [*CPU_DDP, f"--trainer.devices={processes // nodes}", f"--trainer.num_nodes={nodes}"]
        (folder / "plan.json").write_text(json.dumps(plan))
        if nodes > 1:
            two_machines(folder)
        elif processes > 1:
            three_processes(folder)
        else:
            with pytest.warns(UserWarning, match="few0 holds no image: the prediction will have a header and no rows"):
                run({**plan, "distributed": ["--trainer.accelerator=cpu", "--trainer.devices=1"]})
    return folders


def test_validation_is_equal_to_the_last_digit(results):
    one, two, three = (json.loads((folder / "results.json").read_text())["validate"] for folder in results.values())
    names = {"accuracy", "accuracy_macro", "accuracy_top5", "loss", "nll", "ece"}
    assert one.keys() == {f"val/{name}" for name in names}
    assert one == two == three


@pytest.mark.parametrize("size", SIZES)
def test_predictions_are_equal_to_the_byte(size, results):
    contents = [(folder / f"few{size}.csv").read_bytes() for folder in results.values()]
    assert len(contents[0].splitlines()) == 1 + size
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("name", ["everything.csv", "everything_topk.csv", "everything.zip"])
def test_side_files_are_equal_to_the_byte(name, results):
    contents = [(folder / name).read_bytes() for folder in results.values()]
    assert contents[0] == contents[1] == contents[2]


def test_best_epoch_of_two_machines_is_what_one_process_measures(results, capsys):
    folder = results[2] / "runs" / "ddp" / "version_0"
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    best = json.loads((folder / "manifest.json").read_text())["best"]
    plan = json.loads((results[2] / "plan.json").read_text())
    here = results[1] / "again"
    here.mkdir()
    run({**plan, "model": str(folder / "checkpoints" / "best.ckpt"), "predict": {}, "fit": [], "output": str(here),
         "distributed": ["--trainer.accelerator=cpu", "--trainer.devices=1"]})  # fmt: skip
    measured = json.loads((here / "results.json").read_text())["validate"]
    assert measured == {name: value for name, value in best.items() if name.startswith("val/")}
