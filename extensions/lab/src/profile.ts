/** A profile as people read it: the bar of its ledger with a legend, then its findings. In the panel and as a document. */

import { h, prose } from './dom';
import { colour } from './palette';
import { ICause, IFinding, IProfile, ITrial } from './protocol';
import { duration, percent, three } from './units';

const LEGEND = 8; // causes by name; the others are on the bar, and in its description

/** Buttons under a finding, where it can be acted on. */
export type Actions = (finding: IFinding) => HTMLElement[];

export function drawProfile(profile: IProfile, actions: Actions = () => []): HTMLElement[] {
  const facts = [
    `${profile.steps} steps, one ${duration(profile.median)}`,
    profile.mfu === null ? null : `MFU ${percent(profile.mfu)}`,
    profile.device
  ].filter((text): text is string => text !== null);
  return [
    h('div', { class: 'mlsys-title', title: profile.title }, profile.title || 'profile'),
    h('div', { class: 'mlsys-detail' }, facts.join(' · ')),
    ...(profile.causes.length > 0 ? ledger(profile.causes) : []),
    ...profile.findings.map(found => finding(found, actions)),
    profile.findings.length === 0 ? h('p', { class: 'mlsys-detail' }, 'Nothing found that is worth a change.') : h('span'),
    ...profile.notes.map(note => h('p', { class: 'mlsys-detail' }, ...prose(note)))
  ];
}

function ledger(causes: ICause[]): HTMLElement[] {
  const sized = [...causes].sort((a, b) => b.share - a.share);
  const named = causes.map(c => `${c.cause} ${percent(c.share)}`).join(', ');
  const bar = h('div', { class: 'mlsys-ledger', role: 'img', 'aria-label': `Where a step goes: ${named}` });
  for (const cause of causes) {
    const part = h('span', { title: `${cause.cause}: ${duration(cause.ns)} a step, ${percent(cause.share)}` });
    part.style.width = `${100 * cause.share}%`;
    part.style.background = colour(cause.cause);
    bar.append(part);
  }
  const legend = h('ul', { class: 'mlsys-legend' });
  for (const cause of sized.slice(0, LEGEND)) {
    const mark = h('span', { class: 'mlsys-mark', 'aria-hidden': 'true' });
    mark.style.background = colour(cause.cause);
    legend.append(h('li', {}, mark, h('span', {}, cause.cause), h('span', { class: 'mlsys-value' }, percent(cause.share))));
  }
  return [bar, legend];
}

/** A measured ratio is never said without its bounds. */
function measured({ measured, low, high }: ITrial): string {
  if (measured === null || low === null || high === null) {
    return 'not measured';
  }
  return `measured ${three(measured)}× (${three(low)} to ${three(high)})`;
}

function finding(found: IFinding, actions: Actions): HTMLElement {
  const predicted = found.predicted === null ? 'no prediction' : `predicted ${three(found.predicted)}×`;
  const trials = found.trials.map(trial =>
    h(
      'p',
      { class: 'mlsys-trial', title: trial.reason },
      `${predicted}, ${measured(trial)}, ${trial.kept ? 'kept' : 'not kept'}`
    )
  );
  return h(
    'article',
    { class: 'mlsys-finding', 'data-number': String(found.number) },
    h('h4', {}, ...prose(`${found.number}. ${found.title}`)),
    h('p', {}, ...prose(found.evidence)),
    h('p', { class: 'mlsys-advice' }, ...prose(found.advice)),
    ...(trials.length > 0 ? trials : [h('p', { class: 'mlsys-detail' }, predicted)]),
    h('div', { class: 'mlsys-actions' }, ...actions(found))
  );
}
