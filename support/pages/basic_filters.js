const OF_CAMERA = 'your_picture.png';
const GREY = [0.2989, 0.587, 0.114];  // tf.image.rgb_to_grayscale's weights

let picture;  // {name, reduced, small, rgb, sums, grey}: its name in the command, values from 0 to 1 as in lesson 1
let drawn;    // what of it the canvas shows
let matrix;   // the kernel's rows
let kernelName;
let own;      // the visitor's own kernel, which stays when another one is looked at
let output;   // what conv2d makes of the picture
let computed = {};  // {kernel, input, stride, padding}: what the output is of
let pixel;    // {row, column}: the output pixel that is explained
let centre;   // {row, column} of the picture, under the kernel's centre, which a change of stride or padding keeps
let filled;   // how many outputs are shown while the kernel slides; later Infinity
let seen;     // the output as far as it is shown; NaN is what is not
let black;    // the value of the output that is shown so: 0 or -1

// ---- What the controls say ----

function settings() {
  const rgb = at('colours').value === 'RGB';
  return {kernel: matrix, rgb, wrong: rgb && at('wrong').checked, input: rgb ? picture.rgb : picture.grey,
          stride: Number(at('stride').value), padding: at('padding').value};
}

// A kernel on the channel diagonal does to each channel what it does to grey. Each weight adds its share
// of the picture, shifted, to all sums; they begin at 0, or with those of another kernel.
function ofEachChannel({height, width, channels, array}, kernel, stride, padding, before) {
  const [h, w] = [kernel.length, kernel[0].length], left = patchStart(0, width, w, stride, padding);
  const output = before ??
    values(outputSize(height, h, stride, padding), outputSize(width, w, stride, padding), channels);
  const sums = output.array, step = stride * channels;
  for (let row = 0; row < output.height; row++) {
    const top = patchStart(row, height, h, stride, padding);
    for (let y = Math.max(-top, 0); y < Math.min(h, height - top); y++)  // beyond the border are zeros
      for (let x = 0; x < w; x++) {
        const weight = kernel[y][x], first = Math.max(Math.ceil((-left - x) / stride), 0);
        const end = weight === 0 ? 0 : Math.min(Math.ceil((width - left - x) / stride), output.width);
        for (let c = 0; c < channels; c++) {
          let to = (row * output.width + first) * channels + c;
          let from = ((top + y) * width + left + x + first * stride) * channels + c;
          for (let column = first; column < end; column++, to += channels, from += step)
            sums[to] += weight * array[from];
        }
      }
  }
  return output;
}

function update() {
  const {kernel, rgb, wrong, stride, padding, input} = settings();
  const [h, w] = [kernel.length, kernel[0].length];
  if (padding === 'VALID' && (h > input.height || w > input.width)) {
    at('padding').value = 'SAME';
    update();
    return tell('error', 'Under VALID the kernel must fit into the picture; it does not, so SAME is back.');
  }
  if (!camera) tell('error', '');  // its frames are nobody's action
  play(false);
  compute({kernel, input: wrong ? picture.sums : input, stride, padding});
  at('wrong').disabled = input.channels === 1;
  const sum = sumOf(kernel), isZeroSum = sumsToZero(kernel.flat());
  tell('words', words(kernel, wrong ? 3 * sum : sum, isZeroSum, wrong));
  at('divide').disabled = isZeroSum || Math.abs(sum - 1) <= data.unitSum;
  const formula = (length, k) => `ceil(${padding === 'SAME' ? length : `(${length} - ${k} + 1)`} / ${stride})`;
  at('pictureSize').textContent = `${input.height} high, ${input.width} wide${picture.reduced}`;
  at('resultSize').textContent = `${formula(input.height, h)} = ${output.height} high, ` +
    `${formula(input.width, w)} = ${output.width} wide`;
  if (drawn !== input) draw(at('picture'), input);
  drawn = input;
  document.body.style.setProperty('--shape', picture.grey.width / picture.grey.height);
  black = blackOf(kernel);
  at('scale').textContent = `${stride > 1 ? 'enlarged; ' : ''}black ${black ? '-1, grey 0' : 0}, white 1${clipping()}`;
  showAll();
  showCode();
  chooseCentre(centre.row, centre.column);
}

