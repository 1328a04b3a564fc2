import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose
from PIL import Image

from jax_diffse.evaluation.report import figures, page
from jax_diffse.evaluation.results import Results
from jax_diffse.metrics import Scores

HOSTILE = '</script><script>alert(1)</script>"\'&<img src=x onerror=alert(2)>'
NAN = float('nan')
GAIN = '+0.100 −0.200, +0.400 1 of 3 worse'  # 0.1, 0.4, -0.2: the mean of three draws lies between the ends
SAME = '+0.000 +0.000, +0.000 0 worse'
LENGTHS = (3000, 4000, 5000, 6000)  # samples, of the files


class Page(html.parser.HTMLParser):
    """Elements of a page with their attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.text = [], [], ''
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in_script = tag == 'script'
        if self._in_script:
            self.scripts.append('')

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def render(stages=('noisy', 'enhanced'), ids=('a', HOSTILE, 'c', 'd'), preceding=None,
           metrics=('pesq_wb', 'llr'), clean=()):
    """Four files whose gains in the first metric are 0.1, 0.4, -0.2 and none."""
    values = np.zeros((4, len(stages), 2)) + [2.0, 0.5]
    values[:, -1, 0] = [2.1, 2.4, 1.8, NAN]
    reasons = [[{} for _ in stages] for _ in ids]
    reasons[3][-1] = {metrics[0]: f'broken: {HOSTILE}'}
    infos = [{'id': name, 'snr_db': 5.0 - i, 'noise': HOSTILE, 'noise_kind': kind}
             for i, (name, kind) in enumerate(zip(ids, ('seen', 'unseen', HOSTILE, 'seen'), strict=True))]
    results = Results(infos, stages, metrics, values, reasons, clean)
    summary = {
        'data': HOSTILE, 'files': 4, 'audio_seconds': 1.0, 'sample_rate': 16000, 'date': '2026-01-01T00:00:00+00:00',
        'checkpoint': {'workdir': 'runs/x', 'step': 3, 'hash': 'abcdef'}, 'preceding': preceding,
        'sampling_steps': None, 'sort': '', 'systems': {}, 'aligned': False, 'not_scored': [],
        'statistics': results.statistics(intervals=True), 'failures': results.failures(),
        'seconds': {'enhancing': 1.0},
        'groups': {name: {label: {'files': len(files), 'statistics': results.statistics(files)}
                          for label, files in groups.items()} for name, groups in results.groups().items()},
        'noise_kinds': results.by_kind(),
        'real_time_factor': 0.1, 'device': 'cpu', 'versions': {'jax': '1'}, 'config': {'name': HOSTILE}}
    rng = np.random.default_rng(0)
    examples = [page.Example(label, i, {name: 0.1 * rng.standard_normal(LENGTHS[i]) for name in ('clean', *stages)})
                for label, i in (('Best', 1), ('Median', 0), ('Worst', 2))]
    return page.render(results, summary, examples, 16000), results


@pytest.fixture(scope='module')
def rendered():
    return render()


def words(html):
    """The text of a part of the page, without tags."""
    return ' '.join(re.sub('<.*?>', ' ', html).split())


def difference_rows(text):
    """The rows of the table of paired differences, as text."""
    table = text[text.index('aria-label="Paired differences"'):]
    rows = re.findall(r'<tr>(.*?)</tr>', table[:table.index('</table>')], re.DOTALL)
    return [words(row) for row in rows[1:]]


def decode(uri):
    head, content = uri.split(',', 1)
    return head, base64.b64decode(content, validate=True)


def test_the_page_is_self_contained(rendered):
    text, _ = rendered
    without_data = re.sub(r'data:[\w/]+;base64,[\w+/=]+', 'data:', text)
    assert not re.search(r'https?:|//[a-z]|@import|url\(', without_data)
    for tag, attributes in Page(text).elements:
        for name in ('src', 'href', 'srcset', 'poster', 'action', 'data'):
            assert attributes.get(name, '#').startswith(('#', 'data:')), (tag, attributes)
    assert "default-src 'none'" in text  # browsers, too, are told to load nothing


def test_every_link_has_its_target(rendered):
    found = Page(rendered[0])
    targets = {attributes['id'] for _, attributes in found.elements if 'id' in attributes}
    assert {link['href'] for link in found.all('a')} <= {f'#{target}' for target in targets}
    for tag, attributes in found.elements:
        for name in ('aria-labelledby', 'for'):
            assert attributes.get(name) is None or attributes[name] in targets, (tag, attributes)


def test_players_hold_every_signal_in_full(rendered):
    players = Page(rendered[0]).all('audio')
    lengths, labels = [], []
    for player in players:
        head, content = decode(player['src'])
        samples, rate = soundfile.read(io.BytesIO(content))
        assert head == 'data:audio/wav;base64' and rate == 16000 and 'controls' in player
        assert soundfile.info(io.BytesIO(content)).subtype == 'PCM_16'
        lengths.append(len(samples))
        labels.append(player['aria-label'].rsplit(', ', 1)[1])
    assert labels == ['clean', 'noisy', 'enhanced'] * 3
    assert lengths == [length for i in (1, 0, 2) for length in 3 * [LENGTHS[i]]]


def test_a_player_clips_rather_than_wraps():
    head, content = decode(figures.player(np.array([0.5, 1.5, -1.5]), 16000))
    assert_allclose(soundfile.read(io.BytesIO(content))[0], [0.5, 1, -1], atol=2**-14)


def test_a_long_example_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(page, 'MAX_SECONDS', 1)
    shown = page.show(page.Example('Best', 0, {'clean': np.ones(20000), 'noisy': np.ones(20000)}), 16000)
    assert shown['cut'] and len(soundfile.read(io.BytesIO(decode(shown['signals']['noisy']['sound'])[1]))[0]) == 16000


def test_pictures_are_described_and_drawn(rendered):
    pictures = Page(rendered[0]).all('img')
    assert len(pictures) == 9
    for picture in pictures:
        image = Image.open(io.BytesIO(decode(picture['src'])[1]))
        assert image.format == 'PNG' and 'Spectrogram' in picture['alt']
        assert image.size == (int(picture['width']), int(picture['height']))
    assert all(drawing['role'] == 'img' and drawing['aria-label'] for drawing in Page(rendered[0]).all('svg'))


def test_hostile_names_stay_text(rendered):
    found = Page(rendered[0])
    assert len(found.scripts) == 2  # the data and ours
    assert not any('onerror' in attributes for _, attributes in found.elements)
    assert HOSTILE in found.text and 'alert(2)' not in found.scripts[1]
    data = json.loads(found.scripts[0])
    assert data['files'][1]['id'] == HOSTILE and data['files'][3]['reasons'][1]['pesq_wb'] == f'broken: {HOSTILE}'


@pytest.mark.parametrize(('preceding', 'note'), [
    ({'folder': HOSTILE}, f'{HOSTILE}, not included in the real-time factor'),
    ({'workdir': HOSTILE, 'step': 9, 'hash': 'fedcba'},
     f'{HOSTILE}, step 9, checkpoint fedcba, included in the real-time factor')])
def test_the_input_of_a_refiner_is_named(preceding, note):
    found = Page(render(stages=('noisy', 'preceding', 'refined'), preceding=preceding)[0])
    assert f'refining {HOSTILE}' in found.text and note in ' '.join(found.text.split())


def test_data_of_the_file_table(rendered):
    data = json.loads(Page(rendered[0]).scripts[0])
    assert data['metrics'] == ['pesq_wb', 'llr'] and data['signs'] == [1, -1]
    assert [file['values'][1][0] for file in data['files']] == [2.1, 2.4, 1.8, None]


def test_numbers_on_the_page(rendered):
    text = ' '.join(Page(rendered[0]).text.split())
    assert '2.100 3 files' in text  # the mean over the files with a score
    assert difference_rows(rendered[0]) == [f'enhanced − noisy {GAIN} {SAME}']
    assert '2 of 3 not worse, mean +0.100' in text
    assert re.search(r'Best.*Median a .*Worst c ', text)
    assert '1 missing value' in text


def test_more_stages_get_rows_and_players_of_their_own():
    text, results = render(stages=('noisy', 'condition', 'diffusion', 'refined'))
    found = Page(text)
    assert [player['aria-label'].rsplit(', ', 1)[1] for player in found.all('audio')[:5]] == [
        'clean', 'noisy', 'condition', 'diffusion', 'refined']
    assert [option['value'] for option in found.all('option')] == [
        '3-0', '3-1', '3-2', '2-0', '2-1', '1-0', '3', '2', '1', '0', 'm0', 'm1']
    # Stages between are like the noisy input.
    assert difference_rows(text) == [f'{pair} {GAIN if pair.startswith("refined") else SAME} {SAME}' for pair in (
        'condition − noisy', 'diffusion − noisy', 'diffusion − condition',
        'refined − noisy', 'refined − condition', 'refined − diffusion')]


def table_rows(text, label):
    """The rows of the table in the region of that name as text, including the header."""
    table = text[text.index(label):]
    return [words(row) for row in re.findall(r'<tr.*?>(.*?)</tr>', table[:table.index('</table>')], re.DOTALL)]


def test_clean_speech_has_a_row_in_metrics_without_a_reference():
    clean = [Scores({'nisqa_v2_mos': value}, {}) for value in (4.5, 4.0, 4.4)]
    clean.append(Scores({'nisqa_v2_mos': NAN}, {'nisqa_v2_mos': HOSTILE}))
    text, _ = render(metrics=('nisqa_v2_mos', 'si_sdr'), clean=clean)
    found, plain = Page(text), ' '.join(Page(text).text.split())
    assert table_rows(text, 'aria-labelledby="h-summary"')[1:] == [
        'clean 4.300 3 files –', 'noisy 2.000 0.50', 'enhanced 2.100 3 files 0.50']
    assert difference_rows(text) == [f'enhanced − noisy {GAIN} +0.00 +0.00, +0.00 0 worse']
    assert table_rows(text, 'aria-label="Means by SNR (dB)"')[1:4] == [  # of the file without a score
        '2 1 clean n/a 0 files –', 'noisy 2.000 0.50', 'enhanced n/a 0 files n/a 0.50 +0.00']
    assert 'clean n/a n/a 4.000 n/a n/a' in table_rows(text, 'aria-label="nisqa_v2_mos by noise kind and SNR"')[-3:]
    assert not any('clean' in row for row in table_rows(text, 'aria-label="si_sdr by noise kind and SNR"'))
    assert 'clean mean 4.300' in plain and '2 missing values' in plain
    assert [row[:20] for row in table_rows(text, 'aria-label="Missing values"')[1:]] == [
        'd clean nisqa_v2_mos', 'd enhanced nisqa_v2_']
    data, views = json.loads(found.scripts[0]), [option['value'] for option in found.all('option')]
    assert views == ['1-0', '1', '0', '2', 'm0', 'm1']
    assert [file['values'][2] for file in data['files']] == [[4.5, None], [4.0, None], [4.4, None], [None, None]]
    assert [file['reasons'][2] for file in data['files']] == [{}, {}, {}, {'nisqa_v2_mos': HOSTILE}]
    assert len(found.scripts) == 2 and 'alert(2)' not in found.scripts[1]


def test_without_such_a_metric_there_is_no_row_of_clean_speech(rendered):
    assert [row.split()[0] for row in table_rows(rendered[0], 'aria-labelledby="h-summary"')] == [
        'stage', 'noisy', 'enhanced']
    assert all(option['value'] in ('1-0', '1', '0', 'm0', 'm1') for option in Page(rendered[0]).all('option'))


def test_groups_have_the_differences_of_their_files(rendered):
    text, _ = rendered
    table = text[text.index('aria-label="Paired differences by SNR (dB)"'):]
    rows = re.findall(r'<tr>(.*?)</tr>', table[:table.index('</table>')], re.DOTALL)[1:]  # SNRs of 2, 3, 4 and 5 dB
    assert [words(row) for row in rows] == [
        '2 1 enhanced − noisy n/a +0.000 0 worse', '3 1 enhanced − noisy −0.200 1 worse +0.000 0 worse',
        '4 1 enhanced − noisy +0.400 0 worse +0.000 0 worse', '5 1 enhanced − noisy +0.100 0 worse +0.000 0 worse']


def test_kinds_have_a_table_per_metric(rendered):
    text, _ = rendered
    assert {'id': 'kinds', 'aria-labelledby': 'h-kinds'} in Page(text).all('section') and 'href="#kinds"' in text
    table = text[text.index('aria-label="pesq_wb by noise kind and SNR"'):]
    header, *rows = re.findall(r'<tr.*?>(.*?)</tr>', table[:table.index('</table>')], re.DOTALL)
    assert words(header) == 'stage 2 3 4 5 Avg'
    seen = [words(row) for row in rows][3:6]  # at 5 dB, and at 2 dB without a score; no average over empty cells
    assert seen == ['seen , files 1 0 0 1 2', 'noisy 2.000 n/a n/a 2.000 n/a',
                    'enhanced n/a 0 files n/a n/a n/a n/a n/a 2.100 +0.100 n/a 1 file n/a']


# ---- figures ----


def test_histogram_bars_hold_all_values_and_none_straddles_zero():
    values = np.append(np.random.default_rng(0).normal(0.2, 1.0, 500), NAN)
    figure = figures.histograms({'a': values, 'b': np.array([NAN])})
    bars, finite = figure.rows['a'].bars, values[:-1]
    tallest = max(bar.height for bar in bars)
    assert_allclose(tallest, figures.ROW)
    left = [bar for bar in bars if bar.x < figure.zero - 0.1]
    assert all(bar.centre < 0 and bar.x + bar.width <= figure.zero + 0.1 for bar in left)
    share = sum(bar.height for bar in left) / sum(bar.height for bar in bars)
    assert_allclose(share, np.mean(finite < 0), atol=1e-3)
    assert len(bars) <= figures.BINS + 1 and figure.rows['a'].count == 500
    assert figure.rows['b'].bars == [] and figure.rows['b'].count == 0


def test_histogram_axis_is_linear_with_round_labels():
    figure = figures.histograms({'a': np.array([-1.0, 0.0, 3.0])})
    values = np.array([float(tick.label.replace('−', '-')) for tick in figure.ticks])
    places = np.array([tick.x for tick in figure.ticks])
    scale, offset = np.polyfit(values, places, 1)
    assert len(values) >= 3
    assert_allclose(places, scale * values + offset, atol=0.02)
    assert_allclose(figure.zero, offset, atol=0.02)
    assert_allclose(figure.rows['a'].mean, scale * 2 / 3 + offset, atol=0.02)


@pytest.mark.parametrize('value', [0.0, 1.0, -7.5, 1e-7, 1e6])
def test_histogram_of_one_value(value):
    figure = figures.histograms({'a': np.array([value, value])})
    assert len(figure.rows['a'].bars) == 1 and np.isfinite(figure.rows['a'].mean) and figure.ticks


def test_histogram_of_nothing():
    assert figures.histograms({'a': np.array([NAN])}) is None


def test_no_change_is_no_loss_where_lower_is_better():
    results = Results([{'id': 'a'}], ('noisy', 'enhanced'), ('llr',), np.full((1, 2, 1), 0.5), [[{}, {}]])
    bars = page._card(results, 0)['changes'].rows['enhanced', 'noisy'].bars
    assert len(bars) == 1 and bars[0].centre < 0


def test_power_of_a_tone():
    """A full-scale cosine under a periodic Hann window of n has the peak n / 4."""
    power = figures.power_db(np.cos(2 * np.pi * 1000 * np.arange(16000) / 16000))
    assert power.shape == (257, 126)
    column = power[:, 60]
    assert column.argmax() == 1000 * 512 // 16000
    assert_allclose(column.max(), 20 * np.log10(512 / 4), atol=1e-3)
    assert figures.power_db(np.zeros(100)).max() == pytest.approx(-300)


def test_spectrograms_share_their_colours():
    power = figures.power_db(np.random.default_rng(0).standard_normal(4000))
    drawn = [figures.spectrogram(power + gain, power.max(), 16000) for gain in (0, 0, -20)]
    assert drawn[0] == drawn[1] != drawn[2]
    brightness = [np.asarray(Image.open(io.BytesIO(decode(uri)[1])).convert('L')).mean() for uri in drawn]
    assert brightness[2] < brightness[0]
