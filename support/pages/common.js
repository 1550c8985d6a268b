'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const at = id => document.getElementById(id);

function sumOf(kernel) {
  return kernel.flat().reduce((sum, value) => sum + value, 0);
}

function draw(canvas, height, width, colourAt) {
  canvas.height = height;
  canvas.width = width;
  const image = new ImageData(width, height);
  for (let index = 0; index < height * width; index++)
    for (let channel = 0; channel < 4; channel++)
      image.data[4 * index + channel] = channel === 3 ? 255 : colourAt(index, channel);
  canvas.getContext('2d').putImageData(image, 0, 0);
}

// A frame that is seen on any background, and a ring around it that is found at once.
function frame(canvas, left, top, width, height) {
  const context = canvas.getContext('2d');
  const thick = Math.max(1, canvas.width / 240);
  const radius = Math.max(width, height) / 2 + 8 * thick;
  for (const [colour, line] of [['black', 3 * thick], ['#ffb000', thick]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(left - thick, top - thick, width + 2 * thick, height + 2 * thick);
    context.beginPath();
    context.arc(left + width / 2, top + height / 2, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

function matrixTable(heading, rows, digits, outside) {
  const cells = rows.map((row, y) => '<tr>' + row.map((value, x) => {
    const grey = Math.round(255 * Math.min(Math.max(value, 0), 1));
    const colours = digits === 'patch' ? ` style="background: rgb(${grey} ${grey} ${grey}); color: ` +
      `${grey > 127 ? 'black' : 'white'}"` : '';
    const border = outside(y, x) ? ' class="outside" title="a zero beyond the border"' : '';
    return `<td${border}${colours}>${(value + 0).toFixed(4)}</td>`;
  }).join('') + '</tr>').join('');
  return `<div><div>${heading}</div><table class="matrix ${digits}">${cells}</table></div>`;
}
