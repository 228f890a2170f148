import os

import pytest

from bncore.lab import files


def test_a_file_is_written_in_a_folder_that_did_not_exist(tmp_path):
    path = tmp_path / "a" / "b.bin"
    files.write_atomically(path, lambda file: file.write(b"123"))
    assert path.read_bytes() == b"123"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "b.bin"
    files.write_atomically(path, lambda file: file.write(b"old"))

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    files.write_atomically(path, write)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"ne")
        raise error

    with pytest.raises(error):
        files.write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_the_file_takes_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a)))
    files.write_atomically(tmp_path / "b.bin", lambda file: file.write(b"1"))
    assert calls == ["fsync", "replace", *(["fsync"] if os.name == "posix" else [])]


def test_a_file_can_be_read_by_whom_the_umask_lets(tmp_path):
    plain, path = tmp_path / "a", tmp_path / "b"
    plain.write_bytes(b"")
    files.write_atomically(path, lambda file: file.write(b""))
    assert plain.stat().st_mode == path.stat().st_mode


def test_only_the_parts_of_one_file_are_discarded(tmp_path):
    names = ("b.bin", ".c.bin.1.part", ".b.bin2.1.part", ".b.bin", "b.bin.part")
    keep = [tmp_path / name for name in names]
    for path in (*keep, tmp_path / ".b.bin.1.part", tmp_path / ".b.bin.2.part"):
        path.write_bytes(b"")
    files.discard_parts(tmp_path / "b.bin")
    assert sorted(tmp_path.iterdir()) == sorted(keep)
    files.discard_parts(tmp_path / "no folder" / "b.bin")
