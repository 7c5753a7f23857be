/** The state documents as the kernel sends them (`studio/state.py`). Both sides carry the same protocol number. */

export const PROTOCOL = 1;
export const VERSION = '0.1.0';
export const MIME = 'application/vnd.mlsys.state+json';

/** What every document begins with. */
export interface IHead {
  protocol: number;
  version: string;
  document: string;
  pid: number;
  state: 'live' | 'failed';
  sentence?: string;
}

/** [sequence, value, …]; null where not measured. */
export type Row = (number | null)[];

export interface IGpu {
  index: number;
  name: string;
  uuid: string;
  mig: boolean;
}

export interface INow extends IHead {
  starting?: true;
  clock: number;
  ring: string;
  host: string;
  driver: string;
  gpus: IGpu[];
  fields: { host: string[]; gpu: string[]; step: string[] };
  samples: Row[];
  steps: Row[];
  flops: { step: number; peak: number } | null;
  findings: string | null;
  trouble: number | null;
}

/** The measured ratio and its bounds are null where a trial began and could not be finished; `reason` says why. */
export interface ITrial {
  measured: number | null;
  low: number | null;
  high: number | null;
  kept: boolean;
  reason: string;
}

export interface IFinding {
  number: number;
  title: string;
  evidence: string;
  advice: string;
  predicted: number | null;
  remedy: string | null;
  applied: boolean;
  trials: ITrial[];
}

export interface ICause {
  cause: string;
  ns: number;
  share: number;
}

export interface IProfile {
  revision: string;
  title: string;
  created: string;
  unit: string;
  steps: number;
  median: number;
  mfu: number | null;
  device: string | null;
  causes: ICause[];
  findings: IFinding[];
  notes: string[];
}

export interface IFindings extends IHead {
  profile: IProfile | null;
}

/** An exception nobody has explained yet, or what a diagnosis found. */
export interface ITrouble extends IHead {
  error: { type: string; text: string; line: number | null } | null;
  found: IDiagnosis | null;
}

/** Where something was said. */
export interface IPlace {
  line: number;
  rank: number | null;
  host: string | null;
  time: string | null;
}

/** As `Diagnosis.to_json` has it. `category` is null where the text does not decide. */
export interface IDiagnosis {
  category: string | null;
  cause: string | null;
  confidence: number;
  summary: string;
  evidence: (IPlace & { source: string | null; text: string })[];
  chain: (IPlace & { event: string; cause: string | null; role: 'cause' | 'consequence' })[];
  fix: { text: string; command: string }[];
  checks: { command: string; why: string; result: 'confirmed' | 'refuted' | 'inconclusive' | null }[];
  alternatives: { category: string; cause: string; confidence: number }[];
}

export interface IKernels extends IHead {
  kernels: Record<string, { pid: number; memory: number; gpu: number | null }>;
}

/** The Python expression whose value is a document. JSON's texts, numbers and lists are also Python's. */
export function expression(document: string, options: Record<string, string | number | string[]>): string {
  const words = Object.entries(options).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  const state = "__import__('mlsys_studio.studio.state', fromlist=['read'])";
  return `${state}.read(${[JSON.stringify(document), ...words].join(', ')})`;
}
