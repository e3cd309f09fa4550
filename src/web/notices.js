// What stands where there is nothing to show, and where something failed: it says what to do.

import { Refused, Unreachable } from './api.js';
import { announce, h, show } from './dom.js';
import { onReachable } from './live.js';
import { general } from './texts.js';

/** Why something failed, in words. */
export function why(error) {
  if (error instanceof Unreachable) return general.unreachable;
  if (error instanceof Refused) return error.message;
  return error.message || general.wrong;
}

/** Nothing is here, and what to do about it; `command` if that is a line for a terminal. */
export const notice = (text, hint, command) => h('div', { className: 'notice' },
  h('p', { className: 'strong' }, text), hint ? h('p', { className: 'soft' }, command ? h('code', null, hint) : hint) : null);

/** Shows that text above the page while the server does not answer. */
export function whileUnreachable(text) {
  const banner = document.getElementById('banner');
  onReachable((reachable) => {
    banner.hidden = reachable;
    show(banner, reachable ? '' : text);
    if (reachable) announce(general.online);
  });
}

/** Something failed; `again` tries it once more. */
export const problem = (error, again) => h('div', { className: 'notice bad', role: 'alert' },
  h('p', { className: 'strong' }, general.failed(why(error))),
  again ? h('button', { type: 'button', className: 'quiet', onclick: again }, general.retry) : null);
