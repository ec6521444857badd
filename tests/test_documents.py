"""What the documents tell a user to type is understood, and what the configs claim to be is what they are."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from scripts.ablation.arms import comparison, read_arms
from scripts.ablation.command import ablation_parser
from scripts.benchmark.command import benchmark_parser
from scripts.benchmark.gpu.command import gpu_parser
from scripts.main import COMMANDS as HELPED
from scripts.main import main

REPOSITORY = Path(__file__).parents[1]
CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))
ARMS = [path for path in CONFIGS if path.parent.name == "arms"]
OVERLAYS = [path for path in CONFIGS if path.stem != "default" and path not in ARMS]
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
# At the start of a line, of a YAML comment or of a table's row, or in backticks with at least one option.
COMMAND = r"^[# |`]*(?:srun )?(cbam100 [a-z].*?)(?:`|$)|`(cbam100 [a-z][^`…]* -[^`…]*)`"
LAUNCHER = r"^torchrun (?:.*\\\n)*.*-m scripts\.main"
COMMANDS = sorted(
    {
        line or inline
        for path in [*PAGES, *CONFIGS]
        for line, inline in re.findall(COMMAND, re.sub(LAUNCHER, "cbam100", path.read_text(), flags=re.M), re.M)
    }
)


def parse(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*shlex.split(command)[1:], "--print_config"])
    assert caught.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_commands_are_found():
    assert {command.split()[1] for command in COMMANDS} == set(HELPED)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--help" not in command])
def test_commands_are_understood(command, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    if command.startswith(("cbam100 audit ", "cbam100 pack ")):
        with pytest.raises(SystemExit):
            main(shlex.split(command)[1:])
        assert re.search("there is no folder at (ROOT|DIR)", capsys.readouterr().err)
    elif command.startswith("cbam100 benchmark "):
        words = shlex.split(command)[2:]
        (gpu_parser() if words[0] == "gpu" else benchmark_parser()).parse_args(words[words[0] == "gpu" :])
    elif command.startswith("cbam100 ablate "):
        options, fit = ablation_parser().parse_known_args(shlex.split(command)[2:])
        for arm in comparison(options.vary, options.arms, "alone" if options.folds else None)[0]:
            parse(shlex.join(["cbam100", "fit", *fit, *arm.flags]), capsys)
    elif command.startswith("cbam100 export "):
        with pytest.raises(SystemExit):
            main(shlex.split(command)[1:])
        assert "export starts from a .ckpt or .safetensors file, got FILE" in capsys.readouterr().err
    elif command.split()[1] in ("compare", "explain", "report", "serve"):
        port = ["--port=0"] if command.split()[1] == "serve" else []  # whatever runs on this machine
        with pytest.raises(SystemExit):
            main([*shlex.split(command)[1:], *port])
        missing = "there is no file at (FILE|runs)|is not the run folder of a fit|cannot read the table|must end in"
        assert re.search(missing, capsys.readouterr().err)
    else:
        parse(command, capsys)


def test_the_default_is_the_reference_recipe(capsys):
    config = parse("cbam100 fit --data.root ROOT", capsys)
    assert config["seed_everything"] == 42
    assert config["trainer"]["max_epochs"] == 50
    assert config["data"]["batch_size"] == 16
    assert config["data"]["image_size"] == 224
    recipe = {
        "backbone": "resnet50", "weights": "IMAGENET1K_V2", "attention": "cbam", "attention_placement": "stage",
        "attention_gate": "sigmoid", "reduction_ratio": 128, "spatial_kernel_size": 3, "dropout": 0.3, "loss": "focal",
        "focal_gamma": 2.0, "learning_rate": 1e-3, "weight_decay": 1e-4, "min_learning_rate": 1e-5,
        "restart_epochs": 10, "restart_multiplier": 2, "tta": "none",
    }  # fmt: skip
    off = {
        "schedule": "warm_restarts", "warmup_epochs": 0.0, "trunk_learning_rate_ratio": 1.0, "layer_decay": 1.0,
        "weight_decay_on": "all", "freeze_trunk_epochs": 0, "drop_path": 0.0, "class_weights": "none",
        "label_smoothing": 0.0, "ema_decay": 0.0, "temperature": "none", "compile": "none",
        "activation_checkpointing": False, "zero_init_residual": False,
    }  # fmt: skip
    assert config["model"] == recipe | off


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_holds_differences_only_and_opens_with_its_command(path):
    default = yaml.safe_load((REPOSITORY / "configs" / "default.yaml").read_text())
    for group, values in yaml.safe_load(path.read_text()).items():
        for name, value in values.items():
            assert default.get(group, {}).get(name) != value, f"{group}.{name} repeats the default"
    header = path.read_text().split("\n\n")[0].split("\ntrainer:")[0]
    assert f"--config {path.relative_to(REPOSITORY)}" in header


@pytest.mark.parametrize("path", ARMS, ids=lambda path: path.stem)
def test_a_file_of_arms_opens_with_its_command(path):
    assert read_arms(path)
    assert f"cbam100 ablate --arms {path.relative_to(REPOSITORY)} " in path.read_text().split("\n\n")[0]


def anchors(page):
    """The targets of a page's links to its own headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_option_of_ours_is_in_the_documents(capsys):
    config = parse("cbam100 fit --data.root ROOT", capsys)
    groups = ("data", "model", "best", "insight", "size_budget", "prediction")
    ours = {f"--{group}.{name}" for group in groups for name in config[group]}
    listed = set(re.findall(r"^\| `(--[a-z_.]+)` \|", (REPOSITORY / "docs" / "options.md").read_text(), re.M))
    derived = {"--data.class_names", "--data.seed", "--model.class_names"}  # from the data, or from --seed_everything
    assert listed - {"--run_name", "--seed_everything"} == ours - derived


def test_commits_are_checked_with_the_ruff_of_the_tests():
    (pinned,) = re.findall(r"^ruff==(.*)$", (REPOSITORY / "constraints.txt").read_text(), re.M)
    assert f"rev: v{pinned} " in (REPOSITORY / ".pre-commit-config.yaml").read_text()


def test_the_readme_has_its_figures():
    assert not re.findall(r"\b[A-Z]+_(?:ACCURACY|SECONDS|RATE)\b", (REPOSITORY / "README.md").read_text())
