"""The speakers of corpora; the layouts come from the READMEs of the named corpora."""

import itertools

import pytest

from jax_diffse.data.speakers import speakers
from jax_diffse.errors import UserError


def _paths(pattern, *values):
    return [pattern.format(*combination) for combination in itertools.product(*values)]


PEOPLE = ('225', '226', '227')
LAYOUTS = {
    'VCTK': ([f'wav48_trimmed/p{who}/p{who}_{take}_mic{mic}' for who in PEOPLE for take in '12' for mic in '12'],
             ['p225', 'p226', 'p227']),
    'VCTK at two rates': ([f'{rate}/p{who}/p{who}_{take}' for rate in ('wav48', 'wav16') for who in PEOPLE
                           for take in '12'], ['p225', 'p226', 'p227']),
    'LibriSpeech, two subsets': (
        [f'LibriSpeech/{subset}/{who}/{who}0{chapter}/{who}-{who}0{chapter}-000{take}' for subset, people in
         (('train-clean-100', ('19', '26')), ('train-clean-360', ('14', '16'))) for who in people for chapter in '12'
         for take in '12'], ['14', '16', '19', '26']),
    'WSJ0': ([f'si_tr_s/{who}/{who}c020{take}' for who in ('011', '012') for take in '12'], ['011', '012']),
    'EARS': (_paths('{}/emo_{}_freeform', ('p001', 'p002'), ('anger', 'awe')), ['p001', 'p002']),
    'a folder for each microphone': (_paths('mic{}/{}/take{}', '12', ('ann', 'bob', 'eve'), '12'),
                                     ['ann', 'bob', 'eve']),
    'a folder for each microphone, inside': (_paths('{}/mic{}/take{}', ('ann', 'bob', 'eve'), '12', '12'),
                                             ['ann', 'bob', 'eve']),
    'TIMIT': ([f'TRAIN/DR{region}/{sex}{region}A{i}/SA{take}' for region in '123' for sex in 'FM' for i in '01'
               for take in '12'], ['DR1', 'DR2', 'DR3']),  # too coarse, but no speaker is on two sides
    'VoiceBank': (_paths('p{}_00{}', PEOPLE, '123'), ['p225', 'p226', 'p227']),
    'one folder': (_paths('all/p{}_00{}', PEOPLE, '123'), ['p225', 'p226', 'p227']),
    'numbered': (_paths('{}', '123'), ['1', '2', '3']),
    'one beginning': (_paths('rec_{}', '123'), ['rec_1', 'rec_2', 'rec_3']),
}


@pytest.mark.parametrize(('names', 'expected'), LAYOUTS.values(), ids=LAYOUTS)
def test_speakers_of_published_layouts(names, expected):
    found = speakers(names)
    assert sorted(set(found.of.values())) == expected and found.of.keys() == set(names)
    assert bool(found.found) == (len(expected) < len(names))


@pytest.mark.parametrize(('names', 'doubt'), [
    # CHiME-4: a folder for each environment, files that begin with the speaker
    (_paths('tr05_{}_real/{}_22GC010{}', ('bus', 'caf', 'ped', 'str'), ('F01', 'F02', 'M03', 'M04'), '12'),
     'the beginnings of the names of files'),
    # DAPS
    (_paths('{}/{}_script{}', ('clean', 'ipad'), ('f1', 'f2', 'm1'), '12'), 'the beginnings of the names of files'),
    (_paths('{}/{}/take{}', ('DC', 'JE'), ('anger', 'fear', 'joy'), '12'), 'folders of level 1'),  # SAVEE
    (_paths('{}/emo_{}_freeform', ('p001', 'p002'), ('anger', 'awe')), ''),  # EARS
    (LAYOUTS['TIMIT'][0], ''), (LAYOUTS['VCTK'][0], ''), (LAYOUTS['LibriSpeech, two subsets'][0], '')])
def test_what_may_be_the_speakers_instead_is_said(names, doubt):
    assert speakers(names).doubt == doubt


def test_a_level_can_be_given():
    names, _ = LAYOUTS['TIMIT']
    assert len(set(speakers(names, 3).of.values())) == 12
    assert speakers(names, 3).found == 'folders of level 3'
    with pytest.raises(UserError, match=r'k=4: TRAIN/DR1/F1A0/SA1 lies in 3 folders, expected 4 or more'):
        speakers(names, 4, 'k')
