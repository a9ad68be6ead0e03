// The controls, and what changes with them.
function fit({ settings, rule, mean }) {
  return 4 * settings.split(' ').includes(state.settings) + 2 * (rule === state.rule) + (mean === state.mean);
}

const best = choices => choices.reduce((one, other) => (fit(other.dataset) > fit(one.dataset) ? other : one));

function applyResults() {
  for (const overview of all('.overview')) {
    const results = all('.result', overview);
    const chosen = best(results);
    results.forEach(result => { result.hidden = result !== chosen; });
  }
}

// A main table under the other rule or with the chosen settings alone replaces the printed one while that is chosen.
const shownTables = new Map();
const cloneOf = template => document.getElementById(template.content.firstElementChild.id);

function applyDetails() {
  const templates = all('template[data-detail]');
  for (const id of new Set(templates.map(template => template.dataset.detail))) {
    const [original, others] = [document.getElementById(id), templates.filter(each => each.dataset.detail === id)];
    const printed = { dataset: { settings: others[0].dataset.printed, rule: first('rule') } };
    const chosen = best([printed, ...others]);
    if (chosen !== printed && !cloneOf(chosen)) {
      original.after(chosen.content.cloneNode(true));
      startSorting(cloneOf(chosen));
    }
    const shown = chosen === printed ? original : cloneOf(chosen);
    [original, ...others.map(cloneOf)].filter(Boolean).forEach(table => { table.hidden = table !== shown; });
    shownTables.set(id, shown);
  }
}

function startControls() {
  for (const input of all('.choice input')) {
    input.addEventListener('change', () => change({ [input.name]: input.value }));
  }
  for (const button of all('.method')) {
    button.addEventListener('click', () => {
      const off = new Set(state.off);
      if (!off.delete(button.dataset.method)) off.add(button.dataset.method);
      change({ off });
    });
    button.addEventListener('focus', () => highlight(button.dataset.method));
    button.addEventListener('blur', () => highlight(''));
  }
  document.getElementById('find').addEventListener('input', event => change({ find: event.target.value }));
}

function openAround(target) {
  for (let part = target; part; part = part.parentElement) {
    if (part.tagName === 'DETAILS') part.open = true;
  }
}

// What stands in the place of a table or figure that the chosen rule, mean and settings hide.
function shownFor(target) {
  const hidden = target.closest('[hidden]');
  if (!hidden) return target;
  return hidden.closest('.overview') || shownTables.get(target.id) || target;
}

function goToAnchor() {
  const target = anchor() && document.getElementById(decodeURIComponent(anchor()));
  if (!target) return;
  openAround(target);
  if (location.hash.includes('&')) shownFor(target).scrollIntoView();
}

function apply() {
  applyHidden();
  applyResults();
  applyDetails();
  applyMethods();
  applySort();
  applyFilter();
}

let opened = [];
addEventListener('beforeprint', () => {
  opened = all('details:not([open])');
  opened.forEach(details => { details.open = true; });
});
addEventListener('afterprint', () => opened.forEach(details => { details.open = false; }));
addEventListener('pointermove', onPointer);
addEventListener('pointerdown', onPointer);
addEventListener('keydown', onKey);
addEventListener('scroll', () => showTip(null, null), { passive: true });
addEventListener('hashchange', () => {
  // A link within the page names a place alone, and the view stays as it is.
  if (anchor() && fragment().length === 1) writeState(); else readState();
  apply();
  goToAnchor();
});

listeners.push(apply);
startSorting(document);
startFigures(document);
startControls();
readState();
apply();
goToAnchor();
