// The state of the page: what the controls say. It is kept in the address, so that a link shows the same view.
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const state = { rule: '', mean: '', settings: 'all', off: new Set(), find: '', sort: '' };
const listeners = [];

// It parts the keys of what belongs to several methods; no key has it.
const BETWEEN_KEYS = '\u2028';
const keysOf = key => (key ? key.split(BETWEEN_KEYS) : []);
const isApart = button => state.settings !== 'all' && !button.dataset.settings.split(' ').includes(state.settings);
let hiddenKeys = new Set();

// Methods do not show if they are switched off or have other settings than the chosen ones.
function applyHidden() {
  hiddenKeys = new Set([...state.off, ...all('.method').filter(isApart).map(button => button.dataset.method)]);
}

function isHidden(part) {
  const keys = keysOf(part.dataset.key);
  return keys.length > 0 && keys.every(key => hiddenKeys.has(key));
}

function first(name) {
  const input = document.querySelector(`input[name="${name}"]`);
  return input && input.value;
}

const fragment = () => location.hash.slice(1).split('&').filter(Boolean);
const anchor = () => fragment().find(part => !part.includes('=')) || '';

function readState() {
  const values = Object.fromEntries(fragment().filter(part => part.includes('=')).map(part => {
    const [name, ...rest] = part.split('=');
    return [name, decodeURIComponent(rest.join('='))];
  }));
  for (const name of ['rule', 'mean', 'settings']) {
    const inputs = all(`input[name="${name}"]`);
    const wanted = inputs.find(input => input.value === values[name]) || inputs[0];
    if (wanted) { wanted.checked = true; state[name] = wanted.value; }
  }
  state.off = new Set((values.off || '').split('|').filter(Boolean).map(decodeURIComponent));
  state.find = values.find || '';
  state.sort = values.sort || '';
  document.getElementById('find').value = state.find;
}

function writeState() {
  const parts = anchor() ? [anchor()] : [];
  for (const name of ['rule', 'mean', 'settings']) {
    if (state[name] && state[name] !== first(name)) parts.push(`${name}=${encodeURIComponent(state[name])}`);
  }
  // Encoded twice, because the name of a method may have the sign that parts them.
  if (state.off.size) parts.push(`off=${encodeURIComponent([...state.off].map(encodeURIComponent).join('|'))}`);
  if (state.find) parts.push(`find=${encodeURIComponent(state.find)}`);
  if (state.sort) parts.push(`sort=${encodeURIComponent(state.sort)}`);
  history.replaceState(null, '', parts.length ? `#${parts.join('&')}` : location.pathname + location.search);
}

function change(update) {
  Object.assign(state, update);
  writeState();
  listeners.forEach(listener => listener());
}
