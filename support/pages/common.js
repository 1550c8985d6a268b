'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const at = id => document.getElementById(id);
const sumOf = numbers => numbers.reduce((sum, value) => sum + (Array.isArray(value) ? sumOf(value) : value), 0);
const range = length => [...Array(length).keys()];
const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

// ---- Values are {height, width, channels, array}; the array is [height, width, channels], as in TensorFlow ----

function values(height, width, channels, valueOf = () => 0) {
  const array = new Float64Array(height * width * channels);
  for (let i = 0, y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++) array[i++] = valueOf(y, x, c);
  return {height, width, channels, array};
}

const isInside = ({height, width}, y, x) => y >= 0 && y < height && x >= 0 && x < width;

function valueAt(input, y, x, c = 0) {
  return isInside(input, y, x) ? input.array[(y * input.width + x) * input.channels + c] : 0;
}

// ---- Convolution, as tf.nn.conv2d defines it ----

const outputSize = (length, kernelLength, stride, padding) =>
  Math.ceil((padding === 'SAME' ? length : length - kernelLength + 1) / stride);

// The first pixel of patch number `index` along one axis; below 0 where SAME adds zeros.
function patchStart(index, length, kernelLength, stride, padding) {
  if (padding === 'VALID') return index * stride;
  const zeros = Math.max((Math.ceil(length / stride) - 1) * stride + kernelLength - length, 0);
  return index * stride - Math.floor(zeros / 2);
}

function conv2d(input, {shape: [h, w, channelsIn, channels], weights}, stride = 1, padding = 'SAME') {
  const output = values(outputSize(input.height, h, stride, padding), outputSize(input.width, w, stride, padding),
                        channels);
  for (let row = 0; row < output.height; row++)
    for (let column = 0; column < output.width; column++) {
      const top = patchStart(row, input.height, h, stride, padding);
      const left = patchStart(column, input.width, w, stride, padding);
      const place = (row * output.width + column) * channels;
      for (let y = 0; y < h; y++)
        for (let x = 0; x < w; x++)
          for (let c = 0; c < channelsIn; c++) {
            const value = valueAt(input, top + y, left + x, c);
            if (value === 0) continue;  // beyond the border, and often after relu
            const from = ((y * w + x) * channelsIn + c) * channels;
            for (let k = 0; k < channels; k++) output.array[place + k] += value * weights[from + k];
          }
    }
  return output;
}

// ---- What is shown ----

// Draws one channel as grey, or three as red, green and blue; what is beyond 0 (black) and 1 (white) is clipped.
function draw(canvas, {height, width, channels, array}, brightness = value => value) {
  Object.assign(canvas, {height, width});
  const image = new ImageData(width, height);
  image.data.forEach((_, i) => image.data[i] = i % 4 === 3 ? 255 :  // opaque
    Math.floor(255 * brightness(array[(i >> 2) * channels + i % 4 % channels])));
  canvas.getContext('2d').putImageData(image, 0, 0);
}

// Shows the frame that lies over a canvas; places and lengths are in pixels of the canvas.
function frame(canvas, top, left, height, width) {
  const percent = (length, whole) => `${100 * length / whole}%`;
  canvas.nextElementSibling.hidden = false;
  Object.assign(canvas.nextElementSibling.style, {
    top: percent(top, canvas.height), height: percent(height, canvas.height),
    left: percent(left, canvas.width), width: percent(width, canvas.width)});
}

function matrixTable(heading, rows, kind, isZero = () => false) {
  const cell = (value, y, x) => {
    const grey = Math.round(255 * clamp(value, 0, 1));
    const style = kind === 'patch' ?
      `style="background: rgb(${grey} ${grey} ${grey}); color: ${grey > 127 ? 'black' : 'white'}"` : '';
    const border = isZero(y, x) ? 'class="outside" title="a zero beyond the border"' : '';
    return `<td ${border} ${style}>${(value + 0).toFixed(4)}</td>`;
  };
  const cells = rows.map((row, y) => `<tr>${row.map((value, x) => cell(value, y, x)).join('')}</tr>`).join('');
  return `<div><div>${heading}</div><table class="${kind}">${cells}</table></div>`;
}

// What one channel of the input contributes to one output value: patch x kernel = products, and their sum.
function contribution(input, c, top, left, kernel, name = '') {
  const patch = kernel.map((row, y) => row.map((_, x) => valueAt(input, top + y, left + x, c)));
  const products = kernel.map((row, y) => row.map((weight, x) => weight * patch[y][x]));
  const sum = sumOf(products);
  const html = '<div class="equation">' +
    matrixTable(name + 'patch', patch, 'patch', (y, x) => !isInside(input, top + y, left + x)) + '<b>&times;</b>' +
    matrixTable('kernel', kernel, 'kernel') + '<b>=</b>' + matrixTable('products, cell by cell', products, 'products') +
    `<b>sum ${sum.toFixed(6)}</b></div>`;
  return {c, sum, html};
}

// ---- Mouse, finger and keys ----

let isKept = false;  // after a click, until the next one, so that the mouse can leave the canvas
const MOVES = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};

// Calls point(y, x) with places in the canvas, and move(rows, columns, channels).
function listen(canvas, point, move) {
  Object.assign(canvas, {tabIndex: 0, role: 'img'});
  canvas.onpointerdown = canvas.onpointermove = event => {
    if (event.type === 'pointerdown') isKept = !isKept && event.pointerType === 'mouse';
    else if (isKept) return;
    const scale = canvas.width / canvas.getBoundingClientRect().width;
    point(event.offsetY * scale, event.offsetX * scale);
  };
  canvas.onkeydown = event => {
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    move(...MOVES[event.key]);
  };
}
