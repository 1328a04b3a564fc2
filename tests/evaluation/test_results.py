import csv
import dataclasses
import io
import math

import numpy as np
from numpy.testing import assert_allclose
from scipy import stats

from jax_diffse.evaluation import bootstrap, tables
from jax_diffse.evaluation.results import NO_FILE, Results
from jax_diffse.metrics import Scores

METRICS = ('si_sdr', 'llr')
NAN = math.nan


def by_hand(values, metrics=METRICS, infos=None, clean=()):
    values = np.array(values, np.float64)
    infos = infos or [{'id': str(i)} for i in range(len(values))]
    return Results(infos, ('noisy', 'enhanced', 'refined')[:values.shape[1]], metrics, values,
                   [[{} for _ in stages] for stages in values], clean)


def test_statistics_by_hand():
    results = by_hand([  # [noisy, enhanced, refined] of [si_sdr, llr]; a lower llr is better
        [[1, 0.5], [3, 0.6], [2, 0.6]],
        [[2, 0.5], [1, 0.1], [4, 0.2]],
        [[NAN, 0.5], [5, 0.5], [4, 0.3]],
        [[6, 0.5], [NAN, NAN], [8, 0.1]],
    ])
    found = results.statistics()
    assert found['noisy'] == {'si_sdr': {'mean': 3, 'files': 3, 'against': {}},
                              'llr': {'mean': 0.5, 'files': 4, 'against': {}}}
    assert found['enhanced']['si_sdr'] == {
        'mean': 3, 'files': 3, 'against': {'noisy': {'difference': 0.5, 'paired': 2, 'worse': 1}}}
    assert found['refined']['si_sdr'] == {'mean': 4.5, 'files': 4, 'against': {
        'noisy': {'difference': 5 / 3, 'paired': 3, 'worse': 0},
        'enhanced': {'difference': 1 / 3, 'paired': 3, 'worse': 2}}}
    for stage, earlier, difference, worse in (
            ('enhanced', 'noisy', -0.1, 1), ('refined', 'noisy', -0.2, 1), ('refined', 'enhanced', -0.1 / 3, 1)):
        entry = found[stage]['llr']['against'][earlier]
        assert entry['worse'] == worse and entry['paired'] == (4 if (stage, earlier) == ('refined', 'noisy') else 3)
        assert_allclose(entry['difference'], difference, atol=1e-12)


def test_statistics_of_some_files():
    results = by_hand([[[1, 0.5], [3, 0.6]], [[2, 0.5], [1, 0.1]], [[2, 0.5], [0, 0.5]]])
    assert results.statistics([1, 2])['enhanced']['si_sdr'] == {
        'mean': 0.5, 'files': 2, 'against': {'noisy': {'difference': -1.5, 'paired': 2, 'worse': 2}}}


def test_every_stage_is_paired_with_every_earlier_one():
    assert by_hand(np.zeros((1, 3, 2))).pairs == [('enhanced', 'noisy'), ('refined', 'noisy'), ('refined', 'enhanced')]


def test_a_metric_without_values_is_nan_over_no_files():
    entry = by_hand([[[NAN, 1], [NAN, 2]]]).statistics()['enhanced']['si_sdr']
    against = entry['against']['noisy']
    assert math.isnan(entry['mean']) and math.isnan(against['difference'])
    assert (entry['files'], against['paired'], against['worse']) == (0, 0, 0)


def test_groups_are_in_order_and_the_unknown_last():
    infos = [{'id': 'a', 'snr_db': 10.0, 'noise': 'rain'}, {'id': 'b', 'noise': 'bus'}, {'id': 'c', 'snr_db': -5.0},
             {'id': 'd', 'snr_db': 2.5, 'noise': 'bus'}]
    groups = by_hand(np.zeros((4, 2, 2)), infos=infos).groups()
    assert [(label, files) for label, files in groups['snr_db'].items()] == [
        ('-5', [2]), ('2.5', [3]), ('10', [0]), ('unknown', [1])]
    assert list(groups['noise'].items()) == [('bus', [1, 3]), ('rain', [0]), ('unknown', [2])]
    assert by_hand(np.zeros((2, 2, 2))).groups() == {}


