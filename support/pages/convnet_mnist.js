// ---- What is shown ----

const isImage = name => network[name].height > 1;
const FIGURES = ['image', ...data.order.slice(0, -1)];
const DRAWN = 'Your drawing';
let network;        // the values of each layer
let shown = '';     // what they are of: DRAWN, 'Test digit, a 7', ...
let chosen = null;  // {name, y, x, channel}: the activation that is explained; from: a channel of its input

function titleOf(name) {
  const {height, width, channels} = network[name];
  if (name === 'image') return 'image: point to hide a part';
  return `${name}: ${name === firstConv ? 'kernels, and ' : ''}` +
    (isImage(name) ? `${height} x ${width} x ${channels}` : `${channels} units`);
}

// The kernel [h, w] between channel c of the input and channel k of the output, as rows.
function kernelOf({shape: [h, w, channelsIn, channels], weights}, c, k) {
  return range(h).map(y => range(w).map(x => weights[((y * w + x) * channelsIn + c) * channels + k]));
}

// A layer's channels are tiles of its canvas, in pixels; those of the first have the kernel to their left.
function tileOf(name) {
  const {height, width, channels} = network[name];
  const gap = isImage(name) && name !== 'image' ? 3 : 0, offset = name === firstConv ? width + 1 : 0;
  const columns = Math.ceil(Math.sqrt(name === firstConv ? channels / 2 : channels));
  return {height: height + gap, width: offset + width + gap, offset, columns};
}

// The pixel of a layer's canvas in which a channel begins.
function cornerOf(name, channel) {
  const {height, width, offset, columns} = tileOf(name);
  return {top: Math.floor(channel / columns) * height, left: channel % columns * width + offset};
}

// One scale for activations: black, violet, orange, yellow. A second one, for weights: blue, white, orange.
const HEAT = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const mix = (one, other, share) => one.map((part, i) => part + (other[i] - part) * share);
const packed = ([red, green, blue]) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;  // as ImageData has a pixel
const HEATS = Uint32Array.from(range(256), i => {
  const place = i / 255 * (HEAT.length - 1), from = Math.min(Math.floor(place), HEAT.length - 2);
  return packed(mix(HEAT[from], HEAT[from + 1], place - from));
});
const SIGNS = Uint32Array.from(range(511), i =>
  packed(mix([255, 255, 255], i < 255 ? [0, 114, 178] : [213, 94, 0], Math.abs(i - 255) / 255)));
const signColour = value => SIGNS[Math.round(255 * value) + 255];  // from -1 to 1
const colourOf = value => value < 0 ? signColour(value) : HEATS[Math.round(255 * Math.sqrt(value))];
const strongestIn = ({array}) => array.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);

let strongestBefore;  // in the layer that the chosen activation is computed from
patchStyle = value => {
  const colour = colourOf(value / strongestBefore);
  const parts = [0, 8, 16].map(shift => colour >> shift & 255);  // red, green, blue
  const luminance = sumOf([0.2126, 0.7152, 0.0722].map((share, c) => share * (parts[c] / 255) ** 2.2));
  return `background: rgb(${parts.join(' ')}); color: ${luminance > 0.18 ? 'black' : 'white'}`;
};

