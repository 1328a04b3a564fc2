"""The enhancer that comes with the package, a small streaming DCCRN: used where no run is named.

`runs.load` takes its name, `NAME`, like the folder of a run. CREDITS.txt names the recordings that it was trained on
and their authors; docs/pretrained.md is its card.
"""

from jax_diffse.pretrained.storage import FOLDER, NAME, NOTICE, is_packaged, or_packaged, read, write

__all__ = ['FOLDER', 'NAME', 'NOTICE', 'is_packaged', 'or_packaged', 'read', 'write']
