const GREY = [0.2989, 0.587, 0.114];  // tf.image.rgb_to_grayscale's weights
const CHANNELS = ['red', 'green', 'blue'];

// The picture as planes {height, width, rgb: [red, green, blue], grey}; values from 0 to 1, as in lesson 1.
let picture;
let pictureName = data.image_name;
// The kernel as a matrix (an array of rows), and the output pixel that is explained.
let matrix = [];
let pixel = {row: 0, column: 0};
let outputs = [];  // the planes of the output: one, or red, green and blue
let size = {};     // of the output

// ---- Convolution, as tf.nn.conv2d defines it ----

function outputSize(length, kernelLength, stride, padding) {
  return padding === 'SAME' ? Math.ceil(length / stride) : Math.ceil((length - kernelLength + 1) / stride);
}

// The first pixel of patch number `index` along one axis; below 0 where SAME adds zeros.
function patchStart(index, length, kernelLength, stride, padding) {
  if (padding === 'VALID') return index * stride;
  const zeros = Math.max((Math.ceil(length / stride) - 1) * stride + kernelLength - length, 0);
  return index * stride - Math.floor(zeros / 2);
}

function pixelValue(plane, y, x) {
  return y >= 0 && y < picture.height && x >= 0 && x < picture.width ? plane[y * picture.width + x] : 0;
}

function convolve(plane, kernel, stride, padding) {
  const [h, w] = [kernel.length, kernel[0].length];
  const output = new Float64Array(size.height * size.width);
  for (let row = 0; row < size.height; row++) {
    const top = patchStart(row, picture.height, h, stride, padding);
    for (let column = 0; column < size.width; column++) {
      const left = patchStart(column, picture.width, w, stride, padding);
      let sum = 0;
      for (let y = 0; y < h; y++)
        for (let x = 0; x < w; x++)
          sum += pixelValue(plane, top + y, left + x) * kernel[y][x];
      output[row * size.width + column] = sum;
    }
  }
  return output;
}

// ---- What the controls say ----

function settings() {
  const kernel = at('flip').checked ? matrix.map(row => [...row].reverse()).reverse() : matrix;
  const rgb = at('colours').value === 'rgb';
  return {kernel, rgb, wrong: rgb && at('wrong').checked, stride: Number(at('stride').value),
          padding: at('padding').value};
}

function isZeroSum(kernel) {
  return Math.abs(sumOf(kernel)) <= 1e-5 * kernel.flat().reduce((sum, value) => sum + Math.abs(value), 0);
}

function update() {
  const {kernel, rgb, wrong, stride, padding} = settings();
  const [h, w] = [kernel.length, kernel[0].length];
  at('wrong').disabled = !rgb;
  at('sum').textContent = Number(sumOf(kernel).toPrecision(6));
  at('divide').disabled = isZeroSum(kernel) || sumOf(kernel) === 1;
  size = {height: outputSize(picture.height, h, stride, padding), width: outputSize(picture.width, w, stride, padding)};
  if (size.height < 1 || size.width < 1) {
    say('Under VALID the kernel must fit into the picture; choose SAME, or a smaller kernel.');
    at('padding').value = 'SAME';
    return update();
  }
  outputs = (rgb ? picture.rgb : [picture.grey]).map(plane => convolve(plane, kernel, stride, padding));
  if (wrong) {  // every output channel is the sum over all three
    const sum = outputs[0].map((value, index) => value + outputs[1][index] + outputs[2][index]);
    outputs = [sum, sum, sum];
  }
  const formula = (length, k) => padding === 'SAME' ? `ceil(${length} / ${stride})` :
    `ceil((${length} - ${k} + 1) / ${stride})`;
  at('pictureSize').textContent = `${picture.height} high, ${picture.width} wide`;
  at('resultSize').textContent = `${formula(picture.height, h)} = ${size.height} high, ` +
    `${formula(picture.width, w)} = ${size.width} wide`;
  at('scale').textContent = isZeroSum(kernel) ? 'The kernel sums to 0: black is -1, grey 0, white 1.' :
    'Black is 0, white 1; what lies beyond is clipped.';
  showCode(kernel, rgb, wrong, stride, padding);
  choosePixel(pixel.row, pixel.column);
}

// ---- Pictures ----

function choosePixel(row, column) {
  const {kernel, rgb, wrong, stride, padding} = settings();
  pixel = {row: Math.min(Math.max(row, 0), size.height - 1), column: Math.min(Math.max(column, 0), size.width - 1)};
  const top = patchStart(pixel.row, picture.height, kernel.length, stride, padding);
  const left = patchStart(pixel.column, picture.width, kernel[0].length, stride, padding);
  const planes = rgb ? picture.rgb : [picture.grey, picture.grey, picture.grey];
  draw(at('picture'), picture.height, picture.width, (index, channel) => planes[channel][index] * 255);
  frame(at('picture'), left, top, kernel[0].length, kernel.length);
  const signed = isZeroSum(kernel);
  draw(at('result'), size.height, size.width, (index, channel) => {
    const value = outputs[rgb ? channel : 0][index];
    return Math.floor(Math.min(Math.max(signed ? 0.5 + 0.5 * value : value, 0), 1) * 255);
  });
  frame(at('result'), pixel.column, pixel.row, 1, 1);
  explain(kernel, rgb, wrong, top, left);
}

