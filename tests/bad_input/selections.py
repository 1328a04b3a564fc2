"""Cases of training data: shares, segments, levels and classes of noise, and the table of ESC-50."""

from tests.bad_input.world import Case, data, pairs, sound, wav

FOUR = pairs(names=tuple('abcd'))
TRAIN = 'jax-diffse train --config toy.py --workdir runs/new'
PAIRS = '--config.data.train.clean=clean --config.data.train.noisy=noisy'
MIX = '--config.data.train.speech=clean --config.data.train.noise'
CLIP = wav('esc/audio/1-100032-A-0.wav', sound(8000))
HEADER = b'filename,fold,target,category,esc10,src_file,take\n'
LINES = b'1-100032-A-0.wav,1,0,dog,True,100032,A\n1-17367-A-10.wav,1,10,rain,True,17367,A\n'


def bad_key(given: str, override: str, line: str) -> Case:
    return Case(given, f'{TRAIN} {PAIRS} --config.data.{override}', (FOUR,), 2, line)


def bad_table(given: str, table: bytes, line: str) -> Case:
    return Case(given, f'{TRAIN} {MIX}=esc', (FOUR, CLIP, data('esc/meta/esc50.csv', table)), 2,
                f'esc/meta/esc50.csv: {line}')


SELECTIONS = [
    bad_key('a share of 0', 'share=0.0', 'data.share: expected a share of the utterances above 0 .* got 0'),
    bad_key('a check of files that does not exist', 'check=some', 'data.check: expected one of full, header, none'),
    bad_key('folders beside a data set', 'name=voicebank_demand',
            "config.data.train.clean: would not be used, as config.data.name is 'voicebank_demand'"),
    bad_key('segments longer than every file', 'segments=True --config.train.crop_seconds=9',
            'config.data.segments: none of the 3 utterances has the 144000 samples of a segment, 9 s'),
    bad_key('a range of factors that ends before it begins', 'noise_gain=(0.8,0.2)',
            r'data.noise_gain: expected \(\) or the lowest and the highest factor .* got \(0.8, 0.2\)'),
    bad_key('a range of speeds of one number', 'mixer.speed=(1.1,)',
            r'data.mixer.speed: expected \(\) or a range from 0.5 to 2, as \(0.9,1.1\), got \(1.1,\)'),
    bad_key('a band limit above half the rate', 'mixer.band_hz=(4000.0,9000.0)',
            r'data.mixer.band_hz: expected \(\) or a range from 100 to 8000, .*9000'),
    bad_key('a level above full scale', 'test_mixer.level_db=(-20.0,6.0)',
            r'data.test_mixer.level_db: expected \(\) or a range from -90 to 0'),
    bad_key('no noises', 'mixer.max_noises=0', 'data.mixer.max_noises: expected 1 or more, got 0'),
    bad_key('a probability of clipping without its range', 'mixer.clip_probability=0.5',
            'data.mixer.clip_probability: has no effect without config.data.mixer.clip_level'),
    bad_key('an unknown target', 'target.reverb=late',
            "data.target.reverb: expected one of early, dry, reverberant, got 'late'"),
    bad_key('room impulse responses beside pairs', 'train.rir=noisy',
            r'data.train: clean and noisy and rir set, expected .*speech and noise \(and rir\)'),
    Case('a silent room impulse response', f'{TRAIN} {MIX}=noisy --config.data.train.rir=rir',
         (FOUR, wav('rir/a.wav', sound(900)), wav('rir/b.wav', 0 * sound(900))), 2,
         'rir/b.wav: silent in its first channel'),
    bad_key('a fold that ESC lacks', 'esc_test_fold=6',
            r'data.esc_test_fold: expected 0 \(none\) or a fold from 1 to 5, got 6'),
    Case('a class of noise that does not exist', f'{TRAIN} {MIX}=noisy --config.data.noise_classes=rain',
         (FOUR, wav('noisy/fan/a.wav', sound(8000))), 2, 'data.noise_classes: no class rain in noisy, expected .*fan'),
    Case('ESC-50 without its table', f'{TRAIN} {MIX}=esc', (FOUR, CLIP), 2,
         'esc/meta/esc50.csv: cannot be read .*expected the table of ESC-50'),
    bad_table('a table of ESC-50 without a column', HEADER.replace(b'category', b'class'), 'no column category'),
    bad_table('a table of ESC-50 that names a file that is absent', HEADER + LINES,
              '1 of 2 files are not in .*audio, such as 1-17367-A-10'),
]
