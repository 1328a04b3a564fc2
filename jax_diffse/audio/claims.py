"""How many samples the headers of files claim, to tell files that are cut off."""

import re

import soundfile

from jax_diffse import files
from jax_diffse.audio import containers

FRAME = 1152  # samples of an MP3's frame; the tag's count may be wrong by one frame
# Encodings, with those of FLAC, in which reading from the middle gives the same samples as reading from the start.
SEEKABLE = ('PCM_S8', 'PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ULAW', 'ALAW')


def of_part(part: containers.Part, file: soundfile.SoundFile) -> int:
    """Samples that the bytes of the part claim; 0 if they claim no more than the part has."""
    if part.claimed > part.there:
        block, samples = (re.search(rf'{name} *: (\d+)', file.extra_info) for name in ('Block Align', 'Samples/Block'))
        if block and samples:
            claimed = part.claimed // int(block[1]) * int(samples[1])
        elif file.subtype in SEEKABLE and file.frames:
            return part.claimed // (part.there // file.frames)  # bytes of a sample of all channels
        else:
            claimed = file.frames * part.claimed // max(part.there, 1)
        return max(claimed, file.frames + 1)
    return part.claimed_samples or (max(file.frames - FRAME, 0) if part.tagged else 0)


# Containers whose claim is in libsndfile's log or in the first bytes of the file: the pattern of the claim, what it
# counts besides sound, and whether it counts bytes.
_CLAIMS = {
    'NIST': (r'sample_count -i (\d+)', 0, False),
    'AVR': (r'^\s*Frames\s*: (\d+)', 0, False),
    'MPC2K': (r'^\s*Frames\s*: (\d+)', 0, False),
    'SVX': (r'^\s*OneShotHiSamples\s*: (\d+)', 0, False),
    'WVE': (r'Data length (\d+) should be', 0, True),
    'MAT4': (r'truncated\. \d+ <--> (\d+)', 0, True),
    'MAT5': (r'(?s)Size : (\d+)(?!.*Size : )', 0, True),
    'VOC': (r'(?:Sound Data|Extended II)\s*: (\d+)', 13, True),
}
_WIDTH = {'PCM_16': 2, 'PCM_24': 3, 'PCM_32': 4, 'FLOAT': 4, 'DOUBLE': 8}  # bytes; others: 1


def of_header(path: str, content: files.StoredObject | None, file: soundfile.SoundFile) -> int:
    """Samples that the header of a rare container claims; 0 if it claims none."""
    if file.format not in _CLAIMS:
        return 0
    pattern, besides, in_bytes = _CLAIMS[file.format]
    text = file.extra_info
    if file.format == 'NIST':
        with open(path, 'rb') if content is None else content.open() as header:
            text = header.read(1024).decode('latin-1')
    found = re.search(pattern, text, re.MULTILINE if pattern.startswith('^') else 0)
    if not found:
        return 0
    claimed = int(found[1]) - besides
    return claimed // (file.channels * _WIDTH.get(file.subtype, 1)) if in_bytes else claimed
