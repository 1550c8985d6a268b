'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const at = id => document.getElementById(id);
const tell = (id, text) => at(id).textContent === text || (at(id).textContent = text);  // is read out once
const sumOf = numbers => numbers.reduce((sum, value) => sum + (Array.isArray(value) ? sumOf(value) : value), 0);
const range = length => [...Array(length).keys()];
const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

// ---- Values are {height, width, channels, array}; the array is [height, width, channels], as in TensorFlow ----

function values(height, width, channels, valueOf) {
  const array = new Float64Array(height * width * channels);
  for (let i = 0, y = 0; valueOf && y < height; y++)
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
  const {height, width, array} = input, sums = output.array;
  const lefts = range(output.width).map(column => patchStart(column, width, w, stride, padding));
  const patch = new Float64Array(h * w * channelsIn + 3), rows = new Int32Array(patch.length);  // a patch without zeros
  let place = 0;  // in the sums
  for (let row = 0; row < output.height; row++) {
    const top = patchStart(row, height, h, stride, padding);
    const firstY = Math.max(-top, 0), endY = Math.min(h, height - top);  // beyond the border are zeros
    for (const left of lefts) {
      const firstX = Math.max(-left, 0), endX = Math.min(w, width - left);
      let count = 0;
      for (let y = firstY; y < endY; y++)
        for (let x = firstX; x < endX; x++) {
          let from = ((top + y) * width + left + x) * channelsIn, weight = (y * w + x) * channelsIn * channels;
          for (let c = 0; c < channelsIn; c++, from++, weight += channels)
            if (array[from] !== 0) {  // often it is, after relu
              patch[count] = array[from];
              rows[count++] = weight;
            }
        }
      addUp(count, patch, rows, weights, sums, place, channels);
      place += channels;
    }
  }
  return output;
}

// Adds value times row of weights to the sums from `place` on, for each value. Four at a time take half as long.
function addUp(count, values, rows, weights, sums, place, channels) {
  values.fill(0, count, count + 3);
  for (let i = 0; i < count; i += 4) {
    const value0 = values[i], value1 = values[i + 1], value2 = values[i + 2], value3 = values[i + 3];
    const row0 = rows[i], row1 = rows[i + 1], row2 = rows[i + 2], row3 = rows[i + 3];
    for (let k = 0; k < channels; k++)
      sums[place + k] += value0 * weights[row0 + k] + value1 * weights[row1 + k] +
        value2 * weights[row2 + k] + value3 * weights[row3 + k];
  }
}

// ---- What is shown ----

// What is put into a canvas, kept while it has this size; each of `pixels` has 8 bits of alpha, blue, green and red.
function imageOf(canvas, height, width) {
  if (canvas.image?.height === height && canvas.image.width === width) return canvas;
  const image = new ImageData(width, height);
  return Object.assign(canvas, {height, width, image, pixels: new Uint32Array(image.data.buffer)});
}

