"""A folder of files whose names are a trial for archives; none is decoded, so that any bytes will do."""

import hashlib
import os
import tarfile

NAMES = (
    "train/cat/1.jpg",
    "train/cat/2.PNG",
    "train/cat/10.jpg",  # after 2
    f"train/cat/{'deep/' * 30}{'n' * 120}.jpg",  # longer than USTAR allows
    "train/dög/ø.jpg",
    "train/dög/" + os.fsdecode(b"caf\xe9.jpg"),
    "train/10/a b.jpg",
    "train/9/'\n.webp",
    "test/later/2.jpg",
    "test/1.jpg",
)
PASSED_OVER = ("train/cat/notes.txt", "train/cat/.hidden.jpg", "test/list.csv", "sample_submission.csv")


def content_of(name):
    """Bytes that no other name has; 100 to 2600 of them, so that some end inside a block."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return digest * (4 + digest[0] % 78)


def make(root, names=(*NAMES, *PASSED_OVER)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(name))
    return root


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def members(path):
    with tarfile.open(path, encoding="utf-8") as archive:
        return [info.name for info in archive]
