// ---- A drawing becomes 28 x 28 pixels as MNIST's digits did: scaled to 20 x 20, and placed by its centre of mass ----

// Returns pixels from 0 to 255, light on dark; or, in words, what to draw instead. The drawing is black on white.
function readDigit(context) {
  const {width, height} = context.canvas, bytes = context.getImageData(0, 0, width, height).data;
  const ink = values(height, width, 1, (y, x) => 1 - bytes[4 * (y * width + x)] / 255), {array} = ink;
  const rows = Array(height).fill(0), columns = Array(width).fill(0);  // the ink in each
  let edges = 0;
  for (let i = 0, y = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++) {
      rows[y] += array[i];
      columns[x] += array[i];
      edges += Math.abs(array[i] - (x && array[i - 1])) + Math.abs(array[i] - (y && array[i - width]));
    }
  const down = extent(rows), across = extent(columns), side = Math.max(down.length, across.length);
  const stroke = 2 * sumOf(rows) / edges;  // its width: its area, and the length of its two edges
  if (!side) return 'Draw a digit, or choose one.';
  if (stroke > 0.36 * side) return 'This does not look like a digit. Draw one digit, large.';
  if (across.gap > side / 8 || down.gap > side / 4) return 'Draw one digit: here are parts, far apart.';
  return mnistForm(ink, down.middle, across.middle, side / 20);
}

// Of the ink along one axis: its length, the widest gap in it, and its centre of mass.
function extent(sums) {
  const inked = range(sums.length).filter(i => sums[i] > 0.5);
  const gaps = inked.slice(1).map((place, i) => place - inked[i] - 1);
  return {length: inked.length && inked.at(-1) + 1 - inked[0], gap: Math.max(...gaps),
          middle: sumOf(sums.map((ink, i) => ink * (i + 0.5))) / sumOf(sums)};
}

// Each pixel is the mean of the ink where it lies, `scale` pixels high and wide; the strongest becomes 255.
function mnistForm(ink, middleY, middleX, scale) {
  const start = (i, middle) => Math.round(middle + (i - (data.size + 1) / 2) * scale);
  const digit = values(data.size, data.size, 1, (y, x) => {
    const [top, bottom] = [start(y, middleY), start(y + 1, middleY)];
    const [left, right] = [start(x, middleX), start(x + 1, middleX)];
    let sum = 0;
    for (let row = top; row < bottom; row++)
      for (let column = left; column < right; column++) sum += valueAt(ink, row, column);
    return sum / (bottom - top) / (right - left);
  });
  const strongest = Math.max(...digit.array);
  return Uint8Array.from(digit.array, value => Math.round(255 * value / strongest));
}
