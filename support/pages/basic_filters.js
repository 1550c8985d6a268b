const GREY = [0.2989, 0.587, 0.114];  // tf.image.rgb_to_grayscale's weights

let picture;  // {name, rgb, grey}: its name on the command line, and values from 0 to 1, as in lesson 1
let matrix;   // the kernel's rows
let output;   // what conv2d makes of the picture
let pixel;    // {row, column}: the output pixel that is explained

// ---- What the controls say ----

function settings() {
  const kernel = at('flip').checked ? matrix.map(row => [...row].reverse()).reverse() : matrix;
  const rgb = at('colours').value === 'RGB';
  return {kernel, rgb, wrong: rgb && at('wrong').checked, stride: Number(at('stride').value),
          padding: at('padding').value, input: rgb ? picture.rgb : picture.grey};
}

// A matrix as conv2d's kernel: on the channel diagonal, or, by mistake, on every pair of channels.
function kernelOf(rows, channels, wrong) {
  const pairs = range(channels * channels).map(i => wrong || i % (channels + 1) === 0 ? 1 : 0);
  return {shape: [rows.length, rows[0].length, channels, channels],
          weights: rows.flat().flatMap(value => pairs.map(pair => pair * value))};
}

function update() {
  const {kernel, wrong, stride, padding, input} = settings();
  const [h, w] = [kernel.length, kernel[0].length];
  if (padding === 'VALID' && (h > input.height || w > input.width)) {
    at('error').textContent = 'Under VALID the kernel must fit into the picture; it does not, so SAME is back.';
    at('padding').value = 'SAME';
    return update();
  }
  output = conv2d(input, kernelOf(kernel, input.channels, wrong), stride, padding);
  at('wrong').disabled = input.channels === 1;
  const sum = sumOf(kernel), isZeroSum = Math.abs(sum) <= 1e-5 * sumOf(kernel.flat().map(Math.abs));
  at('sum').textContent = Number(sum.toPrecision(6));
  at('divide').hidden = isZeroSum || Math.abs(sum - 1) < 1e-5;
  const formula = (length, k) => `ceil(${padding === 'SAME' ? length : `(${length} - ${k} + 1)`} / ${stride})`;
  at('pictureSize').textContent = `${input.height} high, ${input.width} wide`;
  at('resultSize').textContent = `${formula(input.height, h)} = ${output.height} high, ` +
    `${formula(input.width, w)} = ${output.width} wide` + (stride > 1 ? ', shown enlarged' : '');
  at('scale').textContent = isZeroSum ? 'The kernel sums to 0: black is -1 or less, grey 0, white 1 or more.' :
    'Black is 0 or less, white 1 or more.';
  draw(at('picture'), input);
  draw(at('result'), output, isZeroSum ? value => 0.5 + 0.5 * value : value => value);
  showCode();
  choosePixel(pixel.row, pixel.column);
}

// ---- The output pixel that is explained ----

function choosePixel(row, column) {
  const {kernel, rgb, wrong, stride, padding, input} = settings();
  pixel = {row: clamp(row, 0, output.height - 1), column: clamp(column, 0, output.width - 1)};
  const top = patchStart(pixel.row, input.height, kernel.length, stride, padding);
  const left = patchStart(pixel.column, input.width, kernel[0].length, stride, padding);
  frame(at('picture'), top, left, kernel.length, kernel[0].length);
  frame(at('result'), pixel.row, pixel.column, 1, 1);
  const parts = (rgb ? ['red ', 'green ', 'blue '] : ['']).map((name, c) =>
    contribution(input, c, top, left, kernel, name));
  const sums = parts.map(part => part.sum.toFixed(6));
  at('where').textContent = `Output row ${pixel.row}, column ${pixel.column} (counted from 0; numbers are rounded)`;
  at('arithmetic').innerHTML = parts.map(part => part.html).join('');
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
  at('command').textContent = 'python 07_basic_filters.py' + (picture.name ? ` --image ${picture.name}` : '') +
    (known ? ` --kernels ${name}` : ` --custom-kernel "${kernel.map(row => row.join(' ')).join('; ')}"`) +
    (stride > 1 ? ` --stride ${stride}` : '') + (padding === 'VALID' ? ' --padding VALID' : '') +
    (wrong ? '   # which shows the mistake in conv_ops.png' : '');
}

// ---- The kernel's numbers ----

