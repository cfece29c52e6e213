// A Llama in plain JavaScript: one token at a time, with a cache of keys and values. No module and no request, so that
// it works from a file. The weights are a safetensors file, as base64.
const Live = { files: {} };

Live.bytes = base64 => {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  return Uint8Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
};

// float16 to float32, number by number: typed arrays of halves are too new to rely on.
Live.floats = halves => {
  const bits = new Uint32Array(halves.length), floats = new Float32Array(bits.buffer);
  for (let i = 0; i < halves.length; i++) {
    const h = halves[i], exponent = (h >> 10) & 31, fraction = h & 1023;
    if (exponent) bits[i] = (h & 0x8000) << 16 | (exponent + 112) << 23 | fraction << 13;
    else floats[i] = (h & 0x8000 ? -1 : 1) * fraction * 2 ** -24;
  }
  return floats;
};

// name -> Float32Array, row by row
Live.tensors = base64 => {
  const bytes = Live.bytes(base64), length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))), found = {};
  for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const part = bytes.buffer.slice(8 + length + from, 8 + length + to);
    if (dtype === "F32") found[name] = new Float32Array(part);
    else if (dtype === "F16") found[name] = Live.floats(new Uint16Array(part));
    else throw new Error(`${name} is ${dtype}: the page reads float16 and float32`);
  }
  return found;
};

