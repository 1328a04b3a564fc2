"""The table of cases: user mistakes, and unusual input that is valid. `runs/` holds `world.TOYS`."""

import pathlib
import unicodedata

import numpy as np
import soundfile

from jax_diffse import runs
from tests.bad_input.enhancing import BOX, ENHANCE, FILES, FLAGS, GOOD_FILES, OUTPUTS, REFINE, RUNS, A
from tests.bad_input.evaluating import BARE, EVALUATE, MIX, PREPARED
from tests.bad_input.givens import (
    NAN,
    add_member,
    at_home,
    kept,
    pickled,
    reported,
    segan_file,
    several,
    torch_file,
    trained,
    zipped_payload,
)
from tests.bad_input.packing import PACKING
from tests.bad_input.scoring import SCORE, SCORING
from tests.bad_input.selections import SELECTIONS
from tests.bad_input.stored import STORED
from tests.bad_input.world import Case, cut, data, empty_folder, fifo, link, pairs, sound, wav

# ------------------------------------------------------------------------------------------------------ evaluate

def bad_pair(given: str, make, line: str, **more) -> Case:
    return Case(given, EVALUATE, (pairs(), make), 2, line, **more)


def renamed_pairs(clean: str, noisy: str):
    """Makes pairs whose names are in these normal forms."""
    def make():
        for folders, form in ((('clean', 'others'), clean), (('others', 'noisy'), noisy)):
            pairs(*folders, names=[unicodedata.normalize(form, name) for name in ('größe', '가수')])()

    return make


def saved(count: int) -> None:
    """Checks that `count` files were saved and are readable."""
    paths = list(pathlib.Path('report/audio').rglob('*.wav'))
    assert len(paths) == count and all(soundfile.info(path).frames == 8000 for path in paths)


