// ---- Drawn digits become 28 x 28 pixels by the steps of read_digits in support/digits.py ----

// Returns the digits of a drawing, from left to right. The paper is white here, without lines and frames.
function readDigits(context) {
  const {width, height} = context.canvas, bytes = context.getImageData(0, 0, width, height).data;
  const ink = values(height, width, 1), counts = new Uint32Array(256);
  for (let i = 0; i < ink.array.length; i++) counts[ink.array[i] = 255 - bytes[4 * i]]++;
  let strongest = 255;  // of the 20 strongest the weakest
  for (let seen = counts[255]; seen < 20; seen += counts[strongest]) strongest--;
  if (strongest < 30) return [];
  const strengths = range(256).map(value => clamp(value / strongest * 2 - 0.7, 0, 1));
  for (let i = 0; i < ink.array.length; i++) ink.array[i] = strengths[ink.array[i]];
  const shapes = pieces(ink), digits = group(shapes);
  if (shapes.length > 100 || digits.length > 12 || digits.some(numbers => numbers.length > 12) ||
      shapes.some(outer => shapes.some(inner => isWithin(inner, outer)))) return [];
  const drawn = digits.map(numbers => cutOut(onlyPieces(ink, numbers), 0.5));
  return drawn.some(each => thickness(each) > 0.4 * Math.max(each.height, each.width)) ? [] : drawn.map(mnistForm);
}

// The pieces of ink, the longest first, each with its box and the indices of its pixels.
function pieces(ink) {
  const {height, width, array} = ink, found = [];
  const around = (i, visit) => {
    const y = Math.floor(i / width), x = i % width;
    for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row++)
      for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++)
        visit(row * width + column);
  };
  const waiting = new Uint8Array(height * width);  // ink, and what touches it, that belongs to no piece yet
  array.forEach((value, i) => value > 0.1 && around(i, near => waiting[near] = 1));
  for (let first = waiting.indexOf(1); first >= 0; first = waiting.indexOf(1, first)) {
    const stack = [first], indices = [];
    waiting[first] = 0;
    while (stack.length) {
      const i = stack.pop();
      if (array[i] > 0.1) indices.push(i);
      around(i, near => {
        if (waiting[near]) stack.push(near);
        waiting[near] = 0;
      });
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
  const {array, width} = distances;
  const nearest = (i, step) => Math.min(array[i], 1 + Math.min(
    array[i - step], array[i - step * (width - 1)], array[i - step * width], array[i - step * (width + 1)]));
  for (let i = 0; i < array.length; i++) if (array[i]) array[i] = nearest(i, 1);
  for (let i = array.length - 1; i >= 0; i--) if (array[i]) array[i] = nearest(i, -1);
  return 2 * array.reduce((a, b) => Math.max(a, b));
}

function mnistForm(box) {
  const picture = values(box.height + 40, box.width + 40, 1, (y, x) => valueAt(box, y - 20, x - 20));
  const {array, width} = picture;
  let edges = 0, area = 0;
  for (let i = width; i < array.length; i++) {  // around the digit are zeros, so that no row runs into the next
    edges += Math.abs(array[i] - array[i - 1]) + Math.abs(array[i] - array[i - width]);
    area += array[i];
  }
  const missing = Math.max(box.height, box.width) / 10 - 2 * area / edges;
  picture.array = array.map(value => Math.trunc(value * 255));
  for (const step of [1, width])  // the largest value around each pixel, along the rows, then along the columns
    for (let widened = 0; widened < Math.round(missing / 2); widened++) picture.array = widen(picture.array, step);
  const digit = cutOut(picture, 0), scale = 20 / Math.max(digit.height, digit.width);
  return centerByMass(resizeRows(resizeRows(digit, scale), scale));
}

// The largest of each value and of those one step before and behind it.
function widen(array, step) {
  const largest = array.slice();
  for (let i = step; i < array.length; i++) {
    largest[i] = Math.max(largest[i], array[i - step]);
    largest[i - step] = Math.max(largest[i - step], array[i]);
  }
  return largest;
}

// The part of a picture in which values are above a limit.
function cutOut(input, limit) {
  let [top, left, bottom, right] = [input.height, input.width, 0, 0];
  for (let i = 0, y = 0; y < input.height; y++)
    for (let x = 0; x < input.width; x++) {
      if (!(input.array[i++] > limit)) continue;
      [top, bottom] = [Math.min(top, y), y];
      [left, right] = [Math.min(left, x), Math.max(right, x)];
    }
  return values(bottom - top + 1, right - left + 1, 1, (y, x) => valueAt(input, top + y, left + x));
}

// Resizes along the rows by Lanczos as Pillow does it; the result is rounded to whole numbers, and transposed.
function resizeRows(input, scale) {
  const size = Math.max(1, Math.round(input.width * scale)), ratio = input.width / size;
  const sinc = x => x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  const lanczos = x => Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
  const weights = range(size).map(x => range(input.width).map(i =>
    lanczos((i + 0.5 - (x + 0.5) * ratio) / Math.max(ratio, 1))));
  const used = weights.map(row => [...row.keys()].filter(i => row[i])), totals = weights.map(sumOf);
  return values(size, input.height, 1, (x, y) => {
    let sum = 0;
    for (const i of used[x]) sum += weights[x][i] * input.array[y * input.width + i];
    return clamp(Math.floor(sum / totals[x] + 0.5), 0, 255);
  });
}

function centerByMass(digit) {
  const {array, width} = digit, brightest = Math.max(...array);
  const middle = position => Math.round(sumOf(array.map((value, i) => value * position(i))) / sumOf(array));
  const top = 14 - middle(i => Math.floor(i / width)), left = 14 - middle(i => i % width);
  return Uint8Array.from(values(28, 28, 1, (y, x) => valueAt(digit, y - top, x - left) * 255 / brightest).array);
}