Live.Model = class {
  // shape: as tools/live.py stores it; room: the longest row
  // between: what stands between two tokens of a text, "" where they are letters
  constructor({ width: d, layers: depth, heads, hidden, eps, theta }, words, weights, room = 256, between = " ") {
    Object.assign(this, { d, heads, room, words, eps, between, size: d / heads });
    this.ids = new Map(words.map((word, id) => [word, id]));
    const w = Live.tensors(weights), half = this.size / 2;
    this.embed = w["model.embed_tokens.weight"]; // tied: also the last layer
    this.norm = w["model.norm.weight"];
    this.layers = Array.from({ length: depth }, (_, l) => {
      const of = name => w[`model.layers.${l}.${name}.weight`];
      return {
        before: of("input_layernorm"), after: of("post_attention_layernorm"),
        q: of("self_attn.q_proj"), k: of("self_attn.k_proj"), v: of("self_attn.v_proj"), o: of("self_attn.o_proj"),
        gate: of("mlp.gate_proj"), up: of("mlp.up_proj"), down: of("mlp.down_proj"),
        keys: new Float32Array(room * d), values: new Float32Array(room * d),
      };
    });
    this.cos = Float32Array.from({ length: room * half }, (_, i) => Math.cos((i / half | 0) * theta ** (-(i % half) / half)));
    this.sin = Float32Array.from({ length: room * half }, (_, i) => Math.sin((i / half | 0) * theta ** (-(i % half) / half)));
    this.logits = new Float32Array(words.length);
    for (const name of ["x", "h", "query", "mixed"]) this[name] = new Float32Array(d);
    for (const name of ["open", "wide"]) this[name] = new Float32Array(hidden);
    this.scores = new Float32Array(room);
    this.length = 0;
  }

  // Rotary positions, the two halves of each head against each other.
  turn(v, at) {
    const half = this.size / 2;
    for (let head = 0; head < this.heads; head++) for (let i = 0; i < half; i++) {
      const p = head * this.size + i, c = this.cos[at * half + i], s = this.sin[at * half + i], a = v[p], b = v[p + half];
      v[p] = a * c - b * s;
      v[p + half] = b * c + a * s;
    }
  }

  // Read one token more, and return the logits (V,) of the next; they are overwritten by the next call.
  read(id) {
    const { d, x, h, query, mixed, open, wide, size, scores, length: at } = this;
    if (at >= this.room) throw new Error(`the row has ${at} tokens: there is no room for more`);
    x.set(this.embed.subarray(id * d, id * d + d));
    for (const layer of this.layers) {
      const key = layer.keys.subarray(at * d, at * d + d), value = layer.values.subarray(at * d, at * d + d);
      Live.normed(x, layer.before, this.eps, h);
      Live.product(layer.q, h, query);
      Live.product(layer.k, h, key);
      Live.product(layer.v, h, value);
      this.turn(query, at);
      this.turn(key, at);
      mixed.fill(0);
      for (let from = 0; from < d; from += size) {
        let top = -Infinity, sum = 0;
        for (let t = 0; t <= at; t++) {
          let dot = 0;
          for (let i = 0; i < size; i++) dot += query[from + i] * layer.keys[t * d + from + i];
          scores[t] = dot / Math.sqrt(size);
          top = Math.max(top, scores[t]);
        }
        for (let t = 0; t <= at; t++) sum += scores[t] = Math.exp(scores[t] - top);
        for (let t = 0; t <= at; t++) {
          const share = scores[t] / sum;
          for (let i = 0; i < size; i++) mixed[from + i] += share * layer.values[t * d + from + i];
        }
      }
      Live.product(layer.o, mixed, h);
      for (let i = 0; i < d; i++) x[i] += h[i];
      Live.normed(x, layer.after, this.eps, h);
      Live.product(layer.gate, h, open);
      Live.product(layer.up, h, wide);
      for (let i = 0; i < open.length; i++) open[i] *= wide[i] / (1 + Math.exp(-open[i]));
      Live.product(layer.down, open, h);
      for (let i = 0; i < d; i++) x[i] += h[i];
    }
    this.length++;
    Live.normed(x, this.norm, this.eps, h);
    Live.product(this.embed, h, this.logits);
    return this.logits;
  }

  // Forget everything and read a row; returns the logits behind it.
  start(row) {
    this.length = 0;
    let logits;
    for (const id of row) logits = this.read(id);
    return logits;
  }

  // The ids of a text; a word that is not known is <unk>.
  encode(text) {
    return text.split(this.between ? /\s+/ : "").filter(Boolean).map(word => this.ids.get(word) ?? this.ids.get("<unk>"));
  }

  // The text of ids, without the end.
  decode(ids) {
    return ids.map(id => this.words[id]).filter(word => word !== "<eos>").join(this.between);
  }

  // A prompt as the model is asked: in the chat template or bare, with the beginning of the reply behind it.
  row(prompt, template, begun = "") {
    const of = word => this.ids.get(word), asked = this.encode(prompt), more = this.encode(begun);
    return [of("<bos>"), ...(template ? [of("<user>"), ...asked, of("<assistant>")] : asked), ...more];
  }

  // Go on with a row until <eos> or `most` tokens. `change(logits, row, start)` may alter the logits before the choice;
  // `random` gives numbers in [0, 1) for a temperature above 0. Returns the new ids, <eos> included.
  reply(row, { most, temperature = 0, random = Math.random, change }) {
    const said = [], end = this.ids.get("<eos>");
    let logits = this.start(row);
    while (said.length < most) {
      const seen = change ? change(Float32Array.from(logits), [...row, ...said], row.length) : logits;
      const id = temperature > 0 ? Live.drawn(Live.softmax(seen, temperature), random()) : Live.best(seen);
      said.push(id);
      if (id === end || this.length >= this.room) break;
      logits = this.read(id);
    }
    return said;
  }
};

// y = W x, W row by row (rows x columns)
Live.product = (W, x, y) => {
  const columns = x.length;
  for (let r = 0, k = 0; r < y.length; r++) {
    let a = 0, b = 0, c = 0, e = 0; // four sums: the processor need not wait for one
    for (let i = 0; i < columns; i += 4, k += 4) {
      a += W[k] * x[i];
      b += W[k + 1] * x[i + 1];
      c += W[k + 2] * x[i + 2];
      e += W[k + 3] * x[i + 3];
    }
    y[r] = a + b + (c + e);
  }
};

Live.normed = (x, weight, eps, y) => {
  let sum = 0;
  for (const v of x) sum += v * v;
  const scale = 1 / Math.sqrt(sum / x.length + eps);
  for (let i = 0; i < x.length; i++) y[i] = x[i] * scale * weight[i];
};

Live.best = v => v.reduce((best, value, i) => value > v[best] ? i : best, 0);

Live.softmax = (logits, temperature = 1) => {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const p = Float64Array.from(logits, v => Math.exp((v - top) / temperature)), sum = p.reduce((a, b) => a + b, 0);
  return p.map(v => v / sum);
};

