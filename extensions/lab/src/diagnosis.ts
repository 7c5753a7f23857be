/** The section *Diagnosis*: an exception with the offer to explain it, then what was found. Both are only ever text. */

import { Clipboard } from '@jupyterlab/apputils';
import { button, h, prose } from './dom';
import { Monitor } from './monitor';
import { IDiagnosis, IPlace, ITrouble } from './protocol';
import { DocumentSection } from './reading';
import { percent } from './units';

export type Insert = (code: string) => void;

export function diagnosis(monitor: Monitor, run: (code: string) => void, insert: Insert): DocumentSection<ITrouble> {
  const explain = () => button('Diagnose', 'Writes and runs a cell: %mlsys diagnose', () => run('%mlsys diagnose'));
  const ended = (dismiss: () => void) => button('Dismiss', 'Hide this until something else goes wrong', dismiss, 'Dismiss the diagnosis');
  return new DocumentSection('Diagnosis', monitor, {
    document: 'diagnosis',
    revision: now => now.trouble,
    draw: ({ error, found }, dismiss) => {
      if (found !== null) {
        return [...drawDiagnosis(found, insert), h('div', { class: 'mlsys-actions' }, ended(dismiss))];
      }
      return error === null ? null : [...drawError(error), h('div', { class: 'mlsys-actions' }, explain(), ended(dismiss))];
    }
  });
}

function drawError(error: NonNullable<ITrouble['error']>): HTMLElement[] {
  const where = error.line === null ? '' : ` in line ${error.line} of its cell`;
  return [h('div', { class: 'mlsys-title mlsys-wrap' }, `${error.type}${where}`), h('p', { class: 'mlsys-said' }, error.text)];
}

/** What a diagnosis does not have is absent, heading and all. */
export function drawDiagnosis(found: IDiagnosis, insert: Insert): HTMLElement[] {
  return [
    h('div', { class: 'mlsys-title mlsys-wrap' }, verdict(found)),
    h('p', {}, ...prose(found.summary)),
    ...part('What happened', 'ol', found.chain.map(chainLink)),
    ...part('Evidence', 'ul', found.evidence.map(each => h('li', {}, meta(place(each)), said(each.text)))),
    ...part('What to do', 'ol', found.fix.map(each => h('li', {}, ...prose(each.text), command(each.command, insert)))),
    ...part('Checks', 'ul', found.checks.map(check)),
    ...part('It could also be', 'ul', found.alternatives.map(alternative))
  ];
}

function verdict({ category, cause, confidence }: IDiagnosis): string {
  if (category === null) {
    return 'Cannot tell from this; the checks decide';
  }
  const sure = `${percent(confidence)} sure`;
  return category === 'healthy' ? `Healthy, nothing failed here (${sure})` : `${named(category, cause)} (${sure})`;
}

function chainLink(link: IDiagnosis['chain'][0]): HTMLElement {
  const role = h('span', { class: 'mlsys-role' }, link.role === 'cause' ? 'First' : 'Then');
  return h('li', { 'data-role': link.role }, role, ' ', meta(place(link)), h('div', {}, ...prose(link.event)));
}

function check(each: IDiagnosis['checks'][0]): HTMLElement {
  const result = h('span', { class: 'mlsys-role', 'data-result': each.result ?? 'none' }, each.result ?? 'to run');
  return h('li', {}, result, ' ', ...prose(each.why), command(each.command));
}

function alternative(each: IDiagnosis['alternatives'][0]): HTMLElement {
  return h('li', {}, `${named(each.category, each.cause)} (${percent(each.confidence)})`);
}

function part(title: string, list: 'ol' | 'ul', items: HTMLElement[]): HTMLElement[] {
  return items.length === 0 ? [] : [h('h4', {}, title), h(list, { class: 'mlsys-list' }, ...items)];
}

/** To be copied, and where the notebook can take it, to be written into a cell. */
function command(code: string, insert?: Insert): HTMLElement | null {
  if (code === '') {
    return null;
  }
  const copy = button('Copy', 'Copy the command', () => Clipboard.copyToSystem(code), `Copy: ${code}`);
  const write = insert && button('Insert', 'Write it into a new cell, without running it', () => insert(code), `Insert: ${code}`);
  return h('div', { class: 'mlsys-command' }, said(code), copy, write ?? null);
}

function place({ source, line, rank, host, time }: IPlace & { source?: string | null }): string {
  const parts = [source, line > 0 ? `line ${line}` : null, rank === null ? null : `rank ${rank}`, host, time];
  return parts.filter(each => each !== null && each !== undefined).join(' · ');
}

function named(category: string, cause: string | null): string {
  return cause === null ? category : `${category} / ${cause}`;
}

function meta(text: string): HTMLElement {
  return h('span', { class: 'mlsys-detail' }, text);
}

function said(text: string): HTMLElement {
  return h('code', { class: 'mlsys-said' }, text);
}
