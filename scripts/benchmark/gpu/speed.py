"""How fast it is: steps, predictions, the way from files to weights, and what a step waits for."""

import itertools
import platform
import shutil
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import ImageFolderDataModule
from datamodules.images.find import find_images
from datamodules.workers.cpus import available_cpus
from lightning_modules import ResNetCBAM
from lightning_modules.network.compilation import Compile
from scripts.benchmark.gpu.bench import Bench
from scripts.benchmark.gpu.correctness import run_folder
from scripts.benchmark.step import inference, multiplications_per_second, train_step
from scripts.benchmark.timing import alternate
from scripts.demo.make_demo_data import make_demo_data
from scripts.hardware import default_precision

CLASSES = 100
ATTENTION = {"none": ("none", "stage"), "stage": ("cbam", "stage"), "block": ("cbam", "block")}


def machine(bench: Bench) -> None:
    """What the machine is capable of, as a measure for the rest."""
    device = torch.device(bench.sizes.device)
    bench.fact("GPU", torch.cuda.get_device_name() if device.type == "cuda" else "none")
    bench.fact("driver", _driver() if device.type == "cuda" else "none")
    bench.fact("CUDA and cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    bench.fact("CPU cores", str(available_cpus()))
    bench.figure("matrix product", "TFLOP/s", [multiplications_per_second(device, _precision(bench)) / 1e12])
    content = torch.empty(2**28 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)

    def copy() -> None:
        content.clone()
        _wait(device)

    rates = [2 * len(content) / seconds / 1e9 for seconds in alternate({"copy": copy}, rounds=5)["copy"]]
    bench.figure("copy, read and written", "GB/s", rates)
    print(platform.platform(), torch.__config__.show())


def draw(bench: Bench) -> None:
    """Draws the images, and copies of them, of which an epoch has many."""
    sizes = bench.sizes
    counts = {"train_images": sizes.images, "val_images": sizes.images // 4, "test_images": sizes.images // 8}
    start = time.perf_counter()
    make_demo_data(
        bench.data, size=sizes.photo_side, num_classes=sizes.classes, num_processes=available_cpus(), **counts
    )
    bench.figure("drawing", "s", [time.perf_counter() - start])
    for label in (bench.data / "train").iterdir():
        folder = bench.shared / "many" / "train" / label.name
        folder.mkdir(parents=True)
        originals = sorted(label.iterdir())
        for number in range(sizes.files):
            shutil.copyfile(originals[number % len(originals)], folder / f"{number}.jpg")
    shutil.copytree(bench.data / "val", bench.shared / "many" / "val")
    bytes_of_one = sum(path.stat().st_size for path in originals) / len(originals)
    bench.figure("size of a JPEG", "kB", [bytes_of_one / 1e3])


def step(bench: Bench) -> None:
    """A training step by batch and attention, and the memory it takes."""
    goals = {("16", "stage"): (4.0, 8.0)}
    for place, batch in enumerate(bench.sizes.batches):
        network = partial(_network, bench)
        contenders = {name: _step(bench, network(name), batch) for name in ATTENTION}
        for name, work in contenders.items():
            _first_call(bench, f"train step, batch {batch}, attention {name}", work)
        medians = {}
        for name, seconds in alternate(contenders, max(2, bench.sizes.steps // 2**place), warm_up=2).items():
            milliseconds = [1e3 * second for second in seconds]
            title = f"train step, batch {batch}, attention {name}"
            medians[name] = bench.figure(title, "ms", milliseconds, goals.get((str(batch), name)))
            bench.figure(f"{title}, rate", "images/s", [batch / second for second in seconds])
        is_large = batch == bench.sizes.batches[-1]
        for name, goal in {"stage": (2.9, 8.0), "block": (10.0, 20.0)}.items():
            share = 100 * (medians[name] / medians["none"] - 1)
            title = f"attention {name} at batch {batch}, over a step without"
            bench.figure(title, "%", [share], goal if is_large else None)


def compiled_gates(bench: Bench) -> None:
    """The gates' kernels made by torch.compile, beside the others."""
    batch = bench.sizes.batches[-1]
    for attention in ("stage", "block"):
        _beside_eager(bench, attention, "gates", batch)


def compiled_network(bench: Bench) -> None:
    """The whole network's, which take a minute to make."""
    for batch in (bench.sizes.batches[0], bench.sizes.batches[-1]):
        _beside_eager(bench, "stage", "full", batch)


def _beside_eager(bench: Bench, attention: str, what: Compile, batch: int) -> None:
    title = f"train step, batch {batch}, attention {attention}, compile {what}"
    eager = _step(bench, _network(bench, attention), batch)
    compiled = _step(bench, _network(bench, attention), batch, what)
    _first_call(bench, title, compiled)
    seconds = alternate({"eager": eager, "compiled": compiled}, max(2, bench.sizes.steps // 4), warm_up=2)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    bench.figure(title, "ms", [1e3 * second for second in seconds["compiled"]])
    bench.figure(f"{title}, gain over eager", "", [medians["eager"] / medians["compiled"]])


def predict(bench: Bench) -> None:
    """Classes of a batch, as ``predict`` finds them, from images on the device."""
    goals = {16: ("ms", (1.2, 2.5)), 256: ("images/s", (25_000.0, 12_000.0))}
    for batch in (bench.sizes.batches[0], bench.sizes.batches[-1]):
        images = _images(bench, batch)
        work = inference(_network(bench, "stage"), images, _precision(bench))
        torch.backends.cudnn.benchmark = False  # as in predict
        seconds = alternate({"predict": work}, bench.sizes.steps, warm_up=3)["predict"]
        for unit, values in {"ms": [1e3 * x for x in seconds], "images/s": [batch / x for x in seconds]}.items():
            goal = goals.get(batch, ("", (0.0, 0.0)))
            bench.figure(f"inference, batch {batch}, in {unit}", unit, values, goal[1] if goal[0] == unit else None)


def loader(bench: Bench) -> None:
    """What the loader alone delivers, with as many processes."""
    for cache in ("none", "ram"):
        data = ImageFolderDataModule(
            str(bench.shared / "many"), image_size=bench.sizes.image_size, batch_size=bench.sizes.batches[-1],
            num_workers=bench.sizes.workers[-1], cache=cache,
        )  # fmt: skip
        data.setup("fit")
        batches = data.train_dataloader()
        iter(batches)  # starts the processes
        rates = []
        for _ in range(2):
            start, images = time.perf_counter(), 0
            for batch in batches:
                images += len(batch.images)
            rates.append(images / (time.perf_counter() - start))
        bench.figure(f"loader alone, {bench.sizes.workers[-1]} workers, cache {cache}", "images/s", rates)


def files(bench: Bench) -> None:
    """From files to weights: fits, by number of loader processes and cache."""
    words = ["fit", *bench.sizes.words, *bench.sizes.recipe, f"--data.root={bench.shared / 'many'}"]
    words += [f"--data.batch_size={bench.sizes.batches[-1]}", "--best.every_n_minutes=0", "--insight.every_n_epochs=0"]
    for workers in sorted(bench.sizes.workers, reverse=True):
        for cache in ("ram", "none"):
            most = workers == bench.sizes.workers[-1]
            epochs, name = 3 if most else 2, f"workers_{workers}_{cache}"
            way = [] if most else [f"--trainer.limit_train_batches={bench.sizes.short}"]
            way += [f"--trainer.max_epochs={epochs}", f"--model.restart_epochs={epochs}", f"--run_name={name}"]
            bench.succeed(*words, *way, f"--data.num_workers={workers}", f"--data.cache={cache}")
            run = run_folder(bench, name)
            title = f"files to weights, {workers} workers, cache {cache}"
            goal = (5000.0, 2800.0) if most and cache == "ram" else None
            bench.figure(f"{title}, after the first epoch", "images/s", _scalars(run, "images_per_second")[1:], goal)
            if most:
                count = len(find_images(bench.shared / "many" / "train").paths)
                ends = _scalars(run, "images_per_second", times=True)
                whole = [after - before for before, after in itertools.pairwise(ends)]
                goal = (4.2, 7.5) if cache == "ram" else None
                what = f"{title}, epoch of {count:,} images with its validation and checkpoints"
                bench.figure(what, "s", whole, goal)
            bench.figure(f"{title}, share of waiting", "", _scalars(run, "data_wait_share")[1:])


def _scalars(run: Path, tag: str, times: bool = False) -> list[float]:
    events = EventAccumulator(str(run))
    events.Reload()
    return [event.wall_time if times else event.value for event in events.Scalars(tag)]


class CountWaits(Callback):
    """Prints what a training step of the third batch and later waits for the GPU for, and where."""

    def __init__(self) -> None:
        self._caught: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begins to look; from here to the same point of the next step."""
        if self._caught is None and batch_idx == 2:
            self._caught = warnings.catch_warnings(record=True)
            self._found = self._caught.__enter__()
            warnings.simplefilter("always")
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("warn")
        elif self._caught is not None and self._found is not None:
            places = [f"{x.filename}:{x.lineno}" for x in self._found if "synchronizing" in str(x.message)]
            print(f"waits of batch {batch_idx}: {len(places)} {' '.join(places)}", flush=True)
            self._found.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks no longer."""
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        if self._caught is not None:
            self._caught.__exit__(None, None, None)


def waits(bench: Bench) -> None:
    """How often the host waits for the GPU in a step, by ``torch.cuda.set_sync_debug_mode``."""
    callback = {"class_path": f"{CountWaits.__module__}.{CountWaits.__name__}"}
    (bench.folder / "waits.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    words = ["fit", *bench.sizes.words, *bench.sizes.recipe, f"--data.root={bench.data}", "--config=waits.yaml"]
    output = bench.succeed(*words, "--trainer.max_epochs=1", "--model.restart_epochs=1")
    counts = [int(line.split()[4]) for line in output.splitlines() if line.startswith("waits of batch ")]
    bench.figure("waits of the host for the GPU in a step", "", counts)
    bench.check("at most one step in eight waits", sum(map(bool, counts)) <= len(counts) / 8 + 1, f"{counts}")


def _precision(bench: Bench) -> str:
    return default_precision("gpu" if bench.sizes.device == "cuda" else "cpu")


def _images(bench: Bench, batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, bench.sizes.image_size, bench.sizes.image_size, device=bench.sizes.device)


def _network(bench: Bench, attention: str) -> ResNetCBAM:
    kind, placement = ATTENTION[attention]
    options: dict[str, Any] = {"backbone": bench.sizes.backbone, "attention": kind, "attention_placement": placement}
    return ResNetCBAM(CLASSES, **options).to(bench.sizes.device)


def _step(bench: Bench, network: ResNetCBAM, batch: int, compile: Compile = "none") -> Callable[[], None]:
    targets = torch.randint(0, CLASSES, (batch,), device=bench.sizes.device)
    return train_step(network, _images(bench, batch), targets, _precision(bench), compile)


def _first_call(bench: Bench, title: str, work: Callable[[], None]) -> None:
    """The time of the first call, which chooses or makes kernels, and the memory of a call."""
    on_gpu = bench.sizes.device == "cuda"
    start = time.perf_counter()
    work()
    bench.figure(f"{title}, first call", "s", [time.perf_counter() - start])
    if on_gpu:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        bench.figure(f"{title}, memory above what is kept", "GB", [(torch.cuda.max_memory_allocated() - before) / 1e9])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _driver() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown, as nvidia-smi does not tell"
