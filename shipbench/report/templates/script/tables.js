// Tables: sorting by a column, filtering rows, hiding methods.
const MINUS = '\u2212';

// What a cell says, without its sign and what stands below.
const cellText = (row, column) => (row.cells[column] ? row.cells[column].querySelector('span').textContent : '');

function cellNumber(row, column) {
  const text = cellText(row, column).replace(MINUS, '-').replace(/[,<+]/g, '');
  if (text.trim() === '') return NaN;
  // "<0.001" comes before 0.001.
  return Number(text) - (cellText(row, column).trim().startsWith('<') ? Number.EPSILON : 0);
}

// A row and the differences below it move together.
function blocks(body) {
  const result = [];
  for (const row of body.rows) {
    if (row.classList.contains('difference') && result.length) result[result.length - 1].push(row);
    else result.push([row]);
  }
  return result;
}

function compare(one, other, column, descending) {
  const [a, b] = [cellNumber(one[0], column), cellNumber(other[0], column)];
  if (Number.isNaN(a) && Number.isNaN(b)) {
    const order = cellText(one[0], column).localeCompare(cellText(other[0], column), undefined, { numeric: true });
    return descending ? -order : order;
  }
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
  return descending ? b - a : a - b;
}

function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const sorted = blocks(body).sort((one, other) => compare(one, other, column, descending));
  body.append(...sorted.flat());
  all('tr.titles > th', table).forEach((head, i) => {
    if (i === column) head.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
    else head.removeAttribute('aria-sort');
  });
}

// The rows of every table that can be sorted, as they are without an order.
const unsorted = new Map();

function startSorting(within) {
  for (const table of all('table', within)) {
    if (table.tBodies[0].rows.length < 2) continue;
    unsorted.set(table, [...table.tBodies[0].rows]);
    all('tr.titles > th', table).forEach((head, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'sort';
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener('click', () => {
        const ascends = column === 0 ? 'ascending' : 'descending';
        const descending = head.getAttribute('aria-sort') ? head.getAttribute('aria-sort') === 'ascending' : ascends === 'descending';
        change({ sort: `${table.dataset.table}:${column}:${descending ? 'down' : 'up'}` });
      });
    });
  }
}

function applySort() {
  const [name, column, direction] = state.sort.split(':');
  const table = name && document.querySelector(`table[data-table="${CSS.escape(name)}"]`);
  for (const [other, rows] of unsorted) {
    if (other === table || !other.querySelector('[aria-sort]')) continue;
    other.tBodies[0].append(...rows);
    all('[aria-sort]', other).forEach(head => head.removeAttribute('aria-sort'));
  }
  if (table) sortTable(table, Number(column), direction === 'down');
}

function applyFilter() {
  const wanted = state.find.trim().toLowerCase();
  for (const body of all('table > tbody')) {
    for (const block of blocks(body)) {
      const matches = !wanted || block.some(row => row.textContent.toLowerCase().includes(wanted));
      const off = isHidden(block[0]);
      block.forEach(row => { row.hidden = off || !matches; });
    }
  }
}
