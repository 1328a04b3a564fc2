"""The rounding errors of networks and losses: float32 against float64, and bfloat16 against float32.

Errors are relative, |a - b| / |b| in the Euclidean norm over all numbers of a result, or of a gradient with respect to
all parameters (of a loss: to the estimate). The same float32 weights and inputs, from fixed seeds, go into all of them.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.diffusion import gmm
from jax_diffse.losses import adversarial, log_mel, multi_resolution, pmsqe, regression, released, waveform
from jax_diffse.networks import segan
from jax_diffse.networks.compact_unet import CompactUNet, CompactUNetConfig
from jax_diffse.networks.dccrn import Dccrn
from jax_diffse.networks.gmm_unet import GmmUNet, GmmUNetConfig
from jax_diffse.networks.guided_unet import GuidedUNet, UNetConfig
from jax_diffse.networks.nisqa import NISQA_TTS, NISQA_V2, Nisqa
from jax_diffse.networks.two_branch_unet import ConditionalUNet, TwoBranchUNet
from tests.reference import random_variables

SINGLE, DOUBLE, HALF = 'float32', 'float64', 'bfloat16'


# --------------------------------------------------------------------------------------------------------- precision


@contextlib.contextmanager
def double():
    """In it the library computes in float64: where its code says float32, for parameters and statistics, it gets that.

    Tables that NumPy rounds to float32 stay as they are, so that they are the same on both sides.
    """
    def dtype(name):
        return np.dtype(DOUBLE if name == SINGLE else name)

    def widened(method, args, kwargs, context):
        if getattr(context.module, 'dtype', None) == np.float32:  # the default, from when its class was made
            object.__setattr__(context.module, 'dtype', np.float64)
        return method(*args, **kwargs)

    with (jax.enable_x64(True), mock.patch.object(jnp, 'float32', jnp.float64), mock.patch.object(jnp, 'dtype', dtype),
          nn.intercept_methods(widened)):
        yield


def wide(tree):
    """Floating-point arrays as float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype.kind == 'f' else np.asarray(x), tree)


def relative(actual, expected) -> float:
    """|actual - expected| / |expected| over all leaves."""
    pairs = [tuple(np.asarray(x).astype(np.float64).ravel() for x in pair)
             for pair in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)]
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# ------------------------------------------------------------------------------------------------------------- cases


@dataclasses.dataclass(frozen=True)
class Case:
    """A network or a loss."""

    make: Callable[[str], Callable]  # dtype -> function (differentiable, *others)
    arguments: Callable[[], tuple[Any, ...]]  # float32
    trained: bool = True  # has a gradient that is used
    halves: bool = True  # can be computed in bfloat16

    def results(self, dtype: str) -> tuple[Any, Any]:
        """The result and, where it is trained, the gradient of its product with fixed weights."""
        function, arguments = self.make(dtype), self.arguments()

        def both(first, *others):
            if not self.trained:
                return function(first, *others), ()
            y, pull = jax.vjp(lambda first: function(first, *others), first)
            probe = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
            return y, pull(jnp.asarray(probe, y.dtype))[0]

        if dtype != DOUBLE:
            return jax.device_get(jax.jit(both)(*arguments))
        with double():
            return jax.device_get(jax.jit(both)(*wide(arguments)))


@dataclasses.dataclass(frozen=True)
class Errors:
    """Of a case; None where there is nothing to measure."""

    forward: float  # float32 against float64
    gradient: float | None = None
    half_forward: float | None = None  # bfloat16 against float32
    half_gradient: float | None = None


@functools.cache
def measure(name: str, gradients: bool = True) -> Errors:
    """Computes a case in every precision."""
    case = CASES[name] if gradients else dataclasses.replace(CASES[name], trained=False)
    single, exact = case.results(SINGLE), case.results(DOUBLE)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(exact))
    errors = [relative(a, b) if jax.tree.leaves(b) else None for a, b in zip(single, exact)]
    if case.halves:
        errors += [relative(a, b) if jax.tree.leaves(b) else None for a, b in zip(case.results(HALF), single)]
    return Errors(*errors)


def _network(module: Callable[[Any], nn.Module], *inputs, train: bool = False, trained: bool = True,
             halves: bool = True, slope: float = 1.0) -> Case:
    """`module(dtype)` on inputs, shapes of noise or arrays; in training, batch statistics are the batch's.

    `slope` is that of all PReLUs, by default without a kink: a value that rounds to the other side of zero has another
    derivative, and a few of these would hide everything else.
    """
    def given():
        rng = np.random.default_rng(1)
        return [rng.standard_normal(x).astype(np.float32) if isinstance(x, tuple) else np.asarray(x) for x in inputs]

    def make(dtype):
        built = module(dtype)

        def apply(params, rest, *inputs):
            variables = {'params': params, **rest}
            if train:
                return built.apply(variables, *inputs, train=True, mutable=['batch_stats'])[0]
            return built.apply(variables, *inputs)

        return apply

    def arguments():
        shapes = jax.eval_shape(module(SINGLE).init, jax.random.key(0), *given())
        params, rest = (random_variables(part) for part in (
            shapes['params'], {name: tree for name, tree in shapes.items() if name != 'params'}))
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: np.full_like(leaf, slope) if path[-1].key == 'slope' else leaf, params)
        return params, rest, *given()

    return Case(make, arguments, trained, halves)


