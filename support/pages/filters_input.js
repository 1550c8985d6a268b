// ---- Events ----

for (const canvas of [at('picture'), at('result')]) {  // a place in the picture is the same place in the output
  canvas.addEventListener('pointerdown', () => {
    freeze();
    play(false);
    showAll();
  });
  listen(canvas, (y, x) => {
    if (at('play').ariaPressed === 'true') return;
    choosePixel(Math.floor(y / canvas.height * output.height), Math.floor(x / canvas.width * output.width));
  }, (rows, columns) => choosePixel(pixel.row + rows, pixel.column + columns));
}
for (const id of ['pictureNear', 'resultNear']) at(id).onclick = ({offsetX, offsetY}) => {  // for a finger
  const [down, right] = [offsetY, offsetX].map(offset => 15 * offset / at(id).clientWidth - 7.5);
  const step = id === 'resultNear' ? 1 : settings().stride;
  choosePixel(pixel.row + Math.round(down / step), pixel.column + Math.round(right / step));
};
at('editor').addEventListener('focusout', ({target}) => {
  if (target.ariaInvalid === 'true' || !target.value.trim()) target.value = short(weightOf(target));
  target.ariaInvalid = false;
});
at('editor').oninput = ({target}) => setWeight(target, numberOf(target.value));
at('editor').onkeydown = event => {
  const step = {ArrowUp: 1, ArrowDown: -1}[event.key];
  if (!step) return;
  event.preventDefault();
  const value = Number((weightOf(event.target) + step * (event.shiftKey ? 1 : 0.1)).toFixed(4));
  Object.assign(event.target, {value, before: {weight: value, name: 'your own'}}).select();
  setWeight(event.target, value);
};
at('editor').addEventListener('focusin', ({target}) => target.before = {weight: weightOf(target), name: kernelName});
for (const type of ['click', 'focusin']) at('editor').addEventListener(type, ({target}) => target.select?.());

at('kernels').onclick = ({target}) => {
  const name = target.closest('button')?.value;
  if (name) setMatrix(data.kernels[name] ?? own, name);
};
at('rows').onchange = ({target}) =>
  setMatrix(centred(matrix, Number(target.value), matrix[0].map(() => 0)), 'your own');
at('columns').onchange = ({target}) =>
  setMatrix(matrix.map(row => centred(row, Number(target.value), 0)), 'your own');
for (const id of ['stride', 'padding', 'colours', 'wrong']) at(id).onchange = update;
at('divide').onclick = () => {
  setMatrix(matrix.map(row => row.map(value => value / sumOf(matrix))), 'your own');
  at('editor').querySelector('input').focus();  // the button does nothing now
};
at('flip').onclick = () => setMatrix(matrix.map(row => [...row].reverse()).reverse(), 'your own');
at('file').onchange = ({target}) => openFile(target.files[0]);
at('camera').onclick = () => camera ? freeze() : useCamera();
window.onresize = () => pixel && choosePixel(pixel.row, pixel.column);

// ---- The kernel slides ----

let timer;

// Fills in so many outputs more.
function slide(count) {
  const {width, height, channels} = output;
  filled = Math.min(filled + count, width * height);
  seen.array.set(output.array.subarray(0, filled * channels));
  draw(at('result'), seen, black);
  const before = centre;
  choosePixel(Math.floor((filled - 1) / width), (filled - 1) % width);
  centre = before;
  return filled < width * height;
}

function showAll() {
  filled = Infinity;
  seen = output;
  draw(at('result'), output, black);
}

// The first steps are of one output each, so that one can follow; then they grow, to 1% of the output.
function play(isPlaying, count = 1) {
  clearTimeout(timer);
  at('play').ariaPressed = isPlaying;
  at('play').textContent = isPlaying ? '\u275a\u275a Pause' : '\u25b6 Play';
  if (!isPlaying) return;
  keep(false);
  const next = Math.min(1.1 * count, 1 + output.array.length / 100);
  if (slide(Math.floor(count))) timer = setTimeout(play, Math.max(30, 600 / count ** 3), true, next);
  else {  // the last patch lies at the border, where there is little to see
    play(false);
    chooseCentre(centre.row, centre.column);
  }
}

at('play').onclick = () => {
  freeze();
  const isPlaying = at('play').ariaPressed === 'true';
  if (!isPlaying && filled >= output.width * output.height) {
    filled = 0;
    seen = {...output, array: output.array.map(() => NaN)};
  }
  play(!isPlaying);
};

// ---- The guide: what to look at, step by step; the last asks for a kernel, and checks it ----

const GUIDE = [
  ['play', 'A kernel slides over the picture. At each place, its weights are multiplied by the pixels under them, ' +
    'and the products add up to one pixel of the output. Press Play.',
    () => filled !== Infinity && ' The output fills in behind the kernel.'],
  ['picture', 'Point or tap anywhere: these are the pixels, the weights and the products of that place. A click ' +
    'fixes it. Point at a weight, or tap it: its pixel and their product light up.', undefined, update],
  ['kernels', 'Choose blur: all weights are positive, and the output is a weighted mean of neighbours.',
    () => kernelName === 'blur' && ' Yes: it is softer.', () => at('kernels').scrollLeft = 0],
  ['editor', 'Change a weight: type, or use the arrow keys up and down.',
    () => own === matrix && ' Yes: the output follows.'],
  ['stride', 'A stride of 2 moves the kernel by two pixels: the output has about half the height and width.',
    () => settings().stride === 2 && ` Yes: ${output.height} by ${output.width}.`],
  ['editor', 'Now you: change weights into a kernel that finds horizontal edges, and is blind to vertical ones.',
    () => judgeEdgeFinder(matrix)]];

// Columns that sum to 0 are blind to what changes from left to right only; rows that do not see the other changes.
function judgeEdgeFinder(rows) {
  const columns = rows[0].map((_, x) => rows.map(row => row[x])), wrong = columns.findIndex(each => !sumsToZero(each));
  if (wrong >= 0) return ` Not yet: column ${wrong} sums to ${Number(sumOf(columns[wrong]).toPrecision(9))}.`;
  if (rows.every(row => Math.abs(sumOf(row)) < 0.1)) return ' Not yet: no row sums to 0.1, so such edges hardly show.';
  if (rows !== own) return ' This one does, but it is ready-made.';
  return ' Yes: every column sums to 0, so vertical edges vanish; not every row does.';
}

const showGuide = guideThrough(GUIDE);

// ---- The start ----

at('rows').innerHTML = at('columns').innerHTML = range(7).map(i => `<option>${i + 1}</option>`).join('');
at('kernels').innerHTML = [...Object.keys(data.kernels), 'your own'].map(name =>
  `<button value="${name}" disabled><canvas></canvas>${name}</button>`).join('');
const first = ['custom', 'left_sobel', ...Object.keys(data.kernels)].find(name => name in data.kernels);
const image = Object.assign(new Image(), {src: data.image});
at('stride').innerHTML = [...new Set([1, 2, 3, 4, 5, 6, 7, 8, data.stride])].map(i => `<option>${i}</option>`).join('');
at('stride').value = data.stride;
at('padding').value = data.padding;
image.decode().then(() => createImageBitmap(image)).then(bitmap => {
  setPicture(bitmap, data.image_name, data.imageSize);
  setMatrix(data.kernels[first], first);
  oneTabStop(at('kernels'));
  oneTabStop(at('editor'), 'input', {ArrowLeft: MOVES.ArrowLeft, ArrowRight: MOVES.ArrowRight});
  showGuide(0);
});
