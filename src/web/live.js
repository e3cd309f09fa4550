// What happens at the server, as it happens, and whether the server is there at all.
//
// A browser opens six connections to a server at most and a stream takes one for itself, so a page that nobody looks at closes its streams.

const open = new Set();
const online = new Set();
let reachable = true;

function heard(now) {
  if (now === reachable) return;
  reachable = now;
  for (const listener of online) listener(now);
}

/** Calls `listener` with false when the server stops answering and with true when it answers again. */
export const onReachable = (listener) => online.add(listener);

class Stream {
  constructor(path, handlers, caught) {
    Object.assign(this, { path, handlers, caught, source: null, timer: 0, first: true });
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    if (document.hidden || this.source) return;
    this.source = new EventSource(typeof this.path === 'function' ? this.path() : this.path);
    this.source.onopen = () => {
      heard(true);
      // What happened while nobody listened is asked for.
      if (!this.first) this.caught?.();
      this.first = false;
    };
    this.source.onerror = () => {
      heard(false);
      this.pause();
      this.timer = setTimeout(() => this.connect(), 1500);
    };
    this.source.addEventListener('dropped', () => { this.pause(); this.connect(); });
    for (const [name, handle] of Object.entries(this.handlers)) {
      this.source.addEventListener(name, (event) => handle(JSON.parse(event.data), event.lastEventId));
    }
  }

  pause() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  close() {
    this.pause();
    open.delete(this);
  }
}

/** Follows a stream until its result is called. `caught` is called when events may have been missed. */
export function follow(path, handlers, caught) {
  const stream = new Stream(path, handlers, caught);
  open.add(stream);
  return () => stream.close();
}

document.addEventListener('visibilitychange', () => {
  for (const stream of open) document.hidden ? stream.pause() : stream.connect();
});

/** Calls `what` at most once in `pause` milliseconds, and once more after the last wish. */
export function calmly(what, pause = 300) {
  let timer = 0;
  return () => { timer ||= setTimeout(() => { timer = 0; what(); }, pause); };
}

/** Calls `what`, which promises when it is done, one at a time: wished for while it runs, it runs once more afterwards. */
export function inTurn(what) {
  let running = false;
  let wished = false;
  return async () => {
    wished = true;
    if (running) return;
    running = true;
    try {
      while (wished) { wished = false; await what(); }
    } finally { running = false; }
  };
}