EVALUATIONS = [
    Case('clean and noisy speech', EVALUATE, (pairs(),), 0, 'a report', reported),
    Case('pairs with odd names and encodings', EVALUATE,
         (pairs(names=('größe 日本/a b', '-x')), wav('clean/-x.wav', sound(8000), subtype='PCM_24'),
          wav('noisy/-x.wav', np.clip(sound(8000, level=3), -1, 1), subtype='PCM_U8')), 0, 'a report', reported),
    Case('a cache with records that are damaged', f'{EVALUATE} --cache kept',
         (pairs(), lambda: spoil_cache('kept')), 0, 'a report; damaged records are measured again', reported,
         replaces=('kept/*.json',)),
    Case('no such folder', EVALUATE, (pairs('speech'),), 2, 'clean: no such directory'),
    Case('--clean without --noisy', f'{BARE} --clean clean', (pairs(),), 2, '--clean given, expected --clean and'),
    Case('a run that names no test data', BARE, (), 2, 'runs/half: its config names no test data'),
    bad_pair('a file without a partner', wav('noisy/c.wav', sound(8000)), 'noisy/c.wav: unpaired'),
    bad_pair('a partner of another length', wav('noisy/a.wav', sound(7999)), 'noisy/a.wav: 7999 samples, but 8000'),
    bad_pair('a partner at another rate', wav('noisy/a.wav', sound(8000), rate=8000), 'noisy/a.wav: 8000 Hz, expected'),
    bad_pair('a file of two channels', wav('noisy/a.wav', sound(8000, 2)), 'noisy/a.wav: 2 channels, expected 1'),
    bad_pair('a silent file', wav('clean/a.wav', np.zeros(8000)), 'clean/a.wav: silent'),
    bad_pair('NaN among the samples', wav('clean/a.wav', np.full(8000, NAN), subtype='FLOAT'),
             'clean/a.wav: has NaN'),
    bad_pair('a file that is too short', wav('clean/a.wav', sound(100)), 'clean/a.wav: too short'),
    bad_pair('a header without samples', wav('clean/a.wav', np.zeros(0)), 'clean/a.wav: the file is empty'),
    bad_pair('a wav that was cut off', cut('clean/a.wav', 9000), 'clean/a.wav: cut off'),
    bad_pair('a link to nothing', several(link('clean/c.wav', 'gone'), wav('noisy/c.wav', sound(8000))),
             'clean/c.wav: a link that leads to no file'),
    Case('an empty folder', EVALUATE, (empty_folder('clean'), empty_folder('noisy')), 2, 'clean: no audio files'),
    Case('an output that is a file', EVALUATE, (pairs(), data('report', b'precious')), 2,
         'report: cannot create the report folder'),
    Case('a cache that is a file', f'{EVALUATE} --cache kept', (pairs(), data('kept', b'precious')), 2,
         'kept.*: cannot be written', leaves=('report',)),
    Case('saved audio that would overwrite the noisy files',
         f'{BARE} --clean clean --noisy report/audio/enhanced --save-audio',
         (pairs('clean', 'report/audio/enhanced'),), 2, 'report/audio/enhanced: lies in report/audio'),
    Case('an unknown metric', f'{EVALUATE} --metrics pesk', (pairs(),), 2, "metric 'pesk' does not exist"),
    Case('the name of several metrics', f'{EVALUATE} --metrics dnsmos', (pairs(),), 2,
         "metric 'dnsmos' does not exist, .*dnsmos_ovrl"),
    Case('no metric', f"{EVALUATE} --metrics ''", (pairs(),), 2, 'metric'),
    Case('a limit of 0', f'{EVALUATE} --limit 0', (pairs(),), 2, 'limit=0: expected 1 or more'),
    Case('a limit in words', f'{EVALUATE} --limit few', (pairs(),), 2, "--limit: invalid int value: 'few'"),
    Case('a negative number of workers', f'{EVALUATE} --workers -1', (pairs(),), 2, 'workers is -1, expected 0'),
    Case('a negative seed', f'{EVALUATE} --seeds -1', (pairs(),), 2, 'seed -1: expected a number from 0'),
    Case('a seed in words', f'{EVALUATE} --seeds some', (pairs(),), 2,
         "--seeds: expected whole numbers, .* got 'some'"),
    Case('steps in words', f'{EVALUATE} --steps 1,two', (pairs(),), 2,
         "--steps: expected whole numbers, .* got '1,two'"),
    Case('steps for a system that does not sample', f'{EVALUATE} --steps 6', (pairs(),), 2,
         'runs/half: does not sample'),
    Case('levels in words', f'{MIX} --snr-db loud', (pairs(),), 2, "--snr-db: expected numbers, .* got 'loud'"),
    Case('a level that is not a number', f'{MIX} --snr-db nan', (pairs(),), 2,
         'test_snr_db .*expected one or more numbers'),
    Case('levels for pairs', f'{EVALUATE} --snr-db 5', (pairs(),), 2, '--snr-db needs --speech and --noise'),
    Case('a share of 25', f'{EVALUATE} --share 25', (pairs(),), 2, r'test_share \(evaluate: --share\): expected .*25'),
    Case('a share of a validation', f'{BARE} --split validation --share 0.5', (), 2, '--share is for test data'),
    Case('a class of noise that does not exist', f'{MIX} --noise-classes rain',
         (pairs(), wav('noisy/fan/a.wav', sound(8000))), 2,
         r'test_noise_classes \(evaluate: --noise-classes\): no class rain in noisy, expected some of fan'),
    Case('classes of noise for pairs', f'{EVALUATE} --noise-classes rain', (pairs(),), 2,
         '--noise-classes needs --speech and --noise'),
    Case('clips of 10 ms', f'{MIX} --clip-seconds 0.01', (pairs(),), 2, '--clip-seconds'),
    Case('data at another rate, resampled', f'{EVALUATE} --resample',
         (pairs(), wav('noisy/a.wav', sound(22_050, rate=44_100), rate=44_100)), 0, 'a report', reported),
    Case('names in two normal forms of Unicode', EVALUATE, (renamed_pairs('NFC', 'NFD'),), 0, 'a report', reported),
    Case('a name of 40 letters that take three bytes, and saved audio', f'{EVALUATE} --save-audio',
         (pairs(names=('録音' * 20, '録音' * 41)),), 0, 'a report, and the audio', lambda: (reported(), saved(2))),
    Case('a split of folders', f'{EVALUATE} --split test', (pairs(),), 2, '--split=test given with --clean'),
    Case('a run and a comparison', f'{EVALUATE} --compare a b', (pairs(),), 2, 'either --workdir or --compare'),
    Case('a setting without value', EVALUATE.replace('--workdir runs/half', '--compare runs/half@six runs/half'),
         (pairs(),), 2, "runs/half@six: 'six' has no value"),
    Case('a preceding run that is a refiner itself',
         EVALUATE.replace('half', 'prior') + ' --preceding runs/prior', (pairs(),), 2,
         'runs/prior: refines the output of another enhancer itself'),
    Case('missing processed files', EVALUATE.replace('half', 'prior') + ' --processed made',
         (pairs(), wav('made/a.wav', sound(8000))), 2, 'made/b.wav: no such file'),
    Case('a missing run', EVALUATE.replace('half', 'gone'), (pairs(),), 2, 'runs/gone: not a run'),
]


