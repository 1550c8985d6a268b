// ---- The network ----

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), character => character.charCodeAt(0));
}

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
  const output = values(input.height / 2, input.width / 2, input.channels);
  input.array.forEach((value, i) => {
    const [y, x, c] = [Math.floor(i / input.channels / input.width), Math.floor(i / input.channels) % input.width,
                       i % input.channels];
    const index = ((y >> 1) * output.width + (x >> 1)) * input.channels + c;
    output.array[index] = Math.max(output.array[index], value);  // after relu, none is below 0
  });
  return output;
}

function inference(pixels) {
  const image = values(28, 28, 1);
  image.array.set(Array.from(pixels, value => value / 255));
  const conv1 = layer(image, layers.conv1), pool1 = maxPool(conv1);
  const conv2 = layer(pool1, layers.conv2), pool2 = maxPool(conv2);
  const fc = layer(pool2, layers.fc);
  return {image, conv1, pool1, conv2, pool2, fc, softmax_linear: layer(fc, layers.softmax_linear, -Infinity)};
}

function softmax(logits) {
  const exponentials = Array.from(logits, value => Math.exp(value - Math.max(...logits)));
  return exponentials.map(value => value / sumOf(exponentials));
}

// ---- A drawing becomes 28 x 28 pixels by the steps of read_digit in utils.py ----

function readDigit(context) {
  const {data: bytes, width, height} = context.getImageData(0, 0, 280, 280);
  const ink = Float32Array.from({length: width * height}, (_, i) => 255 - bytes[4 * i]);  // the paper is white
  const strongest = ink.slice().sort()[ink.length - 20];
  if (strongest < 30) return null;
  ink.forEach((value, i) => ink[i] = Math.min(Math.max(value / strongest * 2 - 0.7, 0), 1));
  const picture = cutOut({array: ink, width, height}, 0.5, 20);
  let [edges, area] = [0, 0];
  picture.array.forEach((value, i) => {
    area += value;
    if ((i + 1) % picture.width) edges += Math.abs(picture.array[i + 1] - value);
    if (i + picture.width < picture.array.length) edges += Math.abs(picture.array[i + picture.width] - value);
  });
  const missing = (Math.max(picture.width, picture.height) - 40) / 10 - 2 * area / edges;
  const grey = picture.array.map(value => Math.trunc(value * 255));
  picture.array = maxFilter(grey, picture.width, Math.max(0, Math.round(missing / 2)));
  return centerByMass(resize(cutOut(picture, 0, 0)));
}

// The part of a picture in which values are above a limit, with zeros around it.
function cutOut({array, width, height}, limit, zeros) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  array.forEach((value, i) => {
    if (value <= limit) return;
    const [x, y] = [i % width, Math.floor(i / width)];
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
  });
  const part = {width: right - left + 1 + 2 * zeros, height: bottom - top + 1 + 2 * zeros};
  part.array = new Float32Array(part.width * part.height);
  for (let y = top; y <= bottom; y++)
    for (let x = left; x <= right; x++)
      part.array[(y - top + zeros) * part.width + x - left + zeros] = array[y * width + x];
  return part;
}

// The largest value within `radius` pixels, first along the rows, then along the columns.
function maxFilter(array, width, radius) {
  for (const step of [1, width]) {
    const before = array.slice();
    for (let shift = -radius; shift <= radius; shift++)
      for (let i = 0; i < array.length; i++) array[i] = Math.max(array[i], before[i + shift * step] ?? 0);
  }
  return array;
}

// Makes the longer side 20, by Lanczos as Pillow does it: along the rows, then along the columns.
function resize(picture) {
  const scale = 20 / Math.max(picture.width, picture.height);
  const sides = [picture.width, picture.height].map(side => Math.max(1, Math.round(side * scale)));
  return sides.reduce(resizeRows, picture);
}

// The result is rounded to whole numbers, and transposed.
function resizeRows({array, width, height}, size) {
  const ratio = width / size, output = new Float32Array(size * height);
  const sinc = x => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  const lanczos = x => Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
  for (let x = 0; x < size; x++) {
    const weights = Array.from({length: width}, (_, i) => lanczos((i + 0.5 - (x + 0.5) * ratio) / Math.max(ratio, 1)));
    for (let y = 0; y < height; y++) {
      const sum = weights.reduce((total, weight, i) => total + weight * array[y * width + i], 0);
      output[x * height + y] = clamp(Math.floor(sum / sumOf(weights) + 0.5), 0, 255);
    }
  }
  return {array: output, width: height, height: size};
}

