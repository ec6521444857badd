"""The notebook does what it says, cell after cell."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "fit_look_predict.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_no_outputs_are_stored():
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in CODE)


@pytest.mark.processes
def test_the_cells_run_in_order(run_folder):
    plt.switch_backend("agg")
    names = {}
    try:
        for cell in CODE:
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        curves = [len(line.get_xdata()) for axis in plt.figure(1).axes for line in axis.lines]
        titles = [axis.get_title() for axis in plt.figure(2).axes]
    finally:
        plt.close("all")
    assert curves == [6, 6, 6, 6]  # epochs
    assert titles == [f"{row['label_1']}: {float(row['probability_1']):.2f}" for row in names["rows"][:6]]
    assert names["exported"].path == Path("export/model.onnx")
    assert names["exported"].path.is_file()
    found = names["compare"]("prediction.csv", "onnx.csv")
    assert (found.images, found.agreement) == (20, 1)
    best = max(names["scalars"]["val/accuracy"].values())
    assert best > 3 / 10  # three times chance
