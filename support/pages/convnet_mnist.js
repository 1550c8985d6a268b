// ---- The network ----

const bytesOf = base64 => Uint8Array.from(atob(base64), character => character.charCodeAt(0));

// Weights are whole numbers from -127 to 127, times one scale for each output channel.
const layers = {};
for (const [name, {shape, weights, scales, biases}] of Object.entries(data.layers)) {
  const bytes = new Int8Array(bytesOf(weights).buffer);
  layers[name] = {shape, biases, weights: Float32Array.from(bytes, (byte, i) => byte * scales[i % scales.length])};
}

// A fully connected layer is a convolution whose kernel is as large as its input.
function layer(input, {shape, weights, biases}, least = 0) {
  const output = shape.length === 4 ? conv2d(input, {shape, weights}) :
    conv2d(input, {shape: [input.height, input.width, input.channels, shape[1]], weights}, 1, 'VALID');
  output.array.forEach((sum, i) => output.array[i] = Math.max(sum + biases[i % output.channels], least));  // relu
  return output;
}

function maxPool(input) {
  return values(input.height / 2, input.width / 2, input.channels, (y, x, c) =>
    Math.max(...fourOf(input, y, x, c).flat()));
}

// The four activations that become one by pooling.
function fourOf(input, y, x, c) {
  return [0, 1].map(row => [0, 1].map(column => valueAt(input, 2 * y + row, 2 * x + column, c)));
}

function inference(pixels) {
  const image = values(28, 28, 1, (y, x) => pixels[28 * y + x] / 255);
  const conv1 = layer(image, layers.conv1), pool1 = maxPool(conv1);
  const conv2 = layer(pool1, layers.conv2), pool2 = maxPool(conv2);
  const fc = layer(pool2, layers.fc);
  return {image, conv1, pool1, conv2, pool2, fc, softmax_linear: layer(fc, layers.softmax_linear, -Infinity)};
}

// ---- Drawn digits become 28 x 28 pixels by the steps of read_digits in support/digits.py ----

// Returns the digits of a drawing, from left to right. The paper is white here, without lines and frames.
function readDigits(context) {
  const {width, height} = context.canvas, bytes = context.getImageData(0, 0, width, height).data;
  const ink = values(height, width, 1, (y, x) => 255 - bytes[4 * (width * y + x)]);
  const strongest = Uint8Array.from(ink.array).sort().at(-20);
  if (strongest < 30) return [];
  ink.array = ink.array.map(value => clamp(value / strongest * 2 - 0.7, 0, 1));
  const shapes = pieces(ink), digits = group(shapes);
  if (shapes.length > 100 || digits.length > 12 || digits.some(numbers => numbers.length > 12) ||
      shapes.some(outer => shapes.some(inner => isWithin(inner, outer)))) return [];
  const drawn = digits.map(numbers => cutOut(onlyPieces(ink, numbers), 0.5));
  return drawn.some(each => thickness(each) > 0.4 * Math.max(each.height, each.width)) ? [] : drawn.map(mnistForm);
}

// The pieces of ink, the longest first, each with its box and the indices of its pixels.
function pieces(ink) {
  const {height, width, array} = ink, found = [], steps = [-1, 0, 1];
  const around = i => steps.flatMap(row => steps.map(column => [Math.floor(i / width) + row, i % width + column]))
    .filter(([y, x]) => isInside(ink, y, x)).map(([y, x]) => y * width + x);
  const waiting = new Uint8Array(height * width);  // ink, and what touches it, that belongs to no piece yet
  array.forEach((value, i) => value > 0.1 && around(i).forEach(near => waiting[near] = 1));
  for (let first = waiting.indexOf(1); first >= 0; first = waiting.indexOf(1, first)) {
    const stack = [first], indices = [];
    waiting[first] = 0;
    while (stack.length) {
      const i = stack.pop();
      if (array[i] > 0.1) indices.push(i);
      for (const near of around(i)) if (waiting[near]) waiting[near] = !stack.push(near);
    }
    if (!indices.some(i => array[i] > 0.5)) continue;
    const rows = indices.map(i => Math.floor(i / width)), columns = indices.map(i => i % width);
    const least = numbers => numbers.reduce((a, b) => Math.min(a, b)), most = numbers => -least(numbers.map(n => -n));
    found.push({indices, top: least(rows), bottom: most(rows) + 1, left: least(columns), right: most(columns) + 1});
  }
  return found.sort((a, b) => longerSide(b) - longerSide(a));
}

