const GREY = [0.2989, 0.587, 0.114];  // tf.image.rgb_to_grayscale's weights
const CHANNELS = ['red', 'green', 'blue'];

let picture;        // {rgb, grey}: values from 0 to 1, as in lesson 1
let pictureName = data.image_name;
let matrix = [];    // the kernel's rows
let output;         // what conv2d makes of the picture
let pixel = {row: 0, column: 0};  // the output pixel that is explained

// ---- What the controls say ----

function settings() {
  const kernel = at('flip').checked ? matrix.map(row => [...row].reverse()).reverse() : matrix;
  const rgb = at('colours').value === 'rgb';
  return {kernel, rgb, wrong: rgb && at('wrong').checked, stride: Number(at('stride').value),
          padding: at('padding').value, input: rgb ? picture.rgb : picture.grey};
}

function isZeroSum(kernel) {
  return Math.abs(sumOf(kernel)) <= 1e-5 * sumOf(kernel.flat().map(Math.abs));
}

// A matrix as conv2d's kernel: on the channel diagonal, or, by mistake, on every pair of channels.
function kernelOf(rows, channels, wrong) {
  const pairs = Array.from({length: channels * channels}, (_, i) => wrong || i % (channels + 1) === 0 ? 1 : 0);
  return {shape: [rows.length, rows[0].length, channels, channels],
          weights: rows.flat().flatMap(value => pairs.map(pair => pair * value))};
}

function update() {
  const {kernel, wrong, stride, padding, input} = settings();
  const [h, w] = [kernel.length, kernel[0].length];
  if (padding === 'VALID' && (h > input.height || w > input.width)) {
    say('Under VALID the kernel must fit into the picture; choose SAME, or a smaller kernel.');
    at('padding').value = 'SAME';
    return update();
  }
  output = conv2d(input, kernelOf(kernel, input.channels, wrong), stride, padding);
  at('wrong').disabled = input.channels === 1;
  at('sum').textContent = Number(sumOf(kernel).toPrecision(6));
  at('divide').hidden = isZeroSum(kernel) || Math.abs(sumOf(kernel) - 1) < 1e-5;
  const formula = (length, k) => `ceil(${padding === 'SAME' ? length : `(${length} - ${k} + 1)`} / ${stride})`;
  at('pictureSize').textContent = `${input.height} high, ${input.width} wide`;
  at('resultSize').textContent = `${formula(input.height, h)} = ${output.height} high, ` +
    `${formula(input.width, w)} = ${output.width} wide`;
  at('scale').textContent = isZeroSum(kernel) ? 'The kernel sums to 0: black is -1, grey 0, white 1.' :
    'Black is 0, white 1; what lies beyond is clipped.';
  show(at('picture'), input, value => value);
  show(at('result'), output, isZeroSum(kernel) ? value => 0.5 + 0.5 * value : value => value);
  showCode();
  choosePixel(pixel.row, pixel.column);
}

function show(canvas, shown, brightness) {
  draw(canvas, shown.height, shown.width, (index, channel) =>
    Math.floor(255 * clamp(brightness(shown.array[shown.channels * index + channel % shown.channels]), 0, 1)));
}

// ---- The output pixel that is explained ----

function choosePixel(row, column) {
  const {kernel, rgb, wrong, stride, padding, input} = settings();
  pixel = {row: clamp(row, 0, output.height - 1), column: clamp(column, 0, output.width - 1)};
  const top = patchStart(pixel.row, input.height, kernel.length, stride, padding);
  const left = patchStart(pixel.column, input.width, kernel[0].length, stride, padding);
  frame(at('picture'), top, left, kernel.length, kernel[0].length);
  frame(at('result'), pixel.row, pixel.column, 1, 1);
  const parts = (rgb ? CHANNELS : ['']).map((name, c) =>
    contribution(input, c, top, left, kernel, name && name + ' '));
  const sums = parts.map(part => part.sum.toFixed(6));
  at('where').textContent = `Output row ${pixel.row}, column ${pixel.column}`;
  at('arithmetic').innerHTML = parts.map(part => part.html).join('');
  at('dashed').hidden = !at('arithmetic').querySelector('.outside');
  at('total').textContent = !rgb ? `The output pixel is ${sums[0]}.` :
    wrong ? `Red, green and blue become ${sums.join(' + ')} = ${sumOf(parts.map(part => part.sum)).toFixed(6)}.` :
      `Red becomes ${sums[0]}, green ${sums[1]}, blue ${sums[2]}.`;
}

// ---- The same in TensorFlow ----

function showCode() {
  const {kernel, rgb, wrong, stride, padding} = settings();
  const rows = kernel.map(row => '[' + row.join(', ') + ']').join(', ');
  const channels = !rgb ? '' : wrong ? ' * np.ones([3, 3], np.float32)' : ' * np.eye(3, dtype=np.float32)';
  at('line').textContent = `tf.nn.conv2d(images, np.float32([${rows}])[:, :, np.newaxis, np.newaxis]${channels}, ` +
    `strides=[1, ${stride}, ${stride}, 1], padding='${padding}')`;
  const name = at('kernels').value;
  const known = name in data.kernels && !at('flip').checked;
  at('command').textContent = 'python 07_basic_filters.py' + (pictureName ? ` --image ${pictureName}` : '') +
    (known ? ` --kernels ${name}` : ` --custom-kernel "${kernel.map(row => row.join(' ')).join('; ')}"`) +
    (stride > 1 ? ` --stride ${stride}` : '') + (padding === 'VALID' ? ' --padding VALID' : '') +
    (wrong ? '   # which shows the mistake in conv_ops.png' : '');
}