// Of a kernel that differs from the last one in a few weights, only these are computed.
function compute(next) {
  const sizes = ({kernel, stride, padding}) => [kernel?.length, kernel?.[0].length, stride, padding].join();
  const isLike = next.input === computed.input && sizes(next) === sizes(computed);
  const change = !isLike ? next.kernel :
    next.kernel.map((row, y) => row.map((weight, x) => weight - computed.kernel[y][x]));
  output = ofEachChannel(next.input, change, next.stride, next.padding, isLike ? output : undefined);
  computed = next;
}

// -1 for a kernel that makes flat areas dark, and has negative weights, so that its output has both signs; else 0.
const blackOf = kernel => kernel.flat().some(weight => weight < 0) && sumOf(kernel) < 0.5 ? -1 : 0;

// Says how much of the output is cut off on the screen.
function clipping() {
  let count = 0;
  for (const value of output.array) if (value < black - 0.001 || value > 1.001) count++;
  const all = output.array.length, percent = Math.min(Math.round(100 * count / all), count < all ? 99 : 100);
  return percent < 1 ? '' : `; ${percent}% of the values lie outside and are clipped`;
}

const sumsToZero = weights => Math.abs(sumOf(weights)) <= data.zeroSum * sumOf(weights.map(Math.abs));

// What the weights say about the output.
function words(kernel, sum, isZeroSum, wrong) {
  const count = kernel.flat().length, times = wrong ? ', three times over,' : '';
  const text = [], weights = count > 1 ? `These ${count} weights${times} sum to` : `This weight${times} is`;
  if (isZeroSum) text.push(`${weights} 0: flat areas become 0, shown ${blackOf(kernel) ? 'grey' : 'black'}.`);
  else if (Math.abs(sum - 1) <= data.unitSum) text.push(`${weights} 1: flat areas keep their brightness.`);
  else text.push(`${weights} ${Number(sum.toPrecision(9))}: flat areas become ${sum > 1 ? 'brighter' : sum > 0 ?
    'darker' : 'negative'}${blackOf(kernel) ? '; 0 is shown grey' : ''}.`);
  if (kernel.flat().every(weight => weight >= 0) && kernel.flat().filter(weight => weight).length > 1)
    text.push('No weight is negative: it mixes neighbours.');
  return text.join(' ');
}

// ---- The output pixel that is explained ----

function chooseCentre(row, column) {
  const {kernel, stride, padding, input} = settings();
  const [y, x] = [[row, input.height, kernel.length], [column, input.width, kernel[0].length]].map(
    ([place, length, size]) =>
      (place - Math.floor((size - 1) / 2) - patchStart(0, length, size, stride, padding)) / stride);
  choosePixel(Math.round(y), Math.round(x));
  centre = {row, column};
}

function choosePixel(row, column) {
  const {kernel, rgb, wrong, stride, padding, input} = settings();
  pixel = {row: clamp(row, 0, output.height - 1), column: clamp(column, 0, output.width - 1)};
  const top = patchStart(pixel.row, input.height, kernel.length, stride, padding);
  const left = patchStart(pixel.column, input.width, kernel[0].length, stride, padding);
  centre = {row: top + Math.floor((kernel.length - 1) / 2), column: left + Math.floor((kernel[0].length - 1) / 2)};
  showFrame('picture', input, top, left, kernel.length, kernel[0].length);
  at('result').parentNode.classList.toggle('filling', seen !== output);
  showFrame('result', seen, pixel.row, pixel.column, 1, 1, black);
  at('arithmetic').style.setProperty('--columns', kernel[0].length);
  const parts = (rgb ? ['red ', 'green ', 'blue '] : ['']).map((name, c) =>
    contribution(input, c, top, left, kernel, name));
  at('where').ariaLive = camera || at('play').ariaPressed === 'true' ? 'off' : 'polite';
  const value = range(output.channels).map(c => decimal(valueAt(output, pixel.row, pixel.column, c))).join(', ');
  at('where').innerHTML = `Output row ${pixel.row}, column ${pixel.column}<span class="unseen">: ${value}</span>`;
  at('arithmetic').innerHTML = parts.map(part => part.html()).join('');
  at('total').textContent = wrong ? `All three add up to ${decimal(sumOf(parts.map(part => part.sum)))}.` : '';
  at('lines').innerHTML = linesBetween(frameOf('picture'), frameOf('result')) +
    linesBetween(frameOf('pictureNear'), frameOf('resultNear'));
  showGuide();
}

