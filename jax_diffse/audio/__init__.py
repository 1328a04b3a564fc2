"""Audio files as arrays on the host: reading, writing, resampling."""

from jax_diffse.audio.messages import cut_off
from jax_diffse.audio.reading import BLOCK, AudioInfo, blocks, decode, info, read
from jax_diffse.audio.resampling import num_resampled, resample
from jax_diffse.audio.writing import check_writable, clipped, write, writer

__all__ = ['BLOCK', 'AudioInfo', 'blocks', 'check_writable', 'clipped', 'cut_off', 'decode', 'info', 'num_resampled',
           'read', 'resample', 'write', 'writer']