def _loss(function, *, shape=(2, 4000), estimate=None, target=None) -> Case:
    """Of an estimate that is the target in noise of half its level; `estimate` and `target` map them before.

    Losses compute in float32: half is an estimate, and its gradient, that round to bfloat16 on their way.
    """
    def arguments():
        rng = np.random.default_rng(2)
        clean, noise = 0.1 * rng.standard_normal((2, *shape))
        pair = clean + 0.5 * noise, clean
        return tuple(np.asarray(f(x) if f else x, np.float32) for f, x in zip((estimate, target), pair))

    def make(dtype):
        if dtype != HALF:
            return function
        return lambda estimate, *others: function(jax.lax.reduce_precision(estimate, 8, 7), *others)

    return Case(make, arguments)


def _positive(x):
    return np.abs(10 * x)


LENGTHS = np.array([3, 2])  # frames or segments of a batch of two
SPEC = (2, 12, 161, 2)
STEPS = np.array([3.0, 150.0], np.float32)
GUIDED = {'channels': 8, 'multipliers': (1, 2), 'blocks': 1, 'attention': (2,), 'heads': 2, 'groups': 4}
GMM = {'components': 3, 'widths': (4, 8), 'blocks': 1, 'kernel': 5, 'groups': 2}


def _dtype(name):
    return jnp.dtype(name)


def _two_branch(name):
    return TwoBranchUNet(4, 1, dtype=_dtype(name))


def _configured(module, config, **fields):
    """A network whose config has the dtype; the double one is made of 'float32', see `double`."""
    return lambda dtype: module(config(**fields, dtype=SINGLE if dtype == DOUBLE else dtype))


NETWORKS = {
    'TwoBranchUNet': _network(_two_branch, SPEC, np.array([12, 7]), train=True),
    'TwoBranchUNet, slopes of 0.25': _network(_two_branch, SPEC, np.array([12, 7]), train=True, slope=0.25),
    'ConditionalUNet, DiffuSE': _network(lambda d: ConditionalUNet(True, 4, 1, dtype=_dtype(d)), SPEC, SPEC, STEPS,
                                         np.array([12, 7]), train=True),
    'ConditionalUNet, DiffuSEC': _network(lambda d: ConditionalUNet(False, 4, 1, dtype=_dtype(d)), SPEC, SPEC, STEPS,
                                          np.array([12, 7]), train=True),
    'GuidedUNet': _network(_configured(GuidedUNet, UNetConfig, **GUIDED), (2, 8, 8, 2), STEPS),
    'CompactUNet': _network(_configured(CompactUNet, CompactUNetConfig), (2, 16, 16, 2), STEPS),
    'GmmUNet': _network(_configured(GmmUNet, GmmUNetConfig, **GMM), (2, 640), (2, 640),
                        np.array([0.1, 0.9], np.float32), np.array([640, 500])),
    'Dccrn': _network(lambda d: Dccrn((4, 8), lstm_units=8, dtype=_dtype(d)), (2, 20, 33, 2), np.array([20, 13]),
                      train=True),
    'Dccrn, complex norm': _network(lambda d: Dccrn((4, 8), 'real', 8, norm='complex', dtype=_dtype(d)),
                                    (2, 20, 33, 2), np.array([20, 13]), train=True),
    'segan.Generator': _network(lambda d: segan.Generator((4, 8, 8), dtype=_dtype(d)), (2, 512)),
    'segan.Discriminator': _network(lambda d: segan.Discriminator((4, 8, 8), dtype=_dtype(d)), (2, 512), (2, 512),
                                    train=True),
    'Nisqa, v2': _network(lambda d: Nisqa(NISQA_V2), (2, 3, 15, 48), LENGTHS, trained=False, halves=False),
    'Nisqa, TTS': _network(lambda d: Nisqa(NISQA_TTS), (2, 3, 15, 48), LENGTHS, trained=False, halves=False),
}

