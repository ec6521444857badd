"""Speed of training steps, of inference, and of fits from files to weights."""

import itertools
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from callbacks.run.run_folder import RunFolder
from datamodules import ImageFolderDataModule
from datamodules.workers.cpus import available_cpus
from lightning_modules import ResNetCBAM
from lightning_modules.network.compilation import Compile
from scripts.benchmark.gpu.bench import Bench
from scripts.benchmark.gpu.correctness import NO_FIGURES
from scripts.benchmark.step import CLASSES, PEAK_SIDE, inference, multiplications_per_second, train_step
from scripts.benchmark.timing import alternate, synchronize
from scripts.demo.make_demo_data import make_demo_data
from scripts.hardware import default_precision

ATTENTION = {"none": ("none", "stage"), "stage": ("cbam", "stage"), "block": ("cbam", "block")}


def machine(bench: Bench) -> None:
    """Describes the machine and measures its arithmetic and memory bandwidth."""
    device, precision = torch.device(bench.sizes.device), _precision(bench)
    bench.fact("GPU", torch.cuda.get_device_name() if device.type == "cuda" else "none")
    bench.fact("driver", _driver() if device.type == "cuda" else "none")
    bench.fact("CUDA and cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    bench.fact("CPU cores", str(available_cpus()))
    batches = 2 * bench.sizes.workers[-1]  # may wait in shared memory
    needed = batches * bench.sizes.batch_sizes[-1] * 3 * bench.sizes.image_size**2 / 1e9
    free = shutil.disk_usage("/dev/shm").free / 1e9
    bench.check(f"/dev/shm holds what loader processes deliver, {needed:.2f} GB", free > needed, f"{free:.2f} GB free")
    rate = multiplications_per_second(device, precision) / 1e12
    bench.figure(f"matrix multiplication, {PEAK_SIDE} x {PEAK_SIDE}, {precision}", "TFLOP/s", [rate])
    content = torch.empty(2**28 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)

    def copy() -> None:
        content.clone()
        synchronize(device)

    rates = [2 * len(content) / seconds / 1e9 for seconds in alternate({"copy": copy}, rounds=5)["copy"]]
    bench.figure("memory bandwidth of the device (copy: bytes read and written)", "GB/s", rates)


def draw(bench: Bench) -> None:
    """Generates the images that the other parts use."""
    sizes = bench.sizes
    counts = {"train_images": sizes.train_images, "val_images": sizes.train_images // 4}
    counts |= {"test_images": sizes.train_images // 8, "num_processes": available_cpus()}
    start = time.perf_counter()
    make_demo_data(bench.data, size=sizes.jpeg_size, num_classes=sizes.num_classes, **counts)
    bench.figure("time to draw the images", "s", [time.perf_counter() - start])
    kilobytes = []
    for label in (bench.data / "train").iterdir():
        folder = bench.many / "train" / label.name
        folder.mkdir(parents=True)
        drawn = sorted(label.iterdir())
        kilobytes += [path.stat().st_size / 1e3 for path in drawn]
        for number in range(sizes.images_per_class):
            shutil.copyfile(drawn[number % len(drawn)], folder / f"{number}.jpg")
    shutil.copytree(bench.data / "val", bench.many / "val")
    bench.figure(f"size of a JPEG of {sizes.jpeg_size} px", "kB", kilobytes)


def step(bench: Bench) -> None:
    """Times a training step and measures its memory, by batch size and attention."""
    for place, batch in enumerate(bench.sizes.batch_sizes):
        titles = {name: f"training step, batch {batch}, attention {name}" for name in ATTENTION}
        steps = {name: _step(bench, name, batch) for name in ATTENTION}
        for name, work in steps.items():
            _first_call(bench, titles[name], work)
        medians = {}
        for name, seconds in alternate(steps, max(2, bench.sizes.steps // 2**place), warm_up=2).items():
            medians[name] = bench.figure(titles[name], "ms", [1e3 * x for x in seconds])
            bench.figure(f"{titles[name]}, throughput", "images/s", [batch / x for x in seconds])
        for name in ("stage", "block"):
            added = 100 * (medians[name] / medians["none"] - 1)
            bench.figure(f"attention {name}, batch {batch}, added to the step time", "%", [added])


def compiled_gates(bench: Bench) -> None:
    """Times a step with compiled gates beside an eager one."""
    for attention in ("stage", "block"):
        _beside_eager(bench, attention, "gates", bench.sizes.batch_sizes[-1])


def compiled_network(bench: Bench) -> None:
    """Times a step of a compiled network beside an eager one; compiling takes a minute."""
    _beside_eager(bench, "stage", "full", bench.sizes.batch_sizes[-1])


def _beside_eager(bench: Bench, attention: str, what: Compile, batch: int) -> None:
    title = f"training step, batch {batch}, attention {attention}, compile {what}"
    contenders = {"compiled": _step(bench, attention, batch, what), "eager": _step(bench, attention, batch)}
    _first_call(bench, title, contenders["compiled"])
    seconds = alternate(contenders, max(2, bench.sizes.steps // 4), warm_up=2)
    compiled = bench.figure(title, "ms", [1e3 * x for x in seconds["compiled"]])
    bench.figure(f"{title}, speedup over eager", "x", [1e3 * statistics.median(seconds["eager"]) / compiled])


def infer(bench: Bench) -> None:
    """Times the classification of a batch that is on the device, as predict does it."""
    for batch in (bench.sizes.batch_sizes[0], bench.sizes.batch_sizes[-1]):
        work = inference(_network(bench, "stage"), _images(bench, batch), _precision(bench))
        seconds = alternate({"infer": work}, bench.sizes.steps, warm_up=3)["infer"]
        bench.figure(f"inference latency, batch {batch}", "ms", [1e3 * x for x in seconds])
        bench.figure(f"inference throughput, batch {batch}", "images/s", [batch / x for x in seconds])


def loader(bench: Bench) -> None:
    """Measures the throughput of the loader alone."""
    workers = bench.sizes.workers[-1]
    for cache in ("none", "ram"):
        data = ImageFolderDataModule(
            str(bench.many), image_size=bench.sizes.image_size, batch_size=bench.sizes.batch_sizes[-1],
            num_workers=workers, cache=cache,
        )  # fmt: skip
        data.setup("fit")
        batches = data.train_dataloader()
        rates = []
        for _ in range(2):
            start, images = time.perf_counter(), 0
            for batch in batches:
                images += len(batch.images)
            rates.append(images / (time.perf_counter() - start))
        bench.figure(f"loader alone, {workers} workers, cache {cache}", "images/s", rates[1:])  # the first started them


def files(bench: Bench) -> None:
    """Times fits from files to weights, by number of loader processes and cache."""
    fit = bench.fit_words(bench.many, NO_FIGURES, "--best.every_n_minutes=0")
    fit.append(f"--data.batch_size={bench.sizes.batch_sizes[-1]}")
    for workers in sorted(bench.sizes.workers, reverse=True):
        is_full = workers == bench.sizes.workers[-1]
        epochs = 3 if is_full else 2
        options = [f"--trainer.max_epochs={epochs}", f"--model.restart_epochs={epochs}"]
        options.append(f"--data.num_workers={workers}")
        if not is_full:
            options.append(f"--trainer.limit_train_batches={bench.sizes.limit_train_batches}")
        for cache in ("ram", "none") if is_full else ("none",):
            run, title = f"workers_{workers}_{cache}", f"training from files, {workers} workers, cache {cache}"
            outcome = bench.command(*fit, *options, f"--data.cache={cache}", f"--run_name={run}")
            if outcome.exit_code == 0:
                _report_fit(bench, bench.run_folder(run), title, is_full)
            else:  # perhaps for lack of shared memory, which the next fit may not need
                bench.check(title, False, " ".join(outcome.output.split())[-200:])


def _report_fit(bench: Bench, run: RunFolder, title: str, is_full: bool) -> None:
    events = run.read_scalar_events()
    rates, waits = events["images_per_second"], events["data_wait_share"]
    bench.figure(f"{title}, throughput after epoch 1", "images/s", [event.value for event in rates[1:]])
    bench.figure(f"{title}, share of time waiting for data", "", [event.value for event in waits[1:]])
    if is_full:  # between the ends of two epochs, with validation and checkpoints
        images = bench.sizes.num_classes * bench.sizes.images_per_class
        seconds = [after.wall_time - before.wall_time for before, after in itertools.pairwise(rates)]
        bench.figure(f"{title}, epoch of {images:,} images", "s", seconds)


def _precision(bench: Bench) -> str:
    return default_precision("gpu" if bench.sizes.device == "cuda" else "cpu")


def _images(bench: Bench, batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, bench.sizes.image_size, bench.sizes.image_size, device=bench.sizes.device)


def _network(bench: Bench, attention: str) -> ResNetCBAM:
    kind, placement = ATTENTION[attention]
    options: dict[str, Any] = {"backbone": bench.sizes.backbone, "attention": kind, "attention_placement": placement}
    return ResNetCBAM(CLASSES, **options).to(bench.sizes.device)


def _step(bench: Bench, attention: str, batch: int, compile: Compile = "none") -> Callable[[], None]:
    targets = torch.randint(0, CLASSES, (batch,), device=bench.sizes.device)
    return train_step(_network(bench, attention), _images(bench, batch), targets, _precision(bench), compile)


def _first_call(bench: Bench, title: str, work: Callable[[], None]) -> None:
    """Records the time of the first call and, on a GPU, the peak memory of the second."""
    start = time.perf_counter()
    work()
    bench.figure(f"{title}, first call (kernel selection or compilation)", "s", [time.perf_counter() - start])
    if bench.sizes.device == "cuda":
        kept = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        peak = (torch.cuda.max_memory_allocated() - kept) / 1e9
        bench.figure(f"{title}, peak memory beyond weights, gradients and optimizer state", "GB", [peak])


def _driver() -> str:
    try:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown (nvidia-smi failed)"
