// ---- What is shown ----

const isImage = name => network[name].height > 1;
const FIGURES = ['image', ...data.order.slice(0, -1)].flatMap(name =>
  name === firstConv && HAND in layers ? [name, HAND] : [name]);
const figureOf = name => at(name).closest('figure');
const hasKernels = name => name === firstConv || name === HAND;  // each channel is shown beside its kernel
let network;        // the values of each layer
let shown = '';     // whose they are: 'Your drawing', ...
let chosen = null;  // {name, y, x, channel}: the activation that is explained

function titleOf(name) {
  const {height, width, channels} = network[name], input = network[before(name)];
  if (name === 'image') return `the image, ${height} x ${width}`;
  const sizes = isImage(name) ? `${channels} channels of ${height} x ${width}` : `${channels} units`;
  const how = !(name in layers) ? `the ${data.pooling === 'max' ? 'largest' : 'mean'} of each 2 x 2` :
    !isImage(name) ? `each sees all of ${before(name)}` :
      hasKernels(name) ? 'each beside its kernel' : `sums over ${before(name)}'s ${input.channels}`;
  return `${name}: ${sizes}, ${how}`;
}

// The kernel [h, w] between channel c of the input and channel k of the output, as rows.
function kernelOf({shape: [h, w, channelsIn, channels], weights}, c, k) {
  return range(h).map(y => range(w).map(x => weights[((y * w + x) * channelsIn + c) * channels + k]));
}

// A layer's channels are tiles of its canvas, in pixels; those of the first have the kernel to their left.
function tileOf(name) {
  const {height, width, channels} = network[name];
  const gap = isImage(name) && name !== 'image' ? 3 : 0, offset = hasKernels(name) ? width + 1 : 0;
  const columns = name === 'image' ? 1 : hasKernels(name) ? 4 : isImage(name) ? 8 : Math.ceil(Math.sqrt(channels));
  return {height: height + gap, width: offset + width + gap, offset, columns};
}

// One scale for activations: black, violet, orange, yellow. A second one, for weights: blue, white, orange.
const HEAT = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const mix = (one, other, share) => one.map((part, i) => part + (other[i] - part) * share);
const packed = ([red, green, blue]) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;  // as ImageData has a pixel
const HEATS = Uint32Array.from(range(256), i => {
  const place = i / 255 * (HEAT.length - 1), from = Math.min(Math.floor(place), HEAT.length - 2);
  return packed(mix(HEAT[from], HEAT[from + 1], place - from));
});
const SIGNS = Uint32Array.from(range(511), i =>
  packed(mix([255, 255, 255], i < 255 ? [0, 114, 178] : [213, 94, 0], Math.abs(i - 255) / 255)));
const signColour = value => SIGNS[Math.round(255 * value) + 255];  // from -1 to 1
const colourOf = value => value < 0 ? signColour(value) : HEATS[Math.round(255 * Math.sqrt(value))];

