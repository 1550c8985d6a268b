// ---- The network. Values are Float32Arrays [height, width, channels], as in TensorFlow ----

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), character => character.charCodeAt(0));
}

// Weights are whole numbers from -127 to 127, times one scale for each output channel.
const layers = {};
for (const [name, {shape, weights, scales, biases}] of Object.entries(data.layers)) {
  const bytes = new Int8Array(bytesOf(weights).buffer);
  layers[name] = {shape, biases, weights: Float32Array.from(bytes, (byte, i) => byte * scales[i % scales.length])};
}

function values(height, width, channels) {
  return {height, width, channels, array: new Float32Array(height * width * channels)};
}

function convRelu(input, {shape: [h, w, channelsIn, channels], weights, biases}) {
  const output = values(input.height, input.width, channels);
  const [top, left] = [h, w].map(side => Math.floor((side - 1) / 2));  // SAME: zeros before the first pixel
  for (let y = 0; y < input.height; y++)
    for (let x = 0; x < input.width; x++) {
      const out = output.array.subarray((y * input.width + x) * channels).subarray(0, channels);
      out.set(biases);
      for (let ky = 0; ky < h; ky++)
        for (let kx = 0; kx < w; kx++) {
          const [row, column] = [y + ky - top, x + kx - left];
          if (row < 0 || row >= input.height || column < 0 || column >= input.width) continue;
          for (let c = 0; c < channelsIn; c++) {
            const value = input.array[(row * input.width + column) * channelsIn + c];
            if (value === 0) continue;
            const start = ((ky * w + kx) * channelsIn + c) * channels;
            for (let k = 0; k < channels; k++) out[k] += value * weights[start + k];
          }
        }
      for (let k = 0; k < channels; k++) out[k] = Math.max(out[k], 0);
    }
  return output;
}

function maxPool(input) {
  const output = values(Math.ceil(input.height / 2), Math.ceil(input.width / 2), input.channels);
  for (let y = 0; y < input.height; y++)
    for (let x = 0; x < input.width; x++)
      for (let c = 0; c < input.channels; c++) {
        const index = ((y >> 1) * output.width + (x >> 1)) * input.channels + c;
        output.array[index] = Math.max(output.array[index], valueAt(input, y, x, c));  // after relu, none is below 0
      }
  return output;
}

function fullyConnected(input, {shape: [, units], weights, biases}) {
  const output = values(1, 1, units);
  output.array.set(biases);
  input.array.forEach((value, index) => {
    if (value !== 0) for (let k = 0; k < units; k++) output.array[k] += value * weights[index * units + k];
  });
  return output;
}

function valueAt({height, width, channels, array}, y, x, c) {
  return y >= 0 && y < height && x >= 0 && x < width ? array[(y * width + x) * channels + c] : 0;
}

function inference(pixels) {
  const image = values(28, 28, 1);
  image.array.set(Array.from(pixels, value => value / 255));
  const conv1 = convRelu(image, layers.conv1), pool1 = maxPool(conv1);
  const conv2 = convRelu(pool1, layers.conv2), pool2 = maxPool(conv2);
  const fc = fullyConnected(pool2, layers.fc);
  fc.array.forEach((value, index) => fc.array[index] = Math.max(value, 0));
  return {image, conv1, pool1, conv2, pool2, fc, softmax_linear: fullyConnected(fc, layers.softmax_linear)};
}

function softmax(logits) {
  const exponentials = Array.from(logits, value => Math.exp(value - Math.max(...logits)));
  return exponentials.map(value => value / sumOf(exponentials));
}

// ---- A drawing becomes 28 x 28 pixels by the steps of read_digit in utils.py ----

// As in Python: a half goes to the even number.
function round(value) {
  return value % 1 === 0.5 && Math.floor(value) % 2 === 0 ? Math.floor(value) : Math.round(value);
}

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
  picture.array = maxFilter(grey, picture.width, Math.max(0, round(missing / 2)));
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

// Lanczos, as Pillow does it: along the rows, then along the columns, rounded to whole numbers after each.
function resize(picture) {
  const scale = 20 / Math.max(picture.width, picture.height);
  for (let axis = 0; axis < 2; axis++) {
    const {array, width, height} = picture;
    const size = Math.max(1, round(width * scale)), ratio = width / size, stretch = Math.max(ratio, 1);
    const sinc = x => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
    const lanczos = x => Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
    const output = new Float32Array(size * height);
    for (let x = 0; x < size; x++) {
      const centre = (x + 0.5) * ratio;
      const first = Math.max(0, Math.trunc(centre - 3 * stretch + 0.5));
      const end = Math.min(width, Math.trunc(centre + 3 * stretch + 0.5));
      const weights = Array.from({length: end - first}, (_, i) => lanczos((first + i - centre + 0.5) / stretch));
      for (let y = 0; y < height; y++) {
        const sum = weights.reduce((total, weight, i) => total + weight * array[y * width + first + i], 0);
        output[x * height + y] = Math.min(Math.max(Math.floor(sum / sumOf(weights) + 0.5), 0), 255);  // transposed
      }
    }
    picture = {array: output, width: height, height: size};
  }
  return picture;
}

