from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from detect.data.public.unpack import Limits, unpack
from detect.errors import InputError

ALL = "(.*)"
ROOM = Limits(files=20, gb=0.01)
Entries = list[tuple[str, bytes]]


def make_zip(path: Path, entries: Entries) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, entries: Entries, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_tgz(path: Path, entries: Entries) -> Path:
    return make_tar(path, entries, "w:gz")


Make = Callable[[Path, Entries], Path]
each_kind = pytest.mark.parametrize("make", [make_zip, make_tar, make_tgz])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An inner folder: what leaves it can be seen beside it."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


@each_kind
def test_unpack__selected__come_without_the_prefix(make: Make, tmp_path: Path, folder: Path) -> None:
    entries = [("top/a/1.txt", b"one"), ("top/a/", b""), ("top/2.txt", b""), ("__MACOSX/x", b"x")]
    assert unpack(make(tmp_path / "a", entries), folder, "top/(.*)", limits=ROOM) == 2
    assert files_in(folder) == {"a/1.txt": b"one", "2.txt": b""}


@each_kind
def test_unpack__doubled_slashes__stay_inside(make: Make, tmp_path: Path, folder: Path) -> None:
    archive = make(tmp_path / "x", [(f"top/{tmp_path}/evil", b"1"), ("./top//b", b"2")])
    assert unpack(archive, folder, "top/(.*)", limits=ROOM) == 2
    assert files_in(folder) == {f"{tmp_path}/evil"[1:]: b"1", "b": b"2"}
    assert not (tmp_path / "evil").exists()


@each_kind
@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "a/..",
        "/tmp/evil",
        "//evil",
        "C:/evil",
        "c:evil",
        "..\\evil",
        "a\\b",
        "a\nb",
        "a\x1b[2Jb",
        "x" * 256,
    ],
)
def test_unpack__path_that_can_leave__refuses_all(
    make: Make, tmp_path: Path, folder: Path, name: str
) -> None:
    archive = make(tmp_path / "a", [("good", b"1"), (name, b"evil"), ("better", b"2")])
    with pytest.raises(InputError, match="a path that can leave the folder"):
        unpack(archive, folder, ALL, limits=ROOM)
    assert files_in(tmp_path / "outer") == {}


@each_kind
def test_unpack__bad_path_that_is_not_selected__refuses_all(make: Make, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"holds '\.\./evil', a path"):
        unpack(make(tmp_path / "a", [("good", b"1"), ("../evil", b"")]), folder, "good()", limits=ROOM)


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_unpack__zip_with_links_or_devices__refuses_all(tmp_path: Path, folder: Path, mode: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", b"1")
        archive.writestr(info, "/etc")
        archive.writestr("link/passwd", b"evil")
    with pytest.raises(InputError, match="holds 'link', a link or a device"):
        unpack(tmp_path / "a.zip", folder, ALL, limits=ROOM)
    assert files_in(folder) == {}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_unpack__tar_with_links_or_devices__refuses_all(tmp_path: Path, folder: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        archive.addfile(info)
    with pytest.raises(InputError, match="holds 'link', a link or a device"):
        unpack(tmp_path / "a.tar", folder, ALL, limits=ROOM)
    assert files_in(folder) == {}


@each_kind
def test_unpack__bomb__refused_by_its_list(make: Make, tmp_path: Path, folder: Path) -> None:
    archive = make(tmp_path / "a", [(f"{i}", bytes(3_000_000)) for i in range(4)])
    with pytest.raises(InputError, match=r"more than the 20 files or 0\.01 GB"):
        unpack(archive, folder, ALL, limits=ROOM)
    assert files_in(folder) == {}


@each_kind
def test_unpack__too_many_files__refused(make: Make, tmp_path: Path, folder: Path) -> None:
    archive = make(tmp_path / "a", [(f"{i}", b"") for i in range(21)])
    with pytest.raises(InputError, match="more than the 20 files"):
        unpack(archive, folder, "0()", limits=ROOM)


def test_unpack__sparse_tar_of_a_terabyte__refused(tmp_path: Path, folder: Path) -> None:
    info = tarfile.TarInfo("huge")
    info.size = 10**12
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match=r"more than the 20 files or 0\.01 GB"):
        unpack(tmp_path / "a.tar", folder, ALL, limits=ROOM)


def test_unpack__zip_whose_list_lies_about_sizes__is_refused(tmp_path: Path, folder: Path) -> None:
    """Both places that name the size say 10 bytes; 3,000,000 follow."""
    archive = make_zip(tmp_path / "a.zip", [("bomb", bytes(3_000_000))])
    data = archive.read_bytes()
    archive.write_bytes(data.replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(InputError, match="cannot unpack"):
        unpack(archive, folder, ALL, limits=ROOM)
    assert sum(len(content) for content in files_in(folder).values()) <= 10


@each_kind
def test_unpack__existing_file__is_never_overwritten(make: Make, tmp_path: Path, folder: Path) -> None:
    (folder / "a").write_bytes(b"mine")
    with pytest.raises(InputError, match="'a' with another content than what is there already"):
        unpack(make(tmp_path / "x", [("a", b"evil")]), folder, ALL, limits=ROOM)
    assert files_in(folder) == {"a": b"mine"}


@each_kind
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unpack__equal_file_twice__counts_once(make: Make, tmp_path: Path, folder: Path) -> None:
    assert unpack(make(tmp_path / "x", [("a", b"same"), ("a", b"same")]), folder, ALL, limits=ROOM) == 1


@each_kind
def test_unpack__link_in_the_way__is_not_followed(make: Make, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    (folder / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="with another content"):
        unpack(make(tmp_path / "x", [("a", b"mine")]), folder, ALL, limits=ROOM)
    (folder / "b").symlink_to(tmp_path / "new")
    with pytest.raises(InputError, match="with another content"):
        unpack(make(tmp_path / "y", [("b", b"evil")]), folder, ALL, limits=ROOM)
    assert not (tmp_path / "new").exists()


@each_kind
def test_unpack__file_where_a_folder_should_be__is_refused(make: Make, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="'a/b' with another content"):
        unpack(make(tmp_path / "x", [("a", b"1"), ("a/b", b"2")]), folder, ALL, limits=ROOM)


@each_kind
def test_unpack__nothing_of_the_form__names_it(make: Make, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"holds nothing of the form data/\(\.\*\)"):
        unpack(make(tmp_path / "x", [("a", b"1")]), folder, "data/(.*)", limits=ROOM)


@each_kind
def test_unpack__cut_off__is_refused(make: Make, tmp_path: Path, folder: Path) -> None:
    archive = make(tmp_path / "x", [(f"{i}", bytes(range(256)) * 40) for i in range(9)])
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot unpack"):
        unpack(archive, folder, ALL, limits=ROOM)


def test_unpack__no_archive_at_all__is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "x.zip").write_text("<html>please log in</html>")
    with pytest.raises(InputError, match=r"cannot unpack .*x\.zip: ReadError"):
        unpack(tmp_path / "x.zip", folder, ALL, limits=ROOM)


def test_unpack__encrypted__is_refused(tmp_path: Path, folder: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a", b"1")])
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the local header's flag
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the list's
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot unpack .*encrypted"):
        unpack(archive, folder, ALL, limits=ROOM)