Live.drawn = (p, number) => {
  for (let i = 0; i < p.length; i++) if ((number -= p[i]) < 0) return i;
  return p.length - 1;
};

// The three rules of Hewitt et al., as in alignlab.models.rules: what `reply` takes as `change`.
Live.rules = ({ end = 0, words = {}, seen = 0, length = 30 }, model) => (logits, row, start) => {
  for (const [word, bias] of Object.entries(words)) logits[model.ids.get(word)] += bias;
  if (seen) for (const id of new Set(row)) logits[id] -= seen;
  logits[model.ids.get("<eos>")] += end * Math.min((row.length - start) / length, 1);
  return logits;
};

// A part of a vector (C,) is taken out of the state in front of the reply: the last layer is linear, so its logits are.
Live.without = (model, shift, part) => {
  const by = new Float32Array(model.words.length);
  Live.product(model.embed, Float32Array.from(shift), by);
  return (logits, row, start) => row.length === start ? logits.map((v, i) => v - part * by[i]) : logits;
};

// Numbers in [0, 1) that a seed decides (mulberry32).
Live.stream = seed => () => {
  seed = seed + 0x6D2B79F5 | 0;
  let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
  t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
  return ((t ^ t >>> 14) >>> 0) / 4294967296;
};

// The last word of what is typed is completed from `known()`; `go` answers at once, `soon` when typing stops.
Live.completed = (question, list, id, known, go, soon) => {
  const complete = {
    at: -1,
    close() {
      list.hidden = true;
      complete.at = -1;
      question.setAttribute("aria-expanded", false);
      question.removeAttribute("aria-activedescendant");
    },
    open() {
      const last = question.value.match(/\S+$/)?.[0], words = known();
      const found = last && words ? words.filter(w => w.startsWith(last) && w !== last && !w.startsWith("<")).slice(0, 8) : [];
      if (!found.length) return complete.close();
      list.replaceChildren(...found.map((w, i) => {
        const item = Object.assign(document.createElement("li"), { id: `${id}-word-${i}`, textContent: w });
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", false);
        item.addEventListener("pointerdown", event => { event.preventDefault(); complete.take(w); });
        return item;
      }));
      complete.at = -1;
      list.hidden = false;
      question.setAttribute("aria-expanded", true);
    },
    move(by) {
      const all = [...list.children];
      complete.at = (complete.at + by + all.length) % all.length;
      all.forEach((node, i) => node.setAttribute("aria-selected", i === complete.at));
      question.setAttribute("aria-activedescendant", all[complete.at].id);
      all[complete.at].scrollIntoView({ block: "nearest" });
    },
    take(word) { question.value = question.value.replace(/\S+$/, `${word} `); complete.close(); go(); },
  };
  question.addEventListener("input", () => { complete.open(); soon(); });
  question.addEventListener("blur", complete.close);
  question.addEventListener("keydown", event => {
    if (list.hidden) { if (event.key === "Enter") go(); return; }
    if (event.key === "ArrowDown" || event.key === "ArrowUp") complete.move(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Escape") complete.close();
    else if (event.key === "Enter" && complete.at >= 0) complete.take(list.children[complete.at].textContent);
    else return;
    event.preventDefault();
  });
  return complete;
};

// A node with its settings, its data- and aria- attributes, and what is in it.
Live.make = (tag, settings = {}, ...inside) => {
  const { dataset = {}, aria = {}, ...rest } = settings, node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(aria)) node.setAttribute(name === "role" ? name : `aria-${name}`, value);
  node.append(...inside);
  return node;
};

Live.unread = words => `No page that they read has the word ${words.map(w => `“${w}”`).join(", ")}: they see an unknown word there.`;

// What is stored of a name, from its script, which is fetched now.
Live.fetched = (folder, name) => Live.files[name] ? Promise.resolve(Live.files[name]) : new Promise((done, failed) => {
  const src = `${folder}${name}.js`;
  document.head.append(Live.make("script", {
    src, onload: () => done(Live.files[name]), onerror: () => failed(new Error(`${src} is not there`)),
  }));
});
