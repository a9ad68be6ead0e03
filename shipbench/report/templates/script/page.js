// The controls, and what changes with them.
function applyResults() {
  for (const overview of all('.overview')) {
    const results = all('.result', overview);
    const score = result => 2 * (result.dataset.rule === state.rule) + (result.dataset.mean === state.mean);
    const best = results.reduce((one, other) => (score(other) > score(one) ? other : one));
    results.forEach(result => { result.hidden = result !== best; });
  }
}

// The main table under the other rule replaces the printed one while that rule is chosen.
function applyDetails() {
  for (const template of all('template[data-detail]')) {
    const original = document.getElementById(template.dataset.detail);
    const id = `${template.dataset.detail}-${template.dataset.rule}`;
    const chosen = template.dataset.rule === state.rule;
    if (chosen && !document.getElementById(id)) {
      original.after(template.content.cloneNode(true));
      startSorting(document.getElementById(id));
    }
    original.hidden = chosen;
    const other = document.getElementById(id);
    if (other) other.hidden = !chosen;
  }
}

function chooseSettings(choice) {
  const tuned = all('.method').filter(button => 'tuned' in button.dataset);
  const rest = all('.method').filter(button => !('tuned' in button.dataset));
  const hidden = { all: [], default: tuned, tuned: rest }[choice];
  change({ settings: choice, off: new Set(hidden.map(button => button.dataset.method)) });
}

function startControls() {
  for (const input of all('.choice input')) {
    input.addEventListener('change', () => {
      if (input.name === 'settings') chooseSettings(input.value);
      else change({ [input.name]: input.value });
    });
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

// What stands in the place of a table or figure that the chosen rule and mean hide.
function shownFor(target) {
  const hidden = target.closest('[hidden]');
  if (!hidden) return target;
  return hidden.closest('.overview') || document.getElementById(`${target.id}-${state.rule}`) || target;
}

function goToAnchor() {
  const target = anchor() && document.getElementById(decodeURIComponent(anchor()));
  if (!target) return;
  openAround(target);
  if (location.hash.includes('&')) shownFor(target).scrollIntoView();
}

function apply() {
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