def spoil_cache(folder: str) -> None:
    """Evaluates, then damages every record in a different way."""
    from jax_diffse.data import DataConfig, open_source
    from jax_diffse.data.config import Folders
    from jax_diffse.evaluation.evaluate import evaluate
    from jax_diffse.evaluation.options import EvaluationOptions, EvaluationSet
    from jax_diffse.inference.setting import Setting

    source = open_source(DataConfig(test=Folders('clean', 'noisy')), 'test')
    options = EvaluationOptions(metrics=['si_sdr'], workers=0, cache=folder)
    evaluate(Setting(runs.load('runs/half')), EvaluationSet(source), 'first', options)
    texts = ('', '{"scores":', '[]', '{"scores": {"noisy": 3}}')
    records = sorted(path for path in pathlib.Path(folder).glob('*/*.json') if path.name != 'setting.json')
    assert len(records) == len(texts)
    for path, text in zip(records, texts):
        path.write_text(text)


# --------------------------------------------------------------------------------------------------------- train

DATA = '--config.data.train.clean=clean --config.data.train.noisy=noisy'
FOUR = pairs(names=tuple('abcd'))
TRAIN = f'jax-diffse train --config toy.py --workdir runs/new {DATA}'
AUGMENTED = f'{TRAIN} --config.augment.share=0.5'
REAL = f'jax-diffse train --config dccrn:folders,quick --workdir runs/new {DATA}'


def bad_key(given: str, override: str, line: str, command: str = TRAIN, **more) -> Case:
    return Case(given, f'{command} --config.{override}', (FOUR,), 2, line, **more)


def bad_data(given: str, make, line: str) -> Case:
    return Case(given, TRAIN, (FOUR, make), 2, line)


