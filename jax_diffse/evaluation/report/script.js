'use strict';

// Compares numbers as numbers; missing values come last in either direction.
function compare(a, b, direction) {
  if (a === '' || b === '') return (a === '') - (b === '');
  const order = isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
  return direction * order;
}

function sortRows(table, column, direction) {
  const body = table.tBodies[0];
  const key = row => row.cells[column].dataset.value;
  [...body.rows].sort((a, b) => compare(key(a), key(b), direction)).forEach(row => body.append(row));
  [...table.tHead.rows[0].cells].forEach((cell, i) => {
    if (i === column) cell.setAttribute('aria-sort', direction > 0 ? 'ascending' : 'descending');
    else cell.removeAttribute('aria-sort');
  });
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => sortOnClick(table, cell, column));
}

function sortOnClick(table, cell, column) {
  cell.querySelector('button').addEventListener('click', () => {
    sortRows(table, column, cell.getAttribute('aria-sort') === 'ascending' ? -1 : 1);
  });
}

function addCell(row, text, value, kind) {
  const cell = row.insertCell();
  cell.textContent = text;
  cell.dataset.value = value ?? '';
  if (kind) cell.className = kind;
  return cell;
}

function signed(value, decimals, sign) {
  const text = Math.abs(value).toFixed(decimals);
  return (value < 0 ? '\u2212' : sign ? '+' : '') + text;
}

// The columns of a view of the files: the metrics of one stage ('2') or of the difference of two ('2-1'), or one metric
// of every stage ('m0').
function columnsOf(data, view) {
  if (view.startsWith('m')) {
    const m = Number(view.slice(1));
    return data.stages.map((name, stage) => ({name, m, stage, title: data.titles[m]}));
  }
  const [stage, earlier] = view.split('-');
  return data.metrics.map((metric, m) => ({
    name: `${metric} ${data.signs[m] < 0 ? '\u2193' : '\u2191'}`, m, stage, earlier, title: data.titles[m]}));
}

// Puts the columns after the first ones, of the file, its SNR and its noise.
function fillHead(table, columns, fixed) {
  const row = table.tHead.rows[0];
  while (row.cells.length > fixed) row.lastElementChild.remove();
  columns.forEach(column => {
    const head = document.createElement('th');
    const button = document.createElement('button');
    head.scope = 'col';
    head.title = column.title;
    button.type = 'button';
    button.textContent = column.name;
    head.append(button);
    row.append(head);
    sortOnClick(table, head, row.cells.length - 1);
  });
}

function fillFiles(table, data, columns) {
  const body = table.tBodies[0];
  body.replaceChildren();
  data.files.forEach(file => {
    const row = body.insertRow();
    addCell(row, file.id, file.id, 'text id').title = file.id;
    row.dataset.words = `${file.id} ${file.noise ?? ''}`.toLowerCase();
    data.facts.forEach(fact => {
      const text = String(file[fact] ?? '');
      if (fact === 'noise') addCell(row, text, text, 'text');
      else addCell(row, text.replace('-', '\u2212'), text, '');
    });
    columns.forEach(({m, stage, earlier}) => {
      const difference = earlier !== undefined, metric = data.metrics[m];
      const value = file.values[stage][m];
      const base = difference ? file.values[earlier][m] : 0;
      const missing = value === null || base === null;
      const shown = missing ? null : difference ? value - base : value;
      const reason = file.reasons[stage][metric] ?? file.reasons[earlier]?.[metric];
      const text = !missing ? signed(shown, data.decimals[m], difference) : reason ? 'n/a' : data.not_applicable;
      const cell = addCell(row, text, shown, '');
      if (missing) cell.title = reason ?? '';
      else if (difference && shown * data.signs[m] < 0) cell.className = 'worse';
      else if (difference && shown !== 0) cell.className = 'better';
    });
  });
}

function filterFiles(table, text) {
  const wanted = text.trim().toLowerCase();
  for (const row of table.tBodies[0].rows) {
    row.hidden = !row.dataset.words.includes(wanted);
  }
}

document.querySelectorAll('table.sortable').forEach(makeSortable);

// Only the report on one setting has a table of files.
const files = document.getElementById('file-table');
if (files) {
  const data = JSON.parse(document.getElementById('file-data').textContent);
  const view = document.getElementById('view');
  const search = document.getElementById('search');
  const refresh = () => {
    const before = [...files.tHead.rows[0].cells].find(cell => cell.hasAttribute('aria-sort'));
    const columns = columnsOf(data, view.value);
    fillHead(files, columns, 1 + data.facts.length);
    fillFiles(files, data, columns);
    filterFiles(files, search.value);
    const sorted = [...files.tHead.rows[0].cells].findIndex(cell => cell.textContent === before?.textContent);
    if (sorted >= 0) sortRows(files, sorted, before.getAttribute('aria-sort') === 'ascending' ? 1 : -1);
  };
  view.addEventListener('change', refresh);
  search.addEventListener('input', () => filterFiles(files, search.value));
  refresh();
}

// Only one player plays at a time.
document.addEventListener('play', event => {
  document.querySelectorAll('audio').forEach(player => { if (player !== event.target) player.pause(); });
}, true);
