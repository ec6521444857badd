import inspect
import re
import shlex

import pytest
import yaml

from datamodules import ImageFolderDataModule
from lightning_modules import ImageClassifier
from scripts.help_screen import SCREENS
from scripts.main import main


def shown(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main([*words])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", SCREENS)
def test_the_help_is_one_screen(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(capsys, command, "--help")
    assert text.startswith(f"usage: cbam100 {command} ")
    assert text.count("\n") < 45
    assert max(len(line) for line in text.splitlines() if not line.startswith("  cbam100")) <= 80
    assert "--help TOPIC, where TOPIC is data, model, trainer" in " ".join(text.split())
    assert shown(capsys, command, "--data.root=anywhere", "-h") == text


def test_defaults_are_those_of_a_fit(capsys):
    config = yaml.safe_load(shown(capsys, "fit", "--data.root=photos", "--print_config"))
    text = shown(capsys, "fit", "--help")
    for name in SCREENS["fit"].options.split():
        group, _, option = name.rpartition(".")
        value = (config[group] if group else config)[option]
        value = "required" if name == "data.root" else "" if value is None else value
        assert re.search(rf"^  --{re.escape(name)} +{re.escape(str(value))} ", text, re.M), name


@pytest.mark.parametrize("command", SCREENS)
def test_examples_are_understood(command, capsys):
    examples = re.findall(r"^  cbam100 (.*)", shown(capsys, command, "--help"), re.M)
    assert len(examples) == 3
    for example in examples:
        words = shlex.split(example)
        assert words[0] == command
        assert yaml.safe_load(shown(capsys, *words, "--print_config"))["data"]["root"] == "photos"


def test_a_topic_shows_its_options_alone(capsys):
    text = shown(capsys, "fit", "--help", "data")
    assert "--data.max_pixels" in text
    assert "--trainer" not in text
    assert "--trainer.profiler" in shown(capsys, "predict", "--help", "trainer")


@pytest.mark.parametrize(("topic", "part"), [("model", ImageClassifier), ("data", ImageFolderDataModule)])
def test_a_topic_tells_what_the_docstring_says_of_an_option(topic, part, capsys):
    """Not what it says of an attribute of the same name."""
    text = " ".join(shown(capsys, "fit", "--help", topic).split())
    options = inspect.getdoc(part).partition("Args:")[2].partition("\n\n")[0]
    for name, start in re.findall(r"^    (\w+): (\S+ \S+)", options, re.M):
        if (topic, name) not in (("model", "class_names"), ("data", "seed")):  # which are set by others
            assert start in text.partition(f"--{topic}.{name} ")[2].partition("type: ")[0], name


def test_all_shows_every_option(capsys):
    text = shown(capsys, "fit", "--help", "all")
    for option in ("--trainer.profiler", "--model.tta", "--data.max_pixels", "--insight.every_n_epochs", "--run_name"):
        assert re.search(rf"^  {option} ", text, re.M)


def test_another_topic_is_refused(refusal):
    error = refusal("fit", "--help", "dance")
    assert "dance is not a topic of --help: choose one of data, model, trainer," in error
