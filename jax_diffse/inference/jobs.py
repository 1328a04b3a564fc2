"""The files to enhance and the paths of their results."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jax_diffse import audio_files, files
from jax_diffse.errors import UserError


class Job(NamedTuple):
    """One file to enhance."""

    path: pathlib.Path
    name: str  # below the output folder; also the utterance's id
    output: pathlib.Path
    noise: pathlib.Path | None
    processed: pathlib.Path | None = None  # another enhancer's output for it

    @property
    def inputs(self) -> list[pathlib.Path]:
        """The files that the result depends on."""
        return [path for path in (self.path, self.processed) if path]

    @property
    def outputs(self) -> list[pathlib.Path]:
        """The files to write."""
        return [path for path in (self.output, self.noise) if path]


def plan_jobs(inputs: Sequence[str | os.PathLike], output: str | os.PathLike, noise: str | os.PathLike | None = None,
         processed: str | os.PathLike | None = None) -> list[Job]:
    """Lists the files to enhance and their results; folders keep their structure below `output` and `noise`.

    Args:
      inputs: files and folders.
      output: folder of the results.
      noise: folder for the removed noise.
      processed: another enhancer's output: a file if `inputs` is one file, a folder if `inputs` is one folder. Files in
        folders are paired by name; extensions may differ. A job whose file has no partner has None.

    Raises:
      UserError: a folder without audio, two results of the same name, a result that would overwrite an input or lie
        among the inputs, or two possible partners of one name.
    """
    results = [files.path(folder) for folder in (output, noise) if folder]
    jobs = [Job(path, name, results[0] / name, results[1] / name if noise else None)
            for given in map(files.path, inputs) for path, name in _files(given, results)]
    used: Iterable[pathlib.Path] = ()
    if processed:
        partners = _partners(files.path(inputs[0]), files.path(processed), results)
        jobs, used = [job._replace(processed=partners.get(job.path)) for job in jobs], partners.values()
    _check_results(jobs, used)
    return jobs


def _partners(noisy: pathlib.Path, processed: pathlib.Path, results) -> dict[pathlib.Path, pathlib.Path]:
    """Noisy file -> its partner in `processed`, if any; prints how many files there have no noisy file."""
    if not files.is_folder(noisy) and not files.is_folder(processed):
        return {noisy: processed}
    if files.is_file(noisy) or files.is_file(processed):
        raise UserError(f'--noisy {noisy} and --processed {processed}: expected two folders, or two files')
    _check_outside(processed, results)
    ours, theirs = audio_files.by_name(noisy), audio_files.by_name(processed)
    partners = {path: theirs[name] for name, path in ours.items() if name in theirs}
    if not partners:
        raise UserError(f'{processed}: no file here has the name of one in {noisy}; files are paired by their path '
                        'below the folder, without extension')
    if len(theirs) > len(partners):
        print(f'{processed}: {len(theirs) - len(partners)} of {len(theirs)} files have no partner in {noisy} and are '
              'not used')
    return partners


def _check_results(jobs: Sequence[Job], partners: Iterable[pathlib.Path]) -> None:
    """Checks that no result overwrites an input, one of the inputs' partners, or another result."""
    taken: dict[str, pathlib.Path] = {}
    originals = {identity: path for path in (*(job.path for job in jobs), *partners) if (identity := _identity(path))}
    for job in jobs:
        for result in job.outputs:
            if not files.is_address(result) and os.path.isdir(result):
                raise UserError(f'{result}: is a folder, expected the place of a file; choose another output folder')
            if _identity(result) in originals:
                raise UserError(f'{result}: would overwrite the input {originals[_identity(result)]}; choose another '
                                'output folder')
            where = str(files.resolved(result))
            if where in taken:
                raise UserError(f'{result}: both {taken[where]} and {job.path} would be written here; use a '
                                'different output folder for each')
            taken[where] = job.path


def _identity(path: pathlib.Path) -> str | tuple[int, int] | None:
    """A key that is equal for all links, symbolic and hard, to one file; None if there is no such file."""
    if files.is_address(path):
        return str(path)
    if not os.path.exists(path):
        return None
    status = path.stat()
    return status.st_dev, status.st_ino


def _files(given: pathlib.Path, results) -> list[tuple[pathlib.Path, str]]:
    if not files.is_folder(given):
        return [(given, given.name)]
    _check_outside(given, results)
    found = _without_results(audio_files.find(given), results)
    if not found:
        raise UserError(f'{given}: no audio files in this folder')
    return [(path, path.relative_to(given).as_posix()) for path in found]


def _without_results(found: Sequence[pathlib.Path], results: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The files without results of an earlier call, to which links may lead."""
    places = set(map(files.resolved, results))

    def among_results(folder):
        where = files.resolved(folder)
        return bool(places & {where, *where.parents})

    left_out = {folder for folder in {path.parent for path in found} if among_results(folder)}
    return [path for path in found if path.parent not in left_out]


def _check_outside(given: pathlib.Path, results: Sequence[pathlib.Path]) -> None:
    for result in results:
        where = files.resolved(result)
        if files.resolved(given) in (where, *where.parents):
            raise UserError(f'{result}: is or lies in the input folder {given}, where a second call would enhance '
                            'results again; choose a folder outside it')
