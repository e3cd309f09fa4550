// Numbers, times and names as people read them.

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

export function size(bytes) {
  let unit = 0;
  let number = bytes;
  while (number >= (unit ? 1000 : 1024) && unit < UNITS.length - 1) { number /= 1024; unit += 1; }
  if (unit === 0) return `${bytes} ${bytes === 1 ? 'byte' : 'bytes'}`;
  return `${number >= 100 ? Math.round(number) : number.toFixed(1)} ${UNITS[unit]}`;
}

export const count = (number) => number.toLocaleString('en');

/** A length of time, in its largest unit. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return '';
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function ago(time, now = Date.now()) {
  const seconds = (now - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return '';
  if (seconds < 5) return 'just now';
  if (seconds < 86400 * 30) return `${span(seconds)} ago`;
  return new Date(time).toLocaleDateString('en', { year: 'numeric', month: 'short', day: 'numeric' });
}

export const date = (time) => new Date(time).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'medium' });

/** The time of day, and before today the day. */
export function clock(time) {
  const day = new Date(time).toDateString() === new Date().toDateString() ? {} : { day: 'numeric', month: 'short' };
  return new Date(time).toLocaleString('en', { ...day, hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
}

/** The host and port of a base URL. */
export const host = (address) => address.replace(/^[a-z]+:\/\//i, '');

export const brief = (id) => (id.length > 13 ? `${id.slice(0, 8)}…` : id);

/** A file name on one line: control characters and those that turn the reading direction around are shown, not obeyed. */
export const tame = (name) => name.replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '\u{fffd}');

/** Whether a text is a GUID as the node writes it. */
export const isId = (text) => /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/.test(text);

export const called = (blob) => (blob.file_name ? tame(blob.file_name) : blob.id);
