// ---- Events ----

network = inference(new Uint8Array(data.size ** 2));  // for the sizes
Object.assign(MOVES, {PageUp: [0, 0, -1], PageDown: [0, 0, 1]});
function choose(name, y, x, channel) {
  const {height, width, channels} = network[name];
  chosen = {name, y: clamp(y, 0, height - 1), x: clamp(x, 0, width - 1), channel: clamp(channel, 0, channels - 1)};
  explain();
}
for (const name of FIGURES) {
  at('layers').insertAdjacentHTML('beforeend', `<figure><figcaption>${titleOf(name)}</figcaption><div class="framed">` +
    `<canvas id="${name}" aria-label="${titleOf(name)}. Arrow keys move` +
    `${name === 'image' ? '' : ', Page Up and Page Down change the channel'}."></canvas><i hidden></i></div></figure>`);
  if (name === 'image') continue;  // one hides a part of it
  listen(at(name), (y, x) => {
    const {height, width, columns, offset} = tileOf(name);
    const channel = Math.floor(y / height) * columns + Math.floor(x / width), column = Math.floor(x % width) - offset;
    if (column >= 0) choose(name, Math.floor(y % height), column, channel);
    else choose(...Object.values(strongestOf(name, [channel])));  // one points at the kernel
  }, (rows, columns, channels = 0) => {
    const from = chosen?.name === name ? chosen : strongestOf(name);
    if (isImage(name)) choose(name, from.y + rows, from.x + columns, from.channel + channels);
    else choose(name, 0, 0, from.channel + columns + rows * tileOf(name).columns + channels);
  });
}

// A square under the pointer hides a part of the image. A click keeps it, and one on it takes it away.
listen(at('image'), () => {}, (rows, columns) =>
  hide((hidden?.y ?? data.size / 2) + rows, (hidden?.x ?? data.size / 2) + columns, true));
at('image').onpointerdown = at('image').onpointermove = ({type, pointerType, offsetX, offsetY, target}) => {
  const [y, x] = [offsetY, offsetX].map(offset => Math.floor(offset * data.size / target.clientWidth));
  const isDown = type === 'pointerdown', isTouch = pointerType === 'touch';
  if (isDown && hidden?.stays && isHidden(y, x)) hide();
  else if (isDown || (isTouch ? hidden : !hidden?.stays)) hide(y, x, isDown || isTouch);
};
at('image').onpointerleave = () => hidden?.stays || hide();
window.addEventListener('keydown', ({key}) => key === 'Escape' && hide());

// Puts the hand-coded kernels in the place of the learned ones, or these back.
function useKernels(isHandCoded) {
  at('handCoded').checked = isHandCoded;
  at('handCoded').parentNode.hidden = !handCoded;
  if (!handCoded || layers[firstConv] === (isHandCoded ? handCoded : learned)) return;
  layers[firstConv] = isHandCoded ? handCoded : learned;
  at(firstConv).image = undefined;  // its kernels are drawn anew
  if (!shown) return;  // when something is drawn
  const {y, x} = hidden ?? {};
  read(whole, shown);
  hide(y, x, true);
  choose(...Object.values(strongestOf(firstConv)));
}

at('arithmetic').onclick = event => event.currentTarget.classList.toggle('open',  // on a phone
  !event.currentTarget.matches('.open') || event.composedPath().some(({id}) => ['numbers', 'enlarged'].includes(id)));
at('handCoded').onchange = ({target}) => useKernels(target.checked);
listen(at('channel'), (y, x) => choose(chosen.name, Math.floor(y), Math.floor(x), chosen.channel),
       (rows, columns, channels = 0) =>
         choose(chosen.name, chosen.y + rows, chosen.x + columns, chosen.channel + channels));
at('numbers').onclick = ({target: {dataset: {from}}}) => {
  if (!from) return;
  chosen.from = Number(from);
  explain();
  at('numbers').querySelector('[aria-pressed=true]').focus();
};
at('bars').onclick = ({target}) => target.dataset.digit && choose(LAST, 0, 0, Number(target.dataset.digit));
window.onresize = explain;