SHORT, CEPSTRA = (2, 12, 20, 2), (2, 12, 257)
ALL = jnp.array([True, True])
LOSSES = {
    'regression.complex_mse': _loss(regression.complex_mse, shape=SHORT),
    'regression.magnitude_mse': _loss(regression.magnitude_mse, shape=SHORT),
    'regression.ri_mag': _loss(regression.ri_mag, shape=SHORT),
    'adversarial.discriminator': _loss(adversarial.discriminator, shape=(2, 50)),
    'adversarial.generator': _loss(lambda estimate, target: adversarial.generator(estimate), shape=(2, 50)),
    'waveform.mse': _loss(waveform.mse), 'waveform.l1': _loss(waveform.l1), 'waveform.sdr': _loss(waveform.sdr),
    'waveform.si_sdr': _loss(waveform.si_sdr), 'waveform.si_snr': _loss(waveform.si_snr),
    'log_mel.log_mel_rmse': _loss(log_mel.log_mel_rmse, shape=CEPSTRA, estimate=_positive, target=_positive),
    'log_mel.log_mel_rmse, power': _loss(functools.partial(log_mel.log_mel_rmse, power=True), shape=CEPSTRA,
                                         estimate=_positive, target=_positive),
    'multi_resolution': _loss(lambda *pair: multi_resolution.multi_resolution(
        *(10 * x for x in pair), jnp.array([4000, 3000]))),
    'pmsqe.pmsqe_of_waveforms': _loss(pmsqe.pmsqe_of_waveforms),
    'pmsqe.pmsqe_released': _loss(pmsqe.pmsqe_released),
    'released.sdr': _loss(released.sdr), 'released.si_snr_of_pieces': _loss(released.si_snr_of_pieces),
    'released.si_sdr_of_batch': _loss(lambda *pair: released.si_sdr_of_batch(*pair, ALL, None)),
    'gmm.log_density': _loss(lambda parameters, value: gmm.log_density(gmm.mixture(parameters), value[0, 0]),
                             shape=(3, 5, 2, 100)),
}
CASES: Mapping[str, Case] = NETWORKS | LOSSES
COLUMNS = {'forward': 'float32', 'gradient': 'float32, gradient', 'half_forward': 'bfloat16',
           'half_gradient': 'bfloat16, gradient'}  # fields of `Errors`, and what a table calls them
SLOW = ('TwoBranchUNet, slopes of 0.25', 'ConditionalUNet, DiffuSE', 'ConditionalUNet, DiffuSEC', 'CompactUNet',
        'Dccrn, complex norm')  # to compile with their gradients
# About four times the measured errors; in bfloat16, two and a half times.
LIMITS: Mapping[str, Errors] = {
    'TwoBranchUNet': Errors(3e-06, 6e-06, 5e-02, 9e-02),
    'TwoBranchUNet, slopes of 0.25': Errors(5e-06, 3e-05, 6e-02, 1e+00),
    'ConditionalUNet, DiffuSE': Errors(3e-06, 6e-06, 4e-02, 8e-02),
    'ConditionalUNet, DiffuSEC': Errors(4e-06, 6e-06, 5e-02, 8e-02),
    'GuidedUNet': Errors(3e-06, 4e-06, 4e-02, 5e-02),
    'CompactUNet': Errors(5e-06, 4e-06, 2e-02, 5e-02),
    'GmmUNet': Errors(2e-05, 4e-05, 5e-02, 8e-02),
    'Dccrn': Errors(2e-06, 3e-06, 3e-02, 4e-02),
    'Dccrn, complex norm': Errors(3e-06, 4e-06, 3e-02, 7e-02),
    'segan.Generator': Errors(2e-06, 3e-06, 3e-02, 3e-02),
    'segan.Discriminator': Errors(2e-06, 2e-06, 3e-02, 4e-02),
    'Nisqa, v2': Errors(2e-06),
    'Nisqa, TTS': Errors(5e-06),
    'regression.complex_mse': Errors(3e-07, 3e-07, 2e-03, 2e-02),
    'regression.magnitude_mse': Errors(7e-07, 6e-07, 4e-03, 2e-02),
    'regression.ri_mag': Errors(3e-07, 5e-07, 3e-03, 2e-02),
    'adversarial.discriminator': Errors(2e-07, 2e-07, 8e-05, 5e-03),
    'adversarial.generator': Errors(4e-07, 2e-07, 8e-05, 5e-03),
    'waveform.mse': Errors(5e-07, 2e-07, 5e-04, 2e-02),
    'waveform.l1': Errors(2e-07, 2e-07, 2e-04, 1e-01),
    'waveform.sdr': Errors(2e-07, 5e-07, 4e-04, 2e-02),
    'waveform.si_sdr': Errors(2e-07, 5e-07, 3e-04, 1e-02),
    'waveform.si_snr': Errors(7e-07, 5e-07, 3e-04, 1e-02),
    'log_mel.log_mel_rmse': Errors(2e-07, 5e-07, 4e-04, 8e-03),
    'log_mel.log_mel_rmse, power': Errors(4e-07, 6e-07, 4e-04, 7e-03),
    'multi_resolution': Errors(3e-07, 3e-04, 3e-04, 1e+00),
    'pmsqe.pmsqe_of_waveforms': Errors(9e-07, 5e-06, 2e-03, 5e-02),
    'pmsqe.pmsqe_released': Errors(4e-06, 8e-06, 1e-02, 1e-01),
    'released.sdr': Errors(3e-07, 3e-07, 4e-04, 2e-02),
    'released.si_snr_of_pieces': Errors(6e-07, 3e-07, 2e-05, 1e-02),
    'released.si_sdr_of_batch': Errors(3e-07, 4e-07, 3e-04, 1e-02),
    'gmm.log_density': Errors(8e-07, 2e-06, 3e-04, 5e-03),
}
