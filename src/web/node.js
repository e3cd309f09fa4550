// The page of a node: which view is shown, and what stands around it.

import { onToken, read } from './api.js';
import { blobView } from './blob.js';
import { blobsView } from './blobs.js';
import { conflictsView } from './conflicts.js';
import { announce, h, show } from './dom.js';
import { count as numeral, isId } from './format.js';
import { messagesView } from './messages.js';
import { networkView } from './network.js';
import { whileUnreachable } from './notices.js';
import { blobs, conflicts, general, messages, network, token } from './texts.js';
import { receive } from './uploads.js';

const VIEWS = [
  ['', blobs.title, blobsView], ['conflicts', conflicts.title, conflictsView], ['network', network.title, networkView], ['messages', messages.title, messagesView],
];

const place = document.getElementById('page');
const links = VIEWS.map(([name, title]) => h('a', { href: `#/${name}` }, title));
document.getElementById('views').replaceChildren(...links);

let leave = () => {};
let shown = null;

function go() {
  // Other places in the page, such as that of the link that skips the views, are no views.
  if (shown !== null && location.hash && !location.hash.startsWith('#/')) return;
  const [name, id] = location.hash.replace(/^#\/?/, '').split('/');
  if (shown === location.hash) return;
  const before = shown;
  shown = location.hash;
  leave();
  place.replaceChildren();
  const known = isId(id ?? '') ? id : undefined;
  const index = name === 'blob' ? 0 : Math.max(0, VIEWS.findIndex(([view]) => view === name));
  links.forEach((link, at) => (at === index ? link.setAttribute('aria-current', 'page') : link.removeAttribute('aria-current')));
  document.title = `${VIEWS[index][1]} · Gossip CDN`;
  leave = name === 'blob' && known ? blobView(place, known) : VIEWS[index][2](place, known);
  // After a click on a view the reader is in it, not at the link that led there.
  if (before !== null) { scrollTo(0, 0); place.focus({ preventScroll: true }); announce(VIEWS[index][1]); }
}

whileUnreachable(general.offline);

onToken((again) => new Promise((resolve) => {
  const field = h('input', { type: 'password', autocomplete: 'off', required: true, autofocus: true });
  const dialog = h('dialog', { 'aria-labelledby': 'token' },
    h('form', { method: 'dialog' }, h('h2', { id: 'token' }, token.title), h('p', null, (again ? token.again : '') + token.text),
      h('label', null, token.label, field),
      h('div', { className: 'row end' }, h('button', { type: 'button', className: 'quiet', onclick: () => dialog.close('') }, general.cancel), h('button', { value: 'use' }, token.use))));
  dialog.addEventListener('close', () => { dialog.remove(); resolve(dialog.returnValue === 'use' ? field.value : null); });
  document.body.append(dialog);
  dialog.showModal();
}));

receive(() => { if (location.hash.replace(/^#\/?/, '') !== '') location.hash = '#/'; });
addEventListener('hashchange', go);
go();

/** How many conflicts there are, beside the view's name. */
async function count() {
  if (document.hidden) return;
  try {
    const { conflicts: found } = await read('/status');
    show(links[1], conflicts.title, found ? h('span', { className: 'badge' }, numeral(found)) : null);
  } catch { /* The banner tells that the node does not answer. */ }
}
count();
setInterval(count, 10000);