function setMatrix(rows, name) {
  matrix = rows.map(row => [...row]);
  at('kernels').value = name;
  at('rows').value = matrix.length;
  at('columns').value = matrix[0].length;
  at('editor').innerHTML = matrix.map((row, y) => '<tr>' + row.map((value, x) =>
    `<td><input type="number" step="any" value="${Number(value.toPrecision(4))}" data-y="${y}" data-x="${x}" ` +
    `aria-label="row ${y + 1}, column ${x + 1}"></td>`).join('') + '</tr>').join('');
  update();
}

// A list that is longer or shorter around the same centre.
function centred(list, length, filler) {
  const centre = length => Math.floor((length - 1) / 2);
  return range(length).map(index => list[index + centre(list.length) - centre(length)] ?? filler);
}

// ---- A picture, the lesson's or your own ----

async function setPicture(source, name) {
  const bitmap = await createImageBitmap(source);
  const scale = Math.min(1, 480 / Math.max(bitmap.width, bitmap.height));
  const [height, width] = [bitmap.height, bitmap.width].map(side => Math.max(1, Math.round(side * scale)));
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.fillStyle = 'white';  // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const bytes = context.getImageData(0, 0, width, height).data;
  const rgb = values(height, width, 3, (y, x, c) => bytes[4 * (y * width + x) + c] / 255);
  const grey = values(height, width, 1, (y, x) => sumOf(GREY.map((weight, c) => weight * valueAt(rgb, y, x, c))));
  picture = {name, rgb, grey};
  pixel = {row: Math.floor(0.52 * height), column: Math.floor(0.42 * width)};  // the Chihuahua's eye
}

async function openFile(file) {
  if (!file) return;  // the dialog was cancelled, or what was dropped is no file
  try {
    await setPicture(file, '"' + file.name.replace(/["\\$`]/g, '\\$&') + '"');
    at('error').textContent = '';
    update();
  } catch (error) {
    at('error').textContent = `${file.name} is no picture that this browser can read. The earlier one stays.`;
  }
}

// ---- Events ----

for (const canvas of [at('picture'), at('result')])  // a place in the picture is the same place in the output
  listen(canvas, (y, x) => {
    choosePixel(Math.floor(y / canvas.height * output.height), Math.floor(x / canvas.width * output.width));
  }, (rows, columns) => choosePixel(pixel.row + rows, pixel.column + columns));
at('editor').oninput = ({target}) => {
  matrix[target.dataset.y][target.dataset.x] = target.valueAsNumber || 0;
  at('kernels').value = 'your own';
  update();
};
at('kernels').onchange = ({target}) => setMatrix(allKernels[target.value] ?? matrix, target.value);
at('rows').onchange = ({target}) =>
  setMatrix(centred(matrix, Number(target.value), matrix[0].map(() => 0)), 'your own');
at('columns').onchange = ({target}) =>
  setMatrix(matrix.map(row => centred(row, Number(target.value), 0)), 'your own');
for (const id of ['stride', 'padding', 'colours', 'flip', 'wrong']) at(id).onchange = update;
at('divide').onclick = () => setMatrix(matrix.map(row => row.map(value => value / sumOf(matrix))), 'your own');
for (const button of document.querySelectorAll('[data-copy]'))
  button.onclick = () => {
    getSelection().selectAllChildren(at(button.dataset.copy));
    document.execCommand('copy');  // navigator.clipboard is not there for a page from the disk
  };
at('file').onchange = ({target}) => openFile(target.files[0]);
window.ondragover = event => event.preventDefault();
window.ondrop = event => {
  event.preventDefault();
  openFile(event.dataTransfer.files[0]);
};

// ---- The start ----

const allKernels = {...data.kernels, ...data.custom};
at('rows').innerHTML = at('columns').innerHTML = range(7).map(i => `<option>${i + 1}</option>`).join('');
at('kernels').innerHTML = [...Object.keys(allKernels), 'your own'].map(name => `<option>${name}</option>`).join('');
at('stride').value = Math.min(data.stride, 3);
at('padding').value = data.padding;
const first = Object.keys(data.custom)[0] ?? ('edge' in allKernels ? 'edge' : Object.keys(allKernels)[0]);
const image = new Image();
image.src = data.image;
image.decode().then(() => setPicture(image, data.image_name)).then(() => setMatrix(allKernels[first], first));
