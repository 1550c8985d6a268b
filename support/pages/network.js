// ---- The arithmetic of the network, layer by layer ----

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);  // Uint8Array.from is thirty times as slow
  return bytes;
}

// Weights are whole numbers from -127 to 127, times one scale for each output channel.
const layers = {};
for (const [name, {shape, weights, scales, biases}] of Object.entries(data.layers)) {
  const bytes = new Int8Array(bytesOf(weights).buffer), floats = new Float32Array(bytes);
  for (let i = 0; i < floats.length; i++) floats[i] *= scales[i % scales.length];
  layers[name] = {shape, biases, weights: floats};
}

const ACTIVATIONS = {Relu: value => Math.max(value, 0), Tanh: Math.tanh};  // by the type of TensorFlow's operation
const HIDDEN = 3;  // pixels on each side of the middle of the square that hides a part of the image
const firstConv = data.order.find(name => layers[name]?.shape.length === 4);
const learned = layers[firstConv], handCoded = data.handCoded && {  // the kernels of kernels.py, for this layer
  ...learned, weights: Float32Array.from(data.handCoded.flat(3)), biases: learned.biases.map(() => 0)};

const isLargest = name => data.kinds[name] === 'MaxPool';  // of the four, not their mean
const LAST = data.order.at(-1), before = name => data.order[data.order.indexOf(name) - 1] ?? 'image';

// A fully connected layer is a convolution whose kernel is as large as its input.
function layer(input, name) {
  const {shape, weights, biases} = layers[name], activation = ACTIVATIONS[data.kinds[name]] ?? (value => value);
  const output = shape.length === 4 ? conv2d(input, {shape, weights}) :
    conv2d(input, {shape: [input.height, input.width, input.channels, shape[1]], weights}, 1, 'VALID');
  const {array, channels} = output;
  for (let i = 0; i < array.length; i++) array[i] = activation(array[i] + biases[i % channels]);
  return output;
}

function pool(input, name) {
  const {height, width, channels, array} = input;
  return values(Math.ceil(height / 2), Math.ceil(width / 2), channels, (y, x, c) => {
    let largest = -Infinity, sum = 0, count = 0;
    for (let row = 2 * y; row < Math.min(2 * y + 2, height); row++)
      for (let column = 2 * x; column < Math.min(2 * x + 2, width); column++, count++) {
        const value = array[(row * width + column) * channels + c];
        sum += value;
        if (value > largest) largest = value;
      }
    return isLargest(name) ? largest : sum / count;
  });
}

// All layers for an image, of pixels from 0 to 255.
function inference(pixels) {
  const found = {image: values(data.size, data.size, 1, (y, x) => pixels[data.size * y + x] / 255)};
  for (const name of data.order)
    found[name] = (name in layers ? layer : pool)(found[before(name)], name);
  return found;
}
