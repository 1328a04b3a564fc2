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
