"""Logs a run to the terminal, TensorBoard, `log.jsonl` and, on request, Weights & Biases."""

import contextlib
import json
import os
import pathlib
import sys
import time

import numpy as np
import rich.console
import rich.progress

from jax_diffse import files
from jax_diffse.files import appended


class Logger:
    """Writes scalars, audio and spectrograms of a run; only the first process writes.

    Scalars also go to `WORKDIR/log.jsonl`, so that curves can be read without TensorBoard. In object storage, which
    cannot append, logs are new files every `PART_SECONDS` seconds; TensorBoard reads them in order.
    """

    def __init__(self, workdir, config, *, total_steps: int, first_step: int = 0, enabled: bool = True,
                 wandb_project: str = ''):
        self._enabled = enabled
        if not enabled:
            return
        workdir = files.path(workdir)
        self._board = _Board(workdir / 'tensorboard')
        self._lines = files.AppendedFile(workdir / 'log.jsonl')
        self._wandb = self._start_wandb(wandb_project, workdir, config)
        self._bar = None
        if sys.stdout.isatty():
            self._bar = rich.progress.Progress(
                *rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn('{task.fields[note]}'), console=rich.console.Console())
            self._task = self._bar.add_task('training', total=total_steps, completed=first_step, note='')
            self._bar.start()

    @staticmethod
    def _start_wandb(project, workdir, config):
        if not project:
            return None
        import wandb  # an optional dependency

        folder = None if files.is_address(workdir) else str(workdir)
        return wandb.init(project=project, dir=folder, config=config.to_dict(), resume='allow')

    def progress(self, step: int) -> None:
        if self._enabled and self._bar:
            self._bar.update(self._task, completed=step)

    def scalars(self, step: int, values: dict[str, float], text: str) -> None:
        """Logs scalars and shows `text`."""
        if not self._enabled:
            return
        writer = self._board.writer()
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        self._lines.write(json.dumps({'step': step, **values}) + '\n')
        if self._wandb:
            self._wandb.log(values, step=step)
        self.message(f'step {step}: {text}')

    def message(self, text: str) -> None:
        if not self._enabled:
            return
        if self._bar:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, flush=True)

    def audio(self, step: int, name: str, waveform: np.ndarray, sample_rate: int) -> None:
        """Logs a waveform `[N]` and its spectrogram in dB."""
        if not self._enabled:
            return
        peak = max(float(np.max(np.abs(waveform), initial=0.0)), 1e-9)
        writer = self._board.writer()
        writer.add_audio(name, waveform / max(peak, 1.0), step, sample_rate)
        writer.add_image(f'{name}_spectrogram', spectrogram_image(waveform), step, dataformats='HWC')

    def free_terminal(self) -> None:
        """Ends the progress bar, which hides the cursor."""
        if self._enabled and self._bar:
            self._bar.stop()

    def close(self) -> None:
        if not self._enabled:
            return
        self.free_terminal()
        self._board.close()
        self._lines.close()
        if self._wandb:
            self._wandb.finish()


class _Board:
    """Event files of TensorBoard. For an address they are written on this machine and uploaded once, when complete.

    The writer itself would keep all events in memory, and upload all of them anew at each flush.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder, self._begun, self._writer, self._count = folder, time.monotonic(), None, 0
        self._exits = contextlib.ExitStack()
        self._local = os.fspath(folder)
        if files.is_address(folder):
            self._local = os.fspath(self._exits.enter_context(files.temporary_folder()))
        self.writer()

    def writer(self):
        """The writer for the next events."""
        if files.is_address(self._folder) and time.monotonic() - self._begun >= appended.PART_SECONDS:
            self._finish_file()
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # Otherwise, files of the same second would have one name.
            self._writer = SummaryWriter(self._local, filename_suffix=f'.{self._count}')
            self._count += 1
        return self._writer

    def close(self) -> None:
        self._finish_file()
        self._exits.close()

    def _finish_file(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer, self._begun = None, time.monotonic()
        if files.is_address(self._folder):
            for file in pathlib.Path(self._local).iterdir():
                files.upload(file, self._folder / file.name)
                file.unlink()


def spectrogram_image(waveform: np.ndarray, n_fft: int = 512, floor_db: float = -80.0) -> np.ndarray:
    """Waveform `[N]` -> RGB image `[F, T, 3]`, float in [0, 1], low frequencies at the bottom."""
    import matplotlib

    waveform = np.pad(waveform, (0, max(0, n_fft - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, n_fft)[::n_fft // 4] * np.hanning(n_fft)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames)) + 1e-9)
    level = np.clip((level - level.max()) / -floor_db + 1, 0, 1)
    return matplotlib.colormaps['magma'](level.T[::-1])[..., :3]
