// Uploads: what waits, what is under way, and the cards of what is done. They go on while other views are looked at.

import { upload } from './api.js';
import { announce, copyButton, h, show, toast } from './dom.js';
import { called, size, tame } from './format.js';
import { why } from './notices.js';
import { holders, spreadMeter } from './spread.js';
import { blobs as texts, general } from './texts.js';

/** Uploads at the same time: a browser opens six connections to a node, and the page needs some of them. */
const TOGETHER = 3;
/** Over how long the speed is measured, in milliseconds. */
const WINDOW = 4000;

const waiting = [];
const meters = new Set();
let running = 0;
let done = () => {};

const list = h('ul', { className: 'uploads' });
/** The section with all uploads of this page; hidden while there are none. */
export const section = h('section', { className: 'card', hidden: true }, h('h2', null, texts.uploads), list);

/** Calls `listener` after each upload. */
export const onUploaded = (listener) => { done = listener; };

const isBusy = () => running + waiting.length > 0;

/** What became of the blobs of this page may have changed: asks who holds them. */
export function askAgain(id) {
  for (const meter of meters) if (meter.id === id) meter.ask();
}

/** Takes files to upload. */
export function take(files) {
  for (const file of files) waiting.push(new Upload(file));
  section.hidden = list.childElementCount === 0;
  next();
}

function next() {
  while (running < TOGETHER && waiting.length > 0) waiting.shift().start();
}

class Upload {
  constructor(file) {
    this.file = file;
    this.name = tame(file.name || 'file');
    this.bar = h('progress', { max: Math.max(1, file.size), value: 0, 'aria-label': texts.progress(this.name) });
    this.note = h('span', { className: 'soft note' }, texts.waiting);
    this.action = h('button', { type: 'button', className: 'quiet small', 'aria-label': texts.cancelOne(this.name) }, general.cancel);
    this.act = () => this.cancel();
    this.action.addEventListener('click', () => this.act());
    this.item = h('li', { className: 'upload' }, h('span', { className: 'name' }, this.name), this.action, this.bar, this.note);
    list.prepend(this.item);
  }

  start() {
    running += 1;
    this.samples = [[performance.now(), 0]];
    this.bar.value = 0;
    this.item.classList.remove('bad');
    show(this.note, texts.starting(this.file.size));
    this.offer(general.cancel, texts.cancelOne(this.name), () => this.cancel());
    this.request = upload(this.file, (sent) => this.progress(sent));
    this.request.done.then((blob) => this.finish(blob), (error) => this.fail(error)).finally(() => { running -= 1; next(); });
  }

  progress(sent) {
    const now = performance.now();
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > WINDOW) this.samples.shift();
    const [then, before] = this.samples[0];
    const speed = (sent - before) / Math.max(0.05, (now - then) / 1000);
    this.bar.value = sent;
    show(this.note, sent >= this.file.size ? texts.finishing : texts.sending(sent, this.file.size, speed, speed > 0 ? (this.file.size - sent) / speed : 0));
  }

  offer(name, label, act) {
    show(this.action, name);
    this.action.setAttribute('aria-label', label);
    this.act = act;
  }

  cancel() {
    const place = waiting.indexOf(this);
    if (place >= 0) waiting.splice(place, 1);
    if (this.request) this.request.cancel();
    else this.fail(new DOMException('', 'AbortError'));
  }

  fail(error) {
    this.request = null;
    const cancelled = error.name === 'AbortError';
    const text = cancelled ? texts.cancelled : texts.failed(why(error));
    show(this.note, text);
    announce(`${this.name}: ${text}`);
    this.item.classList.toggle('bad', !cancelled);
    this.offer(general.retry, texts.retryOne(this.name), () => { waiting.push(this); show(this.note, texts.waiting); next(); });
    if (!this.dismiss) {
      this.dismiss = h('button', { type: 'button', className: 'quiet small', 'aria-label': texts.dismissOne(this.name), onclick: () => remove(this.item) }, texts.dismiss);
      this.action.after(this.dismiss);
    }
  }

  finish(blob) {
    announce(texts.done(this.name));
    this.item.replaceWith(resultCard(blob));
    done(blob);
  }
}

function remove(item) {
  item.remove();
  section.hidden = list.childElementCount === 0;
}

/** What was uploaded, and what can be done with it: the link first. */
function resultCard(blob) {
  const name = called(blob);
  const meter = spreadMeter();
  const following = holders(blob.id, meter.heard);
  const entry = { id: blob.id, ask: following.ask };
  meters.add(entry);
  const code = h('div', { className: 'qr', hidden: true });
  const qr = h('button', { type: 'button', className: 'quiet', 'aria-expanded': 'false' }, texts.qr);
  qr.addEventListener('click', () => {
    if (!code.firstChild) code.append(h('img', { src: `/blobs/${blob.id}/qr`, alt: texts.qrOf(name), width: 256, height: 256 }));
    code.hidden = !code.hidden;
    qr.setAttribute('aria-expanded', String(!code.hidden));
  });
  const item = h('li', { className: 'result' });
  item.append(
    h('div', { className: 'head' },
      h('span', { className: 'tick', 'aria-hidden': 'true' }, '✓'),
      h('span', { className: 'name' }, name), h('span', { className: 'soft' }, size(blob.size)), meter.element),
    h('code', { className: 'link', tabIndex: 0 }, blob.url),
    h('div', { className: 'row' },
      copyButton(blob.url, texts.copyLink, ''), qr,
      h('a', { className: 'button', href: `/blobs/${blob.id}`, target: '_blank', rel: 'noopener' }, texts.open),
      h('a', { className: 'button', href: `/blobs/${blob.id}?download`, download: '' }, texts.download),
      h('a', { className: 'button', href: `#/blob/${blob.id}` }, texts.details),
      h('button', { type: 'button', className: 'quiet bare', 'aria-label': texts.dismissOne(name), onclick: () => { following.stop(); meters.delete(entry); remove(item); } }, texts.dismiss)),
    code);
  return item;
}

/** Takes what is dropped anywhere on the page, and pasted files. `arrived` is called first, to show where they are. */
export function receive(arrived) {
  const cover = h('div', { className: 'cover', hidden: true }, h('p', null, texts.release));
  document.body.append(cover);
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
  let depth = 0;
  addEventListener('dragenter', (event) => { if (hasFiles(event)) { depth += 1; cover.hidden = false; } });
  addEventListener('dragleave', (event) => { if (hasFiles(event)) { depth -= 1; cover.hidden = depth > 0 ? false : true; } });
  addEventListener('dragover', (event) => { if (hasFiles(event)) { event.preventDefault(); event.dataTransfer.dropEffect = 'copy'; } });
  addEventListener('drop', (event) => {
    depth = 0;
    cover.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    const items = [...event.dataTransfer.items].filter((item) => item.kind === 'file');
    const isFolder = (item) => item.webkitGetAsEntry?.()?.isDirectory;
    if (items.some(isFolder)) toast(texts.folder);
    const files = items.filter((item) => !isFolder(item)).map((item) => item.getAsFile()).filter(Boolean);
    if (files.length) { arrived(); take(files); }
  });
  addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    arrived();
    take(files);
  });
  addEventListener('beforeunload', (event) => { if (isBusy()) event.preventDefault(); });
}
