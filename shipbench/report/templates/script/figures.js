// Figures: exact values at the pointer or by arrow keys, and methods that can be switched off or highlighted.
const REACH = 14;
const tip = document.getElementById('tip');
const spots = new WeakMap();

// The places of a path: those after M, and those that steps after l lead to.
function vertices(shape) {
  if (shape.tagName === 'circle') return [[Number(shape.getAttribute('cx')), Number(shape.getAttribute('cy'))]];
  const places = [];
  let [x, y] = [0, 0];
  for (const [, command, rest] of shape.getAttribute('d').matchAll(/([Ml])([^a-zA-Z]+)/g)) {
    const numbers = rest.match(/-?\d*\.?\d+/g).map(Number);
    for (let i = 0; i < numbers.length; i += 2) {
      [x, y] = command === 'M' ? [numbers[i], numbers[i + 1]] : [x + numbers[i], y + numbers[i + 1]];
      places.push([x, y]);
    }
  }
  return places;
}

// The texts of a shape, one per line; those with a form have the numbers alone, which fill its gaps.
function textsOf(shape) {
  const texts = shape.dataset.tip.split('\n');
  if (shape.dataset.form === undefined) return texts;
  const words = shape.dataset.form.split('#');
  return texts.map(text => text.split(' ').reduce((filled, number, i) => filled + number + (words[i + 1] ?? ''), words[0]));
}

function centre(places) {
  const [xs, ys] = [places.map(place => place[0]), places.map(place => place[1])];
  return [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
}

function gridSpots(image) {
  const [x, y, width, height] = ['x', 'y', 'width', 'height'].map(name => Number(image.getAttribute(name)));
  const texts = textsOf(image);
  const columns = Number(image.dataset.columns);
  const [across, down] = [width / columns, height / (texts.length / columns)];
  return texts.map((text, i) => ({
    text, x: x + (i % columns + 0.5) * across, y: y + (Math.floor(i / columns) + 0.5) * down, shape: image,
    reach: Math.max(across, down) / 2,
  })).filter(spot => spot.text);
}

// A narrow drawing leaves its values to the broad one, which has them in the same order.
function valued(svg) {
  const shapes = all('[data-tip]', svg);
  const broad = svg.matches('.narrow') ? all('.broad [data-tip]', svg.parentElement) : shapes;
  shapes.forEach((shape, i) => {
    if (shape.dataset.tip) return;
    const { tip, form } = broad[i].dataset;
    Object.assign(shape.dataset, form === undefined ? { tip } : { tip, form });
  });
  return shapes;
}

// Every place in a drawing that has an exact value, in drawing coordinates.
function spotsOf(svg) {
  if (!spots.has(svg)) {
    spots.set(svg, valued(svg).flatMap(shape => {
      if (shape.tagName === 'image') return gridSpots(shape);
      const [texts, places] = [textsOf(shape), vertices(shape)];
      if (texts.length > 1) return texts.map((text, i) => ({ text, x: places[i][0], y: places[i][1], shape, reach: REACH }));
      const [x, y] = centre(places);
      const box = shape.getBBox();
      return [{ text: texts[0], x, y, shape, reach: Math.max(REACH, Math.min(box.width, box.height) / 2), box }];
    }));
  }
  return spots.get(svg).filter(spot => !isHidden(spot.shape));
}

function nearest(svg, x, y) {
  const inside = spot => spot.box && x >= spot.box.x && x <= spot.box.x + spot.box.width
    && y >= spot.box.y && y <= spot.box.y + spot.box.height;
  const far = spot => (inside(spot) ? Math.min(1, Math.hypot(spot.x - x, spot.y - y)) : Math.hypot(spot.x - x, spot.y - y));
  return spotsOf(svg).filter(spot => inside(spot) || far(spot) <= spot.reach).sort((a, b) => far(a) - far(b))[0];
}

function showTip(svg, spot) {
  if (!spot) { tip.classList.remove('shown'); return; }
  const place = new DOMPoint(spot.x, spot.y).matrixTransform(svg.getScreenCTM());
  tip.textContent = spot.text;
  tip.classList.add('shown');
  const room = root.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(place.x + 12, room))}px`;
  tip.style.top = `${Math.max(8, place.y - tip.offsetHeight - 10)}px`;
}

function highlight(key) {
  const wanted = keysOf(key);
  root.classList.toggle('highlighting', wanted.length > 0);
  all('[data-key].hot').forEach(part => part.classList.remove('hot'));
  const alone = wanted.map(each => `[data-key="${CSS.escape(each)}"]`);
  for (const part of all([...alone, `[data-key*="${BETWEEN_KEYS}"]`].join())) {
    if (keysOf(part.dataset.key).some(each => wanted.includes(each))) part.classList.add('hot');
  }
}

function onPointer(event) {
  const svg = event.target.closest('.drawing svg');
  if (svg) {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const spot = nearest(svg, place.x, place.y);
    showTip(svg, spot);
    highlight(spot ? spot.shape.dataset.key : '');
    return;
  }
  showTip(null, null);
  const keyed = event.target.closest('tr[data-key], .method');
  highlight(keyed ? keyed.dataset.key || keyed.dataset.method : '');
}

// Arrow keys walk through the values of a drawing that has the focus.
function onKey(event) {
  const drawing = event.target.closest('.drawing');
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!drawing || !step) return;
  event.preventDefault();
  const svg = all('svg', drawing).find(each => each.getClientRects().length);
  const list = spotsOf(svg);
  if (!list.length) return;
  const next = (Number(drawing.dataset.at ?? (step > 0 ? -1 : 0)) + step + list.length) % list.length;
  drawing.dataset.at = next;
  showTip(svg, list[next]);
  highlight(list[next].shape.dataset.key);
}

function startFigures(within) {
  for (const drawing of all('.drawing', within)) {
    if (drawing.querySelector('[data-tip]')) drawing.tabIndex = 0;
    drawing.addEventListener('blur', () => { showTip(null, null); highlight(''); });
  }
}

function applyMethods() {
  all('.drawing [data-key]').forEach(part => part.classList.toggle('off', isHidden(part)));
  for (const button of all('.method')) {
    button.hidden = isApart(button);
    button.setAttribute('aria-pressed', String(!state.off.has(button.dataset.method)));
  }
}