// Frames a place, and draws it with what lies around it, enlarged.
function showFrame(id, shown, top, left, height, width, black) {
  frame(at(id), top, left, height, width);
  const side = 15, firstY = top - Math.floor((side - height) / 2), firstX = left - Math.floor((side - width) / 2);
  const around = values(side, side, shown.channels, (y, x, c) =>
    isInside(shown, firstY + y, firstX + x) ? valueAt(shown, firstY + y, firstX + x, c) : NaN);
  draw(at(id + 'Near'), around, black);
  frame(at(id + 'Near'), top - firstY, left - firstX, height, width);
}

// ---- The same in TensorFlow ----

function showCode() {
  const {kernel, rgb, wrong, stride, padding} = settings();
  const rows = kernel.map(row => '[' + row.join(', ') + ']').join(', ');
  const channels = !rgb ? '' : wrong ? ' * np.ones([3, 3], np.float32)' : ' * np.eye(3, dtype=np.float32)';
  at('line').textContent = `tf.nn.conv2d(images, np.float32([${rows}])[:, :, np.newaxis, np.newaxis]${channels}, ` +
    `strides=[1, ${stride}, ${stride}, 1], padding='${padding}')`;
  const known = kernelName in data.kernels && kernelName !== 'custom';
  at('command').textContent = 'python 07_basic_filters.py' + (picture.name ? ` --image ${picture.name}` : '') +
    (known ? ` --kernels ${kernelName}` : ` --custom-kernel "${kernel.map(row => row.join(' ')).join('; ')}"`) +
    (stride > 1 ? ` --stride ${stride}` : '') + (padding === 'VALID' ? ' --padding VALID' : '') +
    (wrong ? '   # which shows the mistake in conv_ops.png' : '') +
    (picture.name === OF_CAMERA ? '   # right-click the picture to save it' : '');
}

// ---- The kernel's numbers ----

function setMatrix(rows, name) {
  matrix = rows.map(row => [...row]);
  at('rows').value = matrix.length;
  at('columns').value = matrix[0].length;
  at('editor').classList.toggle('small', matrix[0].length > 5);
  at('editor').innerHTML = matrix.map((row, y) => '<tr>' + row.map((value, x) =>
    `<td><input value="${short(value)}" data-y="${y}" data-x="${x}" tabindex="${y || x ? -1 : 0}" ` +
    `aria-label="weight in row ${y}, column ${x}" aria-describedby="error"></td>`).join('') + '</tr>').join('');
  setName(name);
}

function setName(name) {
  kernelName = name;
  if (name === 'your own') showEffect(name, own = matrix);
  for (const button of at('kernels').children) button.ariaPressed = button.value === name;
  at('kernels').scrollLeft = at('kernels').querySelector('[aria-pressed=true]').offsetLeft - 90;  // on a phone
  const largest = largestOf(matrix);
  for (const each of at('editor').querySelectorAll('input')) each.style = signed(weightOf(each), largest);
  update();
}

// On the button that chooses the kernel: what it makes of the picture, small and in grey.
function showEffect(name, kernel) {
  const button = [...at('kernels').children].find(each => each.value === name);
  button.disabled = false;
  draw(button.firstChild, ofEachChannel(picture.small, kernel, 1, 'SAME'), blackOf(kernel));
}