def test_many_levels_are_grouped_in_steps():
    levels = [-0.5, 0.0, 4.9, 5.0, *np.arange(12) / 10 + 21]
    infos = [{'id': str(i), 'snr_db': float(level)} for i, level in enumerate(levels)]
    groups = by_hand(np.zeros((len(levels), 2, 2)), infos=infos).groups()['snr_db']
    assert {label: len(files) for label, files in groups.items()} == {
        '-5 to 0': 1, '0 to 5': 2, '5 to 10': 1, '20 to 25': 12}
    assert list(groups) == ['-5 to 0', '0 to 5', '5 to 10', '20 to 25']


def test_files_are_ranked_by_gain_in_the_main_metric():
    values = [[[2, 1], [1, 2]], [[2, 1], [5, NAN]], [[2, 1], [NAN, 1]], [[2, 1], [3, 1]]]
    assert by_hand(values, ('si_sdr', 'llr')).ranked() == [1, 3, 0]
    with_pesq = by_hand(values, ('llr', 'pesq_wb'))  # pesq_wb has precedence, at any position
    assert with_pesq.metrics[with_pesq.main_metric()] == 'pesq_wb' and with_pesq.ranked() == [0, 2, 3]
    assert by_hand(values, ('llr', 'si_sdr')).ranked() == [0, 3, 1]  # a lower llr is a gain
    three = [[[0, 1], [9, 1], [1, 1]], [[0, 1], [1, 1], [2, 1]]]
    assert by_hand(three).ranked() == [1, 0]  # from the first stage to the last, whatever lies between


def cells(text):
    """Rows of the tables in a Markdown text, one list of rows per table."""
    blocks = [block.splitlines() for block in text.split('\n\n') if block.startswith('|')]
    return [[[cell.strip() for cell in line.strip('|').split('|')] for line in block if not line.startswith('|-')]
            for block in blocks]


def test_markdown_has_the_noisy_row_first_and_counts_what_is_missing():
    text = tables.summary_tables(by_hand([[[1, 0.5], [3, 0.6], [2, 0.6]], [[2, 0.5], [NAN, 0.1], [5, 0.2]]]))
    assert cells(text) == [
        [['stage', 'files', 'si_sdr ↑', 'llr ↓'],
         ['noisy', '2', '1.50', '0.500'], ['enhanced', '2', '3.00 (1)', '0.350'], ['refined', '2', '3.50', '0.400']],
        [['difference', 'files', 'si_sdr ↑', 'llr ↓'],
         ['enhanced - noisy', '2', '+2.00 (1)', '-0.150'], ['files made worse', '2', '0', '1'],
         ['refined - noisy', '2', '+2.00', '-0.100'], ['files made worse', '2', '0', '1'],
         ['refined - enhanced', '2', '-1.00 (1)', '+0.050'], ['files made worse', '2', '1', '1']]]


def test_markdown_has_means_and_differences_of_every_group():
    infos = [{'id': 'a', 'snr_db': 5.0}, {'id': 'b', 'snr_db': -5.0}]
    values = [[[1, 0.5], [3, 0.6]], [[2, 0.5], [1, 0.1]]]
    _, _, means, differences = cells(tables.to_markdown(by_hand(values, infos=infos), 'Evaluation', ['x']))
    assert means == [['SNR (dB)', 'stage', 'files', 'si_sdr ↑', 'llr ↓'],
                     ['-5', 'noisy', '1', '2.00', '0.500'], ['-5', 'enhanced', '1', '1.00', '0.100'],
                     ['5', 'noisy', '1', '1.00', '0.500'], ['5', 'enhanced', '1', '3.00', '0.600']]
    assert differences == [['SNR (dB)', 'difference', 'files', 'si_sdr ↑', 'llr ↓'],
                           ['-5', 'enhanced - noisy', '1', '-1.00', '-0.400'],
                           ['5', 'enhanced - noisy', '1', '+2.00', '+0.100']]