// ---- The kernel's numbers ----

function showEditor() {
  at('rows').value = matrix.length;
  at('columns').value = matrix[0].length;
  at('editor').innerHTML = matrix.map((row, y) => '<tr>' + row.map((value, x) =>
    `<td><input type="number" step="any" value="${Number(value.toPrecision(4))}" data-y="${y}" data-x="${x}" ` +
    `aria-label="row ${y + 1}, column ${x + 1}"></td>`).join('') + '</tr>').join('');
}

function setMatrix(rows, name) {
  matrix = rows.map(row => row.map(Number));
  at('kernels').value = name;
  showEditor();
  update();
}

// ---- A picture, the lesson's or your own ----

async function setPicture(source, name) {
  const bitmap = await createImageBitmap(source);
  const scale = Math.min(1, 480 / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext('2d');
  context.fillStyle = 'white';  // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const [rgb, grey] = [3, 1].map(channels => values(canvas.height, canvas.width, channels));
  bytes.filter((_, i) => i % 4 < 3).forEach((byte, i) => {
    rgb.array[i] = byte / 255;
    grey.array[Math.floor(i / 3)] += GREY[i % 3] * rgb.array[i];
  });
  picture = {rgb, grey};
  pictureName = name;
  pixel = {row: Math.floor(rgb.height / 2), column: Math.floor(rgb.width / 2)};
  update();
}

async function openFile(file) {
  try {
    await setPicture(file, '"' + file.name.replace(/["\\$`]/g, '\\$&') + '"');
    say('');
  } catch (error) {
    say(`${file.name} is no picture that this browser can read. The earlier one stays.`);
  }
}

function say(text) {
  at('error').textContent = text;
}

// ---- Events ----

const move = (rows, columns) => choosePixel(pixel.row + rows, pixel.column + columns);
listen(at('result'), (y, x) => choosePixel(Math.floor(y), Math.floor(x)), move);
listen(at('picture'), (y, x) => {  // the output pixel whose patch has this one in its middle
  const {kernel, stride, padding, input} = settings();
  const index = (place, length, k) =>
    Math.round((Math.floor(place) - (k - 1) / 2 - patchStart(0, length, k, stride, padding)) / stride);
  choosePixel(index(y, input.height, kernel.length), index(x, input.width, kernel[0].length));
}, move);
at('editor').addEventListener('input', event => {
  matrix[event.target.dataset.y][event.target.dataset.x] = event.target.valueAsNumber || 0;
  at('kernels').value = 'your own';
  update();
});
at('kernels').addEventListener('change', event => {
  if (event.target.value in allKernels) setMatrix(allKernels[event.target.value], event.target.value);
});
for (const select of document.querySelectorAll('.size')) {
  select.innerHTML = [1, 2, 3, 4, 5, 6, 7].map(number => `<option>${number}</option>`).join('');
  select.addEventListener('change', () => {  // keeps the centre, adds or drops rows and columns around it
    const [height, width] = [Number(at('rows').value), Number(at('columns').value)];
    const centre = length => Math.floor((length - 1) / 2);
    const top = centre(matrix.length) - centre(height), left = centre(matrix[0].length) - centre(width);
    setMatrix(Array.from({length: height}, (_, y) =>
      Array.from({length: width}, (_, x) => matrix[top + y]?.[left + x] ?? 0)), 'your own');
  });
}
for (const id of ['stride', 'padding', 'colours', 'flip', 'wrong']) at(id).addEventListener('change', update);
at('divide').addEventListener('click', () => {
  const sum = sumOf(matrix);
  setMatrix(matrix.map(row => row.map(value => value / sum)), 'your own');
});
for (const button of document.querySelectorAll('[data-copy]'))
  button.addEventListener('click', () => {
    getSelection().selectAllChildren(at(button.dataset.copy));
    document.execCommand('copy');  // navigator.clipboard is not there for a page from the disk
  });
at('file').addEventListener('change', event => event.target.files[0] && openFile(event.target.files[0]));
addEventListener('dragover', event => event.preventDefault());
addEventListener('drop', event => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
});

// ---- The start ----

const allKernels = {...data.kernels, ...data.custom};
at('kernels').innerHTML = [...Object.keys(allKernels), 'your own'].map(name => `<option>${name}</option>`).join('');
at('stride').value = Math.min(data.stride, 3);
at('padding').value = data.padding;
const first = Object.keys(data.custom)[0] ?? ('edge' in allKernels ? 'edge' : Object.keys(allKernels)[0]);
matrix = allKernels[first].map(row => [...row]);
at('kernels').value = first;
showEditor();
const image = new Image();
image.onload = () => setPicture(image, data.image_name);
image.src = data.image;