function centerByMass({array, width, height}) {
  const mass = sumOf([...array]);
  const mean = position => array.reduce((total, value, i) => total + value * position(i), 0) / mass;
  const [top, left] = [14 - round(mean(i => Math.floor(i / width))), 14 - round(mean(i => i % width))];
  const [image, brightest] = [new Uint8Array(28 * 28), Math.max(...array)];
  array.forEach((value, i) => {
    const [y, x] = [top + Math.floor(i / width), left + i % width];
    if (y >= 0 && y < 28 && x >= 0 && x < 28) image[y * 28 + x] = Math.trunc(value * 255 / brightest);
  });
  return image;
}

// ---- What is shown ----

let network;  // {layer: activations}
const GAP = 3;
const kernelAt = ({shape: [, w, channelsIn, channels], weights}, y, x, c, k) =>
  weights[((y * w + x) * channelsIn + c) * channels + k];

// A layer's channels as tiles; for conv1 with the kernel to the left of each activation.
function showLayer(name) {
  const layer = network[name], kernels = name === 'conv1' ? layer.width + 1 : 0;
  const columns = name === 'conv1' ? 4 : name === 'fc' ? 64 : 8, gap = name === 'fc' ? 0 : GAP;
  const tile = {width: layer.width + kernels + gap, height: layer.height + gap, columns, kernels};
  const strongest = layer.array.reduce((a, b) => Math.max(a, b), 1e-9);
  at(name).tile = tile;
  draw(at(name), Math.ceil(layer.channels / columns) * tile.height, columns * tile.width, (index, _) => {
    const [y, x] = [Math.floor(index / (columns * tile.width)), index % (columns * tile.width)];
    const channel = Math.floor(y / tile.height) * columns + Math.floor(x / tile.width);
    const [row, column] = [y % tile.height, x % tile.width];
    if (channel >= layer.channels || row >= layer.height || column >= layer.width + kernels) return 128;
    if (column >= kernels) return 255 * Math.sqrt(valueAt(layer, row, column - kernels, channel) / strongest);
    const [h, w] = layers.conv1.shape;
    const weight = kernelAt(layers.conv1, Math.floor(row * h / layer.height), Math.floor(column * w / layer.width), 0,
                            channel);
    return column === layer.width ? 128 : 127.5 * (1 + weight / largestWeights[channel]);
  });
}

function read(pixels) {
  network = inference(pixels);
  draw(at('seen'), 28, 28, index => 255 - pixels[index]);
  const probabilities = softmax(network.softmax_linear.array);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const text = digit => `${digit} (${probabilities[digit].toFixed(3)})`;
  at('answer').textContent = `It reads ${text(order[0])}. Runner-up: ${text(order[1])}.`;
  at('bars').innerHTML = probabilities.map((value, digit) =>
    `<span>${digit}</span><meter value="${value}"></meter><span>${value.toFixed(4)}</span>`).join('');
  Object.keys(NAMES).forEach(showLayer);
  explain();
}

// ---- The arithmetic of one activation ----

let chosen = null;  // {name, y, x, channel}
let marked = null;  // the layer in which it is framed

function patchOf(input, y, x, c, [h, w]) {
  const [top, left] = [y - Math.floor((h - 1) / 2), x - Math.floor((w - 1) / 2)];
  const outside = (row, column) => top + row < 0 || top + row >= input.height || left + column < 0 ||
    left + column >= input.width;
  return {outside, patch: Array.from({length: h}, (_, row) => Array.from({length: w}, (_, column) =>
    valueAt(input, top + row, left + column, c)))};
}