function showLayer(name) {
  const layer = network[name], {height, width, offset, columns} = tileOf(name), canvas = at(name);
  const strongest = layer.array.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
  Object.assign(canvas, {height: Math.ceil(layer.channels / columns) * height, width: columns * width});
  const image = new ImageData(canvas.width, canvas.height), pixels = new Uint32Array(image.data.buffer);
  for (let channel = 0; channel < layer.channels; channel++) {
    const corner = Math.floor(channel / columns) * height * canvas.width + channel % columns * width;
    const kernel = hasKernels(name) && kernelOf(layers[name], 0, channel);
    const largest = kernel && Math.max(...kernel.flat().map(Math.abs), 1e-9);
    for (let y = 0; y < layer.height; y++)
      for (let x = 0; x < layer.width; x++) {
        const place = corner + y * canvas.width + x, from = (y * layer.width + x) * layer.channels + channel;
        pixels[place + offset] = colourOf(layer.array[from] / strongest);
        if (kernel) pixels[place] = signColour(kernel[Math.floor(y * kernel.length / layer.height)]
                                                     [Math.floor(x * kernel[0].length / layer.width)] / largest);
      }
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
  figureOf(name).firstChild.textContent = titleOf(name);
}

function softmaxOf(logits) {
  const exponentials = logits.map(logit => Math.exp(logit - Math.max(...logits)));
  return {exponentials, probabilities: exponentials.map(value => value / sumOf(exponentials))};
}

const largestAt = array => array.reduce((best, value, i) => value > array[best] ? i : best, 0);

// Reads one or several digits, and shows the layers for the first. Unless a click has chosen an activation, the
// strongest one of the layer is explained.
function read(pixels, name, ...others) {
  network = inference(pixels);
  shown = name;
  const logits = [...network[LAST].array], {exponentials, probabilities} = softmaxOf(logits);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const readings = [order[0], ...others.map(each => largestAt(inference(each)[LAST].array))];
  at('answer').textContent =
    `${name}: the network reads ${readings.join(' ')} (probability ` +
    `${probabilities[order[0]].toFixed(4)}); runner-up ${order[1]} (${probabilities[order[1]].toFixed(4)}).` +
    (others.length ? ' The layers show the first digit.' : '') +
    (probabilities[order[0]] < 0.9 ? ' It is unsure.' : '');
  at('bars').innerHTML = '<span></span><span>logit</span><span>e<sup>logit - largest</sup></span>' +
    '<span>probability</span><span></span>' + probabilities.map((value, digit) =>
    `<button data-digit="${digit}" aria-label="explain the logit of ${digit}">${digit}</button>` +
    `<span>${logits[digit].toFixed(3)}</span><span>${exponentials[digit].toExponential(2)}</span>` +
    `<span>${value.toFixed(4)}</span><progress value="${value}" aria-label="probability of ${digit}"></progress>`
  ).join('');
  FIGURES.filter(name => !figureOf(name).hidden).forEach(showLayer);
  if (chosen && !isKept) chosen = strongestOf(chosen.name);
  explain();
  showGuide();
}

// ---- The arithmetic of one activation ----

function frameIn(name, y, x, channel, height, width) {
  if (!at(name)) return;  // the last layer has bars
  const tile = tileOf(name), [row, column] = [Math.floor(channel / tile.columns), channel % tile.columns];
  frame(at(name), row * tile.height + y, column * tile.width + tile.offset + x, height, width);
}

// Lines from the corners of the patch to the activation that is computed from it.
function showLines() {
  const box = at('lines').getBoundingClientRect();
  const [from, to] = [at(before(chosen.name)), at(chosen.name)].map(canvas => canvas?.nextElementSibling);
  const corners = ({left, right, top, bottom}) => [[left, top], [right, top], [right, bottom], [left, bottom]];
  at('lines').innerHTML = [from, to].some(frame => !frame?.getClientRects().length) ? '' :
    corners(from.getBoundingClientRect()).map(([x, y], i) => {
      const [x2, y2] = corners(to.getBoundingClientRect())[i];
      return `<path d="M${x - box.left},${y - box.top} L${x2 - box.left},${y2 - box.top}" stroke="#ffb000"/>`;
    }).join('');
}

function explain() {
  if (!chosen || !shown) return;
  const {name, y, x, channel} = chosen;
  for (const each of document.querySelectorAll('.framed i')) each.hidden = true;
  frameIn(name, y, x, channel, 1, 1);
  const place = isImage(name) ? `channel ${channel}, row ${y}, column ${x}` : `unit ${channel}`;
  const explanation = !(name in layers) ? explainPooling : isImage(name) ? explainConvolution : explainUnit;
  const [words, numbers] = explanation(chosen, network[before(name)], valueAt(network[name], y, x, channel).toFixed(4));
  at('words').innerHTML = `<h2>${name}, ${place}</h2>${words}`;
  at('numbers').innerHTML = numbers;
  showLines();
  keepState();
}

const activationOf = (name, value) => name === LAST ? `The logit is ${value}` : `${data.activation} makes it ${value}`;

const placeOf = ({width, channels}, i) =>
  ({y: Math.floor(i / channels / width), x: Math.floor(i / channels) % width, channel: i % channels});

const strongestOf = name => ({name, ...placeOf(network[name], largestAt(network[name].array))});

function explainUnit({name, channel}, input, value) {
  const {weights, biases} = layers[name], units = biases.length, bias = biases[channel];
  const {array, channels} = input;
  const parts = [...array].map((activation, i) => ({i, activation, weight: weights[i * units + channel]}));
  const effect = ({activation, weight}) => activation * weight;
  const total = sumOf(parts.map(effect)), largest = parts.sort((a, b) => Math.abs(effect(b)) - Math.abs(effect(a)));
  const {channel: c, x, y} = placeOf(input, largest[0].i);
  frameIn(before(name), y, x, c, 1, 1);
  const rows = largest.slice(0, 8).map(part => {
    const {channel: c, x, y} = placeOf(input, part.i);
    const place = array.length > channels ? `channel ${c}, row ${y}, column ${x}` : `unit ${c}`;
    return `<tr><td>${place}</td><td>${part.activation.toFixed(4)}</td><td>${part.weight.toFixed(4)}</td>` +
      `<td style="${signed(effect(part), Math.abs(effect(largest[0])))}">${effect(part).toFixed(4)}</td></tr>`;
  }).join('');
  return [`<p><b>sum ${total.toFixed(4)} + bias ${bias.toFixed(4)} = ${(total + bias).toFixed(4)}; ` +
    `${activationOf(name, value)}.</b></p><p>The sum runs over all ${array.length} activations of ${before(name)}. ` +
    'The table has those with the largest effects, up or down.</p>',
    `<table class="effects"><tr><th>${before(name)}</th><th>activation</th><th>weight</th><th>product</th></tr>` +
    `${rows}</table>`];
}

function explainPooling({name, y, x, channel}, input, value) {
  const four = fourOf(input, y, x, channel);
  frameIn(before(name), 2 * y, 2 * x, channel, four.length, four[0].length);
  return [`<p><b>${value}</b> is the ${data.pooling === 'max' ? 'largest' : 'mean'} of these activations of ` +
    `${before(name)}.</p>`, matrixTable(`activations of ${before(name)}`, four, 'four')];
}

function explainConvolution({name, y, x, channel}, input, value) {
  const [h, w] = layers[name].shape, bias = layers[name].biases[channel];
  const [top, left] = [y - Math.floor((h - 1) / 2), x - Math.floor((w - 1) / 2)];
  const parts = range(input.channels).map(c => contribution(input, c, top, left, kernelOf(layers[name], c, channel),
                                                            input.channels > 1 ? `channel ${c} ` : ''));
  const total = sumOf(parts.map(part => part.sum));
  const [largest, ...others] = parts.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  frameIn(before(name), top, left, largest.c, h, w);
  const next = others.slice(0, 4).map(part => `${part.c} (${part.sum.toFixed(4)})`).join(', ');
  return [`<p><b>sum ${total.toFixed(4)} + bias ${bias.toFixed(4)} = ${(total + bias).toFixed(4)}; ` +
    `${activationOf(name, value)}.</b></p>` +
    (next && `<p>The sum runs over all ${parts.length} channels of ${before(name)}. Channel ${largest.c} has the ` +
    `largest effect, up or down; its patch is framed. The next are channels ${next}.</p>`), largest.html];
}

// ---- Events ----

network = inference(new Uint8Array(28 * 28));  // for the sizes
Object.assign(MOVES, {PageUp: [0, 0, -1], PageDown: [0, 0, 1]});
function choose(name, y, x, channel) {
  const {height, width, channels} = network[name];
  chosen = {name, y: clamp(y, 0, height - 1), x: clamp(x, 0, width - 1), channel: clamp(channel, 0, channels - 1)};
  explain();
}
for (const name of FIGURES) {
  at('layers').insertAdjacentHTML('beforeend', `<figure><figcaption></figcaption><div class="framed">` +
    `<canvas id="${name}" aria-label="${titleOf(name)}. Arrow keys move, Page Up and Page Down change the channel.">` +
    '</canvas><i hidden></i></div></figure>');
  if (name === 'image') continue;
  listen(at(name), (y, x) => {
    const {height, width, columns, offset} = tileOf(name);
    choose(name, Math.floor(y % height), Math.floor(x % width) - offset,
           Math.floor(y / height) * columns + Math.floor(x / width));
  }, (rows, columns, channels = 0) => {
    const from = chosen?.name === name ? chosen : {y: 0, x: 0, channel: 0};
    if (isImage(name)) choose(name, from.y + rows, from.x + columns, from.channel + channels);
    else choose(name, 0, 0, from.channel + columns + rows * tileOf(name).columns + channels);
  });
}

// Shows the hand-coded kernels in the place of the learned ones, or these again.
function compare(isHandCoded) {
  at('handCoded').checked = isHandCoded;
  at('handCoded').parentNode.hidden = !(HAND in layers);
  if (!(HAND in layers)) return;
  const [away, name] = isHandCoded ? [firstConv, HAND] : [HAND, firstConv];
  figureOf(away).hidden = true;
  figureOf(name).hidden = false;
  showLayer(name);
  const {y, x, channel} = chosen?.name === away ? chosen : strongestOf(name);
  choose(name, y, x, channel);
}

at('handCoded').onchange = ({target}) => compare(target.checked);
at('bars').onclick = ({target}) => target.dataset.digit && choose(LAST, 0, 0, Number(target.dataset.digit));
window.onresize = explain;

const drawing = at('drawing').getContext('2d', {willReadFrequently: true});
let nextFrame;  // in which the drawing is read: at most once for each frame
let pen;        // the pointer that draws; others are ignored
let isTestDigit;  // in the field for drawing

function clear() {
  Object.assign(drawing, {fillStyle: 'white', lineCap: 'round', lineJoin: 'round'});
  drawing.fillRect(0, 0, 280, 280);
  isTestDigit = false;
}

// Shows an image of 28 x 28 pixels, 0 to 255, in the field for drawing; the first stroke replaces a test digit.
function paint(pixels, name) {
  const small = document.createElement('canvas');
  draw(small, values(28, 28, 1, (y, x) => 1 - pixels[28 * y + x] / 255));
  clear();
  drawing.drawImage(small, 0, 0, 280, 280);
  isTestDigit = name !== 'Your drawing';
}

function stroke(event) {
  const {left, top, width} = at('drawing').getBoundingClientRect();
  for (const {clientX, clientY, pressure, pointerType} of [...event.getCoalescedEvents?.() ?? [], event]) {
    const place = [clientX - left, clientY - top].map(length => length * 280 / width);
    drawing.lineWidth = pointerType === 'pen' ? 8 + 20 * pressure : 18;
    drawing.lineTo(...place);
    drawing.stroke();
    drawing.beginPath();
    drawing.moveTo(place[0] + 0.1, place[1]);  // a line of no length would draw nothing
  }
  cancelAnimationFrame(nextFrame);
  nextFrame = requestAnimationFrame(readDrawing);
}

function readDrawing() {
  const [first, ...others] = readDigits(drawing);
  if (first) read(first, 'Your drawing', ...others);
  else at('answer').textContent = 'This does not look like digits.';
}

at('drawing').onpointerdown = event => {
  if (pen !== undefined) return;
  pen = event.pointerId;
  if (isTestDigit) clear();
  at('drawing').setPointerCapture(pen);
  drawing.beginPath();
  stroke(event);
  stroke(event);  // once more to the same place: a dot, if nothing follows
};
at('drawing').onpointermove = event => event.pointerId === pen && stroke(event);
at('drawing').onpointerup = at('drawing').onpointercancel = at('drawing').onlostpointercapture = event => {
  if (event.pointerId === pen) pen = undefined;
};
at('clear').onclick = () => {
  clear();
  cancelAnimationFrame(nextFrame);
  for (const canvas of document.querySelectorAll('#layers canvas'))
    canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
  for (const each of document.querySelectorAll('.framed i')) each.hidden = true;
  for (const id of ['bars', 'words', 'numbers', 'lines']) at(id).innerHTML = '';
  shown = '';  // nothing is explained
  at('answer').textContent = 'Draw a digit, or choose one.';
};

for (const {pixels, label, read: mistake} of [...data.digits, ...data.mistakes]) {
  const name = `Test digit, a ${label}`, bytes = bytesOf(pixels), isRight = mistake === undefined;
  const button = document.createElement('button');
  button.className = 'digit';
  button.append(document.createElement('canvas'), isRight ? '' : `${label} as ${mistake}`);
  button.ariaLabel = isRight ? name : `${label} as ${mistake}: ${name}, read as ${mistake}`;
  draw(button.firstChild, values(28, 28, 1, (y, x) => 1 - bytes[28 * y + x] / 255));
  button.onclick = () => {
    paint(bytes, name);
    read(bytes, name);
  };
  at(isRight ? 'digits' : 'mistakes').append(button);
}

// ---- The guide, and the state in the address ----

const showGuide = guideThrough([
  ['drawing', 'Draw a digit. The network that you have trained reads it at once.'],
  ['image', 'This is what it sees: 28 x 28 pixels, the digit in the middle.'],
  [firstConv ?? data.order[0], 'Each tile is one learned kernel, and what it makes of the image. Point at one.'],
  ...HAND in layers ? [['handCoded', 'Here you can put the hand-coded kernels in their place, and compare.']] : [],
  ['layers', 'The lines lead to what an activation is computed from.'],
  ['arithmetic', 'Here is its arithmetic. Arrow keys move, Page Up and Page Down change the channel.'],
  ['bars', 'The ten logits, their exponentials, and the probabilities. A click on a digit shows what spoke for it.'],
  ['drawing', 'Now you: draw a digit of which the network is unsure, with a probability below 0.9.']],
() => shown === 'Your drawing' && Math.max(...softmaxOf([...network[LAST].array]).probabilities) < 0.9 &&
  ' Done: it is unsure.', () => keepState());

function keepState() {
  keepInAddress(() => ({shown, chosen, guide: showGuide(), handCoded: at('handCoded').checked || undefined,
    pixels: btoa(String.fromCharCode(...[...network.image.array].map(value => Math.round(255 * value))))}));
}

function start(state) {
  const pixels = bytesOf(state.pixels ?? data.digits[0].pixels);
  paint(pixels, state.shown);
  chosen = null;
  read(pixels, state.shown || `Test digit, a ${data.digits[0].label}`);
  compare(Boolean(state.handCoded));
  const {name, y, x, channel} = state.chosen?.name in network ? state.chosen : strongestOf(data.order[0]);
  choose(name, y, x, channel);
  showGuide(state.guide ?? 0);
}

at('reset').onclick = () => start({});
start(stateInAddress());
