import io
import multiprocessing
import os
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images import location
from datamodules.images.cache import cache_key
from datamodules.images.location import member, open_content, shown
from datamodules.images.read import ImageReadError, read_image
from datamodules.path_array import PathArray


def content(path):
    with open_content(path) as file:
        return file.read()


@pytest.fixture
def archive(tmp_path):
    """A file of 3 MB in which the byte at each position is known, as if it were an archive."""
    path = tmp_path / "a.tar"
    path.write_bytes((np.arange(3_000_000) % 251).astype(np.uint8).tobytes())
    return str(path)


def expected(start, stop):
    return (np.arange(start, stop) % 251).astype(np.uint8).tobytes()


@pytest.mark.parametrize("name", ["cat/1.jpg", "a\nb 7.jpg", "größe.jpg", "\udcff.jpg"])
def test_a_location_is_text_that_fits_in_a_path_array_and_shows_no_number(archive, name):
    path = member(archive, name, 1000, 2000)
    assert PathArray([path])[0] == path
    assert shown(path) == f"{archive}/{name}"
    assert content(path) == expected(1000, 3000)
    assert location.size(path) == 2000
    assert location.file_of(path) == archive


def test_a_loose_file_is_its_own_location(archive):
    assert open_content(archive) == shown(archive) == location.file_of(archive) == archive
    assert location.size(archive) == 3_000_000
    assert location.size(f"{archive}.gone") == location.size(member(f"{archive}.gone", "1.jpg", 0, 1)) == -1
    assert location.size(member(archive, "1.jpg", 2_999_999, 2)) == -1


def test_a_member_reads_and_seeks_as_a_file_of_its_bytes_alone(archive):
    """The second implementation is ``io.BytesIO``."""
    ours, reference = open_content(member(archive, "1.jpg", 7, 2_500_000)), io.BytesIO(expected(7, 2_500_007))
    generator = np.random.default_rng(0)
    for _ in range(300):
        position, count = (int(number) for number in generator.integers(0, 2_600_000, 2))
        whence = int(generator.integers(0, 3))
        if whence:
            position -= 1_300_000
            position = max(position, -reference.tell() if whence == 1 else -2_500_000)
        assert ours.seek(position, whence) == reference.seek(position, whence)
        assert ours.read(count) == reference.read(count)
        assert ours.tell() == reference.tell()


def test_an_image_is_read_from_an_archive_as_from_its_file(tmp_path):
    paths = [tmp_path / name for name in ("1.jpg", "2.png", "3.webp", "4.bmp")]
    for path in paths:
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)).save(path)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in paths:
            tar.add(path, path.name)
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = [member(str(tmp_path / "a.tar"), info.name, info.offset_data, info.size) for info in tar]
    for path, packed in zip(paths, members, strict=True):
        assert read_image(packed, shorter_side=20).tobytes() == read_image(str(path), shorter_side=20).tobytes()


def test_an_error_names_the_member_and_no_number(archive):
    path = member(archive, "cat/1.jpg", 1000, 2000)
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"cannot read {archive}/cat/1.jpg (UnidentifiedImageError: cannot identify image file): replace or remove the "
        "file"
    )


def test_a_large_member_costs_no_memory(tmp_path):
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.truncate(40_000_000_000)  # sparse
    if getattr(os.stat(path), "st_blocks", 1e9) > 1_000_000:
        pytest.skip("the file system has no sparse files")
    with pytest.raises(ImageReadError, match="cannot identify image file"):
        read_image(member(str(path), "1.jpg", 512, 39_000_000_000))


def test_an_archive_that_has_changed_is_not_read_by_the_old_offsets(archive):
    path = member(archive, "1.jpg", 0, 10, os.stat(archive).st_mtime_ns)
    assert content(path) == expected(0, 10)
    os.utime(archive, ns=(1, 1))
    location._opened.cache_clear()
    with pytest.raises(ImageReadError, match="has changed since it was indexed"):
        read_image(path)
    os.truncate(archive, 5)
    with pytest.raises(OSError, match="has become shorter"):
        content(member(archive, "1.jpg", 0, 10))


def test_few_archives_are_open_at_a_time(tmp_path):
    open_files = Path("/proc/self/fd")
    if not open_files.exists():
        pytest.skip("only Linux lists the files that a process has open")
    before = len(list(open_files.iterdir()))
    for number in range(300):
        (tmp_path / f"{number}.tar").write_bytes(b"abc")
        assert content(member(str(tmp_path / f"{number}.tar"), "x", 1, 2)) == b"bc"
    assert len(list(open_files.iterdir())) <= before + location.MAX_HANDLES
    location._opened.cache_clear()
    assert len(list(open_files.iterdir())) <= before


def read_often(archive, seed):
    """Exits with 1 if bytes are not those of their place."""
    generator = np.random.default_rng(seed)
    for _ in range(300):
        start = int(generator.integers(0, 2_900_000))
        if content(member(archive, "x", start, 50_000)) != expected(start, start + 50_000):
            sys.exit(1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_processes_do_not_share_a_position(archive):
    assert content(member(archive, "x", 5, 10)) == expected(5, 15)  # open before the fork
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=read_often, args=(archive, seed)) for seed in (1, 2)]
    for process in processes:
        process.start()
    read_often(archive, 3)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_threads_do_not_share_a_position(archive):
    wrong = []

    def read(seed):
        generator = np.random.default_rng(seed)
        for start in generator.integers(0, 2_900_000, 300).tolist():
            if content(member(archive, "x", start, 20_000)) != expected(start, start + 20_000):
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_key_of_a_cache_changes_with_the_range_and_the_archive(archive):
    paths = [member(archive, "x", 0, 10), member(archive, "x", 1, 10), member(archive, "x", 0, 11), archive]
    keys = {cache_key([path], {}) for path in paths}
    assert len(keys) == 4
    later = time.time_ns() + 10**9
    os.utime(archive, ns=(later, later))
    assert keys.isdisjoint(cache_key([path], {}) for path in paths)


def test_names_of_the_same_bytes_have_one_identity(archive, tmp_path):
    one, two = member(archive, "a", 0, 10), member(archive, "b", 0, 10)
    assert location.identity(one) == location.identity(two) != location.identity(member(archive, "c", 10, 10))
    assert location.identity(archive) is None
    os.link(archive, tmp_path / "b.tar")
    assert location.identity(archive) == location.identity(str(tmp_path / "b.tar"))