// Draws one channel as grey, or three as red, green and blue. `black` and what is below is black, 1 and what is above
// white, and NaN, where nothing is, transparent.
function draw(canvas, {height, width, channels, array}, black = 0) {
  const {image, pixels} = imageOf(canvas, height, width), scale = 255 / (1 - black);
  const byteOf = value => value > 255 ? 255 : value > 0 ? value + 0.5 | 0 : 0;
  for (let i = 0, place = 0; place < array.length; place += channels, i++) {
    const red = byteOf(scale * (array[place] - black));
    const green = channels === 1 ? red : byteOf(scale * (array[place + 1] - black));
    const blue = channels === 1 ? red : byteOf(scale * (array[place + 2] - black));
    pixels[i] = array[place] === array[place] ? 255 << 24 | blue << 16 | green << 8 | red : 0;
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
}

const frameOf = id => at(id).nextElementSibling;

// Shows the frame that lies over a canvas; places and lengths are in pixels of the canvas.
function frame(canvas, top, left, height, width) {
  const percent = (length, whole) => `${100 * length / whole}%`;
  canvas.nextElementSibling.hidden = false;
  Object.assign(canvas.nextElementSibling.style, {
    top: percent(top, canvas.height), height: percent(height, canvas.height),
    left: percent(left, canvas.width), width: percent(width, canvas.width)});
}

// Paths for the SVG #lines from the corners of one frame to those of another.
function linesBetween(from, to) {
  const [box, start, end] = [at('lines'), from, to].map(each => each.getBoundingClientRect());
  return ['left', 'right'].flatMap(x => ['top', 'bottom'].map(y =>
    `<path d="M${start[x] - box.left},${start[y] - box.top} L${end[x] - box.left},${end[y] - box.top}"/>`)).join('');
}

// Pointing at a pixel of the patch, at its weight or at their product lights all three, also after they change.
for (const type of ['pointerover', 'focusin'])
  document.addEventListener(type, ({target: {dataset: {y, x}}}) => {
    at('lit').textContent = y && `[data-y="${y}"][data-x="${x}"] {
      outline: 2px solid black !important; box-shadow: inset 0 0 0 2px white; }`;
  });

// Above 0 orange, below 0 blue, the stronger the larger: one scale for all that has a sign, in both colour schemes.
const signed = (value, largest) =>
  value === 0 ? '' : `background: rgb(${value < 0 ? '0 114 178' : '213 94 0'} / ` +
    `${0.12 + 0.45 * Math.min(Math.abs(value) / largest, 1)})`;

// How a value of a patch is shown; the network's activations have colours of their own.
let patchStyle = value => {
  const grey = Math.round(255 * clamp(value, 0, 1));
  return `background: rgb(${grey} ${grey} ${grey}); color: ${grey > 127 ? 'black' : 'white'}`;
};

const decimal = value => value.toFixed(4).replace(/^-(0\.0*)$/, '$1');  // no -0

// Kernels and products are shown by their sign.
function matrixTable(heading, rows, kind, isZero = () => false) {
  const largest = Math.max(...rows.flat().map(Math.abs), 1e-9);
  const isWhole = kind === 'kernel' && rows.flat().every(Number.isInteger);
  const cell = (value, y, x) => {
    const style = kind === 'patch' || kind === 'four' ? patchStyle(value) : signed(value, largest);
    const border = isZero(y, x) ? ' class="outside" title="a zero beyond the border"' : '';
    return `<td data-y="${y}" data-x="${x}"${border} style="${style}">${isWhole ? value : decimal(value)}</td>`;
  };
  const cells = rows.map((row, y) => `<tr>${row.map((value, x) => cell(value, y, x)).join('')}</tr>`).join('');
  return `<div><div>${heading}</div><table class="${kind}">${cells}</table></div>`;
}

// What one channel of the input contributes to one output value: patch x kernel = products, and their sum; html() shows
// them.
function contribution(input, c, top, left, kernel, name = '') {
  const patch = kernel.map((row, y) => row.map((_, x) => valueAt(input, top + y, left + x, c)));
  const products = kernel.map((row, y) => row.map((weight, x) => weight * patch[y][x]));
  const sum = sumOf(products);
  const html = () => '<div class="equation">' +
    matrixTable(name + 'patch', patch, 'patch', (y, x) => !isInside(input, top + y, left + x)) + '<b>&times;</b>' +
    matrixTable('kernel', kernel, 'kernel') + '<div class="result"><b>=</b>' +
    matrixTable('products, cell by cell', products, 'products') + `<b>sum ${decimal(sum)}</b></div></div>`;
  return {c, sum, html};
}

// ---- Mouse, finger and keys ----

let isKept = false;  // after a click, until one on the same place or Esc, so that the mouse can leave the canvas
function keep(isOn) {
  isKept = isOn;
  document.body.classList.toggle('kept', isOn);
}
window.addEventListener('keydown', ({key}) => key === 'Escape' && keep(false));
at('reset').onclick = () => location.reload();
const MOVES = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};