const longerSide = ({top, bottom, left, right}) => Math.max(bottom - top, right - left);

const isWithin = (inner, outer) => longerSide(inner) > 0.15 * longerSide(outer) &&
  [['top', 'bottom'], ['left', 'right']].every(([start, stop]) => {
    const margin = (outer[stop] - outer[start]) / 10;
    return inner[start] > outer[start] + margin && inner[stop] < outer[stop] - margin;
  });

// Pieces above each other, or close together, are one digit: lists of pieces, from left to right, without specks.
function group(shapes) {
  const digits = [];
  for (const piece of shapes) {
    const largest = longerSide(shapes[0]), near = largest * (longerSide(piece) > largest / 5 ? 0.08 : 0.04);
    const digit = digits.find(each => piece.left < each.right + near && piece.right > each.left - near &&
                                      piece.top < each.bottom + 3 * near && piece.bottom > each.top - 3 * near);
    if (!digit) digits.push({...piece, numbers: [piece]});
    else {
      for (const side of ['left', 'top']) digit[side] = Math.min(digit[side], piece[side]);
      for (const side of ['right', 'bottom']) digit[side] = Math.max(digit[side], piece[side]);
      digit.numbers.push(piece);
    }
  }
  const tallest = Math.max(...digits.map(({top, bottom}) => bottom - top));
  return digits.sort((a, b) => a.left - b.left || a.right - b.right)
    .filter(({top, bottom}) => bottom - top > 0.4 * tallest).map(digit => digit.numbers);
}

function onlyPieces(ink, shapes) {
  const array = new Float64Array(ink.array.length);
  for (const {indices} of shapes) for (const i of indices) array[i] = ink.array[i];
  return {...ink, array};
}

// Twice the largest distance, in king's moves, from an ink pixel to one without.
function thickness(ink) {
  const distances = values(ink.height + 2, ink.width + 2, 1, (y, x) => valueAt(ink, y - 1, x - 1) > 0.5 ? 1e9 : 0);
  const {array, width} = distances, before = [-1, -width - 1, -width, 1 - width];
  array.forEach((_, i) => { if (array[i]) array[i] = 1 + Math.min(...before.map(step => array[i + step])); });
  for (let i = array.length - 1; i >= 0; i--)
    if (array[i]) array[i] = Math.min(array[i], 1 + Math.min(...before.map(step => array[i - step])));
  return 2 * array.reduce((a, b) => Math.max(a, b));
}

function mnistForm(box) {
  const picture = values(box.height + 40, box.width + 40, 1, (y, x) => valueAt(box, y - 20, x - 20));
  const {array, width} = picture;
  const edges = sumOf(array.map((value, i) =>  // around the digit are zeros, so that no row runs into the next
    Math.abs(value - (array[i - 1] ?? 0)) + Math.abs(value - (array[i - width] ?? 0))));
  const missing = Math.max(box.height, box.width) / 10 - 2 * sumOf(array) / edges;
  picture.array = array.map(value => Math.trunc(value * 255));
  for (const step of [1, width])  // the largest value around each pixel, along the rows, then along the columns
    for (let widened = 0; widened < Math.round(missing / 2); widened++)
      picture.array = picture.array.map((value, i, all) => Math.max(value, all[i - step] ?? 0, all[i + step] ?? 0));
  const digit = cutOut(picture, 0), scale = 20 / Math.max(digit.height, digit.width);
  return centerByMass(resizeRows(resizeRows(digit, scale), scale));
}

