"""`detect data download`: public data sets fetched, checked, unpacked, as `--data.root` reads them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from rich.console import Console

from detect.data.public.http_file import fetch_with_progress
from detect.data.public.sets import Archive, DataSet
from detect.data.public.unpack import GB, unpack
from detect.data.splits import recognise
from detect.errors import InputError, RunStopped
from detect.system.files import write_atomically
from detect.system.output_folder import alone_in, new_folder, require_new


def download(data_set: DataSet, output: Path, *, keep_archives: bool = False) -> None:
    """Fetch, check and unpack a data set; the folder appears whole or not at all.

    What was fetched waits in OUTPUT.download until all is unpacked, so that a run which was stopped, by a
    break or by hand, resumes where it was.

    Args:
        data_set: one of `public_sets.DATA_SETS`.
        output: does not exist yet, or is an empty folder.
        keep_archives: leave OUTPUT.download in place at the end.

    Raises:
        InputError: `output` holds something, a file is not there or has another checksum, an archive is
            hostile or broken, or another process does the same.
        RunStopped: the connection failed, or the disk is full; run the same again.
    """
    console = Console(stderr=True, soft_wrap=True)
    output = require_new(output)
    waiting = output.with_name(f"{output.name}.download")
    console.print(f"from {data_set.page}\nlicence: {data_set.licence}", highlight=False, markup=False)
    with alone_in(waiting, "is downloading to"):
        try:
            for archive in data_set.archives:
                _have(archive, waiting, console)
            _unpack_all(data_set, waiting, output, console)
        except OSError as error:
            raise RunStopped(
                f"{error.strerror} ({error.filename or output}); what was fetched is kept in {waiting}, "
                "run the same command to resume",
                exit_code=3,
            ) from error
    if not keep_archives:
        shutil.rmtree(waiting)


def _have(archive: Archive, waiting: Path, console: Console) -> None:
    """Fetch one archive unless it is there, and compare it with its checksum."""
    target = waiting / archive.name
    if not target.exists():
        max_bytes = round(archive.download_gb * GB)
        fetch_with_progress(archive.url, target, max_bytes=max_bytes, console=console)
    algorithm, _, expected = (archive.checksum or "sha256:").partition(":")
    with target.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if expected and found != expected:
        target.unlink()
        raise InputError(
            f"{archive.url}: the file that came has the {algorithm} {found}, expected {expected}; it was "
            "deleted. Try again; if it stays so, the file was replaced or something on the way changes it"
        )
    verdict = "as published" if expected else "none is published"
    console.print(
        f"{archive.name}: {target.stat().st_size} bytes, {algorithm} {found} ({verdict})", highlight=False
    )


def _unpack_all(data_set: DataSet, waiting: Path, output: Path, console: Console) -> None:
    """All archives into one new folder, which must then be of a format that is known.

    An archive that cannot be unpacked and has no checksum is deleted: the next run fetches it again.
    """
    with new_folder(output) as folder:
        for archive in data_set.archives:
            source = waiting / archive.name
            with console.status(f"unpacking {archive.name}"):
                try:
                    count = unpack(source, folder, archive.select, limits=archive.limits)
                except InputError:
                    if archive.checksum is None:
                        source.unlink()
                    raise
            console.print(f"{archive.name}: {count} files unpacked", highlight=False)
        for name, content in data_set.extra_files.items():
            write_atomically(folder / name, content)
        recognise(folder)