BEGUN = ('runs/new', 'runs/new/checkpoints', 'runs/new/.lock')
TRAININGS = [
    Case('pairs with odd names and encodings', TRAIN,
         (FOUR, pairs(names=('größe 日本/a b', '-x')), wav('clean/-x.wav', sound(8000), subtype='PCM_24'),
          wav('noisy/-x.wav', sound(8000, level=9), subtype='PCM_U8')), 0, 'trained', trained),
    Case('no such config', REAL.replace('dccrn', 'dccrm'), (), 2, r'--config=dccrm:folders,quick: no such config',
         process=True),
    Case('no such file of a config', REAL.replace('dccrn:folders,quick', 'mine.py'), (), 2,
         '--config=mine.py: no such file'),
    Case('the earlier name of a config', REAL.replace('dccrn:folders,quick', 'configs/dccrn_short.py:si_snr'), (), 2,
         'is now dccrn:si_snr,folders,small,short'),
    Case('a folder as the config', REAL.replace('dccrn:folders,quick', './configs'), (), 2,
         '--config=./configs: no such file'),
    Case('a config with a syntax error', TRAIN, (data('toy.py', b'def get_config(:\n  pass\n'),), 2,
         '--config=toy.py: .*syntax'),
    Case('a config that fails', TRAIN, (data('toy.py', b'import nothing_of_the_kind\n'),), 2,
         '--config=toy.py: .*nothing_of_the_kind'),
    Case('a config without get_config', TRAIN, (data('toy.py', b'x = 1\n'),), 2, '--config=toy.py: .*get_config'),
    Case('a config that is not text', TRAIN, (data('toy.py', bytes(range(256))),), 2, '--config=toy.py: '),
    Case('an unknown variant', REAL.replace('quick', 'quik'), (), 2, "unknown variant 'quik'"),
    Case('two variants of one group', REAL.replace('quick', 'quick,small'), (), 2,
         'quick and small: expected one variant of the group size'),
    Case('an unknown stage',
         REAL.replace('dccrn', 'dr_diffuse') + """ --config.chain="('c_gen','finer')\"""", (), 2,
         "config.chain: unknown stage 'finer'"),
    Case('an unknown flag', f'{REAL} --lr 3', (), 2, "unknown argument '--lr'"),
    Case('a trace from step 0 on', f'{TRAIN} --profile 0:3', (FOUR,), 2, '--profile=0:3: expected FIRST:COUNT'),
    Case('a trace of one number', f'{TRAIN} --profile 100', (FOUR,), 2, '--profile=100: expected FIRST:COUNT'),
    Case('a trace beyond the last step', f'{TRAIN} --profile 2:5', (FOUR,), 2,
         '--profile=2:5: the training ends at step 2, expected steps from 1 to 2'),
    bad_key('a misspelt key', 'train.batchsize=4', "unknown key 'batchsize'. Did you mean .batch_size", REAL),
    bad_key('a misspelt section', 'trian.steps=4', "unknown key 'trian'. Did you mean .train", REAL),
    bad_key('a number in words', 'train.steps=abc', 'steps.*abc', REAL),
    bad_key('a fraction for a whole number', 'train.steps=1.5', 'steps.*1.5', REAL),
    bad_key('no value', 'train.steps', 'unknown argument .--config.train.steps', REAL),
    bad_key('layers that do not fit the spectrum', 'model.channels=(2,2,2,2,2,2,2,2,2)', 'channels: expected 1', REAL),
    bad_key('an odd number of channels', 'model.channels=(3,)', 'expected even numbers', REAL),
    bad_key('no layers', 'model.channels=()', 'channels: expected 1 or more', REAL),
    bad_key('layers in words', 'model.channels=wide', 'channels: expected int', REAL),
    bad_key('a network of width 0', 'model.lstm_units=0', 'lstm_units', REAL),
    bad_key('a window shorter than a hop', 'model.window=50', 'window', REAL),
    bad_key('hops of length 0', 'model.hop=0', 'hop', REAL),
    bad_key('an unknown dtype', 'model.dtype=float8', 'dtype must be one of', REAL),
    bad_key('a batch that the devices cannot share', 'train.batch_size=3', 'batch_size: 3 is not a multiple of 4'),
    bad_key('an empty batch', 'train.batch_size=0', 'config.train.batch_size must be 1 or more'),
    bad_key('a negative batch size', 'train.batch_size=-4', 'config.train.batch_size must be 1 or more'),
    bad_key('a batch in 0 parts', 'train.accumulate=0', 'config.train.accumulate must be 1 or more'),
    bad_key('crops of length 0', 'train.crop_seconds=0', 'config.train.*crop_seconds'),
    bad_key('a crop length that is not a number', 'train.crop_seconds=nan', 'config.train.*crop_seconds'),
    bad_key('no validation, written as every 0 steps', 'train.eval_every=0',
            'config.train.eval_every must be 1 or more'),
    bad_key('a negative number of utterances to score', 'log.pesq_examples=-1',
            'config.log.pesq_examples must be 0 .none. or more'),
    bad_key('an averaging decay of 1.5', 'train.ema_decay=1.5', 'config.train.*ema_decay'),
    bad_key('a learning rate of NaN', 'optimizer.learning_rate=nan', 'config.optimizer.*learning_rate'),
    bad_key('an unknown decay', 'optimizer.decay=linear', "decay must be one of .* got 'linear'"),
    bad_key('an unknown mapper', 'parallel.mapper=vmap', "unknown mapper 'vmap'"),
    bad_key('a share of 2 held out', 'data.held_out=2.0', 'held_out: expected a share between 0 and 1'),
    bad_key('levels that are not numbers', "data.snr_db=('low',)", 'snr_db: expected float'),
    bad_key('an unknown data set', 'data.name=voicebank',
            "config.data.name .evaluate: --data-set.: expected one of folders, .* got 'voicebank'"),
    bad_key('data at another rate than config.data says', 'data.sample_rate=8000',
            'clean/a.wav: 16000 Hz, expected 8000 Hz', lines=9),
    bad_key('a missing run to start from', 'init_from=runs/gone', 'runs/gone: not a run',
            leaves=('runs', *BEGUN)),
    bad_key('a run of another system to start from', 'init_from=runs/dccrn', 'init_from=runs/dccrn: ',
            leaves=BEGUN),
    bad_key('samples of no run', 'augment.share=0.5',
            'config.augment.share=0.5: name the run that draws the samples, config.augment.run or config.init_from'),
    bad_key('samples in one and a half of the inputs', 'augment.share=1.5',
            r'config.augment.share must be in \[0, 1\], got 1.5'),
    bad_key('samples of a run without a sampler', 'augment.run=runs/half', 'runs/half: does not sample', AUGMENTED),
    bad_key('samples of a run that refines', 'augment.run=runs/prior', "runs/prior: refines another enhancer's output",
            AUGMENTED),
    bad_key('samples of a missing run', 'augment.run=runs/gone', 'runs/gone: not a run', AUGMENTED),
    bad_key('samples in more steps than the sampler takes', 'augment.steps=11',
            'config.augment.steps=11: takes 1 to 10 sampling steps', f'{AUGMENTED} --config.augment.run=runs/sampler'),
    bad_key('samples in a share of the batch that is no whole number', 'augment.share=0.3',
            'config.augment.share=0.3: makes 0.3 of 1 example.*batch_size that is a multiple of 40, not 4',
            f'{TRAIN} --config.augment.run=runs/sampler'),
    Case('a workdir that is a file', TRAIN, (FOUR, data('runs/new', b'precious')), 2, 'runs/new: cannot be created'),
    Case('a workdir below a file', TRAIN.replace('runs/new', 'file/new'), (FOUR, data('file', b'precious')), 2,
         'file/new: cannot be created'),
    Case('a workdir with a run of another config', TRAIN.replace('runs/new', 'runs/toy'), (FOUR,), 2,
         'runs/toy: holds a run with another config', leaves=('runs/toy/.lock',)),
    Case('a workdir whose checkpoints folder is a file', TRAIN, (FOUR, data('runs/new/checkpoints', b'precious')), 2,
         'runs/new'),
    Case('the name of the packaged enhancer as workdir', TRAIN.replace('runs/new', 'package:dccrn'), (FOUR,), 2,
         'package:dccrn: names a model of this package, which cannot be changed; choose another --workdir'),
    Case('no data named', 'jax-diffse train --config toy.py --workdir runs/new', (), 2,
         'config.data.train: no folders named'),
    Case('clean speech alone of two', TRAIN.replace('train.noisy=noisy', 'train.noise=noisy'), (FOUR,), 2,
         'config.data.train: clean and noise set'),
    Case('a missing folder', TRAIN.replace('noisy=noisy', 'noisy=gone'), (FOUR,), 2,
         'gone: no such directory'),
    Case('one pair, of which none can be held out', TRAIN, (pairs(names='a'),), 2, 'none can be held out'),
    bad_data('a file without a partner', wav('noisy/e.wav', sound(8000)), 'noisy/e.wav: unpaired'),
    bad_data('a partner of another length', wav('noisy/a.wav', sound(7999)), 'noisy/a.wav: 7999 samples, but 8000'),
    bad_data('a partner at another rate', wav('noisy/a.wav', rate=48_000), 'noisy/a.wav: 48000 Hz, expected 16000'),
    bad_data('text named .wav', data('noisy/a.wav', b'once upon a time'), 'noisy/a.wav: not readable as audio'),
    Case('an array beside folders', f'{TRAIN} --config.data.train.arrays=t.npy', (FOUR,), 2,
         'config.data.train: clean and noisy and arrays set'),
    bad_data('two files of one name', wav('clean/a.flac', sound(8000)), 'clean/a.wav: has the same name|a.flac'),
]