// The part of a picture in which values are above a limit.
function cutOut(input, limit) {
  const isInk = (y, x) => valueAt(input, y, x) > limit;
  const rows = range(input.height).filter(y => range(input.width).some(x => isInk(y, x)));
  const columns = range(input.width).filter(x => rows.some(y => isInk(y, x)));
  return values(rows.at(-1) - rows[0] + 1, columns.at(-1) - columns[0] + 1, 1,
                (y, x) => valueAt(input, rows[0] + y, columns[0] + x));
}

// Resizes along the rows by Lanczos as Pillow does it; the result is rounded to whole numbers, and transposed.
function resizeRows(input, scale) {
  const size = Math.max(1, Math.round(input.width * scale)), ratio = input.width / size;
  const sinc = x => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  const lanczos = x => Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
  const weights = range(size).map(x => range(input.width).map(i =>
    lanczos((i + 0.5 - (x + 0.5) * ratio) / Math.max(ratio, 1))));
  return values(size, input.height, 1, (x, y) => {
    const sum = weights[x].reduce((total, weight, i) => total + weight * valueAt(input, y, i), 0);
    return clamp(Math.floor(sum / sumOf(weights[x]) + 0.5), 0, 255);
  });
}

function centerByMass(digit) {
  const {array, width} = digit, brightest = Math.max(...array);
  const middle = position => Math.round(sumOf(array.map((value, i) => value * position(i))) / sumOf(array));
  const top = 14 - middle(i => Math.floor(i / width)), left = 14 - middle(i => i % width);
  return Uint8Array.from(values(28, 28, 1, (y, x) => valueAt(digit, y - top, x - left) * 255 / brightest).array);
}

// ---- What is shown ----

const TITLES = {conv1: 'conv1: 32 pairs, a kernel (0 is grey) and its activations',
                pool1: 'pool1: the largest of each 2 x 2', conv2: 'conv2: 64 channels, each a sum over all of pool1',
                pool2: 'pool2: the largest of each 2 x 2',
                fc: 'fc: 1,024 units, each sees all of pool2; from them come the ten probabilities'};
const INPUT = {conv1: 'image', pool1: 'conv1', conv2: 'pool1', pool2: 'conv2', fc: 'pool2'};
const conv1Kernels = range(layers.conv1.shape[3]).map(k => {  // as brightness: 0 is grey, as in lesson 1
  const rows = kernelOf(layers.conv1, 0, k), largest = Math.max(...rows.flat().map(Math.abs), 1e-9);
  return rows.map(row => row.map(weight => 0.5 + 0.5 * weight / largest));
});
let network;        // the values of each layer
let chosen = null;  // {name, y, x, channel}: the activation that is explained

// The kernel [h, w] between channel c of the input and channel k of the output, as rows.
function kernelOf({shape: [h, w, channelsIn, channels], weights}, c, k) {
  return range(h).map(y => range(w).map(x => weights[((y * w + x) * channelsIn + c) * channels + k]));
}

// A layer's channels are tiles of its canvas, in pixels; conv1's have the kernel to the left of the activations.
function tileOf(name) {
  const {height, width} = network[name], gap = name === 'fc' ? 0 : 3, offset = name === 'conv1' ? width + 1 : 0;
  return {height: height + gap, width: offset + width + gap, offset, columns: {image: 1, conv1: 4, fc: 64}[name] ?? 8};
}

