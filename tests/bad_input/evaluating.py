"""The commands of the cases of `jax-diffse evaluate`, and the cases of prepared arrays and of clips."""

from tests.bad_input.givens import array, pickled_array, reported
from tests.bad_input.world import Case, cut, pairs

BARE = 'jax-diffse evaluate --workdir runs/half --output report --metrics si_sdr --workers 0'
EVALUATE = f'{BARE} --clean clean --noisy noisy'
MIX = f'{BARE} --speech clean --noise noisy'
ARRAYS = f'{BARE} --arrays t.npy'
BY_CONDITION = array('t.npy', (2, 2, 3, 2, 4800))

PREPARED = [
    Case('an array of prepared pairs', f'{ARRAYS} --snr-db=-5,5', (BY_CONDITION,), 0, 'a report', lambda: reported(12)),
    Case('an array with too few SNRs', f'{ARRAYS} --snr-db 5', (BY_CONDITION,), 2,
         r't.npy: 2 dB classes, got 1 SNRs \(5\)'),
    Case('an array of other axes', ARRAYS, (array('t.npy', (2, 4800)),), 2, r't.npy: 2 axes, \[2, 4800\], expected'),
    Case('an array that was cut off', ARRAYS, (array('t.npy', (3, 2, 4800)), cut('t.npy', 5000)), 2, 't.npy: cut off'),
    Case('an array with silent examples', ARRAYS, (array('t.npy', (3, 2, 4800), 0.0),), 2,
         't.npy: noisy speech is silent in 3 of 3 examples'),
    Case('an array of objects, which would run code', ARRAYS, (pickled_array('t.npy'),), 2,
         't.npy: holds Python objects, which are not loaded'),
    Case('an array beside folders', f'{ARRAYS} --clean clean --noisy noisy', (pairs(),), 2,
         '--clean --noisy --arrays given, expected'),
    Case('room impulse responses for pairs', f'{EVALUATE} --rir clean', (pairs(),), 2,
         '--clean --noisy --rir given, expected .*--speech and --noise .and --rir.'),
    Case('an unknown data set', f'{BARE} --data-set voicebank', (), 2,
         "--data-set.: expected one of folders, .* got 'voicebank'"),
    Case('a data set beside folders', f'{EVALUATE} --data-set voicebank_demand', (pairs(),), 2,
         '--data-set=voicebank_demand: expected a data set of TFDS, alone'),
    Case('files shorter than --pad-seconds', f'{EVALUATE} --pad-seconds 1', (pairs(),), 0,
         'a report: they are extended with zeros', reported),
    Case('padding beyond the length of clips', f'{MIX} --clip-seconds 3 --pad-seconds 4', (pairs(),), 2,
         '--pad-seconds.*4 and 3'),
]