// ---- The arithmetic of one output pixel ----

function explain(kernel, rgb, wrong, top, left) {
  const planes = rgb ? picture.rgb : [picture.grey];
  const isOutside = (y, x) => top + y < 0 || top + y >= picture.height || left + x < 0 || left + x >= picture.width;
  let html = '';
  const sums = planes.map((plane, channel) => {
    const patch = kernel.map((row, y) => row.map((_, x) => pixelValue(plane, top + y, left + x)));
    const products = kernel.map((row, y) => row.map((value, x) => value * patch[y][x]));
    const name = rgb ? `${CHANNELS[channel]} ` : '';
    html += '<div class="equation">' + matrixTable(name + 'patch', patch, 'patch', isOutside) + '<b>&times;</b>' +
      matrixTable('kernel', kernel, 'kernel', () => false) + '<b>=</b>' +
      matrixTable('products', products, 'products', () => false) +
      `<b>sum ${sumOf(products).toFixed(6)}</b></div>`;
    return sumOf(products);
  });
  at('arithmetic').innerHTML = html;
  at('where').textContent = `Output row ${pixel.row}, column ${pixel.column}`;
  at('total').textContent = wrong ?
    `Red, green and blue become ${sums.map(sum => sum.toFixed(4)).join(' + ')} = ${sumOf([sums]).toFixed(6)}.` :
    rgb ? `Red becomes ${sums[0].toFixed(6)}, green ${sums[1].toFixed(6)}, blue ${sums[2].toFixed(6)}.` :
      `The output pixel is ${sums[0].toFixed(6)}.`;
}

// ---- The same in TensorFlow ----

function showCode(kernel, rgb, wrong, stride, padding) {
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
    `<td><input type="number" step="any" value="${value}" data-y="${y}" data-x="${x}" ` +
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
  const rgb = CHANNELS.map((_, channel) =>
    Float32Array.from({length: canvas.width * canvas.height}, (_, index) => bytes[4 * index + channel] / 255));
  const grey = rgb[0].map((red, index) => GREY[0] * red + GREY[1] * rgb[1][index] + GREY[2] * rgb[2][index]);
  picture = {height: canvas.height, width: canvas.width, rgb, grey};
  pictureName = name;
  pixel = {row: Math.floor(picture.height / 2), column: Math.floor(picture.width / 2)};
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

for (const id of ['picture', 'result']) {
  const canvas = at(id);
  const point = event => {
    const box = canvas.getBoundingClientRect();
    let row = Math.floor((event.clientY - box.top) / box.height * canvas.height);
    let column = Math.floor((event.clientX - box.left) / box.width * canvas.width);
    if (id === 'picture') {  // the output pixel whose patch has this one in its middle
      const {kernel, stride, padding} = settings();
      row = Math.round((row - (kernel.length - 1) / 2 - patchStart(0, picture.height, kernel.length, stride, padding)) /
                       stride);
      column = Math.round((column - (kernel[0].length - 1) / 2 -
                           patchStart(0, picture.width, kernel[0].length, stride, padding)) / stride);
    }
    choosePixel(row, column);
  };
  canvas.addEventListener('pointerdown', point);
  canvas.addEventListener('pointermove', point);
  canvas.addEventListener('keydown', event => {
    const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!move) return;
    event.preventDefault();
    choosePixel(pixel.row + move[0], pixel.column + move[1]);
  });
}
at('editor').addEventListener('input', event => {
  const value = event.target.valueAsNumber;
  if (!Number.isFinite(value)) return;
  matrix[event.target.dataset.y][event.target.dataset.x] = value;
  at('kernels').value = 'your own';
  update();
});
at('kernels').addEventListener('change', event => {
  if (event.target.value in allKernels) setMatrix(allKernels[event.target.value], event.target.value);
});
for (const select of document.querySelectorAll('.size')) {
  select.innerHTML = [1, 2, 3, 4, 5, 6, 7].map(number => `<option>${number}</option>`).join('');
  select.addEventListener('change', () => {  // keeps the numbers, adds or drops rows and columns at the end
    const [height, width] = [Number(at('rows').value), Number(at('columns').value)];
    setMatrix(Array.from({length: height}, (_, y) => Array.from({length: width}, (_, x) => matrix[y]?.[x] ?? 0)),
              'your own');
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
