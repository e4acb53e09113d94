// Client of edge.session.v1: docs/javascript-client.md describes it.

const SUBPROTOCOL = "edge.session.v1";
const RATE = 16000;
const FRAME = 640; // samples: 40 ms
const HEADER_BYTES = 12;
const MAX_COMMANDS = 16;
const CLOSED = "the session is closed";
const MAX_BUFFERED = 128 * 1024;
// After these a new connection would fare no better.
const FINAL_CODES = new Set([1000, 1003, 1007, 1008, 1009, 4001, 4003, 4004, 4009, 4401]);
// After these it needs a pause.
const SLOW_CODES = new Set([1011, 1013, 4029]);

export class EdgeSession {
  constructor(url, options = {}) {
    this.options = {
      role: "listener",
      ring_ms: 30000,
      backoff_ms: 250,
      max_backoff_ms: 10000,
      silence_ms: 10000,
      ...options,
    };
    this.url = new URL(url, globalThis.location?.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    for (const name of ["session", "speaker", "lang", "provider"]) {
      if (this.options[name]) this.url.searchParams.set(name, this.options[name]);
    }
    this.state = "idle";
    this.epoch = "";
    this.offset = 0;
    this.acked = 0;
    this.lost_audio_ms = 0;
    this._handlers = {};
    this._ring = []; // frames of the last ring_ms, also those that were acknowledged
    this._ringMs = 0;
    this._seq = 0;
    this._sent = 0; // last seq given to this connection
    this._mediaMs = 0;
    this._attempts = 0;
    this._wasWelcomed = false;
    this._commands = new Map();
    this._number = 0;
    this._prefix = crypto.getRandomValues(new Uint32Array(3)).join("-");
    this._online = () => this.state === "waiting" && this._connect();
  }

  on(name, handler) {
    (this._handlers[name] ??= new Set()).add(handler);
    return () => this._handlers[name].delete(handler);
  }

  connect() {
    if (this.state !== "idle") return this;
    globalThis.addEventListener?.("online", this._online);
    this._connect();
    return this;
  }

  // Ends when all that was said has been told, or after timeout_ms.
  async leave(timeout_ms = 15000) {
    const timer = setTimeout(() => this.close(), timeout_ms);
    await this.stopMicrophone();
    await this._until(() => this._isWelcome && this._sent === this._seq);
    await this.command("leave").catch(() => this.close());
    this._isLeaving = true;
    await this._until(() => false);
    clearTimeout(timer);
  }

  close(code = 1000, reason = "") {
    if (this.state === "closed") return;
    this._drop(code);
    this._state("closed", { code, reason });
    this.stopMicrophone();
    globalThis.removeEventListener?.("online", this._online);
    for (const { reject } of this._commands.values()) reject(problem("closed", CLOSED));
    this._commands.clear();
  }

  command(op, data = {}) {
    return new Promise((resolve, reject) => {
      if (this.state === "closed") return reject(problem("closed", CLOSED));
      const id = `${this._prefix}-${++this._number}`;
      this._commands.set(id, { message: { type: "cmd", id, op, data }, socket: null, resolve, reject });
      this._sendCommands();
    });
  }

  // Int16Array, mono, 16 kHz: from the microphone, or from any other source at its own pace.
  send(samples) {
    if (this.state === "closed") return;
    for (let start = 0; start < samples.length; start += RATE) {
      this._frame(samples.subarray(start, start + RATE));
    }
    this._pump();
  }

  async startMicrophone(constraints = {}) {
    await this.stopMicrophone();
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, ...constraints };
    const microphone = { stream: null, context: null };
    this._microphone = microphone;
    try {
      microphone.stream = await navigator.mediaDevices.getUserMedia({ audio });
      microphone.context = new AudioContext();
      await microphone.context.audioWorklet.addModule(import.meta.url);
      await microphone.context.resume();
    } catch (error) {
      await release(microphone);
      throw error;
    }
    if (this._microphone !== microphone) return release(microphone); // stopped meanwhile
    const source = microphone.context.createMediaStreamSource(microphone.stream);
    const node = new AudioWorkletNode(microphone.context, "edgescribe", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    node.port.onmessage = ({ data }) => this.send(data);
    source.connect(node);
    microphone.stream.getTracks()[0].onended = () => this._emit("microphone_lost");
  }

  async stopMicrophone() {
    const microphone = this._microphone;
    this._microphone = null;
    if (microphone) await release(microphone);
  }

  _connect() {
    clearTimeout(this._timer);
    this._retryMs = null;
    this._state("connecting");
    const offered = [SUBPROTOCOL];
    if (this.options.key) offered.push("edgescribe.key." + encodeURIComponent(this.options.key));
    const socket = new WebSocket(this.url, offered);
    this._socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this._hello();
    socket.onmessage = ({ data }) => {
      this._heard = performance.now();
      this._receive(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => this._lost(code, reason);
    this._timer = setTimeout(() => this._silent(), this.options.silence_ms);
  }

  _hello() {
    const { role, conflate_ms } = this.options;
    const hello = { type: "hello", role };
    if (role === "speaker") hello.audio = { encoding: "pcm16", rate: RATE, channels: 1 };
    if (conflate_ms !== undefined) hello.conflate_ms = conflate_ms;
    if (this._wasWelcomed) {
      hello.resume = { epoch: this.epoch, offset: this.offset };
      if (role === "speaker") hello.resume.audio_seq = this.acked;
      if (this._lostAt) hello.lost_ms = Math.round(performance.now() - this._lostAt);
    }
    this._post(hello);
  }

  _watch() {
    this._timer = setTimeout(() => {
      const quiet_ms = performance.now() - this._heard;
      if (quiet_ms > this.options.silence_ms) return this._silent();
      if (quiet_ms > this.options.silence_ms / 2) this._post({ type: "ping" });
      this._watch();
    }, this.options.silence_ms / 4);
  }

  // A path that died says nothing, and the browser would wait for minutes.
  _silent() {
    this._drop();
    this._lost(1006, "the gateway does not answer");
  }

  _drop(code) {
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code === 1000 ? 1000 : undefined);
  }

  _lost(code, reason) {
    clearTimeout(this._timer);
    this._socket = null;
    if (this._isWelcome) this._lostAt = performance.now();
    this._isWelcome = false;
    if (FINAL_CODES.has(code) || this._isLeaving) return this.close(code, reason);
    const { backoff_ms, max_backoff_ms } = this.options;
    let wait_ms = this._retryMs;
    if (wait_ms === null) {
      const exponent = Math.max(this._attempts, SLOW_CODES.has(code) ? 3 : 0);
      wait_ms = Math.min(max_backoff_ms, backoff_ms * 2 ** exponent) * (0.5 + Math.random() / 2);
      // The first attempt after a connection that worked comes soon; still not all at once.
      if (!exponent) wait_ms *= Math.random();
    }
    this._attempts += 1;
    this._state("waiting", { code, reason, retry_in_ms: wait_ms });
    this._timer = setTimeout(() => this._connect(), wait_ms);
  }

  _receive(message) {
    switch (message.type) {
      case "welcome":
        return this._welcome(message);
      case "snapshot":
        return this._snapshot(message);
      case "ev":
        return this._event(message);
      case "part":
        return this._emit("part", message);
      case "ack":
        this.acked = message.seq;
        return this._emit("ack", message.seq);
      case "res":
        return this._result(message);
      case "ping":
        return this._post({ ...message, type: "pong" });
      case "drain":
        this._retryMs = message.retry_in_ms;
        return this._emit("drain", message);
      case "err":
        return this._emit("error", problem(message.code, message.message, message.retry));
    }
  }

  _welcome(message) {
    const isFirst = !this._isWelcome;
    this._isWelcome = this._wasWelcomed = true;
    // A name that the gateway chose is kept, so that a reconnect finds the session again.
    this.session = message.session;
    this.url.searchParams.set("session", message.session);
    this.speaker = message.speaker;
    if (isFirst) {
      clearTimeout(this._timer);
      this._watch();
      this._attempts = 0;
      this._sent = message.audio_ack;
      this.acked = message.audio_ack;
    }
    this._emit("welcome", message);
    this._state("open");
    if (!message.recovered) {
      // Until its last page a snapshot does not count: after a loss in between all of it comes again.
      this._pending = { epoch: message.epoch, offset: message.offset };
      this.offset = 0;
      this.epoch = "";
      this._emit("reset", { epoch: message.epoch });
      this._snapshot(message.snapshot ?? { finals: [], more: false });
    }
    this._pump();
    this._sendCommands();
  }

  _snapshot({ finals, more }) {
    for (const final of finals) this._tell(final);
    if (!more && this._pending) {
      Object.assign(this, this._pending);
      this._pending = null;
      this._emit("caught_up", { epoch: this.epoch, offset: this.offset });
    }
  }

  _event(event) {
    if (event.o <= this.offset) return;
    this.offset = event.o;
    this._tell(event);
  }

  _tell(event) {
    this._emit("event", event);
    this._emit(event.k, event.data, event);
  }

  _result({ id, ok, data, err }) {
    const command = this._commands.get(id);
    if (!command) return;
    this._commands.delete(id);
    if (ok) command.resolve(data);
    else command.reject(problem(err.code, err.message, err.retry));
    this._sendCommands();
  }

  // What has no answer is sent again over the next connection: the gateway does it once.
  _sendCommands() {
    if (!this._isWelcome) return;
    for (const command of [...this._commands.values()].slice(0, MAX_COMMANDS)) {
      if (command.socket === this._socket) continue;
      command.socket = this._socket;
      this._post(command.message);
    }
  }

  _post(message) {
    if (this._socket?.readyState === 1) this._socket.send(JSON.stringify(message));
  }

  _frame(samples) {
    const length_ms = (samples.length * 1000) / RATE;
    const bytes = new Uint8Array(HEADER_BYTES + 2 * samples.length);
    const view = new DataView(bytes.buffer);
    view.setUint8(0, 1);
    view.setUint32(4, ++this._seq);
    view.setUint32(8, Math.round(this._mediaMs));
    samples.forEach((sample, index) => view.setInt16(HEADER_BYTES + 2 * index, sample, true));
    this._mediaMs += length_ms;
    this._ring.push({ seq: this._seq, bytes, length_ms });
    this._ringMs += length_ms;
    while (this._ringMs > this.options.ring_ms && this._ring.length > 1) {
      this._ringMs -= this._ring.shift().length_ms;
    }
  }

  // Gives the connection what it has not had; a slow one bit by bit.
  _pump() {
    clearTimeout(this._pumping);
    const socket = this._socket;
    if (!this._isWelcome || socket?.readyState !== 1) return;
    const ring = this._ring;
    // Neither the gateway nor the ring has it.
    for (; this._sent + 1 < ring[0]?.seq; this._sent++) this.lost_audio_ms += ring[0].length_ms;
    for (let index = this._sent + 1 - ring[0]?.seq; index < ring.length; index++) {
      if (socket.bufferedAmount > MAX_BUFFERED) {
        this._pumping = setTimeout(() => this._pump(), 50);
        return;
      }
      socket.send(ring[index].bytes);
      this._sent = ring[index].seq;
    }
  }

  async _until(condition) {
    while (this.state !== "closed" && !condition()) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  _state(state, details = {}) {
    if (state === this.state) return;
    this.state = state;
    this._emit("state", state, details);
  }

  _emit(name, ...details) {
    for (const handler of this._handlers[name] ?? []) {
      try {
        handler(...details);
      } catch (error) {
        console.error(error); // a page's mistake does not lose the page its session
      }
    }
  }
}

function problem(code, message, retry = false) {
  return Object.assign(new Error(message), { code, retry });
}

async function release({ stream, context }) {
  stream?.getTracks().forEach((track) => track.stop());
  if (context && context.state !== "closed") await context.close();
}

// The same file is the worklet's module: there it registers what turns the microphone into frames.

const TAPS = 16; // zero crossings on each side of the low-pass
const PHASES = 160; // exact for 44.1 and 48 kHz

export class Resampler {
  constructor(rate) {
    this.step = rate / RATE;
    const scale = Math.max(1, this.step);
    this.half = Math.ceil(TAPS * scale);
    this.kernels = Array.from({ length: PHASES }, (_, phase) => kernel(phase / PHASES, this.half, scale));
    this.input = new Float32Array(2 * this.half); // silence before the first sample
    this.position = this.half;
  }

  // Float32Array at the microphone's rate to an array of 16-bit samples at 16 kHz.
  take(block) {
    const input = new Float32Array(this.input.length + block.length);
    input.set(this.input);
    input.set(block, this.input.length);
    const output = [];
    while (Math.floor(this.position + 0.5 / PHASES) + this.half < input.length) {
      const steps = Math.round(this.position * PHASES);
      const kernel = this.kernels[steps % PHASES];
      const start = Math.floor(steps / PHASES) - this.half + 1;
      let sum = 0;
      for (let tap = 0; tap < kernel.length; tap++) sum += kernel[tap] * input[start + tap];
      output.push(Math.max(-32768, Math.min(32767, Math.round(sum * 32767))));
      this.position += this.step;
    }
    const used = Math.floor(this.position) - this.half;
    this.input = input.slice(used);
    this.position -= used;
    return output;
  }
}

function kernel(fraction, half, scale) {
  const weights = Float32Array.from({ length: 2 * half }, (_, tap) => {
    const distance = (tap - half + 1 - fraction) / scale;
    const x = Math.PI * distance * 0.92;
    const window = Math.abs(distance) < TAPS ? Math.cos((Math.PI * distance) / (2 * TAPS)) ** 2 : 0;
    return (x ? Math.sin(x) / x : 1) * window;
  });
  const sum = weights.reduce((total, weight) => total + weight);
  return weights.map((weight) => weight / sum);
}

if (globalThis.AudioWorkletProcessor) {
  class Capture extends AudioWorkletProcessor {
    resampler = new Resampler(sampleRate);
    frame = new Int16Array(FRAME);
    filled = 0;

    process([[channel]]) {
      for (const sample of channel ? this.resampler.take(channel) : []) {
        this.frame[this.filled++] = sample;
        if (this.filled === FRAME) {
          this.port.postMessage(this.frame.slice());
          this.filled = 0;
        }
      }
      return true;
    }
  }
  registerProcessor("edgescribe", Capture);
}
