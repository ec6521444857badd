"""What a step asks of its device; on a GPU the host would wait for each answer, and the GPU for the host."""

import pytest
import torch
from pytorch_lightning.loops.evaluation_loop import _EvaluationLoop
from pytorch_lightning.loops.fetchers import _PrefetchDataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scripts.main import main
from tests.conftest import SMALL

# Methods that bring values to the host, and operators whose kernel does so to know the shape of its result.
METHODS = {"cpu", "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__"}
OPERATORS = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique", "_unique2", "equal"}

# Options of a training step that are off in the reference recipe.
ALL_ON = [
    "--model.class_weights=balanced", "--model.label_smoothing=0.1", "--model.drop_path=0.2", "--model.ema_decay=auto",
    "--model.schedule=cosine", "--model.layer_decay=0.8", "--data.mixup_alpha=0.2", "--data.cutmix_alpha=1",
    "--data.random_erasing=0.5",
]  # fmt: skip


class Operators(TorchDispatchMode):
    def __init__(self, note):
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").split(".")[0]
        indices = tree_leaves(args[1:2]) if name.startswith("index") else []
        if name in OPERATORS or any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in indices):
            self.note(name)
        return function(*args, **(kwargs or {}))


class Methods(TorchFunctionMode):
    def __init__(self, note):
        super().__init__()
        self.note = note

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in METHODS:
            self.note(function.__name__)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch):
    """The waits of each step, by the loop it is of."""
    found, inside = {}, []

    def watch(owner, name, kind):
        function = getattr(owner, name)

        def watched(*args, **options):
            inside.append(kind)
            if kind:
                found.setdefault(kind, []).append([])
            try:
                return function(*args, **options)
            finally:
                inside.pop()

        monkeypatch.setattr(owner, name, watched)

    watch(_TrainingEpochLoop, "advance", "train")
    watch(_EvaluationLoop, "_evaluation_step", "validate")
    watch(_PrefetchDataFetcher, "__next__", "")  # which handles tensors of the host

    def note(name):
        if inside and inside[-1]:
            found[inside[-1]][-1].append(name)

    # As on a GPU, where the losses of some steps are looked at together
    monkeypatch.setattr(
        "callbacks.guards.finite_loss.agreement_is_due", lambda trainer, batch_idx: (batch_idx + 1) % 4 == 0
    )
    with Operators(note), Methods(note):
        yield found


@pytest.mark.filterwarnings("ignore:--trainer.max_epochs 1 ends inside a cosine cycle")
@pytest.mark.parametrize("options", [[], ALL_ON])
def test_a_step_waits_for_nothing_but_the_loss_of_some(options, data_root, run_folder, waits):
    # 48 training images are 6 batches, 24 validation images are 3.
    words = ["--data.batch_size=8", "--trainer.max_epochs=1", "--trainer.num_sanity_val_steps=0"]
    words += ["--trainer.gradient_clip_val=1", "--trainer.accumulate_grad_batches=2"]
    main(["fit", *SMALL, *words, *options, f"--data.root={data_root}"])
    assert waits == {"train": [[], [], [], ["__int__", "_local_scalar_dense"], [], []], "validate": [[], [], []]}