// Calls point(y, x) with places in the canvas, and move(rows, columns, channels).
function listen(canvas, point, move) {
  Object.assign(canvas, {tabIndex: 0, role: 'application'});  // it has keys of its own
  canvas.onpointerdown = canvas.onpointermove = canvas.onpointerup = event => {
    const isDown = event.type === 'pointerdown', isTouch = event.pointerType === 'touch';
    if (event.button > 0) return;  // for the browser's menu
    const isUp = event.type === 'pointerup', mayScroll = getComputedStyle(canvas).touchAction === 'pan-y';
    if (isTouch ? mayScroll && !isUp : isUp || isKept && !isDown) return;
    const frame = canvas.nextElementSibling.style, before = isKept && frame.cssText;
    const scale = canvas.width / canvas.getBoundingClientRect().width;
    point(event.offsetY * scale, event.offsetX * scale);
    if (isTouch || isDown) keep(!isTouch && frame.cssText !== before);
  };
  canvas.onkeydown = event => {
    if (['Enter', ' '].includes(event.key)) keep(!isKept);
    else if (!(event.key in MOVES)) return;
    event.preventDefault();  // it would scroll
    move(...(MOVES[event.key] ?? [0, 0]).map(step => event.shiftKey ? 10 * step : step));
  };
}

// Makes a group of buttons, or of fields, one stop of the Tab key; the keys of `moves` move within it.
function oneTabStop(group, kind = 'button', moves = MOVES) {
  const all = () => [...group.querySelectorAll(kind + ':enabled')];
  const stopAt = stop => all().forEach(each => each.tabIndex = each === stop ? 0 : -1);
  stopAt(all().find(each => each.ariaPressed === 'true') ?? all()[0]);
  group.addEventListener('focusin', ({target}) => stopAt(target));
  group.addEventListener('keydown', event => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    all().at((all().indexOf(event.target) + sumOf(moves[event.key])) % all().length).focus();
  });
}

// ---- The guide ----

document.querySelector('header').insertAdjacentHTML('beforeend', '<section id="guide" aria-label="Guide" hidden>' +
  '<span id="guideText" aria-live="polite"></span> <button id="guideBack">Back</button> ' +
  '<button id="guideNext">Next</button> <button id="guideClose">Close</button></section>');

// steps: [id, text, answer, begin]: what each highlights and says; if it asks for something, a function that answers
// when that is done; and a function that is called when the step is reached. Returns a function that shows step n, or,
// without n, checks again what is asked; it returns the step.
function guideThrough(steps) {
  let number = steps.length;  // closed
  function show(step) {
    number = step ?? number;
    steps[step]?.[3]?.();
    document.querySelectorAll('.shown').forEach(each => each.classList.remove('shown'));
    at('guide').hidden = number >= steps.length;
    if (!at('guide').hidden) {
      const [id, text, answer] = steps[number];
      at(id).classList.add('shown');
      tell('guideText', `${number + 1} of ${steps.length}: ${text}${answer?.() || ''}`);
      at('guideNext').hidden = number === steps.length - 1;
      at('guideBack').disabled = number === 0;
    }
    return number;
  }
  function move(by) {
    show(number + by);
    const shown = at(steps[number][0]);  // it can be out of sight on a phone
    shown.scrollIntoView({block: shown.offsetHeight > innerHeight / 2 ? 'start' : 'nearest'});
    if (at('guideNext').hidden || number === 0) at('guideClose').focus();  // the button that was pressed is gone
  }
  at('guideNext').onclick = () => move(1);
  at('guideBack').onclick = () => move(-1);
  at('guideOpen').onclick = () => show(0);
  at('guideClose').onclick = () => {
    show(steps.length);
    at('guideOpen').focus({preventScroll: true});
  };
  return show;
}
