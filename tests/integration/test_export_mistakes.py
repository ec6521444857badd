"""Mistakes in commands that make or read exports: one sentence each, before any work."""

from pathlib import Path


def test_mistakes(trained, data_root, run_folder, refusal):
    Path("graph.onnx").touch()
    Path("graph.xml").touch()
    (run_folder / "data").symlink_to(data_root)
    base = {"--ckpt_path": trained / "model.safetensors", "--data.root": "data", "--format": "onnx",
            "--precision": "fp32", "--output": "out"}  # fmt: skip
    for change, sentence in (
        ({"--precision": "bf16"}, "--format onnx has no precision bf16: choose --precision fp32 or fp16 or int8"),
        (
            {"--format": "safetensors", "--precision": "int8"},
            "choose --precision fp32 or fp16 or bf16, or --format onnx",
        ),
        ({"--format": "tflite"}, "invalid choice: 'tflite'"),
        ({"--max_drop": "1.5"}, "--max_drop must be a fraction between 0 and 1, got 1.5"),
        ({"--max_drop": "nan"}, "--max_drop must be a fraction between 0 and 1, got nan"),
        ({"--limit_mb": "0"}, "--limit_mb must be finite and above 0, got 0.0"),
        ({"--limit_mb": "0.5"}, "choose --precision fp16 (about 0.36 MB; safetensors, onnx, openvino)"),
        ({"--ckpt_path": "graph.onnx"}, "export starts from a .ckpt or .safetensors file, got graph.onnx"),
        ({"--ckpt_path": "gone.ckpt"}, "there is no file at gone.ckpt"),
        ({"--data.root": "gone"}, "gone"),
        ({"--output": ""}, "--output is empty: name a folder, such as out"),
        (
            {"--format": "safetensors", "--ckpt_path": trained / "checkpoints" / "best.ckpt", "--output": trained},
            "model.safetensors exists and is not an earlier exported model by cbam100, so it is not overwritten",
        ),
        ({"--output": "data/val/new"}, "lies in data/val"),
        ({"--output": "graph.onnx"}, "cannot create the folder graph.onnx"),
    ):
        assert sentence in refusal("export", *(word for option in (base | change).items() for word in option)), change
    for command in ("validate", "test", "explain", "fit"):
        more = ["--data.root=data"] if command != "explain" else [next((data_root / "test").iterdir()), "--output=maps"]
        for name in ("graph.onnx", "graph.xml"):
            error = refusal(command, f"--ckpt_path={name}", *more)
            assert f"{name} can only be used by cbam100 predict" in error, command
    assert not Path("maps").exists()
