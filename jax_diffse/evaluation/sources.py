"""A fingerprint of the code that results depend on, as part of the key of cached results."""

import ast
import functools
import hashlib
import pathlib
import sys
from collections.abc import Iterator

PACKAGE = pathlib.Path(__file__).parents[1]
# Folders and modules whose code can change an enhanced signal or a score; imports tell which of their files count.
ROOMS = ('audio', 'blocks', 'diffusion', 'inference', 'metrics', 'networks', 'platforms', 'spectral',
         'systems')
SHARED = ('inference.enhancer', 'metrics.scoring')  # used by every system


@functools.cache
def fingerprint(system: str = '') -> str:
    """A hash of the code that enhances with a system and scores, without comments and docstrings.

    Args:
      system: the module that defines the system; '': only the code that scores.
    """
    found: dict[pathlib.Path, ast.Module] = {}
    todo = list(SHARED) if system else ['metrics.scoring']
    if system.startswith('jax_diffse.'):
        todo.append(system.removeprefix('jax_diffse.'))
    elif getattr(sys.modules.get(system), '__file__', None):  # a system defined by the user
        _parse(pathlib.Path(sys.modules[system].__file__), found)
    while todo:
        name = todo.pop()
        path = _file(name)
        if path is not None and path not in found:
            todo += _imports(_parse(path, found))
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(ast.unparse(_without_docstrings(found[path])).encode())
    return digest.hexdigest()[:16]


def _parse(path: pathlib.Path, found: dict[pathlib.Path, ast.Module]) -> ast.Module:
    found[path] = ast.parse(path.read_text(encoding='utf-8'))
    return found[path]


def _file(name: str) -> pathlib.Path | None:
    """The file of a module, or of a name in it, if it is in `ROOMS`."""
    parts = name.split('.')
    if parts[0] not in ROOMS:
        return None
    for end in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:end])
        if path.with_suffix('.py').is_file():
            return path.with_suffix('.py')
        if (path / '__init__.py').is_file() and end == len(parts):
            return None if parts == ['systems'] else path / '__init__.py'  # systems/__init__.py imports all systems
    return None


def _imports(tree: ast.Module) -> Iterator[str]:
    """The names that a file imports from this package, without the package's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition('.')[0] == 'jax_diffse':
            inside = node.module.partition('.')[2]
            yield from (f'{inside}.{alias.name}'.strip('.') for alias in node.names)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