const short = value => Number(value.toFixed(4)) || value;
const weightOf = ({dataset}) => matrix[dataset.y][dataset.x];
const largestOf = rows => Math.max(...rows.flat().map(Math.abs), 1e-9);

// Takes a number as people type it: 1,5 is 1.5, and an empty cell is 0. Returns NaN for what is not one yet, as "-".
const numberOf = text => text.replace(',', '.').replace('\u2212', '-').split('/').map(Number).reduce((a, b) => a / b);

function setWeight(input, value) {
  const isNumber = Math.abs(value) <= 1e6;  // NaN is not
  input.ariaInvalid = !isNumber;
  matrix = matrix.map(row => [...row]);
  matrix[input.dataset.y][input.dataset.x] = isNumber ? value : input.before.weight;
  setName(isNumber ? 'your own' : input.before.name);
  tell('error', isNumber ? '' : 'No number, or above 1000000: the weight before stays.');
}

// A list that is longer or shorter around the same centre.
function centred(list, length, filler) {
  const centre = length => Math.floor((length - 1) / 2);
  return range(length).map(index => list[index + centre(list.length) - centre(length)] ?? filler);
}

// ---- A picture, the lesson's or your own ----

// A picture with at most `side` pixels along each side.
function readPicture(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const [height, width] = [bitmap.height, bitmap.width].map(length => Math.max(1, Math.round(length * scale)));
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.fillStyle = 'white';  // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const bytes = context.getImageData(0, 0, width, height).data;
  const [rgb, sums, grey] = [3, 3, 1].map(channels => values(height, width, channels));
  for (let i = 0; i < height * width; i++) {
    let sum = 0;
    for (let c = 0; c < 3; c++) {
      const value = rgb.array[3 * i + c] = bytes[4 * i + c] / 255;
      sum += value;
      grey.array[i] += GREY[c] * value;
    }
    sums.array.fill(sum, 3 * i, 3 * i + 3);
  }
  return {rgb, sums, grey};
}

// size: [height, width] of the picture that is named, where `bitmap` was reduced before.
function setPicture(bitmap, name, size = [bitmap.height, bitmap.width]) {
  const {height, width} = picture?.grey ?? {}, next = readPicture(bitmap, data.side);
  const reduced = size[0] === next.grey.height ? '' : ` (reduced here from ${size[0]} by ${size[1]})`;
  picture = {name, reduced, small: readPicture(bitmap, 160).grey, ...next};
  if (height !== next.grey.height || width !== next.grey.width)
    centre = {row: Math.floor(data.place[0] * next.grey.height), column: Math.floor(data.place[1] * next.grey.width)};
  for (const [kernel, rows] of Object.entries(data.kernels)) showEffect(kernel, rows);
  if (own) showEffect('your own', own);
}

let newest;  // the source that was chosen last, which a slower one before it does not replace

async function openFile(file) {
  if (!file) return;  // the dialog was cancelled
  newest = file;
  freeze();
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (newest !== file) return;
  if (!bitmap) return tell('error', `${file.name} is no picture that this browser can read. The old one stays.`);
  setPicture(bitmap, '"' + file.name.replace(/["\\$`]/g, '\\$&') + '"');
  update();
}

let camera;  // its stream, while the picture is what it sees; a click keeps the last one

async function useCamera() {
  at('camera').disabled = true;
  camera = await navigator.mediaDevices?.getUserMedia({video: {width: data.side}}).catch(() => undefined);
  at('camera').disabled = false;
  if (!camera) return tell('error', 'There is no camera that this browser may use.');
  at('camera').textContent = 'Freeze';
  const video = Object.assign(document.createElement('video'), {srcObject: camera, muted: true, playsInline: true});
  await video.play();
  Object.assign(video, {width: video.videoWidth, height: video.videoHeight});
  const next = () => {
    if (camera !== video.srcObject) return;
    setPicture(video, OF_CAMERA);
    update();
    requestAnimationFrame(next);
  };
  next();
}

function freeze() {
  camera?.getTracks().forEach(track => track.stop());
  camera = undefined;
  at('camera').textContent = 'Camera';
}
