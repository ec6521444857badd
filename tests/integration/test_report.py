import csv
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from scripts.main import main
from scripts.report import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(trained, data_root, tmp_path):
    run = tmp_path / "runs" / "default" / "version_0"
    shutil.copytree(trained, run)
    page = report(run=str(run))
    assert page == run / "report.html"
    return page


class References(html.parser.HTMLParser):
    """What a page refers to, and its tables' cells."""

    def __init__(self):
        super().__init__()
        self.found, self.ids, self.cells = [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.ids.append(attributes.get("id"))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_the_page_holds_everything_and_says_what_the_fit_measured(page, trained, data_root):
    text = page.read_text()
    references = References()
    references.feed(text)
    pictures = [reference for reference in references.found if reference.startswith("data:image/png")]
    assert len(pictures) >= 14  # 6 of the page's own, 8 attention maps
    for reference in references.found:
        assert reference.startswith("data:") or reference.removeprefix("#") in references.ids
    assert f"<h1>{page.parent}</h1>" in text
    assert "labels" not in references.ids  # which need probabilities
    assert "@import" not in text
    assert "url(" not in text
    best = json.loads((trained / "manifest.json").read_text())["best"]
    assert f"<b>{100 * best['val/accuracy']:.2f} %</b>" in text
    assert f"<b>{best['val/nll']:.3f}</b>" in text
    assert f"<b>{best['val/ece']:.3f}</b>" in text
    classes = {path.name for path in (data_root / "train").iterdir()}
    assert {"model.focal_gamma", "2.0", "torch"} | classes <= {cell.strip() for cell in references.cells}
    assert "@media print" in text


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine: the page is not looked at in a browser")
def test_a_browser_shows_and_prints_the_page(page, tmp_path):
    browser = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
               f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    probe = tmp_path / "probe.html"  # the page, and what the browser made of it in its title
    script = """<script>addEventListener("load", () => { document.title = JSON.stringify({
        broken: [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length,
        images: document.images.length,
        wide: document.documentElement.scrollWidth > document.documentElement.clientWidth }); });</script>"""
    probe.write_text(page.read_text() + script)
    dom = subprocess.run([*browser, "--window-size=900,1200", "--dump-dom", probe.as_uri()], capture_output=True,
                         text=True, timeout=300, check=True).stdout  # fmt: skip
    seen = json.loads(re.search("<title>(.*?)</title>", dom)[1].replace("&quot;", '"'))
    assert seen["broken"] == 0
    assert seen["images"] >= 14
    assert not seen["wide"]
    pdf = tmp_path / "report.pdf"
    subprocess.run([*browser, f"--print-to-pdf={pdf}", page.as_uri()], capture_output=True, timeout=300, check=True)
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.stat().st_size > 100_000  # with its pictures


@pytest.fixture
def out_of_fold(data_root, tmp_path):
    """Probabilities by which every image belongs to class 1."""
    images = sorted((data_root / "train").rglob("*.jpg"))
    classes = sorted(path.name for path in (data_root / "train").iterdir())
    rows = [["image_name", "label", "fold", *(f"p({name})" for name in classes)]]
    rows += [
        [f"{x.parent.name}/{x.name}", x.parent.name, "0", *(str(float(c == "1")) for c in classes)] for x in images
    ]
    file = tmp_path / "runs" / "out_of_fold.csv"  # of an arm, whose run is default/version_0
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(",".join(row) + "\n" for row in rows))
    return file


def test_labels_to_check(out_of_fold, trained, tmp_path):
    run = tmp_path / "runs" / "default" / "version_0"
    shutil.copytree(trained, run)
    page = report(run, out_of_fold=out_of_fold)
    # The threshold of class 1 is 1 and that of the others 0, so that the 44 images of the others reach both.
    text = " ".join(page.read_text().split())
    assert "doubts the labels of 44 of 48 training images (91.7 %)" in text
    assert "put 8.3 % of all images into the class of their label" in text
    with open(run / "labels_to_check.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 49)]
    assert sum(row["doubted"] == "1" for row in rows) == 44
    references = References()
    references.feed(page.read_text())
    assert "labels" in references.ids
    assert rows[23]["image_name"] in references.cells  # the last one shown
    assert rows[24]["image_name"] not in references.cells


def test_labels_to_check_mistakes(out_of_fold, trained, data_root, tmp_path, refusal):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    words = ["report", "--run", run, "--out_of_fold"]
    assert "cannot read" in refusal(*words, tmp_path / "none.csv")
    (run / "labels_to_check.csv").write_text("my own notes\n")
    assert "not an earlier table of labels to check by cbam100" in refusal(*words, out_of_fold)
    assert (run / "labels_to_check.csv").read_text() == "my own notes\n"
    assert not (run / "report.html").exists()


def test_mistakes(trained, tmp_path, refusal):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("/root", "/gone"))
    (tmp_path / "empty").mkdir()
    for words, sentence in (
        (["--run", str(tmp_path / "empty")], "not the run folder of a fit, as its manifest.json"),
        (["--run", str(run)], "there is no folder at"),
        ([], "--run"),
    ):
        assert sentence in refusal("report", *words)


def test_data_that_have_changed(trained, data_root, tmp_path, refusal):
    run, root = tmp_path / "run", tmp_path / "root"
    shutil.copytree(trained, run)
    shutil.copytree(data_root, root)
    image = next((root / "val").rglob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"\0")
    error = refusal("report", "--run", run, "--data.root", root)
    assert "does not hold the 24 validation images of the run" in error


def test_the_function_raises(tmp_path):
    with pytest.raises(UserError, match=r"not the run folder of a fit, as its manifest\.json"):
        report(tmp_path)


def test_data_that_have_moved(trained, data_root, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("/root", "/gone"))
    main(["report", "--run", str(run), "--data.root", str(data_root)])
    assert (run / "report.html").exists()
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "report.html")


@pytest.mark.parametrize("content", [b"", b"abc", b"- a\n", b"\xff\xfe\x00", b"seed_everything: 42\ntrai"])
def test_damaged_settings_are_told(content, trained, tmp_path, refusal):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "config.yaml").write_bytes(content)
    assert "config.yaml" in refusal("report", "--run", run)