function explain() {
  if (!chosen) return;
  const {name, y, x, channel} = chosen;
  if (marked) showLayer(marked);
  marked = name;
  const {width, height, columns, kernels} = at(name).tile;
  frame(at(name), channel % columns * width + kernels + x, Math.floor(channel / columns) * height + y, 1, 1);
  const output = valueAt(network[name], y, x, channel).toFixed(4);
  const place = name === 'fc' ? `unit ${channel}` : `row ${y}, column ${x} of channel ${channel}`;
  let html = `<h2>${name}, ${place}: ${output}</h2>`;
  if (name.startsWith('pool')) {
    const input = network[name === 'pool1' ? 'conv1' : 'conv2'];
    const four = [0, 1].map(row => [0, 1].map(column => valueAt(input, 2 * y + row, 2 * x + column, channel)));
    html += matrixTable('The largest of these four activations', four, 'four', () => false);
  } else if (name === 'fc') {
    html += `<p>The sum over all ${network.pool2.array.length} values of pool2, each times a weight, plus the bias ` +
      `${layers.fc.biases[channel].toFixed(4)}; negative sums become 0 (relu).</p>`;
  } else {
    const input = network[name === 'conv1' ? 'image' : 'pool1'], layer = layers[name], [h, w] = layer.shape;
    const parts = Array.from({length: input.channels}, (_, c) => {
      const {patch, outside} = patchOf(input, y, x, c, layer.shape);
      const kernel = patch.map((row, ky) => row.map((_, kx) => kernelAt(layer, ky, kx, c, channel)));
      const products = patch.map((row, ky) => row.map((value, kx) => value * kernel[ky][kx]));
      return {c, patch, outside, kernel, products, sum: sumOf(products)};
    });
    const total = sumOf([parts.map(part => part.sum)]), bias = layer.biases[channel];
    html += `<p><b>${total.toFixed(4)} + bias ${bias.toFixed(4)} = ${(total + bias).toFixed(4)}; relu makes it ` +
      `${output}.</b></p>`;
    parts.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
    for (const {c, patch, outside, kernel, products, sum} of parts.slice(0, 1))
      html += (input.channels > 1 ? `<p>The channel of pool1 that contributes most is ${c}:</p>` : '') +
        '<div class="equation">' + matrixTable('patch', patch, 'patch', outside) + '<b>&times;</b>' +
        matrixTable('kernel', kernel, 'kernel', () => false) + '<b>=</b>' +
        matrixTable('products', products, 'products', () => false) + `<b>sum ${sum.toFixed(4)}</b></div>`;
    if (input.channels > 1)
      html += '<p>The next are ' + parts.slice(1, 5).map(part => `${part.c} (${part.sum.toFixed(4)})`).join(', ') +
        `; all ${input.channels} together give ${total.toFixed(4)}.</p>`;
  }
  at('arithmetic').innerHTML = html;
}

// ---- Events ----

const NAMES = {conv1: 'conv1: 32 kernels, each beside its activation', pool1: 'pool1: the largest of each 2 x 2',
               conv2: 'conv2: 64 activations', pool2: 'pool2: the largest of each 2 x 2',
               fc: 'fc: 1,024 units, which see the whole picture'};
const channelsOf = layers.conv1.shape[3];
const largestWeights = Array.from({length: channelsOf}, (_, channel) => layers.conv1.weights.reduce(
  (largest, weight, i) => i % channelsOf === channel ? Math.max(largest, Math.abs(weight)) : largest, 1e-9));

for (const [name, title] of Object.entries(NAMES)) {
  at('layers').insertAdjacentHTML('beforeend', `<figure><figcaption>${title}</figcaption><canvas id="${name}" ` +
    `tabindex="0" role="img" aria-label="${title}. Arrow keys move, Page Up and Page Down change the channel.">` +
    '</canvas></figure>');
  const canvas = at(name);
  const choose = (y, x, channel) => {
    const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1), layer = network[name];
    chosen = {name, y: clamp(y, layer.height), x: clamp(x, layer.width), channel: clamp(channel, layer.channels)};
    explain();
  };
  const point = event => {
    const box = canvas.getBoundingClientRect(), {width, height, columns, kernels} = canvas.tile;
    const x = (event.clientX - box.left) / box.width * canvas.width;
    const y = (event.clientY - box.top) / box.height * canvas.height;
    choose(Math.floor(y % height), Math.floor(x % width) - kernels, Math.floor(y / height) * columns +
           Math.floor(x / width));
  };
  canvas.addEventListener('pointerdown', point);
  canvas.addEventListener('pointermove', point);
  canvas.addEventListener('keydown', event => {
    const move = {ArrowUp: [-1, 0, 0], ArrowDown: [1, 0, 0], ArrowLeft: [0, -1, 0], ArrowRight: [0, 1, 0],
                  PageUp: [0, 0, -1], PageDown: [0, 0, 1]}[event.key];
    if (!move) return;
    event.preventDefault();
    const from = chosen?.name === name ? chosen : {y: 0, x: 0, channel: 0};
    choose(from.y + move[0], from.x + move[1], from.channel + move[2]);
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
    if (pixels) read(pixels);
  });
}

function stroke(event) {
  const box = at('drawing').getBoundingClientRect();
  const here = [(event.clientX - box.left) / box.width * 280, (event.clientY - box.top) / box.height * 280];
  drawing.lineWidth = at('pen').value;
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
at('clear').addEventListener('click', clear);

for (const list of ['digits', 'mistakes'])
  data[list].forEach(({pixels, label, caption}) => {
    const bytes = bytesOf(pixels);
    const button = document.createElement('button');
    button.className = 'digit';
    button.setAttribute('aria-label', button.title = caption ?? `a test digit, ${label}`);
    button.append(document.createElement('canvas'));
    draw(button.firstChild, 28, 28, index => 255 - bytes[index]);
    button.addEventListener('click', () => {
      clear();
      read(bytes);
    });
    at(list).append(button);
  });

clear();
read(bytesOf(data.digits[0].pixels));