def test_markdown_survives_odd_names():
    infos = [{'id': 'a', 'noise': 'a|b\nc'}]
    text = tables.to_markdown(by_hand(np.zeros((1, 2, 2)), infos=infos), 'Evaluation', ['x'])
    assert '| a\\|b c |' in text


def by_kind():
    """Seen noise: two files at -5 dB and one at 10; unseen: one at each, that at 10 without an llr of its output."""
    infos = [{'id': str(i), 'snr_db': snr_db, 'noise_kind': kind} for i, (kind, snr_db) in enumerate([
        ('unseen', 10.0), ('seen', -5.0), ('seen', 10.0), ('seen', -5.0), ('unseen', -5.0)])]
    infos += [{'id': 'no kind', 'snr_db': 0.0}, {'id': 'no level', 'noise_kind': 'other'}]
    values = [[[9, 0.5], [12, NAN]], [[-4, 0.9], [1, 0.7]], [[10, 0.4], [13, 0.1]], [[-6, 0.7], [2, 0.5]],
              [[-5, 0.8], [-6, 0.6]], [[7, 7], [7, 7]], [[7, 7], [7, 7]]]
    return by_hand(values, infos=infos)


def test_means_by_noise_kind_and_level():
    found = by_kind().by_kind()
    assert [(kind, list(cells)) for kind, cells in found.items()] == [
        ('seen', ['-5', '10', 'Avg']), ('unseen', ['-5', '10', 'Avg'])]
    assert [[cell['files'] for cell in cells.values()] for cells in found.values()] == [[2, 1, 3], [1, 1, 2]]
    low, high, average = found['seen'].values()
    assert low['statistics'] == by_kind().statistics([1, 3])
    assert high['statistics']['enhanced']['si_sdr'] == {
        'mean': 13, 'files': 1, 'against': {'noisy': {'difference': 3, 'paired': 1, 'worse': 0}}}
    # of the levels, -5 and 10 at first, 1.5 and 13 after: the two files at -5 dB count as one
    assert average['statistics']['noisy']['si_sdr'] == {'mean': 2.5, 'files': 3, 'against': {}}
    assert average['statistics']['enhanced']['si_sdr'] == {
        'mean': 7.25, 'files': 3, 'against': {'noisy': {'difference': 4.75, 'paired': 3, 'worse': 0}}}


def test_an_average_over_levels_needs_all_levels():
    unseen = by_kind().by_kind()['unseen']['Avg']['statistics']
    assert_allclose(unseen['noisy']['llr']['mean'], 0.65)
    assert math.isnan(unseen['enhanced']['llr']['mean']) and unseen['enhanced']['llr']['files'] == 1
    assert math.isnan(unseen['enhanced']['llr']['against']['noisy']['difference'])


def test_kinds_need_both_properties():
    infos = [{'id': 'a', 'noise_kind': 'seen'}, {'id': 'b', 'snr_db': 5.0}]
    results = by_hand(np.zeros((2, 2, 2)), infos=infos)
    assert results.by_kind() == {} and 'kind' not in tables.to_markdown(results, 'Evaluation', ['x'])


def test_markdown_has_a_table_of_kinds_and_levels_for_every_metric():
    text = tables.to_markdown(by_kind(), 'Evaluation', ['x'])
    files, si_sdr, llr = cells(text[text.index('## By noise kind and SNR (dB)'):])
    assert files == [['files', '-5', '10', 'Avg'], ['seen', '2', '1', '3'], ['unseen', '1', '1', '2']]
    assert si_sdr == [
        ['si_sdr ↑', 'stage', '-5', '10', 'Avg'],
        ['seen', 'noisy', '-5.00', '10.00', '2.50'], ['seen', 'enhanced', '1.50', '13.00', '7.25'],
        ['seen', 'enhanced - noisy', '+6.50', '+3.00', '+4.75'],
        ['unseen', 'noisy', '-5.00', '9.00', '2.00'], ['unseen', 'enhanced', '-6.00', '12.00', '3.00'],
        ['unseen', 'enhanced - noisy', '-1.00', '+3.00', '+1.00']]
    assert llr[5:] == [['unseen', 'enhanced', '0.600', 'n/a (0)', 'n/a (1)'],
                       ['unseen', 'enhanced - noisy', '-0.200', 'n/a (0)', 'n/a (1)']]


