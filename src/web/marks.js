// The state of a member as a mark: told apart by shape as well as by colour.

import { h, svg } from './dom.js';
import { state as names } from './texts.js';

const SHAPES = {
  alive: 'M0-8A8 8 0 1 1 0 8A8 8 0 1 1 0-8Z',
  suspect: 'M0-9.5L9 7H-9Z',
  dead: 'M-7-4.2L-4.2-7 0-2.8 4.2-7 7-4.2 2.8 0 7 4.2 4.2 7 0 2.8-4.2 7-7 4.2-2.8 0Z',
  left: 'M0-8A8 8 0 1 1 0 8A8 8 0 1 1 0-8ZM0-5A5 5 0 1 0 0 5A5 5 0 1 0 0-5Z',
};

/** The outline of a state, 16 units wide around the origin. */
export const shape = (state) => SHAPES[state] ?? SHAPES.left;

/** A state as a small mark and its name. */
export const mark = (state) => h('span', { className: `state ${state}` },
  svg('svg', { viewBox: '-10 -10 20 20', 'aria-hidden': 'true' }, svg('path', { d: shape(state) })),
  names[state] ?? state);