function showLayer(name) {
  const layer = network[name], {height, width, offset, columns} = tileOf(name);
  const strongest = layer.array.reduce((a, b) => Math.max(a, b), 1e-9);
  draw(at(name), values(Math.ceil(layer.channels / columns) * height, columns * width, 1, (y, x) => {
    const channel = Math.floor(y / height) * columns + Math.floor(x / width), [row, column] = [y % height, x % width];
    if (channel < layer.channels && isInside(layer, row, column - offset))
      return Math.sqrt(valueAt(layer, row, column - offset, channel) / strongest);
    const kernel = name === 'conv1' && conv1Kernels[channel];
    if (!kernel || !isInside(layer, row, column)) return 0.5;
    return kernel[Math.floor(row * kernel.length / layer.height)][Math.floor(column * kernel[0].length / layer.width)];
  }));
}

function probabilitiesOf(pixels) {
  network = inference(pixels);
  const logits = [...network.softmax_linear.array];
  const exponentials = logits.map(logit => Math.exp(logit - Math.max(...logits)));
  return exponentials.map(value => value / sumOf(exponentials));  // softmax
}

const largestOf = probabilities => probabilities.indexOf(Math.max(...probabilities));

// Reads one or several digits, and shows the layers for the first.
function read(pixels, name, ...others) {
  const next = others.map(each => largestOf(probabilitiesOf(each)));
  const probabilities = probabilitiesOf(pixels);
  draw(at('image'), network.image);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  at('answer').textContent = `${name}: the network reads ${[order[0], ...next].join(' ')} (probability ` +
    `${probabilities[order[0]].toFixed(4)}); runner-up ${order[1]} (${probabilities[order[1]].toFixed(4)}).` +
    (next.length ? ' Below is the first digit.' : '') +
    (probabilities[order[0]] < 0.9 ? ' It is unsure.' : '');
  at('bars').innerHTML = probabilities.map((value, digit) =>
    `<span>${digit}</span><progress value="${value}"></progress><span>${value.toFixed(4)}</span>`).join('');
  Object.keys(TITLES).forEach(showLayer);
  explain();
}

// ---- The arithmetic of one activation ----

function frameIn(name, y, x, channel, height, width) {
  const tile = tileOf(name), [row, column] = [Math.floor(channel / tile.columns), channel % tile.columns];
  frame(at(name), row * tile.height + y, column * tile.width + tile.offset + x, height, width);
}

function explain() {
  if (!chosen) return;
  const {name, y, x, channel} = chosen;
  for (const each of document.querySelectorAll('.framed i')) each.hidden = true;
  frameIn(name, y, x, channel, 1, 1);
  const place = name === 'fc' ? `unit ${channel}` : `channel ${channel}, row ${y}, column ${x}`;
  const explanation = name === 'fc' ? explainUnit : name.startsWith('pool') ? explainPooling : explainConvolution;
  at('arithmetic').innerHTML = `<h2>${name}, ${place} (counted from 0; numbers are rounded)</h2>` +
    explanation(chosen, network[INPUT[name]], valueAt(network[name], y, x, channel).toFixed(4));
}

function explainUnit({channel}, input, value) {
  return `<p><b>${value}</b> is the sum of all ${input.array.length} activations of pool2, each times a weight, plus ` +
    `the bias ${layers.fc.biases[channel].toFixed(4)}. A negative sum becomes 0 (relu).</p>`;
}

function explainPooling({name, y, x, channel}, input, value) {
  frameIn(INPUT[name], 2 * y, 2 * x, channel, 2, 2);
  return `<p><b>${value}</b> is the largest of four activations of ${INPUT[name]}:</p>` +
    matrixTable('', fourOf(input, y, x, channel), 'four');
}

