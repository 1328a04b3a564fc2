"""Trees of parameters as one vector each, so that what is done to every parameter is one operation, not hundreds.

Gradients, moments of the optimiser and averages are handled in this form. Networks and checkpoints have trees.
"""

import itertools
import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


class Layout(NamedTuple):
    """How the arrays of a tree follow each other in a vector."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]


class Vector(flax.struct.PyTreeNode):
    """The arrays of a tree, one behind the other: `values` `[N]`."""

    values: jax.Array
    layout: Layout = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, tree: Any) -> 'Vector':
        """Joins the arrays of a tree.

        Raises:
          ValueError: they have several types.
        """
        leaves, structure = jax.tree.flatten(tree)
        types = sorted({str(leaf.dtype) for leaf in leaves})
        if len(types) > 1:
            raise ValueError(f'expected arrays of one type, got {", ".join(types)}')
        join = np.concatenate if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp.concatenate
        return cls(join([leaf.reshape(-1) for leaf in leaves]), Layout(structure, tuple(leaf.shape for leaf in leaves)))

    def tree(self) -> Any:
        """The tree that `of` was given."""
        ends = [0, *itertools.accumulate(map(math.prod, self.layout.shapes))]
        return jax.tree.unflatten(self.layout.structure, [
            self.values[start:end].reshape(shape)
            for start, end, shape in zip(ends[:-1], ends[1:], self.layout.shapes, strict=True)])


def _is_vector(node: Any) -> bool:
    return isinstance(node, Vector)


def to_trees(state: Any) -> Any:
    """A tree in which the trees of all vectors take their place."""
    return jax.tree.map(lambda node: node.tree() if _is_vector(node) else node, state, is_leaf=_is_vector)


def to_vectors(state: Any, like: Any) -> Any:
    """The inverse of `to_trees`: vectors where `like` has some."""
    return jax.tree.map(lambda node, found: Vector.of(found) if _is_vector(node) else found, like, state,
                        is_leaf=_is_vector)
