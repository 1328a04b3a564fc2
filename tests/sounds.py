"""Sound files with the oddities of recorders, encoders and downloads, and readers that share no code with ours."""

import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

needs_ffmpeg = pytest.mark.skipif(not shutil.which('ffmpeg'), reason='ffmpeg is not installed')

# ISO 11172-3, table of MPEG-1 layer III
_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES = (44_100, 48_000, 32_000)


def sine(num_samples: int, rate: int = 44_100, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate)).astype(np.float32)


def mp3(path, samples, rate: int = 44_100, level: float = 0.5, tag: bool = True) -> bytes:
    """An MP3 of constant bit rate, the higher the lower `level`; without its first frame, the tag, on request."""
    with soundfile.SoundFile(path, 'w', rate, 1, format='MP3', compression_level=level,
                             bitrate_mode='CONSTANT') as file:
        file.write(samples)
    data = path.read_bytes()
    return data if tag else data[mpeg_frames(data)[1]:]


def mp3_in_wav(path) -> bytes:
    """A wav file with MP3 inside (format tag 0x55 of Microsoft's mmreg.h): a second at 44.1 kHz."""
    frames = mp3(path, sine(44_100), tag=False)
    header = b'WAVEfmt ' + struct.pack('<IHHIIHHHHIHHH', 30, 0x55, 1, 44_100, 16_000, 1, 0, 12, 1, 2, 417, 1, 1393)
    body = header + b'data' + struct.pack('<I', len(frames)) + frames
    return b'RIFF' + struct.pack('<I', len(body)) + body


def mpeg_frames(data: bytes) -> list[int]:
    """Where the frames of an MPEG-1 layer III stream without other tags begin (ISO 11172-3, section 2.4.1.3)."""
    at, found = 0, []
    while at + 4 <= len(data) and data[at] == 0xFF:
        kbps, rate, padding = _KBPS[data[at + 2] >> 4], _RATES[data[at + 2] >> 2 & 3], data[at + 2] >> 1 & 1
        found.append(at)
        at += 144_000 * kbps // rate + padding
    return found


def riff(samples: np.ndarray, riff_size: int | None = None, data_size: int | None = None, *, before: bytes = b'',
         after: bytes = b'', order: str = '<') -> bytes:
    """A wav file of 16 bits, at 16 kHz, with sizes as given; None: the right ones."""
    sound = (samples * 32767).astype(f'{order}i2').tobytes()
    body = (b'WAVEfmt ' + struct.pack(f'{order}IHHIIHH', 16, 1, 1, 16_000, 32_000, 2, 16) + before + b'data'
            + struct.pack(f'{order}I', len(sound) if data_size is None else data_size) + sound + after)
    magic = b'RIFF' if order == '<' else b'RIFX'
    return magic + struct.pack(f'{order}I', len(body) if riff_size is None else riff_size) + body


def with_bytes(path, at: int, new: bytes) -> None:
    """Overwrites bytes of a file."""
    data = bytearray(path.read_bytes())
    data[at:at + len(new)] = new
    path.write_bytes(data)


def ffmpeg(path, *options: str) -> np.ndarray:
    """What ffmpeg decodes, mono, float32 `[N]`."""
    done = subprocess.run(['ffmpeg', '-v', 'quiet', '-i', path, *options, '-ac', '1', '-f', 'f32le', '-'],
                          stdout=subprocess.PIPE)
    return np.frombuffer(done.stdout, np.float32)
