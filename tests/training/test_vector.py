"""Trees of parameters as vectors, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_diffse.training.vector import Vector, to_trees, to_vectors

TREE = {'b': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)}, 'a': np.array(7, np.float32),
        'c': np.zeros((0, 2), np.float32)}


def test_a_vector_holds_the_arrays_in_the_order_of_the_tree():
    vector = Vector.of(TREE)
    assert isinstance(vector.values, np.ndarray)  # nothing is compiled for what lies on the host
    np.testing.assert_array_equal(vector.values, [7, 0, 1, 2, 3, 4, 5])
    jax.tree.map(np.testing.assert_array_equal, vector.tree(), TREE)


def test_what_holds_vectors_becomes_trees_and_vectors_again():
    state = {'params': {'trained': Vector.of(jax.tree.map(jnp.asarray, TREE)), 'frozen': TREE},
             'optimizer': optax.adam(0.1).init(Vector.of(TREE)), 'step': 3}
    trees = jax.jit(to_trees)(state)
    jax.tree.map(np.testing.assert_array_equal, trees['params'], {'trained': TREE, 'frozen': TREE})
    jax.tree.map(np.testing.assert_array_equal, trees['optimizer'], optax.adam(0.1).init(TREE))
    again = to_vectors(trees, state)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_the_gradient_of_a_vector_is_that_of_its_tree():
    def loss(tree):
        return jnp.sum(tree['b']['kernel'] ** 3) + 5 * tree['a']

    direct = jax.grad(loss)({key: jnp.asarray(value) if key != 'b' else jax.tree.map(jnp.asarray, value)
                             for key, value in TREE.items()})
    through = jax.grad(lambda vector: loss(vector.tree()))(Vector.of(jax.tree.map(jnp.asarray, TREE)))
    np.testing.assert_array_equal(through.values, Vector.of(direct).values)


def test_arrays_of_several_types_are_refused():
    with pytest.raises(ValueError, match='float32, int32'):
        Vector.of({'a': np.zeros(2, np.float32), 'b': np.zeros(2, np.int32)})