function explainConvolution({name, y, x, channel}, input, value) {
  const [h, w] = layers[name].shape, bias = layers[name].biases[channel];
  const [top, left] = [y - Math.floor((h - 1) / 2), x - Math.floor((w - 1) / 2)];
  const parts = range(input.channels).map(c => contribution(input, c, top, left, kernelOf(layers[name], c, channel)));
  const total = sumOf(parts.map(part => part.sum));
  const [largest, ...others] = parts.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  frameIn(INPUT[name], top, left, largest.c, h, w);
  const next = others.slice(0, 4).map(part => `${part.c} (${part.sum.toFixed(4)})`).join(', ');
  return `<p><b>sum ${total.toFixed(4)} + bias ${bias.toFixed(4)} = ${(total + bias).toFixed(4)}; ` +
    `relu makes it ${value}.</b></p>` + (next && `<p>The sum runs over all ${parts.length} channels of pool1. ` +
    `Channel ${largest.c} has the largest effect, up or down; its patch in pool1 is framed:</p>`) + largest.html +
    (next && `<p>The next are channels ${next}.</p>`);
}

// ---- Events ----

Object.assign(MOVES, {PageUp: [0, 0, -1], PageDown: [0, 0, 1]});
for (const [name, title] of Object.entries(TITLES)) {
  at('layers').insertAdjacentHTML('beforeend', `<figure><figcaption>${title}</figcaption><div class="framed">` +
    `<canvas id="${name}" aria-label="${title}. Arrow keys move, Page Up and Page Down change the channel.">` +
    '</canvas><i></i></div></figure>');
  const choose = (y, x, channel) => {
    const {height, width, channels} = network[name];
    chosen = {name, y: clamp(y, 0, height - 1), x: clamp(x, 0, width - 1), channel: clamp(channel, 0, channels - 1)};
    explain();
  };
  listen(at(name), (y, x) => {
    const {height, width, columns, offset} = tileOf(name);
    const channel = Math.floor(y / height) * columns + Math.floor(x / width);
    choose(Math.floor(y % height), Math.floor(x % width) - offset, channel);
  }, (rows, columns, channels = 0) => {
    const from = chosen?.name === name ? chosen : {y: 0, x: 0, channel: 0};
    choose(from.y + rows, from.x + columns, from.channel + channels);
  });
}

const drawing = at('drawing').getContext('2d', {willReadFrequently: true});
let nextFrame;  // in which the drawing is read: at most once for each frame

function clear() {
  Object.assign(drawing, {fillStyle: 'white', lineWidth: 18, lineCap: 'round'});
  drawing.fillRect(0, 0, 280, 280);
}

function stroke({offsetX, offsetY}) {
  drawing.lineTo(offsetX, offsetY);
  drawing.stroke();
  drawing.beginPath();
  drawing.moveTo(offsetX, offsetY);
  cancelAnimationFrame(nextFrame);
  nextFrame = requestAnimationFrame(() => {
    const [first, ...others] = readDigits(drawing);
    if (first) read(first, 'Your drawing', ...others);
    else at('answer').textContent = 'This does not look like digits.';
  });
}

at('drawing').onpointerdown = event => {
  at('drawing').setPointerCapture(event.pointerId);
  drawing.beginPath();
  drawing.moveTo(event.offsetX, event.offsetY);
  stroke(event);
};
at('drawing').onpointermove = event => event.buttons && stroke(event);
at('clear').onclick = () => {
  clear();
  read(new Uint8Array(28 * 28), 'An empty picture');
};

for (const {pixels, label, read: mistake} of [...data.digits, ...data.mistakes]) {
  const name = `Test digit, a ${label}`, bytes = bytesOf(pixels), isRight = mistake === undefined;
  const button = document.createElement('button');
  button.className = 'digit';
  button.append(document.createElement('canvas'), isRight ? '' : `${label} as ${mistake}`);
  button.ariaLabel = isRight ? name : `${name}, read as ${mistake}`;
  draw(button.firstChild, values(28, 28, 1, (y, x) => 1 - bytes[28 * y + x] / 255));
  button.onclick = () => {
    clear();
    read(bytes, name);
  };
  at(isRight ? 'digits' : 'mistakes').append(button);
}

chosen = {name: 'conv1', y: 12, x: 18, channel: 0};
at('digits').firstChild.click();