const drawing = at('drawing').getContext('2d', {willReadFrequently: true});
let nextFrame;  // in which the drawing is read: at most once for each frame
let pen;        // the pointer that draws; others are ignored
let past = [];  // what was drawn before each stroke
const tip = {x: 140, y: 56};  // of the pen that is moved by keys; draws: whether it is on the paper
const isTestDigit = () => document.querySelector('.digit[aria-pressed=true]');  // in the field

function clear() {
  Object.assign(drawing, {fillStyle: 'white', lineCap: 'round', lineWidth: 18});
  drawing.fillRect(0, 0, 280, 280);
  cancelAnimationFrame(nextFrame);
  for (const button of document.querySelectorAll('.digit')) button.ariaPressed = false;
}

function remember() {
  if (isTestDigit()) return;
  past = [...past.slice(-50), drawing.getImageData(0, 0, 280, 280)];
  at('undo').disabled = false;
}

// Dark ink on white paper.
const inkOf = bytes => values(data.size, data.size, 1, (y, x) => 1 - bytes[data.size * y + x] / 255);

// Shows a test digit in the field for drawing, until the first stroke, and reads it.
function readTestDigit(bytes, name) {
  remember();
  clear();
  const small = document.createElement('canvas');
  draw(small, inkOf(bytes));
  drawing.drawImage(small, 0, 0, 280, 280);
  read(bytes, name);
}

function beginStroke(x, y) {
  if (isTestDigit()) clear();
  remember();
  tip.draws = false;
  drawing.beginPath();
  strokeTo(x, y);
  strokeTo(x, y);  // once more to the same place: a dot, if nothing follows
}

function strokeTo(x, y) {
  drawing.lineTo(x, y);
  drawing.stroke();
  drawing.beginPath();
  drawing.moveTo(x + 0.1, y);  // a line of no length would draw nothing
  cancelAnimationFrame(nextFrame);
  nextFrame = requestAnimationFrame(readDrawing);
}

function readDrawing() {
  const found = readDigit(drawing);
  if (typeof found === 'string') showNothing(found);
  else read(found, DRAWN);
}

function showNothing(answer) {
  document.body.classList.add('empty');
  shown = '';  // nothing is explained
  at('answer').textContent = answer;
  showGuide();
}

function placeIn({clientX, clientY}) {
  const {left, top, width} = at('drawing').getBoundingClientRect();
  return [clientX - left, clientY - top].map(length => clamp(length * 280 / width, 0, 280));
}

at('drawing').onpointerdown = event => {
  if (pen !== undefined || event.button) return;
  pen = event.pointerId;
  at('drawing').setPointerCapture(pen);
  beginStroke(...placeIn(event));
};
at('drawing').onpointermove = event => event.pointerId === pen &&
  [...event.getCoalescedEvents?.() ?? [], event].forEach(each => strokeTo(...placeIn(each)));
at('drawing').onpointerup = at('drawing').onpointercancel = at('drawing').onlostpointercapture = event => {
  if (event.pointerId === pen) pen = undefined;
};
const showTip = () => frame(at('drawing'), tip.y - 9, tip.x - 9, 18, 18);
at('drawing').onfocus = () => at('drawing').matches(':focus-visible') && showTip();
at('drawing').onkeydown = event => {
  const {key, shiftKey} = event;
  if (!(key in MOVES)) return;
  event.preventDefault();
  if (shiftKey && !tip.draws) beginStroke(tip.x, tip.y);
  tip.draws = shiftKey;
  tip.y = clamp(tip.y + 14 * MOVES[key][0], 0, 280);
  tip.x = clamp(tip.x + 14 * MOVES[key][1], 0, 280);
  if (shiftKey) strokeTo(tip.x, tip.y);
  showTip();
};
at('drawing').onblur = () => [tip.draws, frameOf('drawing').hidden] = [false, true];
at('undo').onclick = () => {
  clear();
  drawing.putImageData(past.pop(), 0, 0);
  at('undo').disabled = !past.length;
  if (!past.length) at('clear').focus();
  readDrawing();
};
at('clear').onclick = () => {
  remember();
  clear();
  if (showGuide() < GUIDE.length - 1) showGuide(0);  // the others point at what is not there
  readDrawing();
};

