// Elements, made from text and never from markup: whatever a stranger called a file stays text.

import { general } from './texts.js';

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name in element && !(element instanceof SVGElement) && !name.includes('-') && name !== 'list') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** An HTML element; properties that begin with "on" are listeners, children are elements or text. */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** The same in SVG. */
export const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

/** Puts `children` in place of what is in `element`, unless it is the same text already. */
export function show(element, ...children) {
  if (children.length === 1 && typeof children[0] === 'string' && element.textContent === children[0]) return;
  element.replaceChildren(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
}

/** Makes `children` what is in `element`, in this order; what is there already is not taken out, and moved only if it has to. */
export function arrange(element, children) {
  const wanted = new Set(children);
  for (const child of [...element.childNodes]) if (!wanted.has(child)) child.remove();
  children.forEach((child, at) => { if (element.childNodes[at] !== child) element.insertBefore(child, element.childNodes[at] ?? null); });
}

/**
 * Calls `change`, which draws in `place`, and puts the focus back if that took it away: to what had it, or what is called the same in
 * what has the same `data-id`, or else to the place.
 */
export function keepFocus(place, change) {
  const held = place.contains(document.activeElement) ? document.activeElement : null;
  const id = held?.closest('[data-id]')?.dataset.id;
  change();
  if (!held || held === document.activeElement) return;
  const called = (element) => element.getAttribute('aria-label') ?? element.textContent;
  const part = [...place.querySelectorAll('[data-id]')].find((each) => each.dataset.id === id);
  const like = [...part?.querySelectorAll(held.localName) ?? []].find((each) => called(each) === called(held));
  (held.isConnected ? held : like ?? place).focus({ preventScroll: true });
}

/** Says something to who listens to the page instead of seeing it, without moving the focus. */
export function announce(text) {
  const place = document.getElementById('said');
  if (place) place.textContent = text;
}

/** A message at the foot of the page that goes away by itself, with one thing to do about it if there is one. */
export function toast(text, action) {
  const place = document.getElementById('toasts');
  const note = h('div', { className: 'toast' }, h('span', null, text));
  const gone = () => note.remove();
  if (action) note.append(h('button', { type: 'button', onclick: () => { gone(); action.run(); } }, action.name));
  place.append(note);
  setTimeout(gone, action ? 12000 : 5000);
}

/** Asks before something that cannot be undone. Resolves to whether it may be done. */
export function confirmed(title, text, yes, no) {
  return new Promise((resolve) => {
    const dialog = h('dialog', { 'aria-labelledby': 'asked' },
      h('form', { method: 'dialog' },
        h('h2', { id: 'asked' }, title),
        h('p', null, text),
        h('div', { className: 'row end' },
          h('button', { value: 'no', className: 'quiet', autofocus: true }, no),
          h('button', { value: 'yes', className: 'danger' }, yes))));
    dialog.addEventListener('close', () => { dialog.remove(); resolve(dialog.returnValue === 'yes'); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A button that copies a text and says so. */
export function copyButton(text, name, className) {
  const button = h('button', { type: 'button', className }, name);
  button.addEventListener('click', async () => {
    try {
      await copy(text);
      show(button, general.copied);
      announce(general.copied);
    } catch {
      toast(general.copyFailed);
    }
    setTimeout(() => show(button, name), 2000);
  });
  return button;
}

// Browsers keep the clipboard from pages that came over plain HTTP from another machine; the selection is older and works there.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = h('textarea', { value: text, readOnly: true, className: 'unseen', 'aria-hidden': 'true' });
  document.body.append(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  if (!copied) throw new Error('not copied');
}
