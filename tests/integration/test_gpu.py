"""What only a GPU can show; ``cbam100 benchmark gpu`` runs these there."""

import copy

import numpy as np
import pytest
import torch

from datamodules.images.transforms import normalize
from lightning_modules import CBAM, ImageClassifier, ResNetCBAM
from lightning_modules.network.compilation import compile_in_place
from lightning_modules.network.inference import for_inference
from scripts.main import main
from tests.conftest import SMALL

pytestmark = pytest.mark.gpu
RECIPE = [option for option in SMALL if not option.startswith("--trainer.accelerator")]


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def exact(monkeypatch):
    """float32 that is rounded to nothing else."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    torch.set_float32_matmul_precision(before)


def on(gpu):
    return [f"--trainer.accelerator={'gpu' if gpu.type == 'cuda' else gpu.type}"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gates_have_deterministic_gradients(dtype, gpu, deterministic):
    """Of the whole module, with pooling, products and convolution: an operator that has none raises."""
    torch.manual_seed(0)
    module = CBAM(256, 16).to(gpu, dtype).to(memory_format=torch.channels_last)
    x = torch.randn(32, 256, 14, 14, device=gpu, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn_like(x)
    results = []
    for _ in range(5):
        module.zero_grad()
        x.grad = None
        y = module(x)
        (y * weights).sum().backward()
        results.append([y.detach().clone(), x.grad.clone(), *(p.grad.clone() for p in module.parameters())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gates_are_the_cpus(gpu, exact):
    torch.manual_seed(0)
    module = CBAM(128, 16).double()
    x = torch.randn(4, 128, 7, 7, dtype=torch.float64)
    expected = module(x)
    came = copy.deepcopy(module).float().to(gpu)(x.float().to(gpu).to(memory_format=torch.channels_last))
    torch.testing.assert_close(came.double().cpu(), expected, rtol=1e-5, atol=1e-5)


def test_a_training_step_has_deterministic_gradients(gpu, deterministic):
    network = ResNetCBAM(10, backbone="resnet18", dropout=0.0).to(gpu).to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 64, 64, device=gpu).to(memory_format=torch.channels_last)
    state = copy.deepcopy(network.state_dict())
    results = []
    for _ in range(3):
        network.load_state_dict(state)
        network.zero_grad()
        with torch.autocast(gpu.type, torch.bfloat16):
            network(images).square().mean().backward()
        results.append([p.grad.clone() for p in network.parameters()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_images_stay_channels_last_on_their_way(gpu):
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    if gpu.type == "cuda":
        images = images.pin_memory()
    there = images.to(gpu, non_blocking=True)
    assert there.is_contiguous(memory_format=torch.channels_last)
    assert normalize(there).is_contiguous(memory_format=torch.channels_last)


def test_folded_inference_computes_the_network(gpu, exact):
    torch.manual_seed(0)
    network = ResNetCBAM(10, backbone="resnet18").to(gpu)
    images = torch.randn(8, 3, 64, 64, device=gpu)
    for _ in range(3):  # statistics that are not 0 and 1
        network.train()(images)
    with torch.inference_mode():
        expected = network.eval()(images)
        torch.testing.assert_close(for_inference(network, torch.float32)(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.parametrize("attention_placement", ["stage", "block"])
def test_gates_compile_in_place(attention_placement, gpu, exact):
    torch.manual_seed(0)
    network = ResNetCBAM(10, backbone="resnet18", attention_placement=attention_placement, dropout=0.0).to(gpu)
    network.to(memory_format=torch.channels_last)
    compiled = copy.deepcopy(network)
    compile_in_place(compiled, "gates")
    assert compiled.state_dict().keys() == network.state_dict().keys()
    images = torch.randn(8, 3, 64, 64, device=gpu).to(memory_format=torch.channels_last)
    results = []
    for each in (network, compiled):
        output = each(images)
        output.square().mean().backward()
        results.append([output.detach(), *(p.grad for p in each.parameters())])
    for expected, came in zip(*results, strict=True):
        torch.testing.assert_close(came, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:--trainer.max_epochs 1 ends inside a cosine cycle")
def test_the_random_stream_comes_back(gpu, data_root, run_folder, monkeypatch):
    """Dropout draws after a resume what it would have drawn, from the device's own stream."""
    drawn, step = [], ImageClassifier.training_step

    def note(self, batch, batch_idx):
        state = torch.cuda.get_rng_state(self.device) if gpu.type == "cuda" else torch.get_rng_state()
        drawn.append(state.tolist())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "training_step", note)
    words = ["fit", *RECIPE, *on(gpu), f"--data.root={data_root}", "--data.batch_size=16", "--model.restart_epochs=2"]
    main([*words, "--trainer.max_epochs=2", "--run_name=once"])
    once, drawn[:] = list(drawn), []
    main([*words, "--trainer.max_epochs=1", "--run_name=halves"])
    main([*words, "--trainer.max_epochs=2", "--run_name=halves", "--ckpt_path=last"])
    assert len(once) == 6
    assert drawn == once


def test_a_model_of_either_device_predicts_alike_on_both(gpu, data_root, run_folder):
    ways = {"one": ["--trainer.accelerator=cpu"], "other": on(gpu)}
    shared = [f"--data.root={data_root}", "--trainer.precision=32-true"]
    for trained, way in ways.items():
        epochs = ["--trainer.max_epochs=1", "--model.restart_epochs=1", f"--run_name={trained}"]
        main(["fit", *RECIPE, *shared, *epochs, *way])
        for file in ("checkpoints/best.ckpt", "model.safetensors"):
            probabilities = []
            for place, where in ways.items():
                words = [f"--ckpt_path=runs/{trained}/version_0/{file}", f"--prediction.path={trained}_{place}.csv"]
                main(["predict", *shared, *words, "--prediction.probabilities=true", *where])
                probabilities.append(np.load(f"{trained}_{place}_probabilities.npz")["probability"])
            np.testing.assert_allclose(*probabilities, rtol=1e-3, atol=1e-5)
