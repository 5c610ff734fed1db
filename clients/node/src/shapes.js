/** The places in an answer that hold values of clients: each is read by itself, so that none hides the others. */

import { methodName } from "./writable.js";

const value = (reader) => reader.value();

/** An array whose first elements have these shapes, and the rest the shape `rest`. */
function array(shapes = [], rest = value) {
  return (reader) => {
    const count = reader.array();
    const items = [];
    for (let place = 0; place < count; place++) items.push((shapes[place] ?? rest)(reader));
    return items;
  };
}

const list = array();
/** [value, seq, …], or nil. */
const entry = (reader) => (reader.isNil ? reader.value() : list(reader));
const pairs = array([], list);
const page = array([pairs]);
const pageOfEntries = array([array([], array([value, entry]))]);
const pageOfKeys = array([list]);

/** The shape of the answer to a command. */
export function shapeOf(method, params) {
  const options = params.at(-1) ?? {};
  switch (method) {
    case "get":
      return params.length > 1 && options.meta ? entry : value;
    case "get_multi":
      return pairs;
    case "range":
      if (options.keys_only) return pageOfKeys;
      return options.meta ? pageOfEntries : page;
    case "changes":
      return page;
    case "batch":
      return array(params[0].map(([name, inner]) => shapeOf(methodName(name), inner)));
    default:
      return value;
  }
}
