"""``--help`` of fit, validate, test and predict: one screen of the most used options, and the others by topic."""

import re
import shutil
import textwrap
from collections.abc import Callable
from typing import NamedTuple

from pytorch_lightning.cli import ArgsType, LightningArgumentParser

from datamodules.files.errors import UserError

EVERYTHING = "all"
# Used where the first sentence of the option's own help is unclear, or does not hold here.
IN_OUR_WORDS = {
    "seed_everything": "Seed of the initial weights, the order of the images and their augmentation.",
    "data.root": "Folder that holds train, val and test, or the classes.",
    "data.labels": "CSV, TSV or JSONL file of image names, classes and perhaps splits.",
    "data.template": "CSV file whose rows are predicted; by default ROOT/sample_submission.csv, if it exists.",
    "trainer.accelerator": "cpu, gpu, or auto for a GPU if there is one.",
    "trainer.devices": "Number of GPUs, or of processes on the CPU; auto for all GPUs.",
    "trainer.precision": "Precision such as 32-true or bf16-mixed; by default chosen for this machine.",
    "trainer.max_epochs": "Number of training epochs.",
    "ckpt_path": "Trained model: best.ckpt or model.safetensors.",
    "predict.ckpt_path": "Trained model: a .ckpt, .safetensors, .onnx or .xml file.",
    "fit.ckpt_path": "Checkpoint to resume; last for the last.ckpt of --run_name.",
}


class Screen(NamedTuple):
    """First screen of a command's help; defaults and most of the texts come from the parser."""

    about: str
    options: str
    examples: tuple[str, ...]  # what follows the required options


LOADING = "data.batch_size data.num_workers trainer.accelerator trainer.devices"
EVALUATION = (f"ckpt_path data.root {LOADING}", ("", " --data.batch_size 64", " --trainer.accelerator cpu"))
SCREENS = {
    "fit": Screen(
        "Trains a classifier; writes everything to runs/<name>/version_<k>/.",
        "data.root data.labels data.image_size data.batch_size model.backbone model.weights model.learning_rate "
        "trainer.max_epochs trainer.devices trainer.precision seed_everything run_name ckpt_path",
        ("", " --model.backbone resnet18 --trainer.max_epochs 30 --run_name small", " --ckpt_path last"),
    ),
    "validate": Screen("Evaluates a trained model on ROOT/val, or on the images that its fit held out.", *EVALUATION),
    "test": Screen("Evaluates a trained model on ROOT/test/<class>/.", *EVALUATION),
    "predict": Screen(
        "Classifies the images of ROOT/test; writes prediction.csv and prediction.zip.",
        "ckpt_path data.root data.predict_dir data.template prediction.path prediction.top_k "
        f"prediction.fallback_label model.tta {LOADING}",
        ("", " --data.predict_dir holiday", " --model.tta hflip --prediction.top_k 5"),
    ),
}


def show_help(parser_of: Callable[[str], LightningArgumentParser], words: ArgsType) -> None:
    """Prints the help that ``words`` ask for, if any, with the parser that ``parser_of`` returns for a command.

    Raises:
        SystemExit: With 0, after the help.
        UserError: The word after ``--help`` is not a topic.
    """
    if not (isinstance(words, list) and words and words[0] in SCREENS):
        return
    command, *options = words
    asked = next((index for index, word in enumerate(options) if word in ("-h", "--help")), None)
    if asked is None:
        return
    topic = next((word for word in options[asked + 1 : asked + 2] if not word.startswith("-")), "")
    parser = parser_of(command)
    groups = parser.groups or {}
    first = ("data", "model", "trainer")  # ahead of Lightning's other groups
    topics = [*first, *(name for name in groups if name not in (*first, command))]
    if topic not in ("", EVERYTHING, *topics):
        choices = ", ".join(topics)
        raise UserError(f"{topic} is not a topic of --help: choose one of {choices} and {EVERYTHING}")
    if not topic:
        print(_screen(command, parser, topics))
    elif topic == EVERYTHING:
        parser.print_help()
    else:
        parser.usage = f"cbam100 {command} [options]"
        parser._action_groups = [groups[topic]]
        parser.print_help()
    raise SystemExit(0)


def _screen(command: str, parser: LightningArgumentParser, topics: list[str]) -> str:
    screen, defaults = SCREENS[command], parser.get_defaults()
    helps = {action.dest: action.help or "" for action in parser._actions}
    required = {"data.root": "DIR"} if command == "fit" else {"ckpt_path": "FILE", "data.root": "DIR"}
    rows = []
    for name in screen.options.split():
        value = "required" if name in required else "" if defaults[name] is None else str(defaults[name])
        text = IN_OUR_WORDS.get(f"{command}.{name}") or IN_OUR_WORDS.get(name) or _first_sentence(helps[name])
        rows.append((f"  --{name}", value, text))
    widths = [max(len(row[column]) for row in rows) + 2 for column in (0, 1)]
    width = min(max(shutil.get_terminal_size().columns, 60), 120)
    lines = []
    for name, value, text in rows:
        start = f"{name:<{widths[0]}}{value:<{widths[1]}}"
        lines += textwrap.wrap(start + text, width, subsequent_indent=" " * len(start))
    usage = " ".join(f"--{name} {metavar}" for name, metavar in required.items())
    example = usage.replace("FILE", "best.ckpt").replace("DIR", "photos")
    rest = f"Other options: cbam100 {command} --help TOPIC, where TOPIC is {', '.join(topics)} or {EVERYTHING}."
    return "\n".join(
        [
            f"usage: cbam100 {command} {usage}{' [--config FILE.yaml]' if command == 'fit' else ''} [options]",
            "",
            screen.about,
            "",
            "Most used options, with their defaults:",
            *lines,
            "",
            "Examples:",
            *(f"  cbam100 {command} {example}{more}" for more in screen.examples),
            "",
            *textwrap.wrap(rest, width),
        ]
    )


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.replace("``", "").split()))[0]