def test_csv_has_the_kind_of_the_noise():
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(by_kind()))))
    assert [row['noise_kind'] for row in rows[::2]] == ['unseen', 'seen', 'seen', 'seen', 'unseen', '', 'other']


# ---- clean speech, in metrics that need no reference ----


def with_clean(infos=None):
    """Three files, of which the last is too short; si_sdr needs the clean speech for a reference."""
    values = [[[2.0, 5], [3.0, 6]], [[2.5, 7], [2.0, 8]], [[NAN, 9], [NAN, 9]]]
    clean = [Scores({'nisqa_v2_mos': value}, {}) for value in (4.5, 4.0)]
    clean.append(Scores({'nisqa_v2_mos': NAN}, {'nisqa_v2_mos': 'too short'}))
    return by_hand(values, ('nisqa_v2_mos', 'si_sdr'), infos, clean)


def test_statistics_of_clean_speech_cover_metrics_without_a_reference():
    found = with_clean().statistics()
    assert list(found) == ['clean', 'noisy', 'enhanced']
    assert found['clean'] == {'nisqa_v2_mos': {'mean': 4.25, 'files': 2, 'against': {}}}
    assert found['enhanced']['nisqa_v2_mos'] == {  # clean speech is no stage: nothing is compared with it
        'mean': 2.5, 'files': 2, 'against': {'noisy': {'difference': 0.25, 'paired': 2, 'worse': 1}}}
    assert with_clean().statistics([1])['clean'] == {'nisqa_v2_mos': {'mean': 4.0, 'files': 1, 'against': {}}}
    assert with_clean().ranked() == [0, 1] and with_clean().pairs == [('enhanced', 'noisy')]


def test_no_file_is_said_to_be_worse_or_not_where_none_was_scored():
    _, differences = cells(tables.summary_tables(by_hand([[[1, NAN], [3, NAN]], [[2, NAN], [1, 0.1]]])))
    assert differences[1:] == [['enhanced - noisy', '2', '+0.50', 'n/a (0)'], ['files made worse', '2', '1', 'n/a']]


def test_clean_speech_without_a_score_is_a_failure():
    assert with_clean().failures() == [{'id': '2', 'stage': 'clean', 'metric': 'nisqa_v2_mos', 'reason': 'too short'}]


def test_tables_of_means_begin_with_clean_speech():
    infos = [{'id': str(i), 'snr_db': snr_db, 'noise_kind': 'seen'} for i, snr_db in enumerate((0.0, 5.0, 5.0))]
    means, differences, by_snr, _, _, nisqa, si_sdr = cells(tables.to_markdown(with_clean(infos), 'Evaluation', ['x']))
    assert means[1:] == [['clean', '3', '4.250 (2)', '–'], ['noisy', '3', '2.250 (2)', '7.00'],
                         ['enhanced', '3', '2.500 (2)', '7.67']]
    assert [row[0] for row in differences[1:]] == ['enhanced - noisy', 'files made worse']
    assert [row for row in by_snr if row[1] == 'clean'] == [['0', 'clean', '1', '4.500', '–'],
                                                            ['5', 'clean', '2', '4.000 (1)', '–']]
    assert [row[1] for row in nisqa[1:]] == ['clean', 'noisy', 'enhanced', 'enhanced - noisy']
    assert nisqa[1][2:] == ['4.500', '4.000 (1)', '4.250 (2)']
    assert [row[1] for row in si_sdr[1:]] == ['noisy', 'enhanced', 'enhanced - noisy']  # no row without a number


def test_csv_has_clean_speech_with_empty_cells_where_it_is_the_reference():
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(with_clean()))))
    assert [(row['id'], row['stage']) for row in rows] == [
        (name, stage) for name in '012' for stage in ('clean', 'noisy', 'enhanced')]
    assert [(row['nisqa_v2_mos'], row['si_sdr'], row['reasons']) for row in rows[::3]] == [
        ('4.5', '', ''), ('4.0', '', ''), ('nan', '', 'nisqa_v2_mos: too short')]
    assert [row['si_sdr'] for row in rows[1::3]] == ['5.0', '7.0', '9.0']


