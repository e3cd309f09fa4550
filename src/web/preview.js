// What is in a blob, made visible by elements that run nothing: texts are fetched and shown as text, whatever they say.

import { ask } from './api.js';
import { h, show } from './dom.js';
import { tame } from './format.js';
import { why } from './notices.js';
import { blob as texts, general } from './texts.js';

/** How much of a text is shown, in bytes. */
const TEXT = 64 << 10;

/**
 * What a version looks like, `{id, version, media_type, size, file_name}`; null if its type has no looks. One of many, `among`, loads pictures when
 * they come into sight and no sound or film before it is played: a browser has six connections to a node.
 */
export function preview(blob, among = false) {
  const source = `/blobs/${blob.id}?version=${encodeURIComponent(blob.version)}`;
  const [kind, rest] = blob.media_type.split(';')[0].trim().toLowerCase().split('/');
  const preload = among ? 'none' : 'metadata';
  if (kind === 'image' && rest !== 'svg+xml') return h('img', { className: 'preview', loading: among ? 'lazy' : 'eager', src: source, alt: tame(blob.file_name ?? blob.id) });
  if (kind === 'audio') return h('audio', { controls: true, preload, src: source });
  if (kind === 'video') return h('video', { className: 'preview', controls: true, preload, src: source });
  if (kind === 'text' || ['json', 'xml', 'javascript', 'toml', 'yaml', 'x-sh', 'svg+xml'].includes(rest)) return text(source, blob.size);
  return null;
}

function text(source, bytes) {
  const box = h('pre', { tabIndex: 0, 'aria-label': texts.preview }, general.loading);
  const range = bytes > TEXT ? { range: `bytes=0-${TEXT - 1}` } : {};
  ask(source, { headers: range }).then((answer) => answer.text()).then((read) => show(box, read), (error) => show(box, general.failed(why(error))));
  return h('div', null, box, bytes > TEXT ? h('p', { className: 'soft' }, texts.tooLong(TEXT)) : null);
}