# ---------------------------------------------------------------------------------------------------------- convert

CONVERT = 'jax-diffse convert'


def bad_weights(given: str, make, line: str, kind: str = 'segan', name: str = 'x.pt', **more) -> Case:
    return Case(given, f'{CONVERT} {kind}={name} --workdir run', (make,), 2, line, **more)


def not_torch(path: str):
    return several(segan_file('whole.pt'), lambda: data(path, pathlib.Path('whole.pt').read_bytes()[:-200])())


CONVERSIONS = [
    Case("a generator of SEGAN's notebook", f'{CONVERT} segan=x.pt --workdir run', (segan_file('x.pt'),), 0,
         'a run', lambda: runs.load('run')),
    bad_weights('no such file', several(), '^error: x.pt: cannot be read .*No such file'),
    bad_weights('a named pipe, which nothing is written to', fifo('x.pt'), r'x.pt: cannot be read \(not a file\)'),
    bad_weights('a folder', empty_folder('x.pt'), r'x.pt: cannot be read \(not a file\)'),
    bad_weights('an empty file', data('x.pt', b''), 'x.pt: not a PyTorch checkpoint'),
    bad_weights('text', data('x.pt', b'once upon a time\n'), 'x.pt: (not a PyTorch|refused)'),
    bad_weights('a wav file', wav('x.pt', format='WAV'), 'x.pt: (not a PyTorch|refused)'),
    bad_weights('arrays of NumPy', lambda: np.savez('x.npz', a=np.zeros(3)), 'x.npz: (not a PyTorch|refused)',
                name='x.npz'),
    bad_weights('a file that was cut off', not_torch('x.pt'), 'x.pt: not a PyTorch checkpoint, or damaged'),
    bad_weights('a file without read permission', segan_file('x.pt'), 'x.pt: cannot be read .*Permission',
                locked='x.pt'),
    bad_weights('a pickle that would run code', pickled('x.pt'),
                '^error: x.pt: refused, it is damaged or contains code', process=True),
    bad_weights('a checkpoint that would run code', zipped_payload('x.pt'), 'x.pt: refused, it is damaged or contains'),
    bad_weights('a member that leads outside', several(segan_file('x.pt'), add_member('x.pt', '../../outside.txt')),
                r"x.pt: refused, its member '../../outside.txt' leads outside"),
    bad_weights('a member with an absolute path', several(segan_file('x.pt'), add_member('x.pt', '/tmp/outside.txt')),
                r"x.pt: refused, its member '/tmp/outside.txt' leads outside"),
    bad_weights('weights of PyTorch given as those of Keras', segan_file('x.pt'),
                'x.pt: expected a file of Keras weights in HDF5', 'noise-unet'),
    bad_weights('a file of Keras that was cut off', data('x.h5', b'\x89HDF\r\n\x1a\n' + bytes(64)),
                'x.h5: damaged, or not a file of Keras weights', 'noise-unet', 'x.h5'),
    bad_weights('SEGAN given as DCCRN', segan_file('x.pt'),
                'x.pt: expected a dict .* it holds generator_state_dict', 'dccrn'),
    bad_weights('SEGAN given as Diffiner', segan_file('x.pt', bare=True),
                'x.pt: not the weights of this network', 'diffiner'),
    bad_weights("SEGAN given as DR-DiffuSE's", segan_file('x.pt', bare=True), 'x.pt: not the weights of this network',
                'dr-diffuse-base'),
    bad_weights('SEGAN given as the compact U-Net', segan_file('x.pt', bare=True),
                'x.pt: not the weights of this network', 'compact-unet'),
    bad_weights('no weights', torch_file('x.pt', {}), 'x.pt: not the weights of this network; missing: dec1.bias'),
    bad_weights('a list', torch_file('x.pt', [1, 2]), 'x.pt: expected a dict'),
    bad_weights('numbers in place of weights', torch_file('x.pt', {'enc1.bias': 3}), 'x.pt: expected a dict'),
    bad_weights('weights that are NaN', segan_file('x.pt', NAN), 'x.pt: weights that are NaN or infinite: prelu'),
    Case('an unknown kind', f'{CONVERT} sagen=x.pt --workdir run', (segan_file('x.pt'),), 2,
         'sagen=x.pt: expected KIND=FILE, KIND one of'),
    Case('no kind', f'{CONVERT} x.pt --workdir run', (segan_file('x.pt'),), 2, 'x.pt: expected KIND=FILE'),
    Case('a kind twice', f'{CONVERT} segan=x.pt segan=x.pt --workdir run', (segan_file('x.pt'),), 2,
         'segan=x.pt: segan given twice'),
    Case('no workdir', f'{CONVERT} segan=x.pt', (segan_file('x.pt'),), 2, '--workdir'),
    Case('a workdir that holds a run', f'{CONVERT} segan=x.pt --workdir runs/half', (segan_file('x.pt'),), 2,
         'runs/half: holds checkpoints already'),
    Case('a workdir that is a file', f'{CONVERT} segan=x.pt --workdir run', (segan_file('x.pt'), data('run', b'x')), 2,
         'run: cannot create the folder of the run'),
    Case('a key that the system lacks', f'{CONVERT} segan=x.pt --workdir run --model depth=3', (segan_file('x.pt'),),
         2, 'config.model.depth'),
    Case('NISQA from another file', f'{CONVERT} nisqa x.pt', (segan_file('x.pt'),), 2, 'x.pt: has the SHA-256'),
]
GS, PAIRS = 'http://host/x', '--config.data.train.clean=clean --config.data.train.noisy=noisy'
ADDRESSES = [
    *(Case(f'an address for {flag}', command, (pairs(), A), 2, 'http://host/x: an address of http://, expected a path')
      for flag, command in (
        ('--workdir of enhance', f'jax-diffse enhance --workdir {GS} --output out in'),
        ('--output of enhance', f'jax-diffse enhance --workdir runs/half --output {GS} in'),
        ('a file', f'{ENHANCE} {GS}'), ('--noise', f'{ENHANCE} --noise {GS} in'),
        ('--processed', f'{REFINE} --noisy in --processed {GS}'), ('--preceding', f'{REFINE} --preceding {GS} in'),
        ('--workdir of evaluate', EVALUATE.replace('runs/half', GS)),
        ('--output of evaluate', EVALUATE.replace('report', GS)), ('--cache', f'{EVALUATE} --cache {GS}'),
        ('--clean', f'{BARE} --clean {GS} --noisy noisy'), ('--noise', f'{BARE} --speech clean --noise {GS}'),
        ('NAME=DIR of score', f'{SCORE} mine={GS}'), ('--also', f'{EVALUATE} --also mine={GS}'),
        ('--compare', EVALUATE.replace('--workdir runs/half', f'--compare runs/half {GS}@steps=1')),
        ('--workdir of train', f'jax-diffse train --config toy.py --workdir {GS} {PAIRS}'),
        ('a folder of data', f'jax-diffse train --config toy.py --workdir runs/new --config.data.train.speech={GS}'),
        ('config.data.data_dir', f'jax-diffse train --config toy.py --workdir runs/new --config.data.data_dir={GS}'),
        ('config.init_from', f'jax-diffse train --config toy.py --workdir runs/new --config.init_from={GS} {PAIRS}'),
        ('a checkpoint to convert', f'jax-diffse convert segan={GS} --workdir run'),
        ('--workdir of convert', f'jax-diffse convert segan=x.pt --workdir {GS}'),
        ('a file of NISQA', f'jax-diffse convert nisqa {GS}'))),
    Case('an address for --config', f'jax-diffse train --config {GS} --workdir runs/new', (), 2,
         '^error: --config=http://host/x: an address, expected the path of a file on this machine'),
    Case('an address without a bucket', f'{ENHANCE} gs:///x', (), 2,
         "^error: gs:///x: '' is not the name of a bucket, expected gs://BUCKET/FOLDER"),
    Case('~ in paths', 'jax-diffse enhance --workdir=~/runs/half --output=~/out ~/in', (A, at_home), 0,
         'enhanced: it is the home folder', lambda: kept('in/a.wav', 'out/a.wav')),
    Case('~ in a key of the config', 'jax-diffse train --config ~/toy.py --workdir=~/runs/new '
         '--config.data.train.clean=~/clean --config.data.train.noisy=~/noisy', (pairs(), at_home), 0, 'trained',
         trained),
]


SECTIONS = {
    'enhance: the files': FILES, 'enhance: input that works': GOOD_FILES, 'enhance: outputs': OUTPUTS,
    'enhance: flags': FLAGS, 'enhance: runs and refiners': RUNS,
    'enhance: the packaged enhancer': BOX, 'evaluate': [*EVALUATIONS, *PREPARED],
    'score': SCORING, 'train': TRAININGS + SELECTIONS, 'convert': CONVERSIONS, 'pack': PACKING,
    'Paths': ADDRESSES, 'Data in object storage': STORED}
CASES = [case for cases in SECTIONS.values() for case in cases]