def side_by_side(stages=('noisy', 'x', 'y'), metrics=('si_sdr', 'llr')):
    """Four files; system y lacks the first and the last."""
    values = np.array([[[0, 1], [1, 0.5], [NAN, NAN]], [[0, 1], [5, 1.5], [3, 0.5]],
                       [[0, 1], [-1, 0.9], [-3, 0.1]], [[0, 1], [9, 0.2], [NAN, NAN]]])[:, :len(stages)]
    missing = dict.fromkeys(metrics, NO_FILE)
    reasons = [[missing if np.isnan(row).all() else {} for row in file] for file in values]
    return Results([{'id': name} for name in 'abcd'], stages, metrics, values, reasons, (), True)


def test_systems_side_by_side_have_all_pairs_and_no_failures():
    found = side_by_side()
    assert found.failures() == [] and found.pairs == [('x', 'noisy'), ('y', 'noisy'), ('y', 'x')]
    entry = found.statistics()['y']['si_sdr']
    assert entry == {'mean': 0, 'files': 2, 'against': {
        'noisy': {'difference': 0, 'paired': 2, 'worse': 1}, 'x': {'difference': -2, 'paired': 2, 'worse': 2}}}
    assert found.groups() == {'shared': {'every system': [1, 2]}}
    means, differences = cells(tables.summary_tables(found))
    assert means[0][0] == 'system' and [row[0] for row in differences[1::2]] == ['x - noisy', 'y - noisy']


def test_systems_are_ranked_best_first_and_undefined_last():
    statistics = side_by_side().statistics()
    assert list(tables.ranked(statistics, 'si_sdr')) == ['x', 'noisy', 'y']  # 3.5, 0, 0: equal ones keep their order
    assert list(tables.ranked(statistics, 'llr')) == ['y', 'x', 'noisy']  # a lower llr is better
    statistics['x']['llr']['mean'] = NAN
    assert list(tables.ranked({'clean': {}} | statistics, 'llr')) == ['clean', 'y', 'noisy', 'x']


def test_examples_of_systems_side_by_side_are_files_that_most_have():
    assert side_by_side().ranked() == [3, 1, 0, 2]  # mean gains 9, 4, 1, -2; the third most systems of a file are one
    assert side_by_side(('noisy', 'x')).ends() == {'Best': 3, 'Median': 0, 'Worst': 2}
    two = side_by_side()
    more = dataclasses.replace(two, values=np.concatenate([two.values, two.values[1:2] + [[0], [1], [1]]]),
                               infos=[*two.infos, {'id': 'e'}], reasons=[*two.reasons, [{}] * 3])
    assert more.ranked() == [4, 1, 2]  # three files have both systems


def test_intervals_are_those_of_scipy():
    """`scipy.stats.bootstrap`, percentiles, with the same generator, over the files that have values."""
    values = np.random.default_rng(0).standard_normal((20, 3, 2))
    values[3, 1, 0] = values[5, 2] = NAN
    found = by_hand(values).statistics(intervals=True)
    for stage, earlier, difference in ((1, None, values[:, 1, 0]), (2, 0, values[:, 2, 0] - values[:, 0, 0]),
                                       (2, 1, values[:, 2, 0] - values[:, 1, 0])):
        entry = found[('noisy', 'enhanced', 'refined')[stage]]['si_sdr']
        entry = entry if earlier is None else entry['against'][('noisy', 'enhanced')[earlier]]
        expected = stats.bootstrap((difference[np.isfinite(difference)],), np.mean, n_resamples=bootstrap.RESAMPLES,
                                   method='percentile', rng=np.random.default_rng(0), batch=500).confidence_interval
        assert_allclose((entry['low'], entry['high']), expected, rtol=1e-12)
    alone = by_hand(values[:1]).statistics(intervals=True)['enhanced']['si_sdr']
    assert math.isnan(alone['low']) and math.isnan(alone['against']['noisy']['high'])