function addDigit(group, {pixels, label}, caption) {
  const name = label.length > 1 ? `Test image: ${label}` : `Test digit, ${label === '8' ? 'an' : 'a'} ${label}`;
  const button = document.createElement('button'), bytes = bytesOf(pixels);
  Object.assign(button, {className: 'digit', ariaLabel: name + (caption && `: ${caption}`)});
  button.append(document.createElement('canvas'), caption);
  draw(button.firstChild, inkOf(bytes));
  button.onclick = () => {
    readTestDigit(bytes, name);
    button.ariaPressed = true;
  };
  at(group).append(button);
}

for (const digit of data.digits) addDigit('digits', digit, '');
for (const digit of data.mistakes) addDigit('mistakes', digit, `${digit.label}\u2192${digit.read}`);
for (const id of ['bars', 'digits', 'mistakes']) oneTabStop(at(id));
oneTabStop(at('numbers'), '[data-from]');

// ---- The guide, and the start ----

const STEPS = {  // by the kind of a layer
  first: () => 'each tile is a kernel and what it makes of the image. Lines lead from an activation to its patch. ' +
    'Point at others, here or enlarged; a click fixes one.',
  pool: name => `it keeps the ${isLargest(name) ? 'largest' : 'mean'} of each 2 x 2 activations: half the height and ` +
    'width, as many channels.',
  conv: name => `each kernel looks at all ${network[before(name)].channels} channels of ${before(name)}, and adds up ` +
    'their sums. Fix an activation by a click, then click on a bar.',
  unit: name => `a unit sums ${before(name)}'s activations, each times a weight. Circles mark the largest products.`,
  last: () => 'the logits. Softmax divides the exponential of each by the sum of all exponentials. A ' +
    'click on a digit explains its logit.'};
const kindOf = name => name === LAST ? 'last' : name === firstConv ? 'first' : !(name in layers) ? 'pool' :
  isImage(name) ? 'conv' : 'unit';
const GUIDE = [
  ['drawing', 'From the pixels, the network computes ten probabilities, layer by layer. Draw a digit to see it.',
    () => layers[firstConv] === learned && document.querySelector('#mistakes [aria-pressed=true]') &&
      ' This one is read wrongly.'],
  ['image', `The network sees ${data.size} x ${data.size} pixels, scaled and centred. Point or tap: a square takes ` +
    'ink away, and the bars answer. A click keeps it, a click on it frees it.'],
  ...data.order.filter((name, i) => data.order.findIndex(other => kindOf(other) === kindOf(name)) === i).map(name =>
    [at(name) ? name : 'bars', `${name}: ${STEPS[kindOf(name)](name)}`, undefined, () => {
      useKernels(false);
      keep(false);
      at('arithmetic').classList.remove('open');
      choose(...Object.values(strongestOf(name)));
    }]),
  ['drawing', `Now you: draw a digit that it reads with a probability below ${data.unsure}.`,
    () => shown === DRAWN && layers[firstConv] === learned && isUnsure() && ' Done: it is unsure.', () => hide()]];
const isUnsure = () => Math.max(...softmaxOf([...network[LAST].array])) < data.unsure;
const showGuide = guideThrough(GUIDE);

// Whether this page reads the first digits as TensorFlow did: it does not know every way to connect layers.
const isRight = data.probabilities.every((expected, i) => {
  const probabilities = softmaxOf([...inference(bytesOf(data.digits[i].pixels))[LAST].array]);
  return expected.every((probability, digit) => Math.abs(probability - probabilities[digit]) <= data.tolerance);
});
if (isRight) {
  const first = document.querySelector('#mistakes > :last-child') ?? document.querySelector('.digit');
  first.ariaPressed = true;  // there is no drawing that Undo brings back
  first.onclick();
  useKernels(false);
  choose(...Object.values(strongestOf(data.order[0])));
  showGuide(0);
  scrollTo(0, 0);
} else document.querySelector('main').textContent =
  'This page cannot compute this network: for some test digits, its probabilities are not those of TensorFlow.';
