/** The section *Findings*: the last profile of this notebook. "Apply fix" writes a cell and runs it, for all to see. */

import { button } from './dom';
import { Monitor } from './monitor';
import { Actions, drawProfile } from './profile';
import { IFindings } from './protocol';
import { DocumentSection } from './reading';

export function findings(monitor: Monitor, run: (code: string) => void): DocumentSection<IFindings> {
  const runs = (label: string, code: string, title: string) =>
    button(label, `Writes and runs a cell: ${code}`, () => run(code), `${label}: ${title}`);
  const actions: Actions = found => {
    if (found.applied) {
      return [runs('Undo', `%mlsys fix ${found.number} --undo`, found.title)];
    }
    return found.remedy === null ? [] : [runs('Apply fix', `%mlsys fix ${found.number}`, found.title)];
  };
  return new DocumentSection('Findings', monitor, {
    document: 'findings',
    revision: now => now.findings,
    draw: found => (found.profile === null ? null : drawProfile(found.profile, actions))
  });
}