function centerByMass({array, width, height}) {
  const mass = sumOf([...array]);
  const mean = position => array.reduce((total, value, i) => total + value * position(i), 0) / mass;
  const [top, left] = [14 - Math.round(mean(i => Math.floor(i / width))), 14 - Math.round(mean(i => i % width))];
  const [image, brightest] = [new Uint8Array(28 * 28), Math.max(...array)];
  array.forEach((value, i) => {
    const [y, x] = [top + Math.floor(i / width), left + i % width];
    if (y >= 0 && y < 28 && x >= 0 && x < 28) image[y * 28 + x] = Math.trunc(value * 255 / brightest);
  });
  return image;
}

// ---- What is shown ----

const TITLES = {conv1: 'conv1: 32 kernels, each beside its activations', pool1: 'pool1: the largest of each 2 x 2',
                conv2: 'conv2: 64 channels', pool2: 'pool2: the largest of each 2 x 2',
                fc: 'fc: 1,024 units, each sees all of pool2; from them come the ten probabilities'};
const INPUT = {conv1: 'image', pool1: 'conv1', conv2: 'pool1', pool2: 'conv2', fc: 'pool2'};
let network;        // the values of each layer
let chosen = null;  // {name, y, x, channel}: the activation that is explained

// The kernel [h, w] between channel c of the input and channel k of the output, as rows.
function kernelOf({shape: [h, w, channelsIn, channels], weights}, c, k) {
  return Array.from({length: h}, (_, y) => Array.from({length: w}, (_, x) =>
    weights[((y * w + x) * channelsIn + c) * channels + k]));
}

// A layer's channels as tiles; for conv1 with the kernel to the left of each activation.
function showLayer(name) {
  const values = network[name], columns = {conv1: 4, fc: 64}[name] ?? 8, gap = name === 'fc' ? 0 : 3;
  const kernels = name === 'conv1' ? conv1Kernels : null, offset = kernels ? values.width + 1 : 0;
  const tile = {height: values.height + gap, width: values.width + offset + gap, columns, offset};
  const strongest = values.array.reduce((a, b) => Math.max(a, b), 1e-9);
  at(name).tile = tile;
  draw(at(name), Math.ceil(values.channels / columns) * tile.height, columns * tile.width, index => {
    const [y, x] = [Math.floor(index / columns / tile.width), index % (columns * tile.width)];
    const channel = Math.floor(y / tile.height) * columns + Math.floor(x / tile.width);
    const [row, column] = [y % tile.height, x % tile.width - offset];
    if (channel >= values.channels || row >= values.height || column >= values.width || column === -1) return 128;
    if (column >= 0) return 255 * Math.sqrt(valueAt(values, row, column, channel) / strongest);
    const {rows, largest} = kernels[channel];
    const place = (index, length) => Math.floor(index * length / values.width);
    return 127.5 * (1 + rows[place(row, rows.length)][place(column + offset, rows[0].length)] / largest);
  });
}

function read(pixels, name) {
  network = inference(pixels);
  draw(at('image'), 28, 28, index => 255 - pixels[index]);
  const probabilities = softmax(network.softmax_linear.array);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const number = value => value < 0.001 ? 'below 0.001' : value.toFixed(3);
  at('answer').textContent = `${name}: the network reads ${order[0]} (probability ` +
    `${number(probabilities[order[0]])}); runner-up ${order[1]} (${number(probabilities[order[1]])}).`;
  at('bars').innerHTML = probabilities.map((value, digit) =>
    `<span>${digit}</span><meter value="${value}"></meter><span>${value.toFixed(4)}</span>`).join('');
  Object.keys(TITLES).forEach(showLayer);
  explain();
}

// ---- The arithmetic of one activation ----

function frameIn(name, y, x, channel, height, width) {
  const tile = at(name).tile;
  frame(at(name), Math.floor(channel / tile.columns) * tile.height + y,
        channel % tile.columns * tile.width + tile.offset + x, height, width);
}

function explain() {
  if (!chosen) return;
  const {name, y, x, channel} = chosen;
  for (const each of document.querySelectorAll('.framed i')) each.hidden = true;
  frameIn(name, y, x, channel, 1, 1);
  const place = name === 'fc' ? `unit ${channel}` : `channel ${channel}, row ${y}, column ${x}`;
  const explanation = name === 'fc' ? explainUnit : name.startsWith('pool') ? explainPooling : explainConvolution;
  at('arithmetic').innerHTML = `<h2>${name}, ${place} (counted from 0)</h2>` +
    explanation(chosen, network[INPUT[name]], valueAt(network[name], y, x, channel).toFixed(4));
}

function explainUnit({channel}, input, value) {
  return `<p><b>${value}</b> is the sum of all ${input.array.length} activations of pool2, each times a weight, plus ` +
    `the bias ${layers.fc.biases[channel].toFixed(4)}. A negative sum becomes 0 (relu).</p>`;
}