function showLayer(name) {
  const layer = network[name], {height, width, columns} = tileOf(name), canvas = at(name);
  const strongest = strongestIn(layer), isFirst = !canvas.image;
  const {image, pixels} = imageOf(canvas, Math.ceil(layer.channels / columns) * height, columns * width);
  for (let channel = 0; channel < layer.channels; channel++) {
    const {top, left} = cornerOf(name, channel);
    for (let y = 0; y < layer.height; y++)
      for (let x = 0, from = y * layer.width * layer.channels + channel; x < layer.width; x++, from += layer.channels)
        pixels[(top + y) * canvas.width + left + x] =
          name === 'image' && isHidden(y, x) ? packed([136, 136, 136]) : colourOf(layer.array[from] / strongest);
    if (name === firstConv && isFirst) {
      const kernel = kernelOf(layers[name], 0, channel), largest = Math.max(...kernel.flat().map(Math.abs), 1e-9);
      for (let y = 0; y < layer.height; y++)
        for (let x = 0; x < layer.width; x++)
          pixels[(top + y) * canvas.width + left + x - layer.width - 1] = signColour(
            kernel[Math.floor(y * kernel.length / layer.height)]
              [Math.floor(x * kernel[0].length / layer.width)] / largest);
    }
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
}

function softmaxOf(logits) {
  const exponentials = logits.map(logit => Math.exp(logit - Math.max(...logits)));
  return exponentials.map(value => value / sumOf(exponentials));
}

// With four decimals; what is not quite 0 or 1 does not become it.
const probabilityText = value => value > 0.99995 ? '>0.9999' : value < 0.00005 ? '<0.0001' : value.toFixed(4);
const largestAt = array => array.reduce((best, value, i) => value > array[best] ? i : best, 0);

at('bars').innerHTML = '<span></span><span>logit</span><span>probability</span><span></span>' + data.classes.map(
  (_, digit) => `<button data-digit="${digit}"></button><span></span><span></span><progress></progress>`).join('');
const bars = [...at('bars').querySelectorAll('button')].map((button, digit) => {  // two numbers and a bar for each
  const cells = [...at('bars').children], place = cells.indexOf(button), name = data.classes[digit];
  Object.assign(button, {textContent: name, ariaLabel: `explain the logit of ${name}`});
  cells[place + 3].ariaLabel = `probability of ${name}`;
  return cells.slice(place + 1, place + 4);
});

// Reads a digit, of pixels from 0 to 255, and shows the layers. Unless a click has chosen an activation, the strongest
// one of the layer is explained.
function read(pixels, name) {
  [whole, hidden, shown] = [pixels, undefined, name];
  showNetwork(pixels);
  if (chosen && !isKept) chosen = strongestOf(chosen.name);
  explain();
  showGuide();
}

function showNetwork(pixels) {
  network = inference(pixels);
  showAnswer();
  FIGURES.forEach(showLayer);
}

let whole;   // the image without the square that hides a part of it
let hidden;  // {y, x, stays}: the middle of this square, and whether a click keeps it
let ofWhole;  // the answer without it

const isHidden = (y, x) => hidden && Math.max(Math.abs(y - hidden.y), Math.abs(x - hidden.x)) <= HIDDEN;

// A grey square over a part of the image: its ink is taken away. Without a place, nothing is hidden.
function hide(y, x, stays) {
  if (!shown || y === undefined && !hidden) return;
  const inside = place => clamp(place, HIDDEN, data.size - 1 - HIDDEN);
  hidden = y === undefined ? undefined : {y: inside(y), x: inside(x), stays};
  showNetwork(whole.map((value, i) => isHidden(Math.floor(i / data.size), i % data.size) ? 0 : value));
  explain();
}

function showAnswer() {
  const probabilities = softmaxOf([...network[LAST].array]), first = largestAt(probabilities);
  const second = largestAt(probabilities.map((value, digit) => digit === first ? -1 : value));
  const [answer, next] = [first, second].map(i =>
    `${data.classes[i]} (probability ${probabilityText(probabilities[i])})`);
  if (!hidden) ofWhole = answer;
  at('answer').textContent = `${hidden ? 'A part hidden' : shown}: the network reads ${answer}` +
    `${isUnsure() ? ', unsure' : ''}; ${hidden ? `of the whole it read ${ofWhole}` : `next ${next}`}.`;
  for (const [digit, [logit, probability, bar]] of bars.entries()) {
    logit.textContent = network[LAST].array[digit].toFixed(3);
    probability.textContent = probabilityText(probabilities[digit]);
    bar.value = probabilities[digit];
  }
  document.body.classList.remove('empty');
}

// ---- The arithmetic of one activation ----

function frameIn(name, y, x, channel, height, width) {
  if (!at(name)) return;  // the last layer has bars
  const {top, left} = cornerOf(name, channel);
  frame(at(name), top + y, left + x, height, width);
}

// The channel of the chosen activation, where there is room to point at each of its activations.
function enlargeChannel({name, y, x, channel}) {
  at('enlarged').hidden = !isImage(name);
  if (!isImage(name)) return;
  const {height, width} = network[name], {top, left} = cornerOf(name, channel);
  Object.assign(at('channel'), {height, width});
  at('channel').getContext('2d').drawImage(at(name), left, top, width, height, 0, 0, width, height);
  frame(at('channel'), y, x, 1, 1);
}

// Lines from the corners of the patch to the activation that is computed from it. The inputs [{y, x, channel}] that the
// table of a unit names have a circle, and a line from there; the logits are too far away for lines.
function showLines(inputs) {
  const from = at(before(chosen.name)), to = at(chosen.name) && frameOf(chosen.name);
  if (to?.offsetWidth === 0 || !from.offsetWidth) at('lines').innerHTML = '';
  else if (!inputs) at('lines').innerHTML = linesBetween(frameOf(from.id), to);
  else {
    const [box, {left, top, width}, end] = [at('lines'), from, to].map(each => each?.getBoundingClientRect());
    at('lines').innerHTML = inputs.map(({y, x, channel}) => {
      const corner = cornerOf(before(chosen.name), channel), scale = width / from.width;
      const atX = left - box.left + scale * (corner.left + x + 0.5);
      const atY = top - box.top + scale * (corner.top + y + 0.5);
      return `<circle cx="${atX}" cy="${atY}" r="5"/>` +
        (to ? `<path d="M${atX},${atY} L${end.left - box.left},${end.top - box.top}"/>` : '');
    }).join('');
  }
}

function explain() {
  if (!chosen || !shown) return;
  const {name, y, x, channel} = chosen;
  for (const each of document.querySelectorAll('.network i')) each.hidden = true;
  frameIn(name, y, x, channel, 1, 1);
  const place = isImage(name) ? `channel ${channel}, row ${y}, column ${x}` :
    name === LAST ? `logit of ${data.classes[channel]}` : `unit ${channel}`;
  strongestBefore = strongestIn(network[before(name)]);
  const explanation = !(name in layers) ? explainPooling : isImage(name) ? explainConvolution : explainUnit;
  const [words, numbers, inputs] =
    explanation(chosen, network[before(name)], valueAt(network[name], y, x, channel).toFixed(4));
  at('words').innerHTML = `<h2></h2>${words}`;
  at('words').firstChild.textContent = `${name}, ${place}`;
  at('numbers').innerHTML = numbers;
  for (const button of at('bars').querySelectorAll('button'))
    button.ariaPressed = name === LAST && Number(button.dataset.digit) === channel;
  enlargeChannel(chosen);
  showLines(inputs);
}

function sentence(name, sum, bias, value) {
  const logits = [...network[LAST].array], how = name === LAST ?
    `the logit is ${value}; e<sup>${value}</sup> / ${sumOf(logits.map(Math.exp)).toPrecision(5)} is ` +
    probabilityText(softmaxOf(logits)[chosen.channel]) :
    `${data.kinds[name].toLowerCase()} makes it ${value}` +
    (data.kinds[name] === 'Relu' && sum + bias < 0 ? ', as it does with all below 0' : '');
  return `<p><b>sum ${sum.toFixed(4)} + bias ${bias.toFixed(4)} = ${(sum + bias).toFixed(4)}; ${how}.</b></p>`;
}

const placeOf = ({width, channels}, i) =>
  ({y: Math.floor(i / channels / width), x: Math.floor(i / channels) % width, channel: i % channels});

// The strongest activation of some channels of a layer; of a convolution's, one whose patch lies inside its input.
function strongestOf(name, channels = range(network[name].channels)) {
  const layer = network[name], [h, w] = isImage(name) && layers[name]?.shape || [1, 1];
  let strongest = {name, y: 0, x: 0, channel: channels[0]}, largest = -Infinity;
  for (let y = Math.floor((h - 1) / 2); y < layer.height - Math.floor(h / 2); y++)
    for (let x = Math.floor((w - 1) / 2); x < layer.width - Math.floor(w / 2); x++)
      for (const channel of channels) {
        const value = valueAt(layer, y, x, channel);
        if (value > largest) [strongest, largest] = [{name, y, x, channel}, value];
      }
  return strongest;
}

function explainUnit({name, channel}, input, value) {
  const {weights, biases} = layers[name], units = biases.length, bias = biases[channel];
  const {array, channels} = input;
  const parts = [...array].map((activation, i) => ({i, activation, weight: weights[i * units + channel]}));
  const effect = ({activation, weight}) => activation * weight;
  const total = sumOf(parts.map(effect)), largest = parts.sort((a, b) => Math.abs(effect(b)) - Math.abs(effect(a)));
  const named = largest.slice(0, 6), inputs = named.map(part => placeOf(input, part.i));
  const row = (part, n) => {
    const {channel: c, x, y} = inputs[n];
    const place = array.length > channels ? `channel ${c}, row ${y}, column ${x}` : `unit ${c}`;
    return `<tr><td>${place}</td><td>${part.activation.toFixed(4)}</td><td>${part.weight.toFixed(4)}</td>` +
      `<td style="${signed(effect(part), Math.abs(effect(largest[0])))}">${effect(part).toFixed(4)}</td></tr>`;
  };
  const header = [before(name), 'activation', 'weight', 'product'].map(each => `<th>${each}</th>`).join('');
  return [`${sentence(name, total, bias, value)}<p>Of all ${array.length} products, the table has the largest, up or ` +
    'down. Their activations are circled.</p>',
    `<table class="equation largest"><tr>${header}</tr>${named.map(row).join('')}</table>`, inputs];
}

function explainPooling({name, y, x, channel}, input, value) {
  const from = (start, length) => [start, start + 1].filter(place => place < length);  // fewer if it is odd
  const four = from(2 * y, input.height).map(row =>
    from(2 * x, input.width).map(column => valueAt(input, row, column, channel)));
  frameIn(before(name), 2 * y, 2 * x, channel, four.length, four[0].length);
  return [`<p><b>${value}</b> is the ${isLargest(name) ? 'largest' : 'mean'} of these activations of ` +
    `${before(name)}.</p>`, matrixTable(`activations of ${before(name)}`, four, 'four')];
}

function explainConvolution({name, y, x, channel}, input, value) {
  const [h, w] = layers[name].shape, bias = layers[name].biases[channel];
  const top = patchStart(y, input.height, h, 1, 'SAME'), left = patchStart(x, input.width, w, 1, 'SAME');
  const parts = range(input.channels).map(c => contribution(input, c, top, left, kernelOf(layers[name], c, channel),
                                                            input.channels > 1 ? `channel ${c} ` : ''));
  const sums = parts.map(part => part.sum), largest = Math.max(...sums.map(Math.abs), 1e-9);
  const shown = parts[chosen.from] ?? parts[largestAt(sums.map(Math.abs))];
  frameIn(before(name), top, left, shown.c, h, w);
  const words = sentence(name, sumOf(sums), bias, value);
  if (parts.length === 1) return [words, shown.html()];
  const bar = (sum, c) => `<button data-from="${c}" aria-label="channel ${c}, sum ${sum.toFixed(4)}" ` +
    `tabindex="${c === shown.c ? 0 : -1}" aria-pressed="${c === shown.c}" style="background: linear-gradient(` +
    `${sum < 0 ? '180deg, #0000 50%, #0072b2' : '0deg, #0000 50%, #d55e00'} 50% ` +
    `${50 + 50 * Math.abs(sum) / largest}%, #0000 0)"></button>`;
  return [`${words}<p>The bars are the sums over ${before(name)}'s ${parts.length} channels. Click on one.</p>`,
    `${shown.html()}<div class="sums" role="group" aria-label="Sums over the channels of ${before(name)}">` +
    `${sums.map(bar).join('')}</div>`];
}