function explainPooling({name, y, x, channel}, input, value) {
  frameIn(INPUT[name], 2 * y, 2 * x, channel, 2, 2);
  const four = [0, 1].map(row => [0, 1].map(column => valueAt(input, 2 * y + row, 2 * x + column, channel)));
  return `<p><b>${value}</b> is the largest of four activations of ${INPUT[name]}:</p>` + matrixTable('', four, 'four');
}

function explainConvolution({name, y, x, channel}, input, value) {
  const [h, w] = layers[name].shape, bias = layers[name].biases[channel];
  const [top, left] = [y - Math.floor((h - 1) / 2), x - Math.floor((w - 1) / 2)];
  const parts = Array.from({length: input.channels}, (_, c) =>
    contribution(input, c, top, left, kernelOf(layers[name], c, channel)));
  const total = sumOf(parts.map(part => part.sum));
  const [largest, ...others] = parts.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  frameIn(INPUT[name], top, left, largest.c, h, w);
  const next = others.slice(0, 4).map(part => `${part.c} (${part.sum.toFixed(4)})`).join(', ');
  return `<p><b>${total.toFixed(4)} + bias ${bias.toFixed(4)} = ${(total + bias).toFixed(4)}; ` +
    `relu makes it ${value}.</b></p>` + (next && `<p>The first number is the sum over all ${parts.length} channels ` +
    `of pool1. Channel ${largest.c} has the largest effect, up or down; its patch is framed:</p>`) + largest.html +
    (next && `<p>The next are channels ${next}.</p>`);
}

// ---- Events ----

const conv1Kernels = Array.from({length: layers.conv1.shape[3]}, (_, k) => {
  const rows = kernelOf(layers.conv1, 0, k);
  return {rows, largest: Math.max(...rows.flat().map(Math.abs), 1e-9)};
});

Object.assign(MOVES, {PageUp: [0, 0, -1], PageDown: [0, 0, 1]});
for (const [name, title] of Object.entries(TITLES)) {
  at('layers').insertAdjacentHTML('beforeend', `<figure><figcaption>${title}</figcaption><div class="framed">` +
    `<canvas id="${name}" tabindex="0" role="img" aria-label="${title}. Arrow keys move, Page Up and Page Down ` +
    'change the channel."></canvas><i></i></div></figure>');
  const canvas = at(name);
  const choose = (y, x, channel) => {
    const {height, width, channels} = network[name];
    chosen = {name, y: clamp(y, 0, height - 1), x: clamp(x, 0, width - 1), channel: clamp(channel, 0, channels - 1)};
    explain();
  };
  listen(canvas, (y, x) => {
    const {height, width, columns, offset} = canvas.tile;
    const channel = Math.floor(y / height) * columns + Math.floor(x / width);
    choose(Math.floor(y % height), Math.floor(x % width) - offset, channel);
  }, (rows, columns, channels = 0) => {
    const from = chosen?.name === name ? chosen : {y: 0, x: 0, channel: 0};
    choose(from.y + rows, from.x + columns, from.channel + channels);
  });
}

const drawing = at('drawing').getContext('2d', {willReadFrequently: true});
let waiting = false, last = null;

function clear() {
  drawing.fillStyle = 'white';
  drawing.fillRect(0, 0, 280, 280);
}

function readDrawing() {  // at most once for each frame
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const pixels = readDigit(drawing);
    if (pixels) read(pixels, 'Your drawing');
  });
}

function stroke(event) {
  const box = at('drawing').getBoundingClientRect();
  const here = [(event.clientX - box.left) / box.width * 280, (event.clientY - box.top) / box.height * 280];
  drawing.lineWidth = 18;
  drawing.lineCap = 'round';
  drawing.beginPath();
  drawing.moveTo(...(last ?? here));
  drawing.lineTo(...here);
  drawing.stroke();
  last = here;
  readDrawing();
}

at('drawing').addEventListener('pointerdown', event => {
  at('drawing').setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
at('drawing').addEventListener('pointermove', event => event.buttons && stroke(event));
at('clear').addEventListener('click', () => {
  clear();
  read(new Uint8Array(28 * 28), 'An empty picture');
});

for (const list of ['digits', 'mistakes'])
  for (const {pixels, label, read: mistake} of data[list]) {
    const name = `Test digit, a ${label}`, bytes = bytesOf(pixels);
    const button = document.createElement('button');
    button.className = 'digit';
    button.append(document.createElement('canvas'), mistake === undefined ? '' : `${label} as ${mistake}`);
    button.setAttribute('aria-label', mistake === undefined ? name : `${name}, read as ${mistake}`);
    draw(button.firstChild, 28, 28, index => 255 - bytes[index]);
    button.addEventListener('click', () => {
      clear();
      read(bytes, name);
    });
    at(list).append(button);
  }

clear();
at('image').tile = {height: 28, width: 28, columns: 1, offset: 0};
chosen = {name: 'conv1', y: 12, x: 14, channel: 0};
at('digits').firstChild.click();
